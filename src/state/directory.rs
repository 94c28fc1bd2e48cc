//! The bytes of the list of lanes: which worker holds which.
//!
//! ```text
//! entry   owner u64 (0: free), when it was claimed u64
//! ```
//!
//! A worker claims a lane once, at its first request, and gives it up when it
//! ends.

use super::codec::{put, u64_at};
use super::entries::{Entries, Kind};
use crate::time::Timestamp;

const KIND: Kind = Kind {
    magic: *b"PACD",
    entry: 16,
    most: MOST_LANES,
};

/// The most lanes that a process has: more workers than any machine runs, with
/// those that died within a lease.
pub const MOST_LANES: usize = 4096;

/// Who holds a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// A random number, or 0 where nobody holds the lane.
    pub owner: u64,
    /// When the owner claimed the lane.
    pub claimed_at: Timestamp,
}

/// The holders of all lanes, by the lanes' numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(Entries);

impl Default for Directory {
    fn default() -> Self {
        Directory(Entries::new(KIND))
    }
}

impl Directory {
    /// The list from its bytes; `None` where they are not one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Entries::parse(KIND, bytes).map(Directory)
    }

    /// The list as bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// The holders, by the lanes' numbers.
    pub fn holders(&self) -> impl Iterator<Item = Holder> + '_ {
        self.0.iter().map(|entry| Holder {
            owner: u64_at(entry, 0),
            claimed_at: Timestamp::from_nanos(u64_at(entry, 8)),
        })
    }

    /// Gives a lane to `holder`: one that is listed, or the next new one. False
    /// where there are too many lanes.
    pub fn set(&mut self, lane: usize, holder: Holder) -> bool {
        let count = self.0.count();
        let entry = match lane == count && lane < MOST_LANES {
            true => self.0.add(),
            false if lane < count => self.0.at(lane),
            false => return false,
        };
        put(entry, 0, holder.owner.to_le_bytes());
        put(entry, 8, holder.claimed_at.as_nanos().to_le_bytes());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(owner: u64) -> Holder {
        Holder {
            owner,
            claimed_at: Timestamp::from_nanos(owner * 10),
        }
    }

    #[test]
    fn lanes_are_appended_and_replaced() {
        let mut directory = Directory::default();
        assert!(directory.set(0, holder(7)));
        assert!(directory.set(1, holder(8)));
        assert!(directory.set(0, holder(9)));
        assert!(!directory.set(5, holder(1)), "there is no lane 2 yet");
        let parsed = Directory::parse(&directory.into_bytes()).unwrap();
        assert_eq!(parsed.holders().collect::<Vec<_>>(), [holder(9), holder(8)]);
    }

    #[test]
    fn lanes_are_bounded() {
        let mut directory = Directory::default();
        assert!((0..MOST_LANES).all(|lane| directory.set(lane, holder(1))));
        assert!(!directory.set(MOST_LANES, holder(1)));
        assert!(Directory::parse(&directory.into_bytes()).is_some());
    }

    #[test]
    fn entries_of_a_later_version_keep_what_is_not_known_here() {
        let mut bytes = KIND.magic.to_vec();
        bytes.extend(20u16.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend([1; 16]);
        bytes.extend(*b"more");
        let mut directory = Directory::parse(&bytes).unwrap();
        assert!(directory.set(0, holder(3)));
        assert!(directory.set(1, holder(4)));
        let bytes = directory.into_bytes();
        assert_eq!(bytes.get(24..28), Some(&b"more"[..]));
        let directory = Directory::parse(&bytes).unwrap();
        assert_eq!(
            directory.holders().collect::<Vec<_>>(),
            [holder(3), holder(4)]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Directory::parse(&bytes), None);
        }
    }
}
