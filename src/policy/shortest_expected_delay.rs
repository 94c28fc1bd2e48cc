//! `shortest_expected_delay`: the least delay that this request must expect.
//! The default.
//!
//! ```text
//! score = pace x load x (1 + externality x load / mean load) / weight x penalty
//! ```
//!
//! in seconds per unit of work. *Load* is what would be in flight with the
//! request; *pace* ([`crate::estimate::pace`]) the seconds per unit of work and
//! of load that the upstream takes, drawn towards the pool's mean as far as the
//! evidence asks ([`crate::estimate::shrinkage`]); the *externality* term is
//! the delay that the request adds for those already there; the *penalty* makes
//! recent failures count as the retries that they cost.
//!
//! Shortest expected delay is a classic (Banawan and Zahorjan, "Load sharing in
//! heterogeneous queueing systems", 1989) for known speeds; here the speeds are
//! learned. With equal upstreams it is least request; with nothing known too.
//!
//! A share of picks explores ([`super::exploration`]). O(n).

use super::exploration::explore;
use super::{Candidate, Choice, Picked, Policy, Scored, lowest};
use crate::estimate::{Basis, Pace, Prior, Tuning};
use crate::state::PoolState;

/// The least delay that this request must expect.
#[derive(Debug)]
pub(super) struct ShortestExpectedDelay {
    /// The share of the delay added for others that counts as the request's own.
    pub(super) externality: f64,
    /// The probability with which a pick explores, if there is anything to
    /// explore.
    pub(super) exploration: f64,
    /// What load is measured in; `None` is what the pool has learned.
    pub(super) basis: Option<Basis>,
    /// How estimates age, how failures count, and what silence is.
    pub(super) tuning: Tuning,
}

impl Policy for ShortestExpectedDelay {
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        if let Some(picked) = explore(choice, self.exploration, self.tuning.silent_seconds) {
            return Some(picked);
        }
        let now = choice.now;
        let basis = self.basis_of(choice.pool);
        let work = choice.work;
        let residual_variance = choice.pool.books.variance(basis);
        let mean_log = |candidate: &Candidate| {
            let pace = pace(candidate, basis);
            let variance =
                residual_variance * pace.uncertainty(candidate.silence(now), &self.tuning);
            (pace.mean_log(), variance)
        };
        let candidates = &*choice.candidates;
        let prior = Prior::from_means(candidates.iter().map(mean_log));
        let common = prior.mean();
        let common_pace = common.exp();
        let load = |candidate: &Candidate| match basis {
            Basis::Requests => candidate.load(),
            Basis::Work => candidate.outstanding_work + work,
        };
        let total: f64 = candidates.iter().map(load).sum();
        let per_load = self.externality * candidates.len() as f64 / total;
        let scores = candidates.iter().enumerate().map(|(index, candidate)| {
            let (mean, variance) = mean_log(candidate);
            let shrunk = prior.shrink(mean, variance);
            // Of equal upstreams all paces are the same number.
            let pace = if shrunk == common {
                common_pace
            } else {
                shrunk.exp()
            };
            let load = load(candidate);
            let delay =
                pace * load * (1.0 + per_load * load) * candidate.penalty(now, &self.tuning);
            Scored {
                index,
                score: delay / candidate.weight,
            }
        });
        lowest(scores, choice.rng)
    }

    fn basis(&self, pool: &PoolState) -> Option<Basis> {
        Some(self.basis_of(pool))
    }
}

/// Seconds per unit of load in that basis.
fn pace(candidate: &Candidate, basis: Basis) -> Pace {
    match basis {
        Basis::Requests => candidate.state.pace,
        Basis::Work => candidate.state.pace_of_work,
    }
}

impl ShortestExpectedDelay {
    /// What load is measured in: as configured, or else as the pool has learned.
    fn basis_of(&self, pool: &PoolState) -> Basis {
        self.basis.unwrap_or(pool.books.basis())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::time::Timestamp;

    const POLICY: ShortestExpectedDelay = ShortestExpectedDelay {
        externality: 0.1,
        exploration: 0.0,
        basis: None,
        tuning: Tuning::DEFAULT,
    };

    /// Candidates whose paces have been seen `samples` times, without noise.
    fn paced(in_flight: &[u64], paces: &[f64], samples: usize) -> Vec<Candidate> {
        let mut all = candidates(in_flight);
        for (candidate, pace) in all.iter_mut().zip(paces) {
            candidate.state.sampled_at = NOW;
            candidate.state.outcome_at = NOW;
            for _ in 0..samples {
                candidate.state.pace.observe(*pace, 0.0, &Tuning::DEFAULT);
            }
        }
        all
    }

    #[test]
    fn a_fast_upstream_gets_more_before_a_slow_one_gets_any() {
        // Four times faster: up to three in flight it is still the better.
        for busy in 0..3 {
            let all = paced(&[busy, 0], &[0.1, 0.4], 200);
            assert_eq!(shares(&POLICY, &all, 10), [10, 0], "{busy} in flight");
        }
        let all = paced(&[5, 0], &[0.1, 0.4], 200);
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
    }

    #[test]
    fn differences_within_the_noise_are_not_believed() {
        // Two samples each, 10 % apart, while a sample's spread is 70 %.
        let all = paced(&[0, 0], &[0.10, 0.11], 2);
        let shares = shares(&POLICY, &all, 1_000);
        // 500 expected; six standard deviations of 16.
        assert!((404..596).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn an_unknown_upstream_counts_as_the_pools_mean() {
        let mut all = paced(&[0, 0, 0], &[0.1, 0.4, 0.0], 200);
        all[2].state.pace = crate::estimate::Pace::UNKNOWN;
        assert_eq!(shares(&POLICY, &all, 10), [10, 0, 0]);
        all[0].in_flight = 9;
        assert_eq!(shares(&POLICY, &all, 10), [0, 0, 10]);
    }

    #[test]
    fn failures_lengthen_the_delay() {
        let mut all = paced(&[0, 2], &[0.1, 0.1], 200);
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
        for _ in 0..8 {
            all[0].state.errors.fail(NOW, 0.0, None, &Tuning::DEFAULT);
        }
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
    }

    #[test]
    fn explores_the_silent_and_idle_alone() {
        let curious = ShortestExpectedDelay {
            exploration: 0.1,
            ..POLICY
        };
        let mut all = paced(&[0, 0, 0], &[0.1, 10.0, 10.0], 200);
        assert_eq!(shares(&curious, &all, 1_000)[0], 1_000, "nobody is silent");
        all[2].state.sampled_at = Timestamp::ZERO;
        all[2].state.outcome_at = Timestamp::ZERO;
        let explored = shares(&curious, &all, 10_000);
        // 1,000 expected; six standard deviations of 30.
        assert!((820..1_180).contains(&explored[2]), "{explored:?}");
        all[2].in_flight = 1;
        assert_eq!(
            shares(&curious, &all, 1_000)[2],
            0,
            "an answer is on its way"
        );
    }

    #[test]
    fn a_pool_that_knows_nothing_counts_requests() {
        let mut all = candidates(&[2, 0, 1]);
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        assert_eq!(pick(&POLICY, &mut all, &mut pool, &mut rng), 1);
    }
}
