//! The bytes of a lane: what one worker has outstanding, and its heartbeat.
//!
//! ```text
//! header  magic u32, bytes of the header u16, bytes of an entry u16,
//!         owner u64, heartbeat u64, fingerprint of the identities u64
//! entry   identity of an upstream u64, requests u32, their work u32, the sum of
//!         the moments of their picks u64, see [`Outstanding`]
//! ```
//!
//! Only its owner writes it, as a whole, at each pick and end. Header and entries
//! may be longer than this version knows, and entries name their upstreams, so
//! workers of two versions or two configurations can read each other's lanes.

use super::codec::{at, put, take, take_u16, u64_at};
use super::outstanding::Outstanding;
use crate::random::mix;
use crate::time::Timestamp;

const MAGIC: [u8; 4] = *b"PACL";
const OWNER_AT: usize = 8;
const HEARTBEAT_AT: usize = 16;
const FINGERPRINT_AT: usize = 24;
const HEADER: usize = 32;
const IDENTITY: usize = 8;
const ENTRY: usize = IDENTITY + Outstanding::SIZE;

/// A number that two lists of identities share where they are the same.
#[must_use]
pub fn fingerprint(identities: impl Iterator<Item = u64>) -> u64 {
    identities.fold(0x9e37_79b9_7f4a_7c15, |hash, identity| mix(hash ^ identity))
}

/// A worker's own lane, edited in place.
#[derive(Clone, Debug)]
pub struct OwnLane {
    bytes: Vec<u8>,
}

impl OwnLane {
    /// A lane of `owner` with nothing outstanding at the upstreams with these
    /// identities.
    #[must_use]
    pub fn new(owner: u64, identities: impl Iterator<Item = u64> + Clone) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((HEADER as u16).to_le_bytes());
        bytes.extend((ENTRY as u16).to_le_bytes());
        bytes.extend(owner.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(fingerprint(identities.clone()).to_le_bytes());
        for identity in identities {
            bytes.extend(identity.to_le_bytes());
            bytes.extend(Outstanding::default().encode());
        }
        OwnLane { bytes }
    }

    /// Replaces what is outstanding at the upstream with this number.
    #[inline]
    pub fn set(&mut self, upstream: usize, outstanding: Outstanding) {
        let offset = HEADER + upstream.saturating_mul(ENTRY) + IDENTITY;
        put(&mut self.bytes, offset, outstanding.encode());
    }

    /// The lane as it is to be written at `now`.
    #[inline]
    pub fn stamped(&mut self, now: Timestamp) -> &[u8] {
        put(&mut self.bytes, HEARTBEAT_AT, now.as_nanos().to_le_bytes());
        &self.bytes
    }
}

/// A lane as another worker reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane<'a> {
    /// Whose it is.
    pub owner: u64,
    /// When the owner last wrote it.
    pub heartbeat: Timestamp,
    /// [`fingerprint`] of the entries' identities.
    pub fingerprint: u64,
    entries: &'a [u8],
    entry: usize,
}

impl<'a> Lane<'a> {
    /// A lane from its bytes; `None` where they are not one.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let magic: [u8; 4] = take(&mut rest)?;
        let header = usize::from(take_u16(&mut rest)?);
        let entry = usize::from(take_u16(&mut rest)?);
        if magic != MAGIC || header < HEADER || entry < ENTRY {
            return None;
        }
        let entries = bytes.get(header..)?;
        (entries.len() % entry == 0).then_some(Lane {
            owner: u64_at(bytes, OWNER_AT),
            heartbeat: Timestamp::from_nanos(u64_at(bytes, HEARTBEAT_AT)),
            fingerprint: u64_at(bytes, FINGERPRINT_AT),
            entries,
            entry,
        })
    }

    /// Identities of upstreams, and what the owner has outstanding there.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Outstanding)> + 'a {
        let entries = self.entries.chunks_exact(self.entry);
        entries.map(|entry| {
            let counts = at(entry, IDENTITY).unwrap_or_default();
            (u64_at(entry, 0), Outstanding::decode(counts))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::outstanding::{Job, Work};
    use super::*;
    use proptest::prelude::*;

    fn job(requests: f64, second: u64) -> Job {
        Job {
            work: Work::of_requests(requests),
            picked_at: Timestamp::from_nanos(second * 1_000_000_000),
        }
    }

    fn two() -> Outstanding {
        let mut two = Outstanding::default();
        two.add(job(1.0, 7));
        two.add(job(2.5, 9));
        two
    }

    fn written() -> Vec<u8> {
        let mut lane = OwnLane::new(9, [11, 22].into_iter());
        lane.set(1, two());
        lane.set(2, two());
        lane.stamped(Timestamp::from_nanos(5)).to_vec()
    }

    #[test]
    fn a_lane_is_read_as_it_was_written() {
        let bytes = written();
        let lane = Lane::parse(&bytes).unwrap();
        assert_eq!((lane.owner, lane.heartbeat.as_nanos()), (9, 5));
        assert_eq!(lane.fingerprint, fingerprint([11, 22].into_iter()));
        assert_eq!(
            lane.entries().collect::<Vec<_>>(),
            [(11, Outstanding::default()), (22, two())]
        );
    }

    #[test]
    fn a_lane_of_a_later_version_is_read_as_far_as_it_is_known() {
        let bytes = written();
        let (header, entries) = bytes.split_at(HEADER);
        let mut later = header.to_vec();
        put(&mut later, 4, (HEADER as u16 + 8).to_le_bytes());
        put(&mut later, 6, (ENTRY as u16 + 4).to_le_bytes());
        later.extend(*b"8 bytes.");
        for entry in entries.chunks(ENTRY) {
            later.extend(entry);
            later.extend(*b"more");
        }
        let (lane, later) = (Lane::parse(&bytes).unwrap(), Lane::parse(&later).unwrap());
        assert_eq!(later.heartbeat, lane.heartbeat);
        assert!(later.entries().eq(lane.entries()));
    }

    #[test]
    fn the_order_of_identities_matters() {
        assert_ne!(
            fingerprint([1, 2].into_iter()),
            fingerprint([2, 1].into_iter())
        );
        assert_ne!(fingerprint([0].into_iter()), fingerprint([].into_iter()));
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Lane::parse(&bytes), None);
        }
    }
}
