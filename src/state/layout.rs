//! Rows that describe themselves.
//!
//! A table of rows begins with the list of its fields: for each, a permanent
//! number that identifies it, and its length in 32-bit words. A reader finds the
//! fields that it knows by this list, and leaves unknown fields unchanged; a field
//! that is not there is read as zeros, which mean that nothing is known. So a later
//! version can add fields while workers of both versions run, a field that only some
//! configurations need is there only where one does, and no estimate is lost.

use std::ops::Range;

use super::codec::{take_u16, take_u32};

/// One field of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Names it; never used again for another meaning.
    pub id: u16,
    /// Its length in 32-bit words.
    pub words: u16,
}

impl Field {
    /// A field of so many words.
    #[must_use]
    pub const fn new(id: u16, words: u16) -> Self {
        Field { id, words }
    }

    const fn bytes(self) -> usize {
        self.words as usize * 4
    }
}

/// Bytes of all `fields`.
#[must_use]
pub const fn size_of(fields: &[Field]) -> usize {
    let (mut bytes, mut index) = (0, 0);
    while index < fields.len() {
        #[allow(clippy::indexing_slicing, reason = "evaluated while compiling")]
        let field = fields[index];
        bytes += field.bytes();
        index += 1;
    }
    bytes
}

/// Bytes of the identity that each row begins with.
pub const IDENTITY: usize = 8;
/// The most fields and the longest row that a table may have.
const MOST_FIELDS: usize = 256;
const LONGEST_ROW: usize = 1 << 16;

/// So many bytes that two rows have in common, and where they begin in each of them,
/// without its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Common {
    one: usize,
    other: usize,
    bytes: usize,
}

/// What rows of the fields `one` and `other` have in common. What both begin with is the
/// first part: usually it is all there is.
fn common(one: &[Field], other: &[Field]) -> Vec<Common> {
    let pairs = one.iter().zip(other);
    let shared = pairs.take_while(|(one, other)| one == other).count();
    let (first, rest) = one.split_at_checked(shared).unwrap_or_default();
    let mut at = size_of(first);
    let mut parts = vec![Common {
        one: 0,
        other: 0,
        bytes: at,
    }];
    for field in rest {
        let place = other.iter().position(|it| it == field);
        if let Some(before) = place.and_then(|place| other.get(..place)) {
            parts.push(Common {
                one: at,
                other: size_of(before),
                bytes: field.bytes(),
            });
        }
        at += field.bytes();
    }
    parts
}

#[inline]
fn copy(from: Option<&[u8]>, to: Option<&mut [u8]>) {
    if let (Some(from), Some(to)) = (from, to) {
        to.copy_from_slice(from);
    }
}

/// The bytes of rows of the fields `from`, without their identities, as rows of the
/// fields `to`. What is in no field of `from` is zero.
pub fn converter<'a>(to: &[Field], from: &[Field]) -> impl Fn(&[u8]) -> Vec<u8> + 'a {
    let (length, parts) = (size_of(to), common(to, from));
    move |row| {
        let mut bytes = vec![0; length];
        for part in &parts {
            copy(
                row.get(part.other..part.other + part.bytes),
                bytes.get_mut(part.one..part.one + part.bytes),
            );
        }
        bytes
    }
}

/// Where the rows of one table are, and what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    fields: Vec<Field>,
    /// Where the first row begins.
    start: usize,
    /// Bytes of a row, its identity included.
    row: usize,
    count: usize,
    /// What a row as the reader has it and one of these have in common.
    common: Vec<Common>,
}

impl Table {
    /// Appends the description of a table of `count` rows; the rows follow.
    pub fn describe(bytes: &mut Vec<u8>, fields: &[Field], count: usize) {
        bytes.extend((count as u32).to_le_bytes());
        bytes.extend((fields.len() as u16).to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        for field in fields {
            bytes.extend(field.id.to_le_bytes());
            bytes.extend(field.words.to_le_bytes());
        }
    }

    /// Reads the description that `bytes` begin with, for a reader of the fields
    /// `known`; `offset` is where `bytes` are in the whole. Takes the table off
    /// `bytes`; `None` where there is none.
    #[must_use]
    pub fn parse(bytes: &mut &[u8], offset: usize, known: &[Field]) -> Option<Self> {
        let length = bytes.len();
        let count = take_u32(bytes)? as usize;
        let number = usize::from(take_u16(bytes)?);
        let _ = take_u16(bytes)?;
        if number > MOST_FIELDS {
            return None;
        }
        let mut fields = Vec::with_capacity(number);
        for _ in 0..number {
            fields.push(Field::new(take_u16(bytes)?, take_u16(bytes)?));
        }
        let row = IDENTITY + size_of(&fields);
        let start = offset + (length - bytes.len());
        let (rows, rest) = bytes.split_at_checked(row.checked_mul(count)?)?;
        if row > LONGEST_ROW || rows.len() != row * count {
            return None;
        }
        *bytes = rest;
        Some(Table {
            common: common(known, &fields),
            fields,
            start,
            row,
            count,
        })
    }

    /// What is in a row, in this order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether the rows have all these fields.
    #[must_use]
    pub fn has(&self, fields: &[Field]) -> bool {
        self.fields.starts_with(fields) || fields.iter().all(|it| self.fields.contains(it))
    }

    /// These fields, and those besides that the rows have.
    #[must_use]
    pub fn fields_and(&self, fields: &[Field]) -> Vec<Field> {
        let others = self.fields.iter().filter(|it| !fields.contains(it));
        fields.iter().chain(others).copied().collect()
    }

    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The bytes of a row, its identity included; none where there is no such
    /// row.
    #[inline]
    #[must_use]
    pub fn row<'a>(&self, bytes: &'a [u8], row: usize) -> &'a [u8] {
        bytes.get(self.range(row)).unwrap_or_default()
    }

    #[inline]
    fn range(&self, row: usize) -> Range<usize> {
        if row >= self.count {
            return 0..0;
        }
        let start = self.start + row * self.row;
        start..start + self.row
    }

    /// The fields of a row that the reader knows, in the reader's order; what is
    /// not there is zero.
    #[inline]
    #[must_use]
    pub fn read<const N: usize>(&self, bytes: &[u8], row: usize) -> [u8; N] {
        let from = self.row(bytes, row).get(IDENTITY..).unwrap_or_default();
        let mut known = [0; N];
        for part in &self.common {
            copy(
                from.get(part.other..part.other + part.bytes),
                known.get_mut(part.one..part.one + part.bytes),
            );
        }
        known
    }

    /// Replaces the fields of a row that the reader knows.
    #[inline]
    pub fn write<const N: usize>(&self, bytes: &mut [u8], row: usize, known: &[u8; N]) {
        let row = bytes.get_mut(self.range(row));
        let Some(to) = row.and_then(|row| row.get_mut(IDENTITY..)) else {
            return;
        };
        for part in &self.common {
            copy(
                known.get(part.one..part.one + part.bytes),
                to.get_mut(part.other..part.other + part.bytes),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[Field] = &[Field::new(1, 1), Field::new(2, 2)];
    const NEW: &[Field] = &[Field::new(2, 2), Field::new(3, 1), Field::new(1, 1)];

    fn table(fields: &[Field], rows: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Table::describe(&mut bytes, fields, rows.len());
        rows.iter().for_each(|row| bytes.extend(*row));
        bytes
    }

    #[test]
    fn an_older_reader_finds_its_fields_and_leaves_the_others() {
        let mut bytes = table(NEW, &[b"identity2222222233331111"]);
        let table = Table::parse(&mut &*bytes, 0, OLD).unwrap();
        assert!(table.has(OLD));
        assert_eq!(&table.read(&bytes, 0), b"111122222222");
        table.write(&mut bytes, 0, b"aaaabbbbbbbb");
        assert!(bytes.ends_with(b"identitybbbbbbbb3333aaaa"));
        let both = [Field::new(1, 1), Field::new(2, 2), Field::new(3, 1)];
        assert_eq!(table.fields_and(OLD), both);
        let converted = converter(&both, NEW)(b"bbbbbbbb3333aaaa");
        assert_eq!(converted, b"aaaabbbbbbbb3333");
    }

    #[test]
    fn a_newer_reader_finds_zeros() {
        let bytes = table(OLD, &[b"identity111122222222"]);
        let table = Table::parse(&mut &*bytes, 0, NEW).unwrap();
        assert!(!table.has(NEW));
        assert_eq!(&table.read(&bytes, 0), b"22222222\0\0\0\x001111");
        assert_eq!(table.read(&bytes, 1), [0; 16]);
        let converted = converter(NEW, OLD)(b"111122222222");
        assert_eq!(converted, b"22222222\0\0\0\x001111");
    }

    #[test]
    fn a_reader_finds_what_both_begin_with_and_writes_no_more() {
        const MORE: &[Field] = &[Field::new(1, 1), Field::new(2, 2), Field::new(3, 1)];
        let mut bytes = table(OLD, &[b"identity111122222222", b"another.333344444444"]);
        let table = Table::parse(&mut &*bytes, 0, MORE).unwrap();
        assert_eq!(table.common.len(), 1);
        assert_eq!(&table.read(&bytes, 0), b"111122222222\0\0\0\0");
        table.write(&mut bytes, 0, b"aaaabbbbbbbbcccc");
        assert!(bytes.ends_with(b"identityaaaabbbbbbbbanother.333344444444"));
    }

    #[test]
    fn a_field_of_another_length_is_another_field() {
        let bytes = table(&[Field::new(1, 2)], &[b"identity11112222"]);
        let table = Table::parse(&mut &*bytes, 0, &[Field::new(1, 1)]).unwrap();
        assert!(!table.has(&[Field::new(1, 1)]));
        assert_eq!(table.read(&bytes, 0), [0; 4]);
    }

    #[test]
    fn two_tables_follow_each_other() {
        let mut bytes = table(OLD, &[b"identity111122222222"]);
        let second = bytes.len();
        bytes.extend(table(OLD, &[b"another.333344444444"]));
        let mut rest = &*bytes;
        let _ = Table::parse(&mut rest, 0, OLD).unwrap();
        let table = Table::parse(&mut rest, second, OLD).unwrap();
        assert_eq!(&table.read(&bytes, 0), b"333344444444");
        assert!(rest.is_empty());
    }
}
