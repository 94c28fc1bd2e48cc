//! Rows that describe themselves.
//!
//! A table of rows begins with the list of its fields: for each, a permanent
//! number that identifies it, and its length in 32-bit words. A reader finds the
//! fields that it knows by this list, and leaves unknown fields unchanged; a field
//! that an older writer did not have is blank. So a later version can add fields
//! while workers of both versions run, and no estimate is lost.

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

/// Where the rows of one table are, and what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    fields: Vec<Field>,
    /// Where the first row begins.
    start: usize,
    /// Bytes of a row, its identity included.
    row: usize,
    count: usize,
    /// Where the fields that the reader knows are, in a row as the reader has it
    /// and in a row as it is here. `None` where both are the same.
    moves: Option<Vec<(Range<usize>, usize)>>,
    is_complete: bool,
}

impl Table {
    /// A table without rows, which is nowhere.
    #[must_use]
    pub fn empty(fields: &[Field]) -> Self {
        Table {
            fields: fields.to_vec(),
            start: 0,
            row: IDENTITY + size_of(fields),
            count: 0,
            moves: None,
            is_complete: true,
        }
    }

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
        let mut table = Table {
            start,
            count,
            ..Table::empty(&fields)
        };
        if table.fields != known {
            table.compare(known);
        }
        Some(table)
    }

    fn compare(&mut self, known: &[Field]) {
        let mut moves = Vec::with_capacity(known.len());
        let mut own = 0;
        for field in known {
            let place = self.fields.iter().position(|it| it == field);
            match place.and_then(|place| self.fields.get(..place)) {
                Some(before) => {
                    moves.push((own..own + field.bytes(), IDENTITY + size_of(before)));
                }
                None => self.is_complete = false,
            }
            own += field.bytes();
        }
        self.moves = Some(moves);
    }

    /// Whether every field that the reader knows is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Fields that the reader does not know, and where they are in a row.
    pub fn unknown<'a>(
        &'a self,
        known: &'a [Field],
    ) -> impl Iterator<Item = (Field, Range<usize>)> + 'a {
        let mut offset = IDENTITY;
        let all = self.fields.iter().map(move |field| {
            let start = offset;
            offset += field.bytes();
            (*field, start..offset)
        });
        all.filter(|(field, _)| !known.contains(field))
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
    /// not there is as in `blank`.
    #[inline]
    #[must_use]
    pub fn read<const N: usize>(
        &self,
        bytes: &[u8],
        row: usize,
        blank: impl FnOnce() -> [u8; N],
    ) -> [u8; N] {
        let from = self.row(bytes, row);
        let Some(moves) = &self.moves else {
            let fields = from.get(IDENTITY..).and_then(|it| it.first_chunk());
            return fields.copied().unwrap_or_else(blank);
        };
        let mut known = blank();
        for (own, there) in moves {
            let there = from.get(*there..*there + own.len());
            if let (Some(own), Some(there)) = (known.get_mut(own.clone()), there) {
                own.copy_from_slice(there);
            }
        }
        known
    }

    /// Replaces the fields of a row that the reader knows.
    #[inline]
    pub fn write<const N: usize>(&self, bytes: &mut [u8], row: usize, known: &[u8; N]) {
        let Some(to) = bytes.get_mut(self.range(row)) else {
            return;
        };
        match &self.moves {
            None => {
                if let Some(fields) = to.get_mut(IDENTITY..).and_then(|it| it.first_chunk_mut()) {
                    *fields = *known;
                }
            }
            Some(moves) => {
                for (own, there) in moves {
                    let there = to.get_mut(*there..*there + own.len());
                    if let (Some(own), Some(there)) = (known.get(own.clone()), there) {
                        there.copy_from_slice(own);
                    }
                }
            }
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
        assert!(table.is_complete());
        assert_eq!(&table.read(&bytes, 0, || [0; 12]), b"111122222222");
        table.write(&mut bytes, 0, b"aaaabbbbbbbb");
        assert!(bytes.ends_with(b"identitybbbbbbbb3333aaaa"));
        let unknown: Vec<_> = table.unknown(OLD).collect();
        assert_eq!(unknown, [(Field::new(3, 1), 16..20)]);
    }

    #[test]
    fn a_newer_reader_finds_blanks() {
        let bytes = table(OLD, &[b"identity111122222222"]);
        let table = Table::parse(&mut &*bytes, 0, NEW).unwrap();
        assert!(!table.is_complete());
        assert_eq!(&table.read(&bytes, 0, || [b'.'; 16]), b"22222222....1111");
        assert_eq!(table.read(&bytes, 1, || [b'.'; 16]), [b'.'; 16]);
    }

    #[test]
    fn a_field_of_another_length_is_another_field() {
        let bytes = table(&[Field::new(1, 2)], &[b"identity11112222"]);
        let table = Table::parse(&mut &*bytes, 0, &[Field::new(1, 1)]).unwrap();
        assert!(!table.is_complete());
        assert_eq!(&table.read(&bytes, 0, || *b"none"), b"none");
    }

    #[test]
    fn two_tables_follow_each_other() {
        let mut bytes = table(OLD, &[b"identity111122222222"]);
        let second = bytes.len();
        bytes.extend(table(OLD, &[b"another.333344444444"]));
        let mut rest = &*bytes;
        let _ = Table::parse(&mut rest, 0, OLD).unwrap();
        let table = Table::parse(&mut rest, second, OLD).unwrap();
        assert_eq!(&table.read(&bytes, 0, || [0; 12]), b"333344444444");
        assert!(rest.is_empty());
    }
}
