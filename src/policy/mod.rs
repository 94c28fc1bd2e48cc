//! Which of the candidates gets the request: one file a policy.
//!
//! A policy is a pure function of the candidates, the pool's shared state, the
//! time and a source of randomness. It does not know how counts are shared,
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
mod weighted_round_robin;

use crate::config::PolicyConfig;
use crate::estimate::{Basis, Tuning};
use crate::pool::{MemberIndex, UpstreamIndex};
use crate::random::Rng;
use crate::state::{MemberState, PoolState};
use crate::time::Timestamp;

/// A member that may be picked, as the shared record shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which member it is.
    pub member: MemberIndex,
    /// Which upstream that is.
    pub upstream: UpstreamIndex,
    /// Its share relative to the others'; positive.
    pub weight: f64,
    /// Requests in flight at its upstream, from all workers.
    pub in_flight: u64,
    /// The work expected of these requests, in mean requests of the pool.
    pub outstanding_work: f64,
    /// Seconds per unit of load at the quantile of its latencies that the policy
    /// ranks by, for requests like the one at hand; positive, and the same for
    /// all where none was measured.
    pub tail_pace: f64,
    /// What is known of it. A policy may change it; the change is kept if the
    /// pick is.
    pub state: MemberState,
}

impl Candidate {
    /// Requests that would be in flight with the one at hand.
    fn load(&self) -> f64 {
        self.in_flight as f64 + 1.0
    }

    /// By how much recent failures lengthen the delay to expect.
    fn penalty(&self, now: Timestamp, tuning: &Tuning) -> f64 {
        let elapsed = now.seconds_since(self.state.outcome_at);
        self.state.errors.penalty(now, elapsed, tuning)
    }

    /// Seconds since the last response time was taken in.
    fn silence(&self, now: Timestamp) -> f64 {
        now.seconds_since(self.state.sampled_at)
    }
}

/// What a policy decides on.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The members that may be picked; at least one.
    pub candidates: &'a mut [Candidate],
    /// The pool's shared state. A policy may change it; the change is kept if
    /// the pick is.
    pub pool: &'a mut PoolState,
    /// The work expected of the request, in mean requests of the pool;
    /// positive.
    pub work: f64,
    /// The present.
    pub now: Timestamp,
    /// Where ties and samples are drawn from.
    pub rng: &'a mut Rng,
}

/// A candidate and the number that it was ranked by; lower is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The candidate's place in [`Choice::candidates`].
    pub index: usize,
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
}

/// A policy's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picked {
    /// The winner. Its score is 0 with policies that do not rank.
    pub best: Scored,
    /// The second best, where the policy ranks and had one to compare.
    pub runner_up: Option<Scored>,
    /// Why.
    pub reason: Reason,
}

impl Picked {
    /// The pick of a policy that does not rank.
    const fn unranked(index: usize) -> Self {
        Picked {
            best: Scored { index, score: 0.0 },
            runner_up: None,
            reason: Reason::Policy,
        }
    }
}

/// Picks one of the candidates.
pub trait Policy {
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

    /// What the policy measures load in, where that is the pool's to learn.
    fn basis(&self, _pool: &PoolState) -> Option<Basis> {
        None
    }

    /// Whether a pick changes the state of candidates.
    fn changes_candidates(&self) -> bool {
        false
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
            tuning,
        }),
        PolicyConfig::LeastResponseTime { decay_time } => {
            Box::new(least_response_time::LeastResponseTime {
                decay_seconds: decay_time.as_secs_f64(),
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
            tuning,
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
    let mut ties = 1;
    for mut scored in scores {
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
            runner_up = Some(loser);
        }
    }
    best.map(|best| Picked {
        best,
        runner_up,
        reason: Reason::Policy,
    })
}

/// Moves `count` candidates, drawn at random without replacement, to the front
/// and returns how many that are: all of them where there are no more.
fn draw(candidates: &mut [Candidate], count: usize, rng: &mut Rng) -> usize {
    let len = candidates.len();
    let count = count.min(len);
    for place in 0..count {
        candidates.swap(place, place + rng.below(len - place));
    }
    count
}

#[cfg(test)]
mod test_support {
    use super::*;

    /// Members 0, 1, 2… with these numbers in flight, weight 1, unknown.
    pub(crate) fn candidates(in_flight: &[u64]) -> Vec<Candidate> {
        let candidate = |(member, in_flight): (usize, &u64)| Candidate {
            member,
            upstream: member,
            weight: 1.0,
            in_flight: *in_flight,
            outstanding_work: *in_flight as f64,
            tail_pace: 1.0,
            state: MemberState::default(),
        };
        in_flight.iter().enumerate().map(candidate).collect()
    }

    /// Ten seconds after the origin of the clock.
    pub(crate) const NOW: Timestamp = Timestamp::from_nanos(10_000_000_000);

    /// One pick; the member that got it.
    pub(crate) fn pick(
        policy: &dyn Policy,
        candidates: &mut [Candidate],
        pool: &mut PoolState,
        rng: &mut Rng,
    ) -> MemberIndex {
        let picked = policy
            .pick(&mut Choice {
                candidates,
                pool,
                work: 1.0,
                now: NOW,
                rng,
            })
            .expect("there are candidates");
        candidates[picked.best.index].member
    }

    /// How often each member was picked in `rounds` picks, where nothing is sent
    /// or answered in between.
    pub(crate) fn shares(
        policy: &dyn Policy,
        candidates: &[Candidate],
        rounds: usize,
    ) -> Vec<usize> {
        let (mut rng, mut pool) = (Rng::new(42), PoolState::default());
        let mut shares = vec![0; candidates.len()];
        let mut candidates = candidates.to_vec();
        for _ in 0..rounds {
            shares[pick(policy, &mut candidates, &mut pool, &mut rng)] += 1;
        }
        shares
    }
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
        let (mut rng, mut pool) = (Rng::new(1), PoolState::default());
        for (name, policy) in every_policy() {
            assert_eq!(
                pick(&*policy, &mut candidates(&[5]), &mut pool, &mut rng),
                0,
                "{name}"
            );
            let nobody = policy.pick(&mut Choice {
                candidates: &mut [],
                pool: &mut pool,
                work: 1.0,
                now: NOW,
                rng: &mut rng,
            });
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
            index,
            score: *score,
        });
        let picked = lowest(scored, &mut Rng::new(1)).unwrap();
        assert_eq!(picked.best.index, 3);
        assert_eq!(picked.runner_up.unwrap().index, 1);
    }

    #[test]
    fn a_draw_has_no_candidate_twice_and_every_candidate_alike() {
        let mut rng = Rng::new(9);
        let mut drawn = [0; 5];
        for _ in 0..10_000 {
            let mut all = candidates(&[0; 5]);
            assert_eq!(draw(&mut all, 2, &mut rng), 2);
            assert_ne!(all[0].member, all[1].member);
            drawn[all[0].member] += 1;
            drawn[all[1].member] += 1;
        }
        // 4,000 expected; six standard deviations of 49.
        assert!(
            drawn.iter().all(|n| (3_706..4_294).contains(n)),
            "{drawn:?}"
        );
        assert_eq!(draw(&mut candidates(&[0; 3]), 7, &mut rng), 3);
    }
}
