//! `least_response_time`: the least mean response time times requests in
//! flight, relative to the weight.
//!
//! The score is `mean x load / weight` in seconds, as NGINX Plus's
//! `least_time` and Traefik's `leasttime` rank, with what those leave out: an
//! upstream that has answered nothing yet counts as the fastest of the others,
//! not as infinitely fast, so that it is tried and not flooded; failures
//! lengthen the time, and old response times lose their weight. While an upstream is
//! idle and silent, its mean decays towards that of the fastest, and a share of
//! picks explores ([`super::exploration`]): one that was slow is tried again. A mean
//! does not decay while an answer is on its way: a slow one would else look fast. O(n).

use super::exploration::explore;
use super::{Candidate, Choice, Known, Picked, Policy, Scored, Standing, lowest};
use crate::estimate::Tuning;
use crate::state::DecodedMember;

/// The least mean response time times requests in flight.
#[derive(Debug)]
pub(super) struct LeastResponseTime {
    /// Seconds in which a response time loses its weight by a factor of e.
    pub(super) decay_seconds: f64,
    /// The probability with which a pick explores, if there is anything to
    /// explore.
    pub(super) exploration: f64,
    /// How failures count.
    pub(super) tuning: Tuning,
}

impl LeastResponseTime {
    /// The share of picks that explore.
    pub(super) const EXPLORATION: f64 = 0.01;
}

impl Policy for LeastResponseTime {
    /// The mean response time to reckon with.
    fn appraise(&self, known: &Known<'_>, standings: &mut [Standing]) {
        let states = || known.members.iter().map(DecodedMember::state);
        let usable = states().zip(&*standings).filter(|(_, it)| it.weight > 0.0);
        let means = usable.filter_map(|(state, _)| state.response_time.get());
        let fastest = means.reduce(f64::min);
        let (is_known, fastest) = (fastest.is_some(), fastest.unwrap_or(1.0));
        for (standing, state) in standings.iter_mut().zip(states()) {
            let mean = state.response_time.get().unwrap_or(fastest);
            let silence = known.now.seconds_since(state.sampled_at);
            let kept = (-silence / self.decay_seconds).exp();
            standing.pace = mean;
            standing.idle_pace = fastest + (mean - fastest) * kept;
            standing.is_known = is_known;
        }
    }

    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked> {
        if let Some(picked) = explore(choice, self.exploration, self.tuning.silent_seconds) {
            return Some(picked);
        }
        let members = choice.members;
        let scores = members.at(choice.candidates).map(|candidate| {
            let standing = candidate.standing;
            Scored {
                place: candidate.place,
                score: expected(candidate) * standing.penalty / standing.weight,
            }
        });
        let picked = lowest(scores, choice.rng)?;
        Some(picked.expecting(|place| {
            let best = members.get(place)?;
            best.standing.is_known.then(|| expected(best))
        }))
    }

    fn decay_seconds(&self) -> f64 {
        self.decay_seconds
    }
}

/// Seconds that the request should take there.
fn expected(candidate: Candidate<'_>) -> f64 {
    let standing = candidate.standing;
    let mean = match candidate.outstanding.requests() {
        0 => standing.idle_pace,
        _ => standing.pace,
    };
    mean * candidate.load()
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::super::test_support::*;
    use super::*;
    use crate::estimate::ResponseTime;
    use crate::random::Rng;
    use crate::state::PoolState;
    use std::time::Duration;

    const POLICY: LeastResponseTime = LeastResponseTime {
        tuning: Tuning::DEFAULT,
        decay_seconds: 10.0,
        exploration: 0.0,
    };

    fn answered(in_flight: &[u64], seconds: &[f64]) -> Vec<Member> {
        let mut all = candidates(in_flight);
        for (candidate, seconds) in all.iter_mut().zip(seconds) {
            let decay = POLICY.decay_seconds();
            candidate.state.response_time.observe(*seconds, 0.0, decay);
            candidate.state.sampled_at = NOW;
            candidate.state.outcome_at = NOW;
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

    #[test]
    fn an_upstream_that_was_slow_is_tried_again() {
        let mut all = answered(&[1, 0], &[0.1, 50.0]);
        assert_eq!(shares(&POLICY, &all, 10), [10, 0]);
        // Two minutes later, 50 s have decayed to less than 0.2 s.
        let sampled_at = NOW;
        let now = NOW.after(Duration::from_secs(120));
        let pick_at = |all: &mut [Member], exploration| {
            let policy = LeastResponseTime {
                exploration,
                ..POLICY
            };
            let (mut rng, pool) = (Rng::new(1), PoolState::default());
            let picked = decide(&policy, all, &pool, &mut 0, now, &mut rng).unwrap();
            (picked.best.place.0, picked.reason)
        };
        all[0].state.sampled_at = now;
        all[0].state.outcome_at = now;
        assert_eq!(pick_at(&mut all, 0.0), (1, Reason::Policy));
        assert_eq!(all[1].state.sampled_at, sampled_at);
        // Exploring does not wait for that.
        all[1].state.response_time = ResponseTime::from_seconds(1e6);
        assert_eq!(pick_at(&mut all, 0.0).0, 0);
        assert_eq!(pick_at(&mut all, 1.0), (1, Reason::Exploration));
        // A slow answer that is on its way does not look fast.
        all[1].in_flight = 1;
        all[0].in_flight = 5;
        assert_eq!(pick_at(&mut all, 1.0).0, 0);
    }
}
