//! The bytes of a list whose entries all have one size.
//!
//! ```text
//! header  magic u32, bytes of an entry u16, number of entries u16
//! ```
//!
//! Entries may be longer than this version knows: it leaves unknown bytes unchanged.

use super::codec::{put, take, take_u16};

const HEADER: usize = 8;

/// What a list is, and how large it may be.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The first bytes.
    pub magic: [u8; 4],
    /// Bytes of an entry as this version writes it.
    pub entry: usize,
    /// The most entries.
    pub most: usize,
}

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    bytes: Vec<u8>,
    /// Bytes of an entry.
    entry: usize,
}

impl Entries {
    /// An empty list.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mut bytes = kind.magic.to_vec();
        bytes.extend((kind.entry as u16).to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        Entries {
            bytes,
            entry: kind.entry,
        }
    }

    /// The list from its bytes; `None` where they are none of this kind.
    #[must_use]
    pub fn parse(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let magic: [u8; 4] = take(&mut rest)?;
        let entry = usize::from(take_u16(&mut rest)?);
        let count = usize::from(take_u16(&mut rest)?);
        let is_sound = magic == kind.magic
            && entry >= kind.entry
            && count <= kind.most
            && rest.len() == entry.checked_mul(count)?;
        is_sound.then(|| Entries {
            bytes: bytes.to_vec(),
            entry,
        })
    }

    /// The list as bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.iter().len()
    }

    /// The bytes of each.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let entries = self.bytes.get(HEADER..).unwrap_or_default();
        entries.chunks_exact(self.entry)
    }

    /// The bytes of the entry at `place`; empty if there is none.
    #[must_use]
    pub fn at(&mut self, place: usize) -> &mut [u8] {
        let entries = self.bytes.get_mut(HEADER..).unwrap_or_default();
        let mut entries = entries.chunks_exact_mut(self.entry);
        entries.nth(place).unwrap_or_default()
    }

    /// Adds an entry of zeros at the end, and returns its bytes.
    pub fn add(&mut self) -> &mut [u8] {
        let place = self.count();
        self.bytes.resize(self.bytes.len() + self.entry, 0);
        self.set_count(place + 1);
        self.at(place)
    }

    /// Removes the entry at `place`, if there is one.
    pub fn remove(&mut self, place: usize) {
        if place < self.count() {
            let offset = HEADER + place * self.entry;
            self.bytes.drain(offset..offset + self.entry);
            self.set_count(self.count());
        }
    }

    fn set_count(&mut self, count: usize) {
        put(&mut self.bytes, 6, (count as u16).to_le_bytes());
    }
}
