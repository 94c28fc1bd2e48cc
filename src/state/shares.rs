//! The bytes of an amount that workers share exactly: who holds how much of it.
//!
//! ```text
//! entry   owner u64, what it holds u64
//! ```
//!
//! Only workers that hold something are listed.

use super::codec::{put, u64_at};
use super::entries::{Entries, Kind};

const KIND: Kind = Kind {
    magic: *b"PACS",
    entry: 16,
    // More than workers that live and that died within a lease.
    most: 8192,
};

/// Who holds how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares(Entries);

impl Default for Shares {
    fn default() -> Self {
        Shares(Entries::new(KIND))
    }
}

impl Shares {
    /// The shares from their bytes; `None` where they are none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Entries::parse(KIND, bytes).map(Shares)
    }

    /// The shares as bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// Owners, and what each holds.
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let entries = self.0.iter();
        entries.map(|entry| (u64_at(entry, 0), u64_at(entry, 8)))
    }

    /// What `owner` holds.
    #[must_use]
    pub fn of(&self, owner: u64) -> u64 {
        let mut entries = self.entries();
        entries
            .find(|(it, _)| *it == owner)
            .map_or(0, |(_, amount)| amount)
    }

    /// What all hold together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.entries()
            .fold(0, |sum, (_, amount)| sum.saturating_add(amount))
    }

    /// Sets what `owner` holds. False where there are too many owners.
    pub fn set(&mut self, owner: u64, amount: u64) -> bool {
        let place = self.entries().position(|(it, _)| it == owner);
        match (place, amount) {
            (None, 0) => {}
            (None, _) if self.0.count() >= KIND.most => return false,
            (None, _) => {
                let entry = self.0.add();
                put(entry, 0, owner.to_le_bytes());
                put(entry, 8, amount.to_le_bytes());
            }
            (Some(place), 0) => self.0.remove(place),
            (Some(place), _) => put(self.0.at(place), 8, amount.to_le_bytes()),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_of_a_later_version_keep_what_is_not_known_here() {
        let mut bytes = KIND.magic.to_vec();
        bytes.extend(20u16.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(7u64.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend(*b"more");
        let mut shares = Shares::parse(&bytes).unwrap();
        assert!(shares.set(7, 3) && shares.set(8, 1));
        let bytes = shares.into_bytes();
        assert_eq!(bytes.get(24..28), Some(&b"more"[..]));
        let shares = Shares::parse(&bytes).unwrap();
        assert_eq!(shares.entries().collect::<Vec<_>>(), [(7, 3), (8, 1)]);
    }

    proptest! {
        #[test]
        fn what_is_set_is_held_and_what_is_zero_is_gone(
            changes in proptest::collection::vec((1u64..6, 0u64..4), 0..60),
        ) {
            let (mut shares, mut expected) = (Shares::default(), BTreeMap::new());
            for (owner, amount) in changes {
                prop_assert!(shares.set(owner, amount));
                expected.insert(owner, amount);
                expected.retain(|_, amount| *amount > 0);
                shares = Shares::parse(&shares.into_bytes()).unwrap();
                let held: BTreeMap<u64, u64> = shares.entries().collect();
                prop_assert_eq!(&held, &expected);
                prop_assert_eq!(shares.entries().count(), expected.len());
                prop_assert_eq!(shares.total(), expected.values().sum::<u64>());
                prop_assert_eq!(shares.of(owner), expected.get(&owner).copied().unwrap_or(0));
            }
        }

        #[test]
        fn no_bytes_are_misread(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Shares::parse(&bytes), None);
        }
    }
}
