//! The pure pipeline: from a request to an upstream, and from an end to what
//! is learned of it.
//!
//! A pick and its count are one transaction on the shared state, and so are
//! the release of the count and the sample. Nothing here knows a proxy: the
//! filter, the tests and the simulator run this same code.

mod choosing;
mod eligible;
mod explanation;
mod finished;
mod latencies;
mod learning;
mod pass_through;
mod route;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::config::{Accepts, Config, LatencySignal};
use crate::estimate::{AtPick, Basis, Tuning};
use crate::host::SharedData;
use crate::policy::{self, Candidate, Policy, Scored};
use crate::pool::{MemberIndex, Topology};
use crate::random::Rng;
use crate::state::{Ledger, SizeClass, StateError, Work};
use crate::time::Timestamp;

use choosing::{alternatives, decide, shuffle_to_front};
use eligible::{keep_accepting, keep_unreserved};
pub use explanation::Explanation;
pub use finished::{Finished, Released};
use latencies::Latencies;
pub use latencies::{Measured, QUANTILES, Quantiles};
use learning::learn;
pub use pass_through::PassThrough;
pub use route::{Demand, Reservation, Route};

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
