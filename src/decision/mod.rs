//! The pure pipeline: from a request to an upstream, and from an end to what
//! is learned of it.
//!
//! A pick and its count are one transaction on the shared state, and so are
//! the release of the count and the sample. Nothing here knows a proxy: the
//! filter, the tests and the simulator run this same code.

mod eligible;
mod explanation;
mod latencies;
mod learning;
mod pass_through;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use crate::config::{Accepts, Config, LatencySignal};
use crate::estimate::{AtPick, Basis, Tuning};
use crate::host::SharedData;
use crate::outcome::End;
use crate::policy::{self, Candidate, Choice, Picked, Policy, Scored};
use crate::pool::{Handle, MemberIndex, Topology};
use crate::random::Rng;
use crate::state::{Ledger, SizeClass, StateError, View, Work};
use crate::time::Timestamp;

use eligible::{keep_accepting, keep_unreserved};
pub use explanation::Explanation;
use latencies::Latencies;
pub use latencies::{Measured, QUANTILES, Quantiles};
use learning::learn;
pub use pass_through::PassThrough;

/// How many endpoints are named besides the picked one: one for each of the
/// shipped retries, and one for an endpoint that the proxy knows no more.
const ALTERNATIVES: usize = 3;

/// Where requests go and what is outstanding: one worker's balancer.
pub struct Balancer {
    policies: Vec<Box<dyn Policy>>,
    names: Vec<&'static str>,
    ledger: Ledger,
    latencies: Latencies,
    rng: Rng,
    /// The members of each pool, in the random order that samples leave.
    order: Vec<MemberIndex>,
    candidates: Vec<Candidate>,
    /// What each pool measured load in at this worker's last pick, and whether
    /// that was told.
    bases: Vec<(Option<Basis>, bool)>,
    tuning: Tuning,
}

/// What is known of a request before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Which pool serves it.
    pub pool: usize,
    /// Its size, in whatever unit the pool measures requests: bytes, tokens,
    /// pixels. `None` where the request does not tell; a size that is negative
    /// or not a number counts as that.
    pub size: Option<f64>,
}

/// A place that is counted for one request until it is given to
/// [`Balancer::release`], which must happen exactly once.
#[derive(Debug, PartialEq)]
#[must_use = "a reservation that is dropped is never released"]
pub struct Reservation {
    /// Which member was picked.
    pub member: Handle,
    /// Which upstream that is.
    pub upstream: Handle,
    /// When.
    pub picked_at: Timestamp,
    /// What was outstanding at the upstream at that moment.
    at_pick: AtPick,
    /// What is taken for its latency.
    pub signal: LatencySignal,
    /// What is reserved there: the work that was expected of the request.
    work: Work,
    /// The size that told that.
    size: Option<f64>,
}

impl Reservation {
    /// What is reserved: the work that was expected of the request.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }
}

/// A pick that has been counted.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// What to give back when the request ends.
    pub reservation: Reservation,
    /// Which member was picked, in the topology of this moment.
    pub member: MemberIndex,
    /// Whom to try after it, in that order: for pools of endpoints.
    pub alternatives: Vec<MemberIndex>,
    /// Why this one, for people.
    pub explanation: Explanation,
    /// Requests in flight at the upstream, this one included.
    pub in_flight: u64,
    /// Transactions that had to be tried again.
    pub retries: u32,
}

/// What a finished request showed; by default that it was nobody's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// Of the response's body.
    pub response_bytes: u64,
    /// In how many pieces it came.
    pub chunks: u32,
    /// When the first of them came, or the headers of a response without any.
    pub first_byte_at: Option<Timestamp>,
    /// Whether the response was streamed as it was made. Only asked for where
    /// the pool's signal is the first byte.
    pub is_stream: bool,
    /// For how long the upstream asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Finished {
    /// The request's latency, as the pool's signal has it; `None` where it says
    /// nothing of the upstream's speed. An answer that was not streamed is made
    /// whole before its first byte, which so says nothing of those of streams.
    fn latency(
        &self,
        signal: LatencySignal,
        picked_at: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        if !self.end.is_sample() {
            return None;
        }
        match signal {
            LatencySignal::Complete => Some(now.since(picked_at)),
            LatencySignal::FirstByte => {
                let first_byte_at = self.first_byte_at.filter(|_| self.is_stream)?;
                Some(first_byte_at.since(picked_at))
            }
        }
    }

    /// The mean time between two chunks of the response.
    fn chunk_gap(&self, now: Timestamp) -> Option<Duration> {
        let gaps = self.chunks.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let first = self.first_byte_at.filter(|_| self.end.is_sample())?;
        now.since(first).checked_div(gaps)
    }
}

/// What a release left.
#[derive(Debug, PartialEq, Eq)]
pub struct Released {
    /// Requests still in flight at the upstream.
    pub in_flight: u64,
    /// Transactions that had to be tried again.
    pub retries: u32,
}

impl Balancer {
    /// A balancer for one worker. `key` is where the workers share their
    /// record; `seed` must differ between them.
    #[must_use]
    pub fn new(config: &Config, key: String, seed: u64) -> Self {
        Balancer::tuned(config, key, seed, Tuning::DEFAULT)
    }

    /// A balancer with other constants than the filter's, for experiments.
    #[must_use]
    pub fn tuned(config: &Config, key: String, seed: u64, tuning: Tuning) -> Self {
        let topology = Rc::new(Topology::new(config));
        let mut rng = Rng::new(seed);
        let owner = rng.next_u64();
        Balancer {
            policies: config
                .pools
                .iter()
                .map(|p| policy::from_config(&p.policy, tuning))
                .collect(),
            names: config.pools.iter().map(|p| p.policy.name()).collect(),
            order: (0..topology.members.len()).collect(),
            candidates: Vec::new(),
            bases: vec![(None, true); config.pools.len()],
            tuning,
            latencies: Latencies::new(Rc::clone(&topology), config, &key),
            ledger: Ledger::new(topology, key, owner, config.lease),
            rng,
        }
    }

    /// What can be chosen from.
    #[must_use]
    pub fn topology(&self) -> &Rc<Topology> {
        self.ledger.topology()
    }

    /// The cluster whose endpoints `pool` balances, if it does that.
    #[must_use]
    pub fn cluster_of(&self, pool: usize) -> Option<String> {
        self.topology().pools.get(pool)?.cluster.clone()
    }

    /// Picks a member of the demand's pool and counts the request there, at
    /// once.
    ///
    /// # Errors
    /// The request cannot be counted, so it must not be routed.
    pub fn pick(
        &mut self,
        shared: &mut impl SharedData,
        demand: &Demand,
        now: Timestamp,
    ) -> Result<Route, PassThrough> {
        let pool = demand.pool;
        let Balancer {
            policies,
            names,
            ledger,
            latencies,
            rng,
            order,
            candidates,
            bases,
            tuning,
        } = self;
        let topology = Rc::clone(ledger.topology());
        let (Some(policy), Some(name)) = (policies.get(pool), names.get(pool)) else {
            return Err(PassThrough::NoPool);
        };
        let Some(of_pool) = topology.pools.get(pool) else {
            return Err(PassThrough::NoPool);
        };
        let Some(order) = order.get_mut(of_pool.members.clone()) else {
            return Err(PassThrough::NoPool);
        };
        // A sample might have none that accepts the request.
        let chooses_by_size = of_pool.limits_sizes || of_pool.reserve.is_some();
        let shown = if policy.needs_all() || chooses_by_size || order.len() <= tuning.full_scan {
            order.len()
        } else {
            shuffle_to_front(order, tuning.sample, rng);
            tuning.sample
        };

        let (signal, start) = (of_pool.signal, of_pool.members.start);
        let member_of = |candidate: &Candidate| topology.members.get(candidate.member);
        let class = SizeClass::of(demand.size);
        let tail_paces = latencies.tail_paces(pool, class);
        let committed = ledger.update(shared, now, |view| {
            candidates.clear();
            candidates.extend(order.iter().take(shown).filter_map(|member| {
                let configured = topology.members.get(*member)?;
                let outstanding = view.outstanding(configured.upstream);
                Some(Candidate {
                    member: *member,
                    upstream: configured.upstream,
                    weight: configured.weight,
                    in_flight: outstanding.requests(),
                    outstanding_work: outstanding.work(),
                    tail_pace: tail_paces.get(*member - start).copied().unwrap_or(1.0),
                    state: view.member(*member),
                })
            }));
            if of_pool.limits_sizes {
                let accepts = |it: &Candidate| member_of(it).map_or(Accepts::ALL, |it| it.accepts);
                keep_accepting(candidates, demand.size, accepts);
            }
            if let Some(reserve) = &of_pool.reserve {
                let is_reserved = |it: &Candidate| member_of(it).is_some_and(|it| it.is_reserved);
                keep_unreserved(candidates, demand.size, reserve, is_reserved);
            }
            decide(&**policy, candidates, view, demand, now, rng)
        })?;
        let none = match of_pool.limits_sizes && demand.size.is_some() {
            true => PassThrough::SizeNotAccepted,
            false => PassThrough::NoPool,
        };
        let decided = committed.value.ok_or(none)?;
        let picked = decided.picked;
        if let Some(last) = bases.get_mut(pool)
            && last.0 != decided.basis
        {
            *last = (decided.basis, false);
        }
        let winner = candidates
            .get(picked.best.index)
            .ok_or(PassThrough::NoPool)?;
        let second = |scored: Scored| Some((candidates.get(scored.index)?.member, scored.score));
        let handles = (
            topology.member_handle(winner.member),
            topology.upstream_handle(winner.upstream),
        );
        let (Some(member), Some(upstream)) = handles else {
            return Err(PassThrough::NoPool);
        };
        let is_of_endpoints = topology
            .pools
            .get(pool)
            .is_some_and(|it| it.cluster.is_some());
        Ok(Route {
            member: winner.member,
            alternatives: if is_of_endpoints {
                alternatives(candidates, &picked, rng)
            } else {
                Vec::new()
            },
            reservation: Reservation {
                member,
                upstream,
                picked_at: now,
                at_pick: AtPick {
                    load: winner.in_flight as f64 + 1.0,
                    others_work: winner.outstanding_work,
                },
                work: decided.work,
                size: demand.size,
                signal,
            },
            explanation: Explanation {
                policy: name,
                reason: picked.reason,
                score: picked.best.score,
                runner_up: picked.runner_up.and_then(second),
                work: decided.work.requests(),
                basis: decided.basis,
                latency: latencies.ranked(winner.member),
            },
            in_flight: winner.in_flight + 1,
            retries: committed.retries,
        })
    }

    /// Gives a reservation back and learns from how the request ended.
    ///
    /// The count is released whatever happens: where the transaction fails,
    /// this worker's next one publishes the lower count.
    ///
    /// # Errors
    /// The transaction failed and nothing was learned.
    pub fn release(
        &mut self,
        shared: &mut impl SharedData,
        reservation: Reservation,
        finished: &Finished,
        now: Timestamp,
    ) -> Result<Released, StateError> {
        let topology = Rc::clone(self.ledger.topology());
        // What is reserved stays in the topology, so both are found; a number
        // that nothing has is a request that nobody counts.
        let member = topology
            .find_member(reservation.member)
            .unwrap_or(usize::MAX);
        let upstream = topology
            .find_upstream(reservation.upstream)
            .unwrap_or(usize::MAX);
        let pool = topology.members.get(member).map_or(0, |member| member.pool);
        let decay = self
            .policies
            .get(pool)
            .map_or(10.0, |policy| policy.decay_seconds());
        let tuning = self.tuning;
        self.latencies.observe(&reservation, finished, now);
        let committed = self.ledger.update(shared, now, |view| {
            view.release(upstream, reservation.work);
            let mut state = view.member(member);
            let mut pool_state = view.pool(pool);
            learn(
                &mut state,
                &mut pool_state,
                &reservation,
                finished,
                decay,
                &tuning,
                now,
            );
            view.set_member(member, &state);
            view.set_pool(pool, &pool_state);
            view.in_flight(upstream)
        });
        match committed {
            Ok(committed) => Ok(Released {
                in_flight: committed.value,
                retries: committed.retries,
            }),
            Err(error) => {
                self.ledger.forget(upstream, reservation.work);
                Err(error)
            }
        }
    }

    /// Counts a request at the endpoint of `pool` that turned out to serve it:
    /// the one that was picked had failed or was not there, or none was picked.
    /// `None` where the pool has no such endpoint.
    ///
    /// # Errors
    /// The request is not counted.
    pub fn adopt(
        &mut self,
        shared: &mut impl SharedData,
        pool: usize,
        address: &str,
        work: Work,
        picked_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<(Reservation, u64)>, StateError> {
        let topology = Rc::clone(self.ledger.topology());
        let Some(index) = topology.endpoint(pool, address) else {
            return Ok(None);
        };
        let upstream = topology
            .members
            .get(index)
            .map_or(usize::MAX, |it| it.upstream);
        let handles = (
            topology.member_handle(index),
            topology.upstream_handle(upstream),
        );
        let (Some(member), Some(there)) = handles else {
            return Ok(None);
        };
        let committed = self.ledger.update(shared, now, |view| {
            let others = view.outstanding(upstream);
            view.reserve(upstream, work);
            others
        })?;
        let others = committed.value;
        let in_flight = others.requests() + 1;
        let reservation = Reservation {
            member,
            upstream: there,
            picked_at,
            at_pick: AtPick {
                load: in_flight as f64,
                others_work: others.work(),
            },
            signal: topology
                .pools
                .get(pool)
                .map_or(LatencySignal::Complete, |pool| pool.signal),
            work,
            size: None,
        };
        Ok(Some((reservation, in_flight)))
    }

    /// Replaces the endpoints that were discovered. What requests still hold
    /// is kept besides, though it is picked no more.
    pub fn set_endpoints(&mut self, config: &Config, discovered: impl Fn(&str) -> Vec<String>) {
        let mut topology = Topology::with_endpoints(config, discovered);
        topology.retain(self.ledger.topology(), self.ledger.held());
        self.order = (0..topology.members.len()).collect();
        let topology = Rc::new(topology);
        self.latencies.set_topology(Rc::clone(&topology));
        self.ledger.set_topology(topology);
    }

    /// Keeps this worker's counts alive, once it has any, and returns what is
    /// in flight at each upstream, in the order of [`Topology::upstreams`].
    /// To be called several times within a lease.
    ///
    /// # Errors
    /// The transaction failed; the next call makes up for it.
    pub fn renew(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<Vec<u64>, StateError> {
        if !self.ledger.has_lane() {
            return self.ledger.observe(shared, now);
        }
        let committed = self
            .ledger
            .update(shared, now, |view| view.in_flight_by_upstream())?;
        Ok(committed.value)
    }

    /// Pools that measure load in something else than when this was last asked,
    /// as this worker's picks have seen it.
    pub fn changed_bases(&mut self) -> impl Iterator<Item = (usize, Basis)> {
        let bases = self.bases.iter_mut().enumerate();
        bases.filter_map(|(pool, (basis, told))| {
            let is_news = !std::mem::replace(told, true);
            basis.filter(|_| is_news).map(|basis| (pool, basis))
        })
    }

    /// Exchanges measured latencies with the other workers. `updated` is called
    /// for each member of which something new may be known. To be called about
    /// as often as [`Balancer::renew`].
    ///
    /// # Errors
    /// Some of them could not be exchanged; the next call makes up for it.
    pub fn exchange_latencies(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        updated: impl FnMut(MemberIndex, &Measured),
    ) -> Result<(), StateError> {
        self.latencies.exchange(shared, now, updated)
    }

    /// Stops taking part in the shared state, where nothing is in flight.
    ///
    /// # Errors
    /// The transaction failed; the lease ends by itself.
    pub fn leave(&mut self, shared: &mut impl SharedData) -> Result<(), StateError> {
        self.ledger.leave(shared)
    }
}

/// A pick as the transaction made it.
struct Decided {
    picked: Picked,
    work: Work,
    basis: Option<Basis>,
}

/// Asks the policy, counts the request and keeps what the policy changed.
fn decide(
    policy: &dyn Policy,
    candidates: &mut [Candidate],
    view: &mut View<'_>,
    demand: &Demand,
    now: Timestamp,
    rng: &mut Rng,
) -> Option<Decided> {
    let mut pool_state = view.pool(demand.pool);
    let work = Work::of_requests(pool_state.work.of(demand.size));
    let basis = policy.basis(&pool_state);
    let picked = policy.pick(&mut Choice {
        candidates,
        pool: &mut pool_state,
        work: work.requests(),
        now,
        rng,
    })?;
    let winner = candidates.get(picked.best.index)?;
    view.reserve(winner.upstream, work);
    pool_state.used_at = now;
    view.set_pool(demand.pool, &pool_state);
    if policy.changes_candidates() {
        for candidate in candidates.iter() {
            view.set_member(candidate.member, &candidate.state);
        }
    }
    Some(Decided {
        picked,
        work,
        basis,
    })
}

/// Whom to try after the winner: the second best, and others drawn at random.
fn alternatives(candidates: &[Candidate], picked: &Picked, rng: &mut Rng) -> Vec<MemberIndex> {
    let len = candidates.len();
    let start = if len > 0 { rng.below(len) } else { 0 };
    let second = picked.runner_up.map(|scored| scored.index);
    let others = (0..len).map(|step| (start + step) % len);
    let mut order = Vec::with_capacity(ALTERNATIVES);
    for index in second.into_iter().chain(others) {
        let Some(candidate) = candidates.get(index) else {
            continue;
        };
        if index != picked.best.index && !order.contains(&candidate.member) {
            order.push(candidate.member);
        }
        if order.len() == ALTERNATIVES {
            break;
        }
    }
    order
}

/// Brings `count` elements, drawn at random, to the front.
fn shuffle_to_front(order: &mut [MemberIndex], count: usize, rng: &mut Rng) {
    let len = order.len();
    for place in 0..count.min(len) {
        order.swap(place, place + rng.below(len - place));
    }
}
