//! The pure pipeline: from a request to an upstream, and from an end to what
//! is learned of it.
//!
//! A pick counts its request in this worker's lane, and the end takes it off
//! there; what the end teaches is merged into the shared estimates in batches.
//! Nothing here knows a proxy: the filter, the tests and the simulator run this
//! same code. So does this example, in which two workers share a store in memory:
//!
//! ```
//! use paceline::config::Config;
//! use paceline::decision::{Balancer, Demand, Finished};
//! use paceline::host::memory::Memory;
//! use paceline::time::Timestamp;
//!
//! let json = r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ] }"#;
//! let config = Config::parse(Some(json.as_bytes()))?;
//! let mut shared = Memory::default();
//! let mut one = Balancer::new(&config, "example".to_owned(), 1);
//! let mut other = Balancer::new(&config, "example".to_owned(), 2);
//!
//! // A pick counts the request at once, so the next goes to the idle upstream.
//! let now = Timestamp::from_nanos(1_000_000_000);
//! let first = one.decide(&mut shared, &Demand::default(), now).routed().expect("one is idle");
//! let second = other.decide(&mut shared, &Demand::default(), now).routed().expect("one is idle");
//! assert_ne!(first.member, second.member);
//! assert_eq!(one.renew(&mut shared, now)?, [1, 1]);
//!
//! // What ends is given back where it was picked.
//! let end = Timestamp::from_nanos(2_000_000_000);
//! one.release(&mut shared, first.reservation, &Finished::default(), end)?;
//! other.release(&mut shared, second.reservation, &Finished::default(), end)?;
//! assert_eq!(one.renew(&mut shared, end)?, [0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alternatives;
mod balanced_pool;
mod batch;
mod blame;
mod capacity;
mod considered;
mod deadlines;
mod decided;
mod deciding;
mod eligible;
mod explanation;
mod finished;
mod judging;
mod latencies;
mod learning;
mod learning_limits;
mod pass_through;
mod phases;
mod prediction;
mod report;
mod route;
mod standings;
#[cfg(test)]
mod tests;
mod watching;

use std::rc::Rc;

use crate::config::{Config, LatencySignal, MaxInFlight};
use crate::estimate::{AtPick, Basis, Tuning};
use crate::health::View;
use crate::host::SharedData;
use crate::outlier::{Event, Phase};
use crate::policy::Place;
use crate::pool::{Member, MemberHandle, MemberIndex, PoolIndex, Topology, UpstreamIndex};
use crate::random::Rng;
use crate::state::{Estimates, Job, Lanes, StateError, Work};
use crate::time::{Timestamp, seconds};

use balanced_pool::BalancedPool;
use batch::{Batch, Ended};
use capacity::Capacity;
pub use capacity::{Limited, Room, Use};
pub use considered::Considered;
pub use decided::{Decision, Hold};
pub use explanation::{Explanation, LeftOut};
pub use finished::Finished;
use judging::{Suspect, is_suspicious, judge};
use latencies::Latencies;
pub use latencies::{Measured, QUANTILES, Quantiles};
use learning::learn;
use learning_limits::learn_limit;
pub use pass_through::PassThrough;
pub use report::{PaceReport, Report};
pub use route::{Demand, Reservation, Route};
pub use watching::Condition;

/// Where requests go and what is outstanding: one worker's balancer.
pub struct Balancer {
    /// In the order of the topology's.
    pools: Vec<BalancedPool>,
    topology: Rc<Topology>,
    lanes: Lanes,
    capacity: Capacity,
    estimates: Estimates,
    /// What ended requests teach, until it is merged into the estimates.
    batch: Batch,
    latencies: Latencies,
    /// Which members are ready, if any pool has a health check.
    health: Option<View>,
    rng: Rng,
    /// Room for the candidates of a pick that rules are applied to.
    candidates: Vec<Place>,
    tuning: Tuning,
    /// Merges that another worker got before, since this was last asked.
    merge_retries: u32,
    /// The last merge that failed for another reason, since this was last asked.
    merge_error: Option<StateError>,
    /// Upstreams whose phase this worker has changed, since this was last asked.
    events: Vec<(MemberHandle, Event)>,
    /// Members that have started anew, until that is merged into the estimates.
    restarted: Vec<MemberHandle>,
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
        let merge_interval = seconds(tuning.merge_seconds);
        Balancer {
            pools: balanced_pools(config, &topology, tuning),
            health: View::new(config, &topology, &key),
            candidates: Vec::new(),
            capacity: Capacity::new(Rc::clone(&topology), &key),
            latencies: Latencies::new(Rc::clone(&topology), config, &key),
            lanes: Lanes::new(
                &topology,
                &key,
                owner,
                config.lease,
                seconds(tuning.reread_seconds),
            ),
            estimates: Estimates::new(Rc::clone(&topology), &key, merge_interval),
            batch: Batch::new(merge_interval),
            merge_retries: 0,
            merge_error: None,
            events: Vec::new(),
            restarted: Vec::new(),
            topology,
            tuning,
            rng,
        }
    }

    /// What can be chosen from.
    #[must_use]
    pub fn topology(&self) -> &Rc<Topology> {
        &self.topology
    }

    /// The cluster whose endpoints `pool` balances, if it does that.
    #[must_use]
    pub fn cluster_of(&self, pool: PoolIndex) -> Option<String> {
        self.topology().pool(pool)?.cluster.clone()
    }

    /// Gives a reservation back and learns from how the request ended, at once or
    /// with the next merge.
    ///
    /// The count is released whatever happens: where the others cannot be shown
    /// the lower count now, the next write of this worker's lane shows it.
    ///
    /// # Errors
    /// The others do not know yet.
    pub fn release(
        &mut self,
        shared: &mut impl SharedData,
        mut reservation: Reservation,
        finished: &Finished,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.latencies.observe(&reservation, finished, now);
        // All are to know at once what came of a trial.
        let member = self.topology.find_member(reservation.member);
        let state = member.and_then(|member| self.estimates.member(member));
        let phase = state.map(|state| state.health.phase(now));
        let tries = matches!(phase, Some(Phase::HalfOpen(_)));
        self.learn_spread(&reservation, finished, now);
        // What is reserved stays in the topology, so it is found.
        let upstream = self.topology.find_upstream(reservation.upstream);
        let in_flight = upstream.map_or(0, |it| self.lanes.outstanding(it).requests());
        let mut released = match upstream {
            Some(upstream) => self.lanes.release(shared, upstream, reservation.job(), now),
            None => Ok(()),
        };
        let claims = std::mem::take(&mut reservation.claims);
        if !claims.is_empty() {
            // After the lane: who is woken by this sees room in both.
            let returned = self.capacity.give_back(shared, &self.lanes, &claims);
            released = released.and(returned);
        }
        self.batch.push(Ended {
            reservation,
            finished: *finished,
            at: now,
            in_flight,
        });
        if self.batch.is_due(now) || tries {
            self.merge(shared, now, &[]);
        }
        released
    }

    /// Takes in by how much the request took longer than expected, where deadlines need
    /// to know.
    fn learn_spread(&mut self, reservation: &Reservation, finished: &Finished, now: Timestamp) {
        let Some(expected) = reservation.expected else {
            return;
        };
        let member = self.topology.find_member(reservation.member);
        let pool = member.and_then(|member| Some(self.topology.member(member)?.pool));
        let pool = pool.and_then(|pool| self.pools.get_mut(pool.0));
        if let Some(deadlines) = pool.and_then(|pool| pool.deadlines.as_mut()) {
            let seconds = finished.latency(reservation.signal, reservation.picked_at, now);
            let waited = now.seconds_since(reservation.picked_at);
            let seconds = seconds.map_or(waited, |latency| latency.as_secs_f64());
            deadlines.observe(expected, finished, seconds);
        }
    }

    /// The last moment at which starting a request makes sense that has a deadline and
    /// waits for room; `None` where it has none, or its pool enforces none.
    #[must_use]
    pub fn latest_start(&self, demand: &Demand, now: Timestamp) -> Option<Timestamp> {
        let pool = self.pools.get(demand.pool.0)?;
        let deadlines = pool.deadlines.as_ref()?;
        let expected = pool.prediction.as_ref()?.last();
        deadlines.latest_start(demand.due?, expected, now)
    }

    /// Merges what ended requests teach, and what `certain` suspects have done, into
    /// what all workers share. What another worker gets before waits for the next time.
    fn merge(&mut self, shared: &mut impl SharedData, now: Timestamp, certain: &[Suspect]) {
        let Balancer {
            topology,
            pools,
            batch,
            estimates,
            lanes,
            tuning,
            restarted,
            ..
        } = self;
        batch.tried(now, lanes.number().unwrap_or(0));
        let mut events = Vec::new();
        let merged = estimates.merge(shared, now, |estimates| {
            for handle in restarted.iter() {
                if let Some(member) = topology.find_member(*handle) {
                    estimates.change_member(member, |member, _| member.restart(now));
                }
            }
            let mut suspects = certain.to_vec();
            for ended in batch.ended() {
                let Some(member) = topology.find_member(ended.reservation.member) else {
                    continue;
                };
                let Some(configured) = topology.member(member) else {
                    continue;
                };
                let Some(pool) = pools.get(configured.pool.0) else {
                    continue;
                };
                let rules = pool.rules_of_learning(tuning);
                estimates.change_member(member, |state, pool| {
                    let meaning = learn(state, pool, ended, &rules);
                    events.extend(meaning.event.map(|event| (member, event)));
                    let detection = rules.detection;
                    if detection.is_some_and(|detection| is_suspicious(state, detection)) {
                        suspects.push(Suspect::of_end(member, meaning.failed));
                    }
                });
                if configured.max_in_flight == MaxInFlight::Auto {
                    learn_limit(estimates, topology, (member, configured), ended);
                }
            }
            events.extend(judge(estimates, topology, pools, &suspects, now, tuning));
        });
        match merged {
            Ok(()) | Err(StateError::Malformed) => {
                batch.clear();
                restarted.clear();
                let named = |(member, event)| Some((topology.member_handle(member)?, event));
                self.events.extend(events.into_iter().filter_map(named));
                self.merge_error = self.merge_error.or(merged.err());
            }
            Err(StateError::Contended) => {
                self.merge_retries = self.merge_retries.saturating_add(1);
            }
            Err(error) => self.merge_error = Some(error),
        }
    }

    /// Counts a request at the member that turned out to serve it: the one that
    /// was picked had failed or was not there, or none was picked. `None` where
    /// there is no such member.
    ///
    /// # Errors
    /// The request is not counted.
    pub fn adopt(
        &mut self,
        shared: &mut impl SharedData,
        index: MemberIndex,
        (job, size): (Job, Option<f64>),
        now: Timestamp,
    ) -> Result<Option<Reservation>, StateError> {
        let Job { work, picked_at } = job;
        let topology = Rc::clone(&self.topology);
        let Some(configured) = topology.member(index) else {
            return Ok(None);
        };
        let (upstream, pool) = (configured.upstream, configured.pool);
        let handles = (
            topology.member_handle(index),
            topology.upstream_handle(upstream),
        );
        let (Some(member), Some(there)) = handles else {
            return Ok(None);
        };
        self.lanes.begin(shared, now)?;
        let others = self.lanes.outstanding(upstream);
        self.lanes.reserve(shared, upstream, job, now)?;
        let claims = match self.capacity.limits(pool) {
            true => self
                .capacity
                .claim_anyway(shared, &self.lanes, (index, size)),
            false => Vec::new(),
        };
        let reservation = Reservation {
            member,
            upstream: there,
            picked_at,
            at_pick: AtPick {
                load: others.requests() as f64 + 1.0,
                others_work: others.work(),
            },
            signal: topology
                .pool(pool)
                .map_or(LatencySignal::Complete, |pool| pool.signal),
            work,
            size,
            expected: None,
            claims,
        };
        Ok(Some(reservation))
    }

    /// This worker's counts, by which others know it.
    pub(crate) fn lanes(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// The upstreams at which this worker has something in flight.
    pub fn held(&self) -> impl Iterator<Item = UpstreamIndex> + '_ {
        self.lanes.held()
    }

    /// Replaces the endpoints that were discovered. What requests still hold
    /// is kept besides, though it is picked no more.
    pub fn set_endpoints(&mut self, config: &Config, discovered: impl Fn(&str) -> Vec<String>) {
        let mut topology = Topology::with_endpoints(config, discovered);
        topology.retain(&self.topology, self.lanes.held());
        for (number, pool) in self.pools.iter_mut().enumerate() {
            pool.set_members(&topology, PoolIndex(number));
        }
        self.topology = Rc::new(topology);
        self.latencies.set_topology(Rc::clone(&self.topology));
        if let Some(health) = &mut self.health {
            health.set_topology(&self.topology);
        }
        self.lanes.set_topology(&self.topology);
        self.capacity.set_topology(Rc::clone(&self.topology));
        self.estimates.set_topology(Rc::clone(&self.topology));
    }

    /// Reads which members are ready, where any pool has a health check. What was
    /// known before holds where that fails.
    pub fn read_health(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Option<(&View, Result<(), StateError>)> {
        let health = self.health.as_mut()?;
        let read = health.read(shared, now);
        Some((health, read))
    }

    /// Keeps this worker's counts alive, once it has any, merges what it has
    /// learned, and returns what is in flight at each upstream, in the order of
    /// [`Topology::upstreams`]. To be called several times within a lease.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub fn renew(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<Vec<u64>, StateError> {
        let is_due = self.batch.is_due(now) || !self.restarted.is_empty();
        if is_due || self.estimates.is_overlooked() {
            self.merge(shared, now, &[]);
        }
        self.lanes.renew(shared, now)?;
        if self.capacity.learns() {
            self.estimates.read(shared, now)?;
            self.capacity.follow(&self.estimates, now);
        }
        self.capacity.renew(shared, &mut self.lanes, now)?;
        Ok(self.lanes.in_flight())
    }

    /// Whether anything limits how many requests of `pool` there may be.
    #[must_use]
    #[inline]
    pub fn limits(&self, pool: PoolIndex) -> bool {
        self.capacity.limits(pool)
    }

    /// Whether it is learned how many requests the member's upstream takes at once.
    #[must_use]
    pub fn learns_limit(&self, member: MemberHandle) -> bool {
        self.capacity.learns()
            && self.topology.find_member(member).is_some_and(|member| {
                let member = self.topology.member(member);
                member.is_some_and(|it| it.max_in_flight == MaxInFlight::Auto)
            })
    }

    /// All limits, and what is out of them, as [`Balancer::renew`] found it.
    pub fn uses(&self) -> impl Iterator<Item = Use> + '_ {
        self.capacity.uses()
    }

    /// The pools for which room was made by [`Balancer::release`], since this was last
    /// asked.
    #[must_use]
    pub fn take_freed(&mut self) -> Vec<PoolIndex> {
        self.capacity.take_freed()
    }

    /// Takes part in the shared state, as a pick does.
    ///
    /// # Errors
    /// There is no lane to be had, or the host failed.
    pub fn join(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        self.lanes.begin(shared, now)
    }

    /// Whether no upstream of the demand's pool will ever take the request: it needs more
    /// memory than their devices have.
    #[must_use]
    pub fn is_too_large(&self, demand: &Demand) -> bool {
        let Some(pool) = self.topology.pool(demand.pool) else {
            return false;
        };
        let members = self.topology.members.get(pool.members.clone());
        let mut may = members
            .unwrap_or_default()
            .iter()
            .filter(|member| member.weight > 0.0 && member.accepts.accepts(demand.size));
        let fits = |member: &Member| {
            member.memory.is_none_or(|(device, memory)| {
                let device = self.topology.device(device);
                device.is_none_or(|device| memory.of(demand.size) <= device.memory)
            })
        };
        // A pool of none is no reason for this.
        let first = may.next();
        first.is_some_and(|first| !fits(first) && !may.any(fits))
    }

    /// The work that is expected of a request.
    #[must_use]
    pub fn expected_work(&self, demand: &Demand) -> Work {
        let pool = self.estimates.pool(demand.pool);
        pool.map_or(Work::MEAN, |pool| {
            Work::of_requests(pool.work.of(demand.size))
        })
    }

    /// What has room in `pool`, by what this worker knows.
    ///
    /// # Errors
    /// The host failed.
    pub fn room(
        &mut self,
        shared: &mut impl SharedData,
        pool: PoolIndex,
        now: Timestamp,
    ) -> Result<Room, StateError> {
        if self.capacity.learns() {
            self.estimates.read(shared, now)?;
            self.capacity.follow(&self.estimates, now);
        }
        self.capacity.room(shared, &self.lanes, pool)
    }

    /// Looks at once at what the others have outstanding, for a request that found no
    /// room a moment ago.
    ///
    /// # Errors
    /// The host failed.
    pub fn look_again(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        self.lanes.reread(shared, now)
    }

    /// Changes of the shared state that were tried again because another worker
    /// wrote first, and what kept this worker from sharing what it has learned,
    /// since this was last asked.
    pub fn take_troubles(&mut self) -> (u32, Option<StateError>) {
        let retries = std::mem::take(&mut self.merge_retries);
        let retries = retries.saturating_add(self.lanes.take_retries());
        (retries, self.merge_error.take())
    }

    /// Pools that measure load in something else than when this was last asked,
    /// as this worker's picks have seen it.
    pub fn changed_bases(&mut self) -> impl Iterator<Item = (PoolIndex, Basis)> {
        let pools = self.pools.iter_mut().enumerate();
        pools.filter_map(|(number, pool)| Some((PoolIndex(number), pool.take_changed_basis()?)))
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
    /// Its counts end with the lease instead.
    pub fn leave(&mut self, shared: &mut impl SharedData) -> Result<(), StateError> {
        if !self.batch.ended().is_empty() {
            self.merge(shared, self.batch.latest(), &[]);
        }
        self.lanes.leave(shared)
    }
}

/// The pools of `config` with the members that they have in `topology`.
fn balanced_pools(config: &Config, topology: &Topology, tuning: Tuning) -> Vec<BalancedPool> {
    let pools = config.pools.iter().enumerate();
    let balanced = pools.map(|(number, pool)| {
        let mut balanced = BalancedPool::new(pool, tuning);
        balanced.set_members(topology, PoolIndex(number));
        balanced
    });
    balanced.collect()
}
