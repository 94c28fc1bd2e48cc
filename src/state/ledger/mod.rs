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

use super::record::Record;
use super::rows::{MemberState, PoolState};
use super::transaction::{self, Committed, StateError, transact};
use crate::host::SharedData;
use crate::pool::{MemberIndex, Topology};
use crate::time::Timestamp;

/// How long the record keeps what was learned of a member that no live
/// configuration of this worker names.
const RETENTION: Duration = Duration::from_secs(3_600);

/// One worker's book of what it has in flight, and its way to the record.
#[derive(Debug)]
pub struct Ledger {
    topology: Rc<Topology>,
    key: String,
    owner: u64,
    lease: Duration,
    /// In flight from this worker, by member. The truth; the lane is a copy.
    in_flight: Vec<u32>,
    /// The counts as a transaction would leave them; kept for its allocation.
    proposed: Vec<u32>,
    /// Lanes of other workers that count; kept for its allocation.
    live: Vec<usize>,
    placement: Placement,
}

/// Where the configuration's pools and members stand in a record.
#[derive(Debug, Default)]
struct Placement {
    /// Of the record that this placement is for.
    fingerprint: Option<u64>,
    pools: Vec<usize>,
    members: Vec<usize>,
    /// This worker's lane, if it was seen there.
    lane: Option<usize>,
}

impl Ledger {
    /// An empty book. `owner` tells this worker apart from all others; it is
    /// drawn at random and not zero.
    #[must_use]
    pub fn new(topology: Rc<Topology>, key: String, owner: u64, lease: Duration) -> Self {
        let members = topology.members.len();
        Ledger {
            topology,
            key,
            owner: owner.max(1),
            lease,
            in_flight: vec![0; members],
            proposed: vec![0; members],
            live: Vec::new(),
            placement: Placement::default(),
        }
    }

    /// What can be chosen from.
    #[must_use]
    pub fn topology(&self) -> &Rc<Topology> {
        &self.topology
    }

    /// Whether this worker has taken part in the record yet. Before that it
    /// neither holds a lane nor needs to keep one alive.
    #[must_use]
    pub fn has_lane(&self) -> bool {
        self.placement.lane.is_some()
    }

    /// What this worker has in flight, over all members.
    #[must_use]
    pub fn own_in_flight(&self) -> u64 {
        self.in_flight.iter().map(|count| u64::from(*count)).sum()
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
            key,
            owner,
            lease,
            in_flight,
            proposed,
            live,
            placement,
        } = self;
        let committed = transact(shared, key, |record| {
            let mut record = placement.place(record, topology, now, *lease);
            let lane = placement.claim_lane(&mut record, *owner, now, *lease);
            placement.lane = Some(lane);
            live.clear();
            live.extend(
                (0..record.lanes()).filter(|l| *l != lane && record.lane_is_live(*l, now, *lease)),
            );
            proposed.clone_from(in_flight);
            let mut view = View {
                topology,
                record: &mut record,
                placement,
                live,
                own: proposed,
            };
            let value = change(&mut view);
            record.hold_lane(lane, *owner, now);
            let rows = placement.members.iter().copied();
            record.set_lane_in_flight(lane, rows.zip(proposed.iter().copied()));
            (record, value)
        })?;
        std::mem::swap(in_flight, proposed);
        Ok(committed)
    }

    /// Counts one request less at `member` without a transaction: for when the
    /// transaction that should have done it failed. The next one publishes it.
    pub fn forget(&mut self, member: MemberIndex) {
        if let Some(count) = self.in_flight.get_mut(member) {
            *count = count.saturating_sub(1);
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
        let Some(record) = transaction::peek(shared, &self.key)? else {
            return Ok(vec![0; self.topology.upstreams.len()]);
        };
        let live: Vec<usize> = (0..record.lanes())
            .filter(|lane| record.lane_is_live(*lane, now, self.lease))
            .collect();
        let rows: hashbrown::HashMap<u64, usize> = index(record.member_identities());
        let at_member = |member: &MemberIndex| -> u64 {
            let row = self
                .topology
                .members
                .get(*member)
                .and_then(|member| rows.get(&member.identity));
            row.map_or(0, |row| {
                let counts = live.iter().map(|lane| record.lane_in_flight(*lane, *row));
                counts.map(u64::from).sum()
            })
        };
        Ok(self
            .topology
            .upstreams
            .iter()
            .map(|upstream| upstream.members.iter().map(at_member).sum())
            .collect())
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
        transact(shared, &self.key, |record| {
            let mut record = record.unwrap_or_else(|| Record::new(&[], &[]));
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
    /// Makes sure that the record has all pools and members of `topology`, and
    /// learns where they are.
    fn place(
        &mut self,
        record: Option<Record>,
        topology: &Topology,
        now: Timestamp,
        lease: Duration,
    ) -> Record {
        let mut record = record.unwrap_or_else(|| Record::new(&[], &[]));
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
        let pools = index(record.pool_identities());
        let members = index(record.member_identities());
        self.pools.clear();
        self.pools
            .extend(topology.pools.iter().filter_map(|p| pools.get(&p.identity)));
        self.members.clear();
        self.members.extend(
            topology
                .members
                .iter()
                .filter_map(|m| members.get(&m.identity)),
        );
        self.pools.len() == topology.pools.len() && self.members.len() == topology.members.len()
    }

    /// The lane of `owner`: the one it has, or one that nobody living holds,
    /// or a new one.
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
}

/// A record with all of `topology`, all that `record` has learned of others
/// and that may still be wanted, and its live lanes.
fn extend(record: &Record, topology: &Topology, now: Timestamp, lease: Duration) -> Record {
    let live: Vec<usize> = (0..record.lanes())
        .filter(|lane| record.lane_is_live(*lane, now, lease))
        .collect();
    let is_fresh = |at: Timestamp| now.since(at) <= RETENTION;

    let mut pools: Vec<(u64, PoolState)> = Vec::new();
    for (row, identity) in record.pool_identities().enumerate() {
        let state = record.pool(row);
        if is_fresh(state.used_at) || topology.pools.iter().any(|p| p.identity == identity) {
            pools.push((identity, state));
        }
    }
    let known = index(pools.iter().map(|(identity, _)| *identity));
    let missing = topology.pools.iter().map(|pool| pool.identity);
    let missing = missing.filter(|identity| !known.contains_key(identity));
    pools.extend(missing.map(|identity| (identity, PoolState::new(now))));

    let wanted = index(topology.members.iter().map(|member| member.identity));
    let (mut members, mut from) = (Vec::new(), Vec::new());
    for (row, identity) in record.member_identities().enumerate() {
        let state = record.member(row);
        let busy = live
            .iter()
            .any(|lane| record.lane_in_flight(*lane, row) > 0);
        if busy || is_fresh(state.outcome_at) || wanted.contains_key(&identity) {
            members.push((identity, state));
            from.push(row);
        }
    }
    let known = index(members.iter().map(|(identity, _)| *identity));
    let missing = topology.members.iter().map(|member| member.identity);
    let missing = missing.filter(|identity| !known.contains_key(identity));
    members.extend(missing.map(|identity| (identity, MemberState::new(now))));

    let mut extended = Record::new(&pools, &members);
    for lane in live {
        let copy = extended.add_lane();
        extended.hold_lane(copy, record.lane_owner(lane), record.lane_heartbeat(lane));
        let counts = from.iter().map(|row| record.lane_in_flight(lane, *row));
        extended.set_lane_in_flight(copy, counts.enumerate());
    }
    extended
}

fn index(identities: impl Iterator<Item = u64>) -> hashbrown::HashMap<u64, usize> {
    identities.enumerate().map(|(row, id)| (id, row)).collect()
}

/// The record as a transaction sees it, in the configuration's own numbering.
#[derive(Debug)]
pub struct View<'a> {
    topology: &'a Topology,
    record: &'a mut Record,
    placement: &'a Placement,
    live: &'a [usize],
    own: &'a mut Vec<u32>,
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
    pub fn member(&self, member: MemberIndex) -> MemberState {
        self.placement
            .members
            .get(member)
            .map_or_else(MemberState::default, |row| self.record.member(*row))
    }

    /// Replaces the state of a member.
    pub fn set_member(&mut self, member: MemberIndex, state: &MemberState) {
        if let Some(row) = self.placement.members.get(member) {
            self.record.set_member(*row, state);
        }
    }

    /// What all living workers have in flight at the upstream of `member`,
    /// through whichever pool it came.
    #[must_use]
    pub fn in_flight(&self, member: MemberIndex) -> u64 {
        match self.topology.siblings(member) {
            [] | [_] => self.in_flight_through(member),
            siblings => siblings.iter().map(|m| self.in_flight_through(*m)).sum(),
        }
    }

    fn in_flight_through(&self, member: MemberIndex) -> u64 {
        let own = self.own.get(member).copied().unwrap_or(0);
        let others = self.placement.members.get(member).map_or(0, |row| {
            let counts = self
                .live
                .iter()
                .map(|lane| self.record.lane_in_flight(*lane, *row));
            counts.map(u64::from).sum()
        });
        u64::from(own) + others
    }

    /// What is in flight at each upstream, in the order of
    /// [`Topology::upstreams`].
    #[must_use]
    pub fn in_flight_by_upstream(&self) -> Vec<u64> {
        self.topology
            .upstreams
            .iter()
            .map(|upstream| {
                upstream
                    .members
                    .iter()
                    .map(|m| self.in_flight_through(*m))
                    .sum()
            })
            .collect()
    }

    /// Counts one request more from this worker at `member`.
    pub fn reserve(&mut self, member: MemberIndex) {
        if let Some(count) = self.own.get_mut(member) {
            *count = count.saturating_add(1);
        }
    }

    /// Counts one request less from this worker at `member`.
    pub fn release(&mut self, member: MemberIndex) {
        if let Some(count) = self.own.get_mut(member) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
