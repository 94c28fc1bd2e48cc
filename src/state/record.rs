//! The bytes of the shared record.
//!
//! ```text
//! header     magic, schema version, how many of each follow, fingerprint
//! pools      identity u64, PoolState
//! members    identity u64, MemberState
//! upstreams  identity u64, when it was last named u64
//! lanes      owner u64, heartbeat u64, then for each upstream the requests in
//!            flight u32 and their expected work u32, see [`Outstanding`]
//! ```
//!
//! All numbers are little-endian. A record is edited in place: a transaction
//! copies the blob out of shared data once and back once, whatever it changes.
//! Blobs are checked when they are read: one whose length does not follow from
//! its own header is refused as a whole, and numbers inside the rows are
//! checked where they are decoded ([`super::rows`]).

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::SCHEMA_VERSION;
use super::outstanding::Outstanding;
use super::rows::{MemberState, PoolState};
use crate::random::mix;
use crate::time::Timestamp;

const MAGIC: u32 = u32::from_le_bytes(*b"PACE");
const POOLS_AT: usize = 8;
const MEMBERS_AT: usize = 12;
const UPSTREAMS_AT: usize = 16;
const LANES_AT: usize = 20;
const FINGERPRINT_AT: usize = 24;
const HEADER: usize = 32;
const IDENTITY: usize = 8;
const POOL: usize = IDENTITY + PoolState::SIZE;
const MEMBER: usize = IDENTITY + MemberState::SIZE;
const UPSTREAM: usize = IDENTITY + 8;
const LANE_HEADER: usize = 16;
const COUNT: usize = Outstanding::SIZE;

/// The blob is not a record of this schema version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A validated record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    pools: usize,
    members: usize,
    upstreams: usize,
    lanes: usize,
}

/// What the rows of a record are to hold.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Identity and state of each pool.
    pub pools: Vec<(u64, PoolState)>,
    /// Identity and state of each member.
    pub members: Vec<(u64, MemberState)>,
    /// Identity of each upstream, and when a configuration last named it.
    pub upstreams: Vec<(u64, Timestamp)>,
}

impl Record {
    /// A record with the given rows and no lanes.
    #[must_use]
    pub fn new(rows: &Rows) -> Self {
        let mut record = Record {
            bytes: Vec::new(),
            pools: rows.pools.len(),
            members: rows.members.len(),
            upstreams: rows.upstreams.len(),
            lanes: 0,
        };
        record.bytes.resize(record.lane_offset(0), 0);
        record.write(0, MAGIC.to_le_bytes());
        record.write(4, u32::from(SCHEMA_VERSION).to_le_bytes());
        record.write(POOLS_AT, (record.pools as u32).to_le_bytes());
        record.write(MEMBERS_AT, (record.members as u32).to_le_bytes());
        record.write(UPSTREAMS_AT, (record.upstreams as u32).to_le_bytes());
        record.write(FINGERPRINT_AT, fingerprint(rows).to_le_bytes());
        for (row, (identity, state)) in rows.pools.iter().enumerate() {
            record.write(record.pool_offset(row), identity.to_le_bytes());
            record.set_pool(row, state);
        }
        for (row, (identity, state)) in rows.members.iter().enumerate() {
            record.write(record.member_offset(row), identity.to_le_bytes());
            record.set_member(row, state);
        }
        for (row, (identity, named_at)) in rows.upstreams.iter().enumerate() {
            let offset = record.upstream_offset(row);
            record.write(offset, identity.to_le_bytes());
            record.write(offset + IDENTITY, named_at.as_nanos().to_le_bytes());
        }
        record
    }

    /// Takes a blob out of shared data.
    ///
    /// # Errors
    /// The blob is not a record of this version, or its length is not the one
    /// that its header implies.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let number = |offset| {
            read(&bytes, offset)
                .map(u32::from_le_bytes)
                .ok_or(Malformed)
        };
        if number(0)? != MAGIC || number(4)? != u32::from(SCHEMA_VERSION) {
            return Err(Malformed);
        }
        let (pools, members) = (number(POOLS_AT)?, number(MEMBERS_AT)?);
        let (upstreams, lanes) = (number(UPSTREAMS_AT)?, number(LANES_AT)?);
        // In u128 no four u32 can overflow the sum of their products.
        let expected = HEADER as u128
            + u128::from(pools) * POOL as u128
            + u128::from(members) * MEMBER as u128
            + u128::from(upstreams) * UPSTREAM as u128
            + u128::from(lanes) * (LANE_HEADER as u128 + u128::from(upstreams) * COUNT as u128);
        if expected != bytes.len() as u128 {
            return Err(Malformed);
        }
        Ok(Record {
            bytes,
            pools: pools as usize,
            members: members as usize,
            upstreams: upstreams as usize,
            lanes: lanes as usize,
        })
    }

    /// The blob, to be written to shared data.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number that two records share exactly where they hold the same pools,
    /// members and upstreams in the same order.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        read(&self.bytes, FINGERPRINT_AT).map_or(0, u64::from_le_bytes)
    }

    /// The pools' identities, in the order of their rows.
    pub fn pool_identities(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.pools).map(|row| self.word(self.pool_offset(row)))
    }

    /// The members' identities, in the order of their rows.
    pub fn member_identities(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.members).map(|row| self.word(self.member_offset(row)))
    }

    /// The upstreams' identities, in the order of their rows.
    pub fn upstream_identities(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.upstreams).map(|row| self.word(self.upstream_offset(row)))
    }

    /// When a configuration last named the upstream in row `row`.
    #[must_use]
    pub fn upstream_named_at(&self, row: usize) -> Timestamp {
        if row >= self.upstreams {
            return Timestamp::ZERO;
        }
        Timestamp::from_nanos(self.word(self.upstream_offset(row) + IDENTITY))
    }

    #[inline]
    fn word(&self, offset: usize) -> u64 {
        read(&self.bytes, offset).map_or(0, u64::from_le_bytes)
    }

    /// The state of the pool in row `row`; the default where there is no such
    /// row.
    #[must_use]
    pub fn pool(&self, row: usize) -> PoolState {
        if row >= self.pools {
            return PoolState::default();
        }
        let bytes = self.bytes.get(self.pool_offset(row) + IDENTITY..);
        bytes
            .and_then(|bytes| bytes.first_chunk())
            .map_or_else(PoolState::default, PoolState::decode)
    }

    /// Replaces the state of the pool in row `row`, if there is such a row.
    pub fn set_pool(&mut self, row: usize, state: &PoolState) {
        let offset = self.pool_offset(row) + IDENTITY;
        if row < self.pools
            && let Some(place) = self.place(offset)
        {
            state.write(place);
        }
    }

    /// The state of the member in row `row`; the default where there is no
    /// such row.
    #[must_use]
    pub fn member(&self, row: usize) -> MemberState {
        self.member_bytes(row)
            .map_or_else(MemberState::default, MemberState::decode)
    }

    /// The encoded state of the member in row `row`, if there is such a row.
    #[inline]
    #[must_use]
    pub fn member_bytes(&self, row: usize) -> Option<&[u8; MemberState::SIZE]> {
        if row >= self.members {
            return None;
        }
        let state = self.bytes.get(self.member_offset(row) + IDENTITY..)?;
        state.first_chunk()
    }

    /// Replaces the state of the member in row `row`, if there is such a row.
    pub fn set_member(&mut self, row: usize, state: &MemberState) {
        let offset = self.member_offset(row) + IDENTITY;
        if row < self.members
            && let Some(place) = self.place(offset)
        {
            state.write(place);
        }
    }

    /// How many lanes the record has, live or not.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Who holds lane `lane`; 0 is nobody.
    #[must_use]
    pub fn lane_owner(&self, lane: usize) -> u64 {
        self.lane_word(lane, 0)
    }

    /// When the holder of lane `lane` last showed that it lives.
    #[must_use]
    pub fn lane_heartbeat(&self, lane: usize) -> Timestamp {
        Timestamp::from_nanos(self.lane_word(lane, 8))
    }

    /// Whether what lane `lane` has in flight counts at `now`: it is held, and
    /// its holder was heard of within `lease`. A heartbeat from further in the
    /// future than that is not a clock that was read a moment later: it is
    /// garbage, and a lane that it kept alive would live for ever.
    #[must_use]
    pub fn lane_is_live(&self, lane: usize, now: Timestamp, lease: Duration) -> bool {
        let heartbeat = self.lane_heartbeat(lane);
        self.lane_owner(lane) != 0 && now.since(heartbeat) <= lease && heartbeat.since(now) <= lease
    }

    fn lane_word(&self, lane: usize, offset: usize) -> u64 {
        if lane >= self.lanes {
            return 0;
        }
        self.word(self.lane_offset(lane) + offset)
    }

    /// What lane `lane` has outstanding at the upstream in row `row`.
    #[inline]
    #[must_use]
    pub fn lane_outstanding(&self, lane: usize, row: usize) -> Outstanding {
        let counts = self.bytes.get(self.lane_counts_range(lane));
        let (counts, _) = counts.unwrap_or_default().as_chunks::<COUNT>();
        counts
            .get(row)
            .map_or_else(Outstanding::default, Outstanding::decode)
    }

    #[inline]
    fn lane_counts_range(&self, lane: usize) -> std::ops::Range<usize> {
        let start = self.lane_offset(lane) + LANE_HEADER;
        start..start + self.upstreams * COUNT
    }

    /// Gives lane `lane` to `owner`, heard of at `heartbeat`.
    pub fn hold_lane(&mut self, lane: usize, owner: u64, heartbeat: Timestamp) {
        if lane < self.lanes {
            let offset = self.lane_offset(lane);
            self.write(offset, owner.to_le_bytes());
            self.write(offset + 8, heartbeat.as_nanos().to_le_bytes());
        }
    }

    /// Sets everything that lane `lane` has outstanding to nothing.
    pub fn clear_lane(&mut self, lane: usize) {
        let nothing = (0..self.upstreams).map(|row| (row, Outstanding::default()));
        self.set_lane_outstanding(lane, nothing);
    }

    /// Sets what lane `lane` has outstanding at the upstreams in the given rows.
    #[inline]
    pub fn set_lane_outstanding(
        &mut self,
        lane: usize,
        outstanding: impl IntoIterator<Item = (usize, Outstanding)>,
    ) {
        let range = self.lane_counts_range(lane);
        let counts = self.bytes.get_mut(range).unwrap_or_default();
        let (counts, _) = counts.as_chunks_mut::<COUNT>();
        for (row, outstanding) in outstanding {
            if let Some(count) = counts.get_mut(row) {
                *count = outstanding.encode();
            }
        }
    }

    /// Adds a lane that nobody holds and returns its number.
    pub fn add_lane(&mut self) -> usize {
        let lane = self.lanes;
        self.lanes += 1;
        self.bytes.resize(self.lane_offset(self.lanes), 0);
        self.write(LANES_AT, (self.lanes as u32).to_le_bytes());
        lane
    }

    fn pool_offset(&self, row: usize) -> usize {
        HEADER + row * POOL
    }

    fn member_offset(&self, row: usize) -> usize {
        self.pool_offset(self.pools) + row * MEMBER
    }

    fn upstream_offset(&self, row: usize) -> usize {
        self.member_offset(self.members) + row * UPSTREAM
    }

    fn lane_offset(&self, lane: usize) -> usize {
        self.upstream_offset(self.upstreams) + lane * (LANE_HEADER + self.upstreams * COUNT)
    }

    #[inline]
    fn write<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        if let Some(place) = self.place(offset) {
            *place = value;
        }
    }

    #[inline]
    fn place<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.bytes.get_mut(offset..)?.first_chunk_mut()
    }
}

#[inline]
fn read<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn fingerprint(rows: &Rows) -> u64 {
    let fold = |state, identity| mix(state ^ identity).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let pools = rows.pools.iter().map(|(identity, _)| *identity);
    let members = rows.members.iter().map(|(identity, _)| *identity);
    let upstreams = rows.upstreams.iter().map(|(identity, _)| *identity);
    // Mixed once more between the tables, so that a row cannot change its kind.
    let state = mix(pools.fold(1, fold));
    let state = mix(members.fold(state, fold));
    upstreams.fold(state, fold)
}
