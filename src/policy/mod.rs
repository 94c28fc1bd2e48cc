//! Which of the candidates gets the request: one file a policy.
//!
//! A policy is a pure function of the candidates, the pool's shared state, the
//! time and a source of randomness. It has two parts: what it can say about members
//! for a while ([`Policy::appraise`]), and what depends on the counts of the moment
//! ([`Policy::pick`]). It does not know how counts are shared,
//! what an upstream is to the proxy, or which requests were refused before it
//! was asked. Each file gives its policy's contract, its cost in `n`
//! candidates, and where it comes from.

mod exploration;
mod latency_percentile;
mod least_request;
mod least_response_time;
mod peak_ewma;
mod random;
mod round_robin;
mod shortest_expected_delay;
mod standing;
#[cfg(test)]
pub(crate) mod test_support;
mod weighted_round_robin;

use crate::config::PolicyConfig;
use crate::estimate::{Basis, Tuning};
use crate::random::Rng;
use crate::state::PoolState;
use crate::time::Timestamp;
pub use standing::{Candidate, Known, Members, Place, Standing};

/// What a policy decides on.
#[derive(Debug)]
pub struct Choice<'a> {
    /// Which of the members may be picked; at least one. A policy may change their
    /// order.
    pub candidates: &'a mut [Place],
    /// All members of the pool.
    pub members: Members<'a>,
    /// What is known of the pool.
    pub pool: &'a PoolState,
    /// Whose turn it is, for policies that take turns.
    pub turns: &'a mut Turns,
    /// The work expected of the request, in mean requests of the pool;
    /// positive.
    pub work: f64,
    /// The present.
    pub now: Timestamp,
    /// Where ties and samples are drawn from.
    pub rng: &'a mut Rng,
}

/// Whose turn it is in one pool and on one worker, for policies that take turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Picks so far.
    pub taken: i64,
    /// A policy's number for each member, by its place; 0 at the start.
    pub of: Vec<i64>,
}

/// A candidate and the number that it was ranked by; lower is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Which member it is.
    pub place: Place,
    /// The policy's score, in the unit that the policy documents.
    pub score: f64,
}

/// Why a candidate was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The policy's rule chose it.
    Policy,
    /// To learn of an upstream that has not been heard of for long.
    Exploration,
    /// To try an upstream that was ejected.
    HalfOpen,
    /// The policy's rule chose it among all, because too many upstreams are ejected.
    Panic,
}

impl Reason {
    /// The name of the reason for people.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Reason::Policy => "policy",
            Reason::Exploration => "exploration",
            Reason::HalfOpen => "half_open",
            Reason::Panic => "panic",
        }
    }
}

/// A policy's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// The winner. Its score is 0 with policies that do not rank.
    pub best: Scored,
    /// The second best, where the policy ranks and had one to compare.
    pub runner_up: Option<Scored>,
    /// How long the request should take at the winner, in seconds: what the score ranks
    /// by, without weights, penalties and what the request costs others. `None` if the
    /// policy does not predict that, or nothing has been measured yet.
    pub expected: Option<f64>,
    /// Why.
    pub reason: Reason,
}

impl Picked {
    /// The pick of a policy that does not rank.
    const fn unranked(place: Place) -> Self {
        Picked {
            best: Scored { place, score: 0.0 },
            runner_up: None,
            expected: None,
            reason: Reason::Policy,
        }
    }

    /// With what `expected` says about the winner.
    fn expecting(self, expected: impl FnOnce(Place) -> Option<f64>) -> Self {
        Picked {
            expected: expected(self.best.place),
            ..self
        }
    }
}

/// Picks one of the candidates.
pub trait Policy {
    /// Works out what this policy expects of the members, as far as that does not depend
    /// on what is outstanding at the moment of a pick: their paces. The rest of the
    /// standings is there already. It is called at most at every pick, and often once
    /// for hundreds of them.
    fn appraise(&self, _known: &Known<'_>, _standings: &mut [Standing]) {}

    /// The pick, or `None` where there is no candidate.
    ///
    /// Ties are broken at random, evenly: a policy that always took the first
    /// of equals would send every gateway's first request to the same server.
    fn pick(&self, choice: &mut Choice<'_>) -> Option<Picked>;

    /// Seconds in which a response time loses its weight by a factor of e.
    fn decay_seconds(&self) -> f64 {
        10.0
    }

    /// Whether the policy must see every member, however large the pool.
    /// Otherwise it is shown a random sample of a large one.
    fn needs_all(&self) -> bool {
        false
    }

    /// Whether recent failures, and answers that there is no room, count against an
    /// upstream.
    fn heeds_penalties(&self) -> bool {
        true
    }

    /// Whether the policy ranks the candidates, so that one that is worse than the others
    /// may get no request at all.
    fn ranks(&self) -> bool {
        true
    }

    /// What the policy measures load in, where that is the pool's to learn.
    fn basis(&self, _pool: &PoolState) -> Option<Basis> {
        None
    }
}

/// The policy that `config` names, with these constants.
#[must_use]
pub fn from_config(config: &PolicyConfig, tuning: Tuning) -> Box<dyn Policy> {
    match *config {
        PolicyConfig::RoundRobin => Box::new(round_robin::RoundRobin),
        PolicyConfig::WeightedRoundRobin => Box::new(weighted_round_robin::WeightedRoundRobin),
        PolicyConfig::Random => Box::new(random::Random),
        PolicyConfig::LeastRequest {
            choice_count,
            active_request_bias,
        } => Box::new(least_request::LeastRequest {
            choice_count: choice_count.map(|count| count as usize),
            active_request_bias,
        }),
        PolicyConfig::LeastResponseTime { decay_time } => {
            Box::new(least_response_time::LeastResponseTime {
                decay_seconds: decay_time.as_secs_f64(),
                exploration: least_response_time::LeastResponseTime::EXPLORATION,
                tuning,
            })
        }
        PolicyConfig::PeakEwma {
            decay_time,
            default_rtt,
            choice_count,
        } => Box::new(peak_ewma::PeakEwma {
            decay_seconds: decay_time.as_secs_f64(),
            default_rtt_seconds: default_rtt.as_secs_f64(),
            choice_count: choice_count as usize,
        }),
        PolicyConfig::LatencyPercentile { exploration, .. } => {
            Box::new(latency_percentile::LatencyPercentile {
                exploration,
                tuning,
            })
        }
        PolicyConfig::ShortestExpectedDelay {
            externality,
            exploration,
            basis,
        } => Box::new(shortest_expected_delay::ShortestExpectedDelay {
            externality,
            exploration,
            basis,
            tuning,
        }),
    }
}

/// The lowest score, ties broken at random, with the runner-up. A score that
/// is not a number ranks last.
fn lowest(scores: impl Iterator<Item = Scored>, rng: &mut Rng) -> Option<Picked> {
    let mut best: Option<Scored> = None;
    let mut runner_up: Option<Scored> = None;
    // The runner-up's score: most candidates lie above it.
    let mut bound = f64::INFINITY;
    let mut ties = 1;
    for mut scored in scores {
        if scored.score > bound {
            continue;
        }
        if scored.score.is_nan() {
            scored.score = f64::INFINITY;
        }
        let wins = match best {
            None => true,
            Some(best) if scored.score < best.score => {
                ties = 1;
                true
            }
            // Reservoir sampling: the k-th of equals takes over with
            // probability 1 / k, which leaves all of them equally likely.
            Some(best) if scored.score == best.score => {
                ties += 1;
                rng.below(ties) == 0
            }
            Some(_) => false,
        };
        let loser = if wins {
            best.replace(scored)
        } else {
            Some(scored)
        };
        if let Some(loser) = loser
            && runner_up.is_none_or(|second| loser.score < second.score)
        {
            bound = loser.score;
            runner_up = Some(loser);
        }
    }
    best.map(|best| Picked {
        best,
        runner_up,
        expected: None,
        reason: Reason::Policy,
    })
}

#[cfg(test)]
mod tests {
    use super::test_support::*;
    use super::*;

    fn every_policy() -> Vec<(&'static str, Box<dyn Policy>)> {
        let configs = [
            r#""round_robin""#,
            r#""weighted_round_robin""#,
            r#""random""#,
            r#""least_request""#,
            r#"{"name": "least_request", "choice_count": 2}"#,
            r#""least_response_time""#,
            r#""peak_ewma""#,
            r#""latency_percentile""#,
            r#""shortest_expected_delay""#,
        ];
        let parse = |policy: &str| {
            let json = format!(r#"{{"upstreams": [{{"cluster": "a"}}], "policy": {policy}}}"#);
            crate::config::Config::parse(Some(json.as_bytes())).expect("valid")
        };
        configs
            .map(|c| (c, from_config(&parse(c).pools[0].policy, Tuning::DEFAULT)))
            .into()
    }

    #[test]
    fn one_candidate_is_picked_and_none_is_not() {
        let (mut rng, pool) = (Rng::new(1), PoolState::default());
        for (name, policy) in every_policy() {
            assert_eq!(
                pick(&*policy, &mut candidates(&[5]), &pool, &mut rng),
                0,
                "{name}"
            );
            let nobody = decide(&*policy, &mut [], &pool, &mut 0, NOW, &mut rng);
            assert_eq!(nobody, None, "{name}");
        }
    }

    #[test]
    fn equal_candidates_get_equal_shares() {
        for (name, policy) in every_policy() {
            let shares = shares(&*policy, &candidates(&[1, 1, 1, 1]), 8_000);
            // 2,000 expected; six standard deviations of 39.
            assert!(
                shares.iter().all(|n| (1_766..2_234).contains(n)),
                "{name}: {shares:?}"
            );
        }
    }

    #[test]
    fn a_score_that_is_no_number_ranks_last() {
        let scores = [f64::NAN, 3.0, f64::INFINITY, 2.0];
        let scored = scores.iter().enumerate().map(|(index, score)| Scored {
            place: Place(index),
            score: *score,
        });
        let picked = lowest(scored, &mut Rng::new(1)).unwrap();
        assert_eq!(picked.best.place, Place(3));
        assert_eq!(picked.runner_up.unwrap().place, Place(1));
    }

    #[test]
    fn a_draw_has_no_candidate_twice_and_every_candidate_alike() {
        let mut rng = Rng::new(9);
        let mut drawn = [0; 5];
        for _ in 0..10_000 {
            let mut all = [0, 1, 2, 3, 4].map(Place);
            assert_eq!(rng.draw_to_front(&mut all, 2), 2);
            assert_ne!(all[0], all[1]);
            drawn[all[0].0] += 1;
            drawn[all[1].0] += 1;
        }
        // 4,000 expected; six standard deviations of 49.
        assert!(
            drawn.iter().all(|n| (3_706..4_294).contains(n)),
            "{drawn:?}"
        );
        assert_eq!(rng.draw_to_front(&mut [0; 3], 7), 3);
    }
}
