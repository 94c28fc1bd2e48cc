//! `latency_percentile`: the least measured quantile of latency, for the load
//! of the moment.
//!
//! ```text
//! score = tail pace x load / weight x penalty
//! ```
//!
//! in seconds: what a quantile of the latencies, by default the 99th percentile,
//! should be at this load. The *tail pace* ([`crate::estimate::tail`]) is that
//! quantile of what was measured of the upstream in the last one to two
//! windows, for requests of about this size, per unit of the load at which it was
//! measured, and drawn towards the pool's as far as chance explains the
//! difference. *Load* is what would be in flight with the request; the
//! *penalty* makes recent failures count as the retries that they cost.
//!
//! Ranking by the quantile alone would send every request to one upstream until
//! its quantile, a window later, says that it should not have been; the load
//! spreads them at once.
//!
//! Only latencies of answers that went well are measured: a server that fails at
//! once would else have the best quantile of all. Its failures lengthen the
//! score instead.
//!
//! Where few are known of requests of this size, those of all sizes count, and
//! where few are known of these, the pool's mean: with nothing known this is
//! least request. A share of picks explores ([`super::exploration`]). O(n); the
//! quantiles are worked out on the tick.
//!
//! A high quantile needs many samples and forgets slowly: an upstream that has
//! recovered is held to its bad time for up to two windows. Where the mean
//! should be good, or latencies vary with load more than between upstreams, the
//! default is better.

use super::exploration::explore;
use super::{Candidate, Choice, Picked, Policy, Scored, lowest};
use crate::estimate::Tuning;

/// The least measured quantile of latency, for the load of the moment.
#[derive(Debug)]
pub(super) struct LatencyPercentile {
    /// The probability with which a pick explores, if there is anything to
    /// explore.
    pub(super) exploration: f64,
    /// The constants.
    pub(super) tuning: Tuning,
}

impl Policy for LatencyPercentile {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        if let Some(picked) = explore(choice, self.exploration, self.tuning.silent_seconds) {
            return Some(picked);
        }
        let members = choice.members;
        let tail = |candidate: Candidate<'_>| {
            let pace = members.tail_paces.get(candidate.place.0)?;
            Some(pace * candidate.load())
        };
        let scores = members.at(choice.candidates).map(|candidate| {
            let tail = tail(candidate).unwrap_or(candidate.load());
            Scored {
                place: candidate.place,
                score: tail * candidate.standing.penalty / candidate.standing.weight,
            }
        });
        let picked = lowest(scores, choice.rng)?;
        Some(picked.expecting(|place| tail(members.get(place)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::state::PoolState;

    const POLICY: LatencyPercentile = LatencyPercentile {
        exploration: 0.0,
        tuning: Tuning::DEFAULT,
    };

    fn paced(in_flight: &[u64], tail_paces: &[f64]) -> Vec<Member> {
        let mut all = candidates(in_flight);
        for (candidate, pace) in all.iter_mut().zip(tail_paces) {
            candidate.tail_pace = Some(*pace);
        }
        all
    }

    #[test]
    fn with_nothing_known_it_is_least_request() {
        assert_eq!(shares(&POLICY, &candidates(&[3, 1, 2]), 100), [0, 100, 0]);
    }

    #[test]
    fn load_spreads_requests_in_proportion_to_the_quantiles() {
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        let mut all = paced(&[0, 0, 0], &[1.0, 2.0, 4.0]);
        for _ in 0..70 {
            let member = pick(&POLICY, &mut all, &pool, &mut rng);
            all[member].in_flight += 1;
        }
        let loads: Vec<u64> = all.iter().map(|candidate| candidate.in_flight).collect();
        assert_eq!(loads, [40, 20, 10]);
    }

    #[test]
    fn weights_and_failures_count() {
        let mut all = paced(&[0, 0], &[1.0, 1.5]);
        all[1].weight = 2.0;
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
        for _ in 0..5 {
            all[1].state.errors.fail(NOW, 0.0, None, &Tuning::DEFAULT);
        }
        all[1].state.outcome_at = NOW;
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
    }

    #[test]
    fn an_upstream_that_is_silent_for_long_is_tried() {
        let mut all = paced(&[0, 0], &[1.0, 50.0]);
        all[0].state.sampled_at = NOW;
        let exploring = LatencyPercentile {
            exploration: 0.1,
            ..POLICY
        };
        let shares = shares(&exploring, &all, 1_000);
        // 100 expected, standard deviation 9.5.
        assert!((43..157).contains(&shares[1]), "{shares:?}");
        let curious = LatencyPercentile {
            exploration: 1.0,
            ..POLICY
        };
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        let picked = decide(&curious, &mut all, &pool, &mut 0, NOW, &mut rng).unwrap();
        assert_eq!(picked.reason, Reason::Exploration);
        assert_eq!(picked.best.place.0, 1);
    }
}
