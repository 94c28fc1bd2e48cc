//! The bytes of what all workers have learned together.
//!
//! ```text
//! header   magic u32, bytes of the header u16, 0 u16, fingerprint u64
//! pools    a table, see [`super::layout`]: identity u64, PoolState
//! members  a table: identity u64, MemberState
//! ```
//!
//! All numbers are little-endian. The record is edited in place: a merge copies
//! it out of shared data once and back once, whatever it changes. A reader rejects
//! a record as a whole if its length does not match its own description; the
//! numbers inside the rows are checked where they are decoded ([`super::rows`]).

use std::time::Duration;

use super::codec::{put, take, take_u16, take_u64, u64_at};
use super::lane::fingerprint;
use super::layout::{Field, IDENTITY, Table, converter};
use super::rows::{MemberState, PoolState};
use crate::map::Map;
use crate::pool::{Pool, Topology};
use crate::time::Timestamp;

const MAGIC: [u8; 4] = *b"PACE";
const FINGERPRINT_AT: usize = 8;
const HEADER: usize = 16;

/// How long the record keeps what was learned of a member that no live
/// configuration of the worker that writes it names.
const RETENTION: Duration = Duration::from_secs(3_600);

/// A validated record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    bytes: Vec<u8>,
    pools: Table,
    members: Table,
}

/// Rows before they are in a record.
struct Rows {
    fields: Vec<Field>,
    /// The identity of each, and its bytes.
    rows: Vec<(u64, Vec<u8>)>,
}

/// What a record has of each member, at least, where these are to be known.
#[must_use]
pub fn fields_for(topology: &Topology) -> &'static [Field] {
    MemberState::fields(topology.learns_caps())
}

impl Learned {
    /// Takes bytes out of shared data; `None` where they are no record.
    #[must_use]
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut rest = &*bytes;
        let magic: [u8; 4] = take(&mut rest)?;
        let header = usize::from(take_u16(&mut rest)?);
        let _ = take_u16(&mut rest)?;
        let _ = take_u64(&mut rest)?;
        if magic != MAGIC || header < HEADER {
            return None;
        }
        let mut rest = bytes.get(header..)?;
        let pools = Table::parse(&mut rest, header, PoolState::FIELDS)?;
        let at = bytes.len() - rest.len();
        let members = Table::parse(&mut rest, at, MemberState::FIELDS)?;
        let is_whole = rest.is_empty();
        is_whole.then_some(Learned {
            bytes,
            pools,
            members,
        })
    }

    /// The record as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number that two records share where they hold the same pools and
    /// members in the same order.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        u64_at(&self.bytes, FINGERPRINT_AT)
    }

    /// Whether the rows of pools have all the fields that this version knows, and those of
    /// members have these.
    #[must_use]
    pub fn has(&self, of_members: &[Field]) -> bool {
        self.pools.has(PoolState::FIELDS) && self.members.has(of_members)
    }

    /// The pools' identities, in the order of their rows.
    pub fn pool_identities(&self) -> impl Iterator<Item = u64> + '_ {
        identities(&self.pools, &self.bytes)
    }

    /// The members' identities, in the order of their rows.
    pub fn member_identities(&self) -> impl Iterator<Item = u64> + '_ {
        identities(&self.members, &self.bytes)
    }

    /// The state of the pool in row `row`, as bytes; a new one's where there is
    /// no such row.
    #[must_use]
    pub fn pool(&self, row: usize) -> [u8; PoolState::SIZE] {
        self.pools.read(&self.bytes, row)
    }

    /// Replaces the state of the pool in row `row`, if there is such a row.
    pub fn set_pool(&mut self, row: usize, state: &[u8; PoolState::SIZE]) {
        self.pools.write(&mut self.bytes, row, state);
    }

    /// The state of the member in row `row`, as bytes; a new one's where there
    /// is no such row.
    #[inline]
    #[must_use]
    pub fn member(&self, row: usize) -> [u8; MemberState::SIZE] {
        self.members.read(&self.bytes, row)
    }

    /// Replaces the state of the member in row `row`, if there is such a row.
    pub fn set_member(&mut self, row: usize, state: &[u8; MemberState::SIZE]) {
        self.members.write(&mut self.bytes, row, state);
    }

    /// A record with all of `topology`, first heard of at `now`, and all that
    /// this one has and that may still be wanted, in rows that have all the
    /// fields that this record has or the topology needs. What comes to a pool that
    /// has been in use joins it.
    #[inline(never)]
    #[must_use]
    pub fn extended(&self, topology: &Topology, now: Timestamp) -> Learned {
        let is_fresh = |at: Timestamp| now.since(at) <= RETENTION;
        let new_pool = PoolState::new(now).encode();
        let pools = extend(
            &self.pools,
            &self.bytes,
            PoolState::FIELDS,
            PoolState::FIELDS,
            topology.pools.iter().map(|pool| (pool.identity, &new_pool)),
            |row| is_fresh(PoolState::decode(&self.pool(row)).used_at),
        );
        let known: Map<u64, usize> = self.pool_identities().zip(0..).collect();
        let is_settled = |pool: &Pool| {
            let row = known.get(&pool.identity);
            row.is_some_and(|row| PoolState::decode(&self.pool(*row)).is_settled(now))
        };
        let settled: Vec<bool> = topology.pools.iter().map(is_settled).collect();
        let [new, joined] = [MemberState::new, MemberState::joined].map(|new| new(now).encode());
        let members = extend(
            &self.members,
            &self.bytes,
            MemberState::FIELDS,
            fields_for(topology),
            topology.members.iter().map(|member| {
                let joins = settled.get(member.pool.0) == Some(&true);
                (member.identity, if joins { &joined } else { &new })
            }),
            |row| is_fresh(MemberState::decode(&self.member(row)).outcome_at),
        );
        let mut bytes = header();
        append(&mut bytes, &pools);
        append(&mut bytes, &members);
        finish(bytes, &pools, &members)
    }
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((HEADER as u32).to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes
}

fn append(bytes: &mut Vec<u8>, Rows { fields, rows }: &Rows) {
    Table::describe(bytes, fields, rows.len());
    for (identity, row) in rows {
        bytes.extend(identity.to_le_bytes());
        bytes.extend_from_slice(row);
    }
}

/// Writes the fingerprint and reads back what was put together.
fn finish(mut bytes: Vec<u8>, pools: &Rows, members: &Rows) -> Learned {
    let of = |it: &Rows| fingerprint(it.rows.iter().map(|(identity, _)| *identity));
    let both = fingerprint([of(pools), of(members)].into_iter());
    put(&mut bytes, FINGERPRINT_AT, both.to_le_bytes());
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    let pools = Table::parse(&mut rest, HEADER, PoolState::FIELDS);
    let at = bytes.len() - rest.len();
    let members = Table::parse(&mut rest, at, MemberState::FIELDS);
    match (pools, members) {
        (Some(pools), Some(members)) => Learned {
            bytes,
            pools,
            members,
        },
        // It has just been written, so it can be read.
        _ => Learned::default(),
    }
}

fn identities<'a>(table: &'a Table, bytes: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
    (0..table.count()).map(|row| u64_at(table.row(bytes, row), 0))
}

/// Rows in the fields of `table` and those that are `needed`: the ones that are wanted or
/// fresh, and new ones for what is wanted and not there yet. The new rows come with what
/// is wanted, in the fields `known`.
fn extend<'a, const N: usize>(
    table: &Table,
    bytes: &[u8],
    known: &[Field],
    needed: &[Field],
    wanted: impl Iterator<Item = (u64, &'a [u8; N])> + Clone,
    is_fresh: impl Fn(usize) -> bool,
) -> Rows {
    let fields = table.fields_and(needed);
    let convert = converter(&fields, table.fields());
    let mut missing: Map<u64, ()> = wanted.clone().map(|(it, _)| (it, ())).collect();
    let mut rows = Vec::new();
    for (row, identity) in identities(table, bytes).enumerate() {
        if missing.remove(&identity).is_none() && !is_fresh(row) {
            continue;
        }
        let old = table.row(bytes, row).get(IDENTITY..).unwrap_or_default();
        rows.push((identity, convert(old)));
    }
    let convert = converter(&fields, known);
    for (identity, new) in wanted {
        if missing.remove(&identity).is_some() {
            rows.push((identity, convert(new)));
        }
    }
    Rows { fields, rows }
}

#[cfg(test)]
mod tests;
