//! One worker's view of the shared record.
//!
//! A worker counts what it has in flight itself, and publishes its counts in
//! its *lane* of the record; the total at an upstream is the sum over the lanes
//! whose holders live. The record's copy of a lane is only ever written from
//! its holder's own counts, in full, with every transaction. So nothing can
//! leak: a transaction that fails is made good by the next, a record that was
//! lost or damaged is filled again, and the lane of a worker that died stops
//! counting when its lease ends. A worker that was merely stalled and lost its
//! lane takes another and publishes there.

use std::rc::Rc;
use std::time::Duration;

use super::outstanding::{Outstanding, Work};
use super::record::{Record, Rows};
use super::rows::{DecodedMember, MemberState, PoolState};
use super::transaction::{Committed, StateError, Store};
use crate::host::SharedData;
use crate::pool::{MemberIndex, Topology, Upstream, UpstreamIndex};
use crate::time::Timestamp;

/// How long the record keeps what was learned of a member that no live
/// configuration of this worker names.
const RETENTION: Duration = Duration::from_secs(3_600);

/// One worker's book of what it has in flight, and its way to the record.
#[derive(Debug)]
pub struct Ledger {
    topology: Rc<Topology>,
    store: Store,
    owner: u64,
    lease: Duration,
    /// Outstanding from this worker, by upstream. The truth; the lane is a copy.
    outstanding: Vec<Outstanding>,
    /// The counts as a transaction would leave them; kept for its allocation.
    proposed: Vec<Outstanding>,
    /// Lanes of other workers that count; kept for its allocation.
    live: Vec<usize>,
    /// The members' rows as they were last seen.
    decoded: Vec<DecodedMember>,
    placement: Placement,
}

/// Where the configuration's pools, members and upstreams stand in a record.
#[derive(Debug, Default)]
struct Placement {
    /// Of the record that this placement is for.
    fingerprint: Option<u64>,
    pools: Vec<usize>,
    members: Vec<usize>,
    upstreams: Vec<usize>,
    /// This worker's lane, if it was seen there.
    lane: Option<usize>,
}

impl Ledger {
    /// An empty book. `owner` tells this worker apart from all others; it is
    /// drawn at random and not zero.
    #[must_use]
    pub fn new(topology: Rc<Topology>, key: String, owner: u64, lease: Duration) -> Self {
        let upstreams = topology.upstreams.len();
        Ledger {
            decoded: vec![DecodedMember::default(); topology.members.len()],
            topology,
            store: Store::new(key),
            owner: owner.max(1),
            lease,
            outstanding: vec![Outstanding::default(); upstreams],
            proposed: vec![Outstanding::default(); upstreams],
            live: Vec::new(),
            placement: Placement::default(),
        }
    }

    /// What can be chosen from.
    #[must_use]
    pub fn topology(&self) -> &Rc<Topology> {
        &self.topology
    }

    /// Replaces what can be chosen from. Every upstream at which this worker
    /// has something outstanding must still be there, see [`Ledger::held`].
    pub fn set_topology(&mut self, topology: Rc<Topology>) {
        let old = index(self.topology.upstreams.iter().map(|it| it.identity));
        let own = |upstream: &Upstream| {
            let place = old.get(&upstream.identity)?;
            self.outstanding.get(*place).copied()
        };
        let upstreams = topology.upstreams.iter();
        self.outstanding = upstreams.map(|it| own(it).unwrap_or_default()).collect();
        self.decoded
            .resize(topology.members.len(), DecodedMember::default());
        self.topology = topology;
        self.placement.fingerprint = None;
    }

    /// The upstreams at which this worker has something outstanding.
    pub fn held(&self) -> impl Iterator<Item = UpstreamIndex> + '_ {
        let own = self.outstanding.iter().enumerate();
        own.filter(|(_, own)| own.requests() > 0)
            .map(|(index, _)| index)
    }

    /// Whether this worker has taken part in the record yet. Before that it
    /// neither holds a lane nor needs to keep one alive.
    #[must_use]
    pub fn has_lane(&self) -> bool {
        self.placement.lane.is_some()
    }

    /// What this worker has in flight, over all upstreams.
    #[must_use]
    pub fn own_in_flight(&self) -> u64 {
        self.outstanding.iter().map(|own| own.requests()).sum()
    }

    /// One transaction: `change` sees the record and may change estimates and
    /// this worker's counts; then the lane is published and its lease renewed.
    /// `change` may be called several times and must depend on nothing that an
    /// earlier call did.
    ///
    /// # Errors
    /// The transaction did not happen; this worker's counts are as before.
    pub fn update<T>(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        mut change: impl FnMut(&mut View<'_>) -> T,
    ) -> Result<Committed<T>, StateError> {
        let Ledger {
            topology,
            store,
            owner,
            lease,
            outstanding,
            proposed,
            live,
            decoded,
            placement,
        } = self;
        let committed = store.transact(shared, |record| {
            let mut record = placement.place(record, topology, now, *lease);
            let lane = placement.claim_lane(&mut record, *owner, now, *lease);
            placement.lane = Some(lane);
            list_live(live, &record, lane, now, *lease);
            proposed.clone_from(outstanding);
            let mut view = View {
                topology,
                record: &mut record,
                placement,
                live,
                decoded,
                own: proposed,
            };
            let value = change(&mut view);
            record.hold_lane(lane, *owner, now);
            placement.publish(&mut record, lane, proposed);
            (record, value)
        })?;
        std::mem::swap(outstanding, proposed);
        Ok(committed)
    }

    /// Counts one request less at `upstream`, of which `work` was expected,
    /// without a transaction: for when the one that should have done it failed.
    /// The next one publishes it.
    pub fn forget(&mut self, upstream: UpstreamIndex, work: Work) {
        if let Some(own) = self.outstanding.get_mut(upstream) {
            own.remove(work);
        }
    }

    /// What is in flight at each upstream, in the order of
    /// [`Topology::upstreams`], without taking part in the record.
    ///
    /// # Errors
    /// The host failed.
    pub fn observe(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<Vec<u64>, StateError> {
        let record = self.store.peek(shared)?.unwrap_or_else(empty);
        let lanes = live_lanes(&record, now, self.lease);
        let rows = index(record.upstream_identities());
        let in_flight = |upstream: &Upstream| {
            let row = rows.get(&upstream.identity);
            row.map_or(0, |row| sum_of_lanes(&record, &lanes, *row).requests())
        };
        Ok(self.topology.upstreams.iter().map(in_flight).collect())
    }

    /// Gives the lane up, where nothing is in flight: for a worker that ends.
    ///
    /// # Errors
    /// The transaction did not happen; the lane ends with its lease.
    pub fn leave(&mut self, shared: &mut impl SharedData) -> Result<(), StateError> {
        if !self.has_lane() || self.own_in_flight() > 0 {
            return Ok(());
        }
        let owner = self.owner;
        self.store.transact(shared, |record| {
            let mut record = record.unwrap_or_else(empty);
            for lane in 0..record.lanes() {
                if record.lane_owner(lane) == owner {
                    record.hold_lane(lane, 0, Timestamp::ZERO);
                    record.clear_lane(lane);
                }
            }
            (record, ())
        })?;
        self.placement.lane = None;
        Ok(())
    }
}

impl Placement {
    /// Makes sure that the record has all that `topology` names, and learns
    /// where it is.
    fn place(
        &mut self,
        record: Option<Record>,
        topology: &Topology,
        now: Timestamp,
        lease: Duration,
    ) -> Record {
        let mut record = record.unwrap_or_else(empty);
        if self.fingerprint == Some(record.fingerprint()) {
            return record;
        }
        if !self.find(&record, topology) {
            record = extend(&record, topology, now, lease);
            self.find(&record, topology);
        }
        self.fingerprint = Some(record.fingerprint());
        record
    }

    /// Looks up all rows; false where some are missing.
    fn find(&mut self, record: &Record, topology: &Topology) -> bool {
        let pools = topology.pools.iter().map(|pool| pool.identity);
        let members = topology.members.iter().map(|member| member.identity);
        let upstreams = topology.upstreams.iter().map(|upstream| upstream.identity);
        locate(&mut self.pools, record.pool_identities(), pools)
            & locate(&mut self.members, record.member_identities(), members)
            & locate(&mut self.upstreams, record.upstream_identities(), upstreams)
    }

    /// The lane of `owner`: the one it has, or one that nobody living holds,
    /// or a new one.
    #[inline(never)]
    fn claim_lane(
        &self,
        record: &mut Record,
        owner: u64,
        now: Timestamp,
        lease: Duration,
    ) -> usize {
        if let Some(lane) = self.lane.filter(|lane| record.lane_owner(*lane) == owner) {
            return lane;
        }
        let lanes = record.lanes();
        let own = (0..lanes).find(|lane| record.lane_owner(*lane) == owner);
        let lane = own
            .or_else(|| (0..lanes).find(|lane| !record.lane_is_live(*lane, now, lease)))
            .unwrap_or_else(|| record.add_lane());
        record.clear_lane(lane);
        lane
    }

    /// Writes a worker's counts to its lane.
    #[inline(never)]
    fn publish(&self, record: &mut Record, lane: usize, counts: &[Outstanding]) {
        let rows = self.upstreams.iter().copied();
        record.set_lane_outstanding(lane, rows.zip(counts.iter().copied()));
    }
}

/// Lists in `live` the lanes beside `own` whose holders live.
#[inline(never)]
fn list_live(live: &mut Vec<usize>, record: &Record, own: usize, now: Timestamp, lease: Duration) {
    live.clear();
    for lane in 0..record.lanes() {
        if lane != own && record.lane_is_live(lane, now, lease) {
            live.push(lane);
        }
    }
}

/// Looks `wanted` up in `identities`; false where some are missing.
#[inline(never)]
fn locate(
    rows: &mut Vec<usize>,
    identities: impl Iterator<Item = u64>,
    wanted: impl ExactSizeIterator<Item = u64>,
) -> bool {
    let identities = index(identities);
    let count = wanted.len();
    rows.clear();
    rows.extend(wanted.filter_map(|identity| identities.get(&identity)));
    rows.len() == count
}

/// A record with all of `topology`, all that `record` has learned of others
/// and that may still be wanted, and its live lanes.
#[inline(never)]
fn extend(record: &Record, topology: &Topology, now: Timestamp, lease: Duration) -> Record {
    let lanes = live_lanes(record, now, lease);
    let is_fresh = |at: Timestamp| now.since(at) <= RETENTION;
    let mut rows = Rows::default();

    let wanted = index(topology.pools.iter().map(|pool| pool.identity));
    for (row, identity) in record.pool_identities().enumerate() {
        let state = record.pool(row);
        if is_fresh(state.used_at) || wanted.contains_key(&identity) {
            rows.pools.push((identity, state));
        }
    }
    let known = index(rows.pools.iter().map(|(identity, _)| *identity));
    let missing = topology.pools.iter().map(|pool| pool.identity);
    let missing = missing.filter(|identity| !known.contains_key(identity));
    rows.pools
        .extend(missing.map(|identity| (identity, PoolState::new(now))));

    let wanted = index(topology.members.iter().map(|member| member.identity));
    for (row, identity) in record.member_identities().enumerate() {
        let state = record.member(row);
        if is_fresh(state.outcome_at) || wanted.contains_key(&identity) {
            rows.members.push((identity, state));
        }
    }
    let known = index(rows.members.iter().map(|(identity, _)| *identity));
    let missing = topology.members.iter().map(|member| member.identity);
    let missing = missing.filter(|identity| !known.contains_key(identity));
    rows.members
        .extend(missing.map(|identity| (identity, MemberState::new(now))));

    let wanted = index(topology.upstreams.iter().map(|upstream| upstream.identity));
    let mut kept = Vec::new();
    for (row, identity) in record.upstream_identities().enumerate() {
        let named_at = record.upstream_named_at(row);
        let is_wanted = wanted.contains_key(&identity);
        if is_wanted || is_fresh(named_at) || !sum_of_lanes(record, &lanes, row).is_nothing() {
            rows.upstreams
                .push((identity, if is_wanted { now } else { named_at }));
            kept.push(row);
        }
    }
    let known = index(rows.upstreams.iter().map(|(identity, _)| *identity));
    let missing = topology.upstreams.iter().map(|upstream| upstream.identity);
    let missing = missing.filter(|identity| !known.contains_key(identity));
    rows.upstreams
        .extend(missing.map(|identity| (identity, now)));

    let mut extended = Record::new(&rows);
    for lane in lanes {
        let copy = extended.add_lane();
        extended.hold_lane(copy, record.lane_owner(lane), record.lane_heartbeat(lane));
        let counts = kept.iter().map(|row| record.lane_outstanding(lane, *row));
        extended.set_lane_outstanding(copy, counts.enumerate());
    }
    extended
}

/// The record before anything is known.
#[inline(never)]
fn empty() -> Record {
    Record::new(&Rows::default())
}

// Not inlined, like all here that is rare or in every kind of transaction: it would
// stand in the file several times.
#[inline(never)]
fn index(identities: impl Iterator<Item = u64>) -> hashbrown::HashMap<u64, usize> {
    identities.enumerate().map(|(row, id)| (id, row)).collect()
}

fn live_lanes(record: &Record, now: Timestamp, lease: Duration) -> Vec<usize> {
    let lanes = 0..record.lanes();
    lanes
        .filter(|lane| record.lane_is_live(*lane, now, lease))
        .collect()
}

fn sum_of_lanes(record: &Record, lanes: &[usize], row: usize) -> Outstanding {
    let counts = lanes.iter().map(|lane| record.lane_outstanding(*lane, row));
    counts.fold(Outstanding::default(), Outstanding::plus)
}

/// The record as a transaction sees it, in the configuration's own numbering.
#[derive(Debug)]
pub struct View<'a> {
    topology: &'a Topology,
    record: &'a mut Record,
    placement: &'a Placement,
    live: &'a [usize],
    decoded: &'a mut [DecodedMember],
    own: &'a mut Vec<Outstanding>,
}

impl View<'_> {
    /// The state of a pool, by its number in the configuration.
    #[must_use]
    pub fn pool(&self, pool: usize) -> PoolState {
        self.placement
            .pools
            .get(pool)
            .map_or_else(PoolState::default, |row| self.record.pool(*row))
    }

    /// Replaces the state of a pool.
    pub fn set_pool(&mut self, pool: usize, state: &PoolState) {
        if let Some(row) = self.placement.pools.get(pool) {
            self.record.set_pool(*row, state);
        }
    }

    /// The state of a member.
    #[must_use]
    pub fn member(&mut self, member: MemberIndex) -> MemberState {
        let row = self.placement.members.get(member);
        let bytes = row.and_then(|row| self.record.member_bytes(*row));
        match (bytes, self.decoded.get_mut(member)) {
            (Some(bytes), Some(decoded)) => decoded.of(bytes),
            (Some(bytes), None) => MemberState::decode(bytes),
            (None, _) => MemberState::default(),
        }
    }

    /// Replaces the state of a member.
    pub fn set_member(&mut self, member: MemberIndex, state: &MemberState) {
        if let Some(row) = self.placement.members.get(member) {
            self.record.set_member(*row, state);
        }
    }

    /// What all living workers have outstanding at `upstream`, through
    /// whichever pool it came.
    #[must_use]
    pub fn outstanding(&self, upstream: UpstreamIndex) -> Outstanding {
        let own = self.own.get(upstream).copied().unwrap_or_default();
        match self.placement.upstreams.get(upstream) {
            Some(row) => own.plus(sum_of_lanes(self.record, self.live, *row)),
            None => own,
        }
    }

    /// Requests in flight at `upstream`, of [`View::outstanding`].
    #[must_use]
    pub fn in_flight(&self, upstream: UpstreamIndex) -> u64 {
        self.outstanding(upstream).requests()
    }

    /// What is in flight at each upstream, in the order of
    /// [`Topology::upstreams`].
    #[must_use]
    pub fn in_flight_by_upstream(&self) -> Vec<u64> {
        let upstreams = 0..self.topology.upstreams.len();
        upstreams.map(|upstream| self.in_flight(upstream)).collect()
    }

    /// Counts one request more from this worker at `upstream`, of which `work`
    /// is expected.
    pub fn reserve(&mut self, upstream: UpstreamIndex, work: Work) {
        if let Some(own) = self.own.get_mut(upstream) {
            own.add(work);
        }
    }

    /// Counts one request less from this worker at `upstream`; `work` is what
    /// was reserved for it.
    pub fn release(&mut self, upstream: UpstreamIndex, work: Work) {
        if let Some(own) = self.own.get_mut(upstream) {
            own.remove(work);
        }
    }
}

#[cfg(test)]
mod tests;
