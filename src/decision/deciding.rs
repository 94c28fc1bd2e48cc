//! From a request to a decision about it.

use super::alternatives::alternatives;
use super::capacity::Claim;
use super::decided::{Decision, Hold};
use super::eligible::{self, TimeLeft};
use super::phases::{may_try_again, thin_out};
use super::route::{Demand, Reservation, Route};
use super::{Balancer, Explanation, LeftOut, PassThrough};
use crate::estimate::AtPick;
use crate::host::SharedData;
use crate::outlier::Phase;
use crate::policy::{self, Choice, Known, Members, Place, Scored};
use crate::rejection;
use crate::state::{SizeClass, StateError, Work};
use crate::time::Timestamp;

impl Balancer {
    /// Decides what happens to a request. If it is routed, it is counted at its
    /// upstream at once; a request that cannot be counted is passed through.
    pub fn decide(
        &mut self,
        shared: &mut impl SharedData,
        demand: &Demand,
        now: Timestamp,
    ) -> Decision {
        match self.pick(shared, demand, now) {
            Ok(route) => Decision::Route(route),
            Err(PassThrough::NoRoom) => Decision::Hold(Hold { pool: demand.pool }),
            Err(PassThrough::TooLarge) => Decision::Reject(rejection::Reason::TooLarge),
            Err(PassThrough::Late) => Decision::Reject(rejection::Reason::Deadline),
            Err(reason) => Decision::PassThrough(reason),
        }
    }

    /// Picks a member of the demand's pool and counts the request there.
    fn pick(
        &mut self,
        shared: &mut impl SharedData,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Route, PassThrough> {
        let mut claims = Vec::new();
        let mut placed = self.place(shared, demand, &mut claims, now);
        if let Ok(route) = &placed
            && let Err(error) = self.count(shared, &route.reservation, now)
        {
            placed = Err(error.into());
        }
        match &mut placed {
            Ok(route) => route.reservation.claims = claims,
            // A share that the others do not know to be free is made known on a tick.
            Err(_) if !claims.is_empty() => {
                let _ = self.capacity.undo(shared, &self.lanes, &claims);
            }
            Err(_) => {}
        }
        placed
    }

    /// Counts the request of a new reservation.
    fn count(
        &mut self,
        shared: &mut impl SharedData,
        reservation: &Reservation,
        now: Timestamp,
    ) -> Result<(), StateError> {
        match self.topology.find_upstream(reservation.upstream) {
            Some(upstream) => self.lanes.reserve(shared, upstream, reservation.job(), now),
            None => Ok(()),
        }
    }

    /// Picks a member for a request that is not counted yet, with `claims` for what it
    /// takes of limits; they are the caller's to give back where this fails.
    #[inline(never)]
    pub(super) fn place(
        &mut self,
        shared: &mut impl SharedData,
        demand: &Demand,
        claims: &mut Vec<Claim>,
        now: Timestamp,
    ) -> Result<Route, PassThrough> {
        let pool = demand.pool;
        if self.topology.pool(pool).is_none() {
            return Err(PassThrough::NoPool);
        }
        self.lanes.begin(shared, now)?;
        if self.batch.is_due(now) {
            self.merge(shared, now, &[]);
        }
        self.estimates.read(shared, now)?;
        if let Some(health) = &mut self.health {
            // Where it cannot be read, what was known before holds.
            let _ = health.refresh(shared, now);
        }
        let Balancer {
            pools,
            topology,
            lanes,
            capacity,
            estimates,
            latencies,
            health,
            rng,
            candidates,
            tuning,
            ..
        } = self;
        let (Some(balanced), Some(of_pool), Some(pool_state)) = (
            pools.get_mut(pool.0),
            topology.pool(pool),
            estimates.pool(pool),
        ) else {
            return Err(PassThrough::NoPool);
        };
        let revision = estimates.revision();
        if !balanced.standings.hold(revision, now) {
            let known = Known {
                pool: pool_state,
                members: estimates.members(of_pool.members.clone()),
                outstanding: lanes.totals(),
                now,
            };
            balanced.appraise(&known, revision, tuning);
        }
        let is_limited = capacity.limits(pool);
        if is_limited {
            capacity.follow(estimates, now);
        }
        let devices = match is_limited {
            true => capacity.look(shared, pool)?.collect(),
            false => Vec::new(),
        };
        let work = Work::of_requests(pool_state.work.of(demand.size));
        let takes_any = balanced.takes_any();
        let shown = balanced.sample(tuning, rng);
        let time = match (&mut balanced.prediction, demand.due) {
            (Some(prediction), Some(due)) => {
                let known = Known {
                    pool: pool_state,
                    members: estimates.members(of_pool.members.clone()),
                    outstanding: lanes.totals(),
                    now,
                };
                let work = work.requests();
                let configured = (topology.members.as_slice(), capacity.learned());
                Some(TimeLeft {
                    left: due.seconds_since(now),
                    expected: prediction.expected(&known, revision, configured, work, tuning),
                })
            }
            _ => None,
        };
        let (standings, tail_paces) = (
            balanced.standings.all(),
            latencies.tail_paces(pool, SizeClass::of(demand.size)),
        );
        let mut members = Members {
            standings,
            outstanding: lanes.totals(),
            tail_paces,
        };
        let shown = balanced.order.get_mut(..shown).unwrap_or_default();
        let phases = *balanced.standings.phases();
        let mut candidates = if takes_any {
            shown
        } else {
            candidates.clear();
            candidates.extend_from_slice(shown);
            let request = eligible::Request {
                size: demand.size,
                members,
                configured: &topology.members,
                phases,
                work: work.requests(),
                now,
                may_try: balanced.tried_at.is_none_or(|at| may_try_again(at, now)),
                draw: if phases.is_cold { rng.unit() } else { 1.0 },
                health: health.as_ref(),
                learned: capacity.learned(),
                devices: &devices,
                time,
                waiting: demand.waiting,
                waited: demand.waited.as_secs_f64(),
                basis: balanced.policy.basis(pool_state),
                patience: tuning.patience,
            };
            eligible::apply(&balanced.rules, &request, candidates)?;
            if !balanced.heeds_weights {
                thin_out(candidates, members, rng);
            }
            candidates
        };
        let basis = balanced.policy.basis(pool_state);
        if is_limited {
            let claimed = capacity.claim_pool(shared, lanes, pool, claims, now);
            has_room(claimed)?;
            members = Members {
                standings,
                outstanding: lanes.totals(),
                tail_paces,
            };
        }
        let picked = loop {
            let picked = balanced.policy.pick(&mut Choice {
                candidates,
                members,
                pool: pool_state,
                turns: &mut balanced.turns,
                work: work.requests(),
                now,
                rng,
            });
            let picked = picked.ok_or(PassThrough::NoPool)?;
            if !is_limited {
                break picked;
            }
            let place = picked.best.place;
            let winner = standings.get(place.0).ok_or(PassThrough::NoPool)?.member;
            let wanted = (winner, demand.size);
            let claimed = capacity.claim_member(shared, lanes, wanted, claims, now);
            members = Members {
                standings,
                outstanding: lanes.totals(),
                tail_paces,
            };
            match has_room(claimed) {
                Ok(()) => break picked,
                // Others were first: the next best.
                Err(PassThrough::NoRoom) => {
                    candidates = without(candidates, place);
                    if candidates.is_empty() {
                        return Err(PassThrough::NoRoom);
                    }
                }
                Err(reason) => return Err(reason),
            }
        };
        let winner = members.get(picked.best.place).ok_or(PassThrough::NoPool)?;
        let (member, upstream) = (winner.standing.member, winner.standing.upstream);
        let reason = match winner.standing.phase {
            _ if phases.panics => policy::Reason::Panic,
            Phase::HalfOpen(_) => {
                balanced.tried_at = Some(now);
                policy::Reason::HalfOpen
            }
            Phase::In | Phase::Ejected(_) => picked.reason,
        };
        let outstanding = *winner.outstanding;
        let expected = time.and_then(|time| time.expected.get(picked.best.place.0).copied());
        let member_at = |place| Some(members.get(place)?.standing.member);
        let runner_up = |scored: Scored| Some((member_at(scored.place)?, scored.score));
        let runner_up = picked.runner_up.and_then(runner_up);
        let left_out = LeftOut::by(winner.standing, standings, &phases, health.as_ref());
        let alternatives = if of_pool.cluster.is_some() {
            let places = alternatives(candidates, &picked, rng).into_iter();
            places.filter_map(member_at).collect()
        } else {
            Vec::new()
        };
        let handles = (
            topology.member_handle(member),
            topology.upstream_handle(upstream),
        );
        let (Some(member_handle), Some(upstream_handle)) = handles else {
            return Err(PassThrough::NoPool);
        };
        balanced.set_basis(basis);
        Ok(Route {
            member,
            alternatives,
            reservation: Reservation {
                member: member_handle,
                upstream: upstream_handle,
                picked_at: now,
                at_pick: AtPick {
                    load: outstanding.requests() as f64 + 1.0,
                    others_work: outstanding.work(),
                },
                work,
                size: demand.size,
                expected,
                signal: of_pool.signal,
                claims: Vec::new(),
            },
            explanation: Explanation {
                policy: balanced.policy_name,
                reason,
                score: picked.best.score,
                runner_up,
                expected: picked.expected,
                work: work.requests(),
                basis,
                latency: latencies.ranked(member),
                left_out,
            },
            in_flight: outstanding.requests() + 1,
        })
    }
}

/// The candidates without this one.
fn without(candidates: &mut [Place], place: Place) -> &mut [Place] {
    let found = candidates.iter().position(|it| *it == place);
    let Some((last, rest)) = candidates.split_last_mut() else {
        return &mut [];
    };
    if let Some(found) = found.and_then(|found| rest.get_mut(found)) {
        std::mem::swap(found, last);
    }
    rest
}

/// What it means for a pick that a limit was asked for room. Where the workers fight
/// for it too hard, the request waits as if there was none.
fn has_room(claimed: Result<bool, StateError>) -> Result<(), PassThrough> {
    match claimed {
        Ok(true) => Ok(()),
        Ok(false) | Err(StateError::Contended) => Err(PassThrough::NoRoom),
        Err(error) => Err(error.into()),
    }
}
