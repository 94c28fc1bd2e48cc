//! One worker's view of what all workers have learned.
//!
//! A pick reads the estimates from memory, as they were a few milliseconds ago.
//! From time to time a worker merges what it has learned into the shared record,
//! many samples at once, so requests do not compete for the record. If another
//! worker was first, the samples wait for the next merge.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::cell::{self, Change, Committed, StateError};
use super::layout::Field;
use super::learned::{Learned, fields_for};
use super::rows::{DecodedMember, MemberState, PoolState};
use crate::host::{SharedData, Version};
use crate::map::Map;
use crate::outlier::Moment;
use crate::pool::{MemberIndex, PoolIndex, Topology};
use crate::time::Timestamp;

/// What is known of the members and pools of a topology.
#[derive(Debug)]
pub struct Estimates {
    topology: Rc<Topology>,
    /// What the record is to have of each member.
    needed: &'static [Field],
    key: String,
    /// How old what was read may be.
    stale_after: Duration,
    record: Learned,
    version: Option<Version>,
    read_at: Option<Timestamp>,
    /// When this worker first looked at this topology: what nothing is known of was
    /// first heard of then.
    seen_at: Option<Timestamp>,
    placement: Placement,
    members: Vec<DecodedMember>,
    pools: Vec<PoolState>,
    /// What was changed since the record was read.
    touched: Touched,
    /// Grows whenever something else may be known.
    revision: u64,
}

/// Where the pools and members of the topology are in the record.
#[derive(Debug, Default)]
struct Placement {
    /// Of the record that this placement is for.
    fingerprint: Option<u64>,
    pools: Vec<Option<usize>>,
    members: Vec<Option<usize>>,
}

#[derive(Debug, Default)]
struct Touched {
    pools: Vec<PoolIndex>,
    members: Vec<MemberIndex>,
}

impl Estimates {
    /// Nothing known. The record is at `key`; it is read again when what is
    /// known is older than `stale_after`.
    #[must_use]
    pub fn new(topology: Rc<Topology>, key: &str, stale_after: Duration) -> Self {
        let mut estimates = Estimates {
            topology: Rc::clone(&topology),
            needed: fields_for(&topology),
            key: format!("{key}/learned"),
            stale_after,
            record: Learned::default(),
            version: None,
            read_at: None,
            seen_at: None,
            placement: Placement::default(),
            members: Vec::new(),
            pools: Vec::new(),
            touched: Touched::default(),
            revision: 0,
        };
        estimates.set_topology(topology);
        estimates
    }

    /// Follows a change of what can be chosen from.
    pub fn set_topology(&mut self, topology: Rc<Topology>) {
        self.needed = fields_for(&topology);
        self.topology = topology;
        self.placement.fingerprint = None;
        self.read_at = None;
        self.seen_at = None;
        // Read again, and shown as what it is to this topology.
        self.version = None;
        self.find();
        self.show();
    }

    /// The states of the members with these numbers.
    #[must_use]
    pub fn members(&self, members: Range<usize>) -> &[DecodedMember] {
        self.members.get(members).unwrap_or_default()
    }

    /// Differs from an earlier one where something else may be known since.
    #[inline]
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The state of a member.
    #[must_use]
    pub fn member(&self, member: MemberIndex) -> Option<&MemberState> {
        self.members.get(member.0).map(DecodedMember::state)
    }

    /// The state of a pool, by its number in the configuration.
    #[inline]
    #[must_use]
    pub fn pool(&self, pool: PoolIndex) -> Option<&PoolState> {
        self.pools.get(pool.0)
    }

    /// Reads the record, unless it was read a moment ago. One that is damaged
    /// is taken for an empty one; the next merge replaces it.
    ///
    /// # Errors
    /// The host failed.
    pub fn read(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        let is_recent = |at| now.since(at) < self.stale_after;
        if self.read_at.is_some_and(is_recent) {
            return Ok(());
        }
        let seen_at = *self.seen_at.get_or_insert(now);
        let found = shared.get(&self.key)?;
        self.read_at = Some(now);
        let version = found.as_ref().map(|found| found.version);
        if version.is_none() || version != self.version {
            self.version = version;
            let record = found.and_then(|found| Learned::parse(found.value));
            self.take_over(record.unwrap_or_default(), seen_at);
        }
        Ok(())
    }

    /// Reads the record, lets `learn` change what is known, and writes it back,
    /// once.
    ///
    /// # Errors
    /// Another worker wrote in between or the host failed: nothing was learned,
    /// so the same is to be tried again later. Or the record was malformed: it
    /// was replaced by what was learned now.
    pub fn merge(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
        learn: impl FnOnce(&mut Estimates),
    ) -> Result<(), StateError> {
        let key = self.key.clone();
        let mut learn = Some(learn);
        let merged = cell::change(shared, &key, 1, |_, found| {
            let record = found.bytes.map(|bytes| Learned::parse(bytes.to_vec()));
            let is_malformed = matches!(record, Some(None));
            self.take_over(record.flatten().unwrap_or_default(), now);
            if !self.placement.is_complete() || !self.record.has(self.needed) {
                let seen_at = *self.seen_at.get_or_insert(now);
                let extended = self.record.extended(&self.topology, seen_at);
                self.take_over(extended, seen_at);
            }
            if let Some(learn) = learn.take() {
                learn(self);
            }
            self.say_who_is_present(now);
            self.write_touched();
            Ok(Change::Write(self.record.as_bytes().to_vec(), is_malformed))
        });
        // The host does not say what the version is now.
        self.version = None;
        match merged {
            Ok(Committed { value, .. }) => {
                self.read_at = Some(now);
                if value {
                    return Err(StateError::Malformed);
                }
                Ok(())
            }
            Err(error) => {
                // What was learned is not so, and somebody knows better.
                self.read_at = None;
                Err(error)
            }
        }
    }

    /// Changes what is known of a member, inside [`Estimates::merge`].
    pub fn change_member(
        &mut self,
        member: MemberIndex,
        change: impl FnOnce(&mut MemberState, &mut PoolState),
    ) {
        let Some(pool) = self.topology.member(member).map(|it| it.pool) else {
            return;
        };
        self.revision = self.revision.wrapping_add(1);
        let (Some(row), Some(pool_state)) =
            (self.members.get_mut(member.0), self.pools.get_mut(pool.0))
        else {
            return;
        };
        let mut state = *row.state();
        change(&mut state, pool_state);
        *row = DecodedMember::new(state);
        if !self.touched.members.contains(&member) {
            self.touched.members.push(member);
        }
        if !self.touched.pools.contains(&pool) {
            self.touched.pools.push(pool);
        }
    }

    /// Whether a pool was used by workers that cannot pick all of its members here, and
    /// the others are to be told that this worker can.
    #[must_use]
    pub fn is_overlooked(&self) -> bool {
        let members = self.members.iter().zip(&self.topology.members);
        let mut pools = members.map(|(member, it)| (member, self.pools.get(it.pool.0)));
        pools.any(|(member, pool)| {
            let member = member.state();
            member.present_at > Moment::BEGINNING
                && pool.is_some_and(|pool| member.is_overlooked(pool.used_at))
        })
    }

    /// Notes which members can be picked, so that one that was away is known by that.
    fn say_who_is_present(&mut self, now: Timestamp) {
        for (number, row) in self.members.iter_mut().enumerate() {
            let mut state = *row.state();
            if !state.is_overlooked(now) {
                continue;
            }
            state.present_at = Moment::of(now);
            *row = DecodedMember::new(state);
            self.touched.members.push(MemberIndex(number));
        }
    }

    fn write_touched(&mut self) {
        for member in self.touched.members.drain(..) {
            let row = self.placement.members.get(member.0).copied().flatten();
            if let (Some(row), Some(decoded)) = (row, self.members.get(member.0)) {
                self.record.set_member(row, decoded.bytes());
            }
        }
        for pool in self.touched.pools.drain(..) {
            let row = self.placement.pools.get(pool.0).copied().flatten();
            if let (Some(row), Some(state)) = (row, self.pools.get(pool.0)) {
                self.record.set_pool(row, &state.encode());
            }
        }
    }

    fn take_over(&mut self, record: Learned, seen_at: Timestamp) {
        self.seen_at.get_or_insert(seen_at);
        self.record = record;
        self.find();
        self.show();
    }

    /// Finds the rows of the topology in the record.
    fn find(&mut self) {
        let fingerprint = self.record.fingerprint();
        if self.placement.fingerprint == Some(fingerprint) {
            return;
        }
        let pools = self.topology.pools.iter().map(|pool| pool.identity);
        let members = self.topology.members.iter().map(|it| it.identity);
        self.placement = Placement {
            fingerprint: Some(fingerprint),
            pools: locate(self.record.pool_identities(), pools),
            members: locate(self.record.member_identities(), members),
        };
    }

    /// Makes what is known what the record says.
    fn show(&mut self) {
        self.revision = self.revision.wrapping_add(1);
        let seen_at = self.seen_at.unwrap_or(Timestamp::ZERO);
        let new = DecodedMember::new(MemberState::new(seen_at));
        let joined = DecodedMember::new(MemberState::joined(seen_at));
        self.members.resize(self.topology.members.len(), new);
        self.pools
            .resize(self.topology.pools.len(), PoolState::new(seen_at));
        for (index, state) in self.pools.iter_mut().enumerate() {
            *state = match self.placement.pools.get(index).copied().flatten() {
                Some(row) => PoolState::decode(&self.record.pool(row)),
                None => PoolState::new(seen_at),
            };
        }
        for (index, decoded) in self.members.iter_mut().enumerate() {
            let pool = self.topology.members.get(index).map(|it| it.pool);
            let pool = pool.and_then(|pool| self.pools.get(pool.0));
            if let Some(row) = self.placement.members.get(index).copied().flatten() {
                decoded.follow(self.record.member(row));
                if pool.is_some_and(|pool| decoded.state().was_away(pool.used_at)) {
                    let mut state = *decoded.state();
                    state.restart(seen_at);
                    *decoded = DecodedMember::new(state);
                }
                continue;
            }
            *decoded = match pool.is_some_and(|pool| pool.is_settled(seen_at)) {
                true => joined,
                false => new,
            };
        }
    }
}

impl Placement {
    /// Whether all pools and members of the topology are in the record.
    fn is_complete(&self) -> bool {
        let is_placed = |rows: &[Option<usize>]| rows.iter().all(Option::is_some);
        is_placed(&self.pools) && is_placed(&self.members)
    }
}

/// In which rows of `identities` what is wanted is.
#[inline(never)]
fn locate(
    identities: impl Iterator<Item = u64>,
    wanted: impl Iterator<Item = u64>,
) -> Vec<Option<usize>> {
    let rows: Map<u64, usize> = identities.zip(0..).collect();
    wanted
        .map(|identity| rows.get(&identity).copied())
        .collect()
}

#[cfg(test)]
mod tests;
