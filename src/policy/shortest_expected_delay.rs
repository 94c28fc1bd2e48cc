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
//! evidence asks ([`crate::estimate::shrinkage`]) and raised by what is outstanding
//! ([`crate::estimate::Evidence::untold`]); the *externality* term is
//! the delay that the request adds for those already there; the *penalty* makes
//! recent failures count as the retries that they cost. Pace x load is how long the
//! request should take ([`Picked::expected`]), once any pace is known.
//!
//! Shortest expected delay is a classic (Banawan and Zahorjan, "Load sharing in
//! heterogeneous queueing systems", 1989) for known speeds; here the speeds are
//! learned. With equal upstreams it is least request; with nothing known too.
//!
//! A share of picks explores ([`super::exploration`]). O(n).

use super::exploration::explore;
use super::{Candidate, Choice, Known, Picked, Policy, Scored, Standing, lowest};
use crate::estimate::{Basis, Pace, Prior, ResidualVariance, Tuning};
use crate::state::{DecodedMember, MemberState, PoolState};

/// After so many answers what a newcomer shows is believed as what others show. The pace
/// of one that has long been there is as certain as of some twelve.
const TELLING_ANSWERS: f64 = 10.0;

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
    /// The pace of each member, drawn towards the pool's mean.
    fn appraise(&self, known: &Known<'_>, standings: &mut [Standing]) {
        let basis = self.basis_of(known.pool);
        let estimates = || {
            let members = known.members.iter().zip(&*standings);
            members.map(|(member, standing)| {
                let ages = known.ages(standing.upstream);
                let (mean, variance) = self.estimate(known, member.state(), ages, basis);
                let doubt = doubt_of_the_cold(standing).max(self.doubt_of_the_new(
                    known,
                    member.state(),
                    basis,
                ));
                ((mean, variance + doubt), standing)
            })
        };
        // One that gets no request says nothing about where this one should go.
        let usable = estimates().filter(|(_, standing)| standing.weight > 0.0);
        let prior = Prior::from_means(usable.map(|(estimate, _)| estimate));
        let common = prior.mean();
        let common_pace = common.exp();
        let is_known = |it: &DecodedMember| pace(it.state(), basis).is_known();
        let is_known = known.members.iter().any(is_known);
        let estimates: Vec<_> = estimates().map(|(estimate, _)| estimate).collect();
        for (standing, (mean, variance)) in standings.iter_mut().zip(estimates) {
            let shrunk = prior.shrink(mean, variance);
            // Of equal upstreams all paces are the same number.
            let pace = if shrunk == common {
                common_pace
            } else {
                shrunk.exp()
            };
            (standing.pace, standing.idle_pace) = (pace, pace);
            standing.is_known = is_known;
        }
    }

    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        if let Some(picked) = explore(choice, self.exploration, self.tuning.silent_seconds) {
            return Some(picked);
        }
        let work = choice.work;
        match self.basis_of(choice.pool) {
            Basis::Requests => self.shortest(choice, |it| it.load()),
            Basis::Work => self.shortest(choice, |it| it.outstanding.work() + work),
        }
    }

    fn basis(&self, pool: &PoolState) -> Option<Basis> {
        Some(self.basis_of(pool))
    }
}

impl ShortestExpectedDelay {
    /// What load is measured in: as configured, or else as the pool has learned.
    fn basis_of(&self, pool: &PoolState) -> Basis {
        self.basis.unwrap_or(pool.books.basis())
    }

    /// The mean logarithm of a member's pace and its variance, where what is
    /// outstanding there has these ages.
    fn estimate(
        &self,
        known: &Known<'_>,
        state: &MemberState,
        ages: f64,
        basis: Basis,
    ) -> (f64, f64) {
        let residual_variance = known.pool.books.variance(basis);
        // What tiny answers have in common says nothing about long ones.
        let variance_in_doubt = residual_variance.max(f64::from(ResidualVariance::ASSUMED));
        let pace = pace(state, basis);
        let silence = known.now.seconds_since(state.sampled_at);
        let noise = residual_variance * pace.uncertainty(silence, &self.tuning);
        let pool_mean = known.pool.latency.get();
        let doubt = state.evidence.doubt(self.tuning.evidence_needed, pool_mean);
        let variance = noise.max(variance_in_doubt * doubt);
        (pace.mean_log() + state.evidence.untold(ages), variance)
    }

    /// What the variance of a newcomer's mean grows by while it rests on few answers: it
    /// gave the first of them alone, or while it was still cold. They would look slow per
    /// unit of load beside those that the others gave among many, and it would get no more
    /// of them to show better. So it counts as the pool's mean until it has had its share
    /// for some answers. Where all are new, nobody is; and one that is back from an
    /// ejection gave reason to doubt it.
    fn doubt_of_the_new(&self, known: &Known<'_>, state: &MemberState, basis: Basis) -> f64 {
        let doubt = TELLING_ANSWERS * pace(state, basis).uncertainty(0.0, &self.tuning);
        let joined = |came_at| known.pool.is_settled(came_at);
        if doubt <= 1.0 || !state.health.came_at().is_some_and(joined) {
            return 0.0;
        }
        let bias = 2.0 * doubt.ln();
        bias * bias
    }

    /// The candidate with the least delay, where each has this load with the request.
    fn shortest(
        &self,
        choice: &mut Choice<'_>,
        load: impl Fn(&Candidate<'_>) -> f64,
    ) -> Option<Picked> {
        let members = choice.members;
        let candidates = members.at(choice.candidates);
        let total: f64 = candidates.clone().map(|it| load(&it)).sum();
        let per_load = self.externality * choice.candidates.len() as f64 / total;
        let scores = candidates.map(|candidate| {
            let load = load(&candidate);
            let expected = candidate.standing.pace * load;
            Scored {
                place: candidate.place,
                score: expected * (1.0 + per_load * load) * candidate.standing.factor,
            }
        });
        let picked = lowest(scores, choice.rng)?;
        Some(picked.expecting(|place| {
            let best = members.get(place)?;
            let standing = best.standing;
            standing.is_known.then(|| standing.pace * load(&best))
        }))
    }
}

/// What the variance of a cold upstream's mean grows by: it has shown what it takes for a
/// part of its load. Where load costs no time, that is its pace at all of it divided by
/// that part: it would look slow because it gets little, and would get little because it
/// looks slow. Twice the logarithm, because the mean remembers when it got less still.
fn doubt_of_the_cold(standing: &Standing) -> f64 {
    if standing.warmth >= 1.0 {
        return 0.0;
    }
    let bias = 2.0 * standing.warmth.ln();
    bias * bias
}

/// Seconds per unit of load in that basis.
fn pace(state: &MemberState, basis: Basis) -> Pace {
    match basis {
        Basis::Requests => state.pace,
        Basis::Work => state.pace_of_work,
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::random::Rng;
    use crate::time::Timestamp;
    use std::time::Duration;

    const POLICY: ShortestExpectedDelay = ShortestExpectedDelay {
        externality: 0.1,
        exploration: 0.0,
        basis: None,
        tuning: Tuning::DEFAULT,
    };

    /// Candidates whose paces have been seen `samples` times, without noise.
    fn paced(in_flight: &[u64], paces: &[f64], samples: usize) -> Vec<Member> {
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

    /// Three that have long been there and work at four requests at a time, and one that
    /// came later and has given these answers.
    fn with_a_newcomer(answers: &[f64]) -> Vec<Member> {
        let mut all = paced(&[3, 3, 3, 0], &[0.005; 3], 200);
        // Ten seconds are a pool's beginning.
        all[3].state = MemberState::joined(NOW.after(Duration::from_secs(1)));
        for seconds in answers {
            all[3].state.pace.observe(*seconds, 0.0, &Tuning::DEFAULT);
        }
        all
    }

    #[test]
    fn a_newcomers_first_answers_are_not_held_against_it() {
        // Alone it takes as long as the others do among four, or longer because it is cold.
        for first in [0.02, 0.1] {
            let mut all = with_a_newcomer(&[first, 0.02]);
            assert_eq!(shares(&POLICY, &all, 10), [0, 0, 0, 10], "{first}");
            // It counts as the others do, so it gets no more than they have.
            all[3].in_flight = 4;
            assert_eq!(shares(&POLICY, &all, 10)[3], 0, "{first}");
        }
    }

    #[test]
    fn a_newcomer_that_is_slow_is_found_out() {
        let all = with_a_newcomer(&[0.1; 10]);
        assert_eq!(shares(&POLICY, &all, 100)[3], 0);
        // Where the pool is as new as it is, at once.
        let mut all = with_a_newcomer(&[0.1; 2]);
        all[3].state.health = MemberState::joined(Timestamp::from_nanos(1_000_000_000)).health;
        assert_eq!(shares(&POLICY, &all, 100)[3], 0);
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
    fn a_smoke_test_is_not_believed_beside_what_others_have_served() {
        // One answer in 20 ms; the others took five seconds, ten times each.
        let mut all = paced(&[0, 0, 0], &[5.0, 5.0, 0.02], 10);
        all[2].state.pace = Pace::UNKNOWN;
        all[2].state.pace.observe(0.02, 0.0, &Tuning::DEFAULT);
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        for (candidate, answers) in all.iter_mut().zip([10, 10, 1]) {
            let latency = if answers == 1 { 0.02 } else { 5.0 };
            for _ in 0..answers {
                pool.latency.observe(latency);
                let mean = pool.latency.get();
                candidate.state.evidence.observe(latency, mean, 1e4);
            }
        }
        all[2].in_flight = 2;
        for _ in 0..10 {
            assert_ne!(pick(&POLICY, &mut all, &pool, &mut rng), 2);
        }
    }

    #[test]
    fn what_is_outstanding_for_long_contradicts_quick_answers() {
        let mut all = paced(&[4, 4], &[0.05, 0.1], 100);
        for candidate in &mut all {
            candidate.state.evidence.observe(1.0, None, 1e4);
        }
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
        // Four since ten seconds ago.
        all[0].ages = 40.0;
        assert_eq!(shares(&POLICY, &all, 10), [0, 10]);
    }

    #[test]
    fn a_pool_that_knows_nothing_counts_requests() {
        let mut all = candidates(&[2, 0, 1]);
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        assert_eq!(pick(&POLICY, &mut all, &pool, &mut rng), 1);
    }
}
