//! `least_response_time`: the least mean response time times requests in
//! flight, relative to the weight.
//!
//! The score is `mean x load / weight` in seconds, as NGINX Plus's
//! `least_time` and Traefik's `leasttime` rank, with what those leave out: an
//! upstream that has answered nothing yet counts as the fastest of the others,
//! not as infinitely fast, so that it is tried and not flooded; failures
//! lengthen the time, and old response times lose their weight. O(n).

use super::{Choice, Picked, Policy, Scored, lowest};
use crate::estimate::Tuning;

/// The least mean response time times requests in flight.
#[derive(Debug)]
pub(super) struct LeastResponseTime {
    /// Seconds in which a response time loses its weight by a factor of e.
    pub(super) decay_seconds: f64,
    /// How failures count.
    pub(super) tuning: Tuning,
}

impl Policy for LeastResponseTime {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let now = choice.now;
        let known = choice.candidates.iter();
        let known = known.filter_map(|candidate| candidate.state.response_time.get());
        let fastest = known.reduce(f64::min).unwrap_or(1.0);
        let scores = choice
            .candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                let mean = candidate.state.response_time.get().unwrap_or(fastest);
                Scored {
                    index,
                    score: mean * candidate.load() * candidate.penalty(now, &self.tuning)
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
    use super::super::{Candidate, Policy};
    use super::*;

    const POLICY: LeastResponseTime = LeastResponseTime {
        tuning: Tuning::DEFAULT,
        decay_seconds: 10.0,
    };

    fn answered(in_flight: &[u64], seconds: &[f64]) -> Vec<Candidate> {
        let mut all = candidates(in_flight);
        for (candidate, seconds) in all.iter_mut().zip(seconds) {
            let decay = POLICY.decay_seconds();
            candidate.state.response_time.observe(*seconds, 0.0, decay);
        }
        all
    }

    #[test]
    fn speed_counts_against_load() {
        let all = answered(&[3, 0], &[0.1, 0.5]);
        assert_eq!(
            shares(&POLICY, &all, 10),
            [10, 0],
            "0.4 s is less than 0.5 s"
        );
        let all = answered(&[5, 0], &[0.1, 0.5]);
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
    }

    #[test]
    fn an_unknown_upstream_is_tried_and_not_flooded() {
        let all = answered(&[0, 0, 0], &[0.1, 0.5]);
        let tried = shares(&POLICY, &all, 1_000);
        // As good as the fastest: 500 expected, six standard deviations of 16.
        assert!((404..596).contains(&tried[2]), "{tried:?}");
        assert_eq!(tried[1], 0);
        let all = answered(&[0, 0, 1], &[0.1, 0.5]);
        assert_eq!(
            shares(&POLICY, &all, 10),
            [10, 0, 0],
            "the answer is on its way"
        );
    }
}
