//! `peak_ewma`: the least peak-sensitive response time times requests in
//! flight, of two drawn at random.
//!
//! As in Finagle, Linkerd and tower: the score is `peak x load / weight` in
//! seconds, where the peak jumps to any slower response at once, decays towards
//! faster ones and, while an upstream answers nothing, towards zero, so that
//! one that is avoided is tried again. Made for answers that take milliseconds;
//! with answers that take seconds it follows the size of single requests.
//! O(`choice_count`).

use super::{Candidate, Choice, Known, Picked, Policy, Scored, Standing, lowest};

/// The least peak-sensitive response time times requests in flight.
#[derive(Debug)]
pub(super) struct PeakEwma {
    /// Seconds in which the estimate falls by a factor of e.
    pub(super) decay_seconds: f64,
    /// Seconds assumed of an upstream that has answered nothing yet.
    pub(super) default_rtt_seconds: f64,
    /// How many upstreams are compared.
    pub(super) choice_count: usize,
}

impl Policy for PeakEwma {
    fn appraise(&self, known: &Known<'_>, standings: &mut [Standing]) {
        for (standing, member) in standings.iter_mut().zip(known.members) {
            let state = member.state();
            let silence = known.now.seconds_since(state.sampled_at);
            let peak = state.peak.get(silence, self.decay_seconds);
            standing.pace = peak.unwrap_or(self.default_rtt_seconds);
            standing.is_known = peak.is_some();
        }
    }

    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let compared = choice
            .rng
            .draw_to_front(choice.candidates, self.choice_count);
        let members = choice.members;
        let compared = members.at(choice.candidates).take(compared);
        let known = compared.clone().filter(|it| it.standing.is_known);
        let slowest = known.map(|it| it.standing.pace).reduce(f64::max);
        let expected = |candidate: Candidate<'_>| {
            let Standing {
                pace,
                is_known,
                penalty,
                ..
            } = *candidate.standing;
            let pace = match slowest {
                // It has answered, only not as it should: no reason to think it
                // fast.
                Some(slowest) if !is_known && penalty > 1.0 => slowest.max(pace),
                _ => pace,
            };
            pace * candidate.load()
        };
        let scores = compared.map(|candidate| Scored {
            place: candidate.place,
            score: expected(candidate) * candidate.standing.penalty / candidate.standing.weight,
        });
        let picked = lowest(scores, choice.rng)?;
        Some(picked.expecting(|place| {
            slowest?;
            Some(expected(members.get(place)?))
        }))
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

    #[test]
    fn one_that_only_ever_failed_is_not_taken_for_fast() {
        let mut all = candidates(&[9, 0]);
        all[0].state.sampled_at = NOW;
        all[0].state.peak.observe(2.0, 0.0, 10.0);
        assert_eq!(shares(&POLICY, &all, 10), [0, 10], "nothing known: tried");
        all[1].refusal_penalty = 11.0;
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
    }
}
