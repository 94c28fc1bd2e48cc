//! `peak_ewma`: the least peak-sensitive response time times requests in
//! flight, of two drawn at random.
//!
//! As in Finagle, Linkerd and tower: the score is `peak x load / weight` in
//! seconds, where the peak jumps to any slower response at once, decays towards
//! faster ones and, while an upstream answers nothing, towards zero, so that
//! one that is avoided is tried again. Made for answers that take milliseconds;
//! with answers that take seconds it follows the size of single requests.
//! O(`choice_count`).

use super::{Choice, Picked, Policy, Scored, draw, lowest};
use crate::estimate::Tuning;

/// The least peak-sensitive response time times requests in flight.
#[derive(Debug)]
pub(super) struct PeakEwma {
    /// Seconds in which the estimate falls by a factor of e.
    pub(super) decay_seconds: f64,
    /// Seconds assumed of an upstream that has answered nothing yet.
    pub(super) default_rtt_seconds: f64,
    /// How many upstreams are compared.
    pub(super) choice_count: usize,
    /// How failures count.
    pub(super) tuning: Tuning,
}

impl Policy for PeakEwma {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let now = choice.now;
        let compared = draw(choice.candidates, self.choice_count, choice.rng);
        let compared = choice.candidates.iter().take(compared).enumerate();
        let scores = compared.map(|(index, candidate)| {
            let peak = candidate
                .state
                .peak
                .get(candidate.silence(now), self.decay_seconds);
            let peak = peak.unwrap_or(self.default_rtt_seconds);
            Scored {
                index,
                score: peak * candidate.load() * candidate.penalty(now, &self.tuning)
                    / candidate.weight,
            }
        });
        lowest(scores, choice.rng)
    }

    fn decay_seconds(&self) -> f64 {
        self.decay_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::time::Timestamp;

    const POLICY: PeakEwma = PeakEwma {
        tuning: Tuning::DEFAULT,
        decay_seconds: 10.0,
        default_rtt_seconds: 0.03,
        choice_count: 2,
    };

    #[test]
    fn one_slow_answer_is_enough_and_is_forgotten_in_time() {
        let mut all = candidates(&[0, 0]);
        for candidate in &mut all {
            candidate.state.sampled_at = NOW;
            candidate.state.peak.observe(0.1, 0.0, 10.0);
        }
        all[0].state.peak.observe(2.0, 0.0, 10.0);
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
        // The slow one was heard of ten seconds ago, the other just now and
        // has more in flight: 2 / e is less than 0.1 x 10.
        all[0].state.sampled_at = Timestamp::ZERO;
        all[1].in_flight = 9;
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
    }

    #[test]
    fn an_unknown_upstream_has_the_default() {
        let mut all = candidates(&[0, 0]);
        all[1].state.sampled_at = NOW;
        all[1].state.peak.observe(0.02, 0.0, 10.0);
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
        all[1].in_flight = 1;
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
    }
}
