//! `least_response_time`: the least mean response time times requests in
//! flight, relative to the weight.
//!
//! The score is `mean x load / weight` in seconds, as NGINX Plus's
//! `least_time` and Traefik's `leasttime` rank, with what those leave out: an
//! upstream that has answered nothing yet counts as the mean of the others
//! instead of as infinitely fast, failures lengthen it, and old response times
//! lose their weight by time. O(n).

use super::{Choice, Picked, Policy, Scored, lowest};

/// The least mean response time times requests in flight.
#[derive(Debug)]
pub(super) struct LeastResponseTime {
    /// Seconds in which a response time loses its weight by a factor of e.
    pub(super) decay_seconds: f64,
}

impl Policy for LeastResponseTime {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        let now = choice.now;
        let known = choice.candidates.iter();
        let known = known.filter_map(|candidate| candidate.state.response_time.get());
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), mean| (sum + mean, count + 1.0));
        let typical = if count > 0.0 { sum / count } else { 1.0 };
        let scores = choice
            .candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                let mean = candidate.state.response_time.get().unwrap_or(typical);
                Scored {
                    index,
                    score: mean * candidate.load() * candidate.penalty(now) / candidate.weight,
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
    fn an_unknown_upstream_is_not_taken_for_the_fastest() {
        let all = answered(&[0, 0, 0], &[0.1, 0.5]);
        assert_eq!(
            shares(&POLICY, &all, 10),
            [10, 0, 0],
            "unknown counts as 0.3 s"
        );
    }
}
