//! What a worker shows the others of the requests that wait on it, and its bytes.
//!
//! ```text
//! magic u32, whether anything wants to start u8, its level u8, classes u16,
//! its tag u64, until u64, arrived u64, work given u64
//! for each class: requests u32, tags u32, bytes u64, virtual time u64, owed at u64,
//!     and for each tag: tenant u64, tag u64
//! ```

use super::occupancy::{Occupancy, Waiting};
use super::waiter::Rank;
use crate::state::codec::{take, take_u16, take_u32, take_u64};
use crate::time::Timestamp;

const MAGIC: [u8; 4] = *b"PACQ";

/// What a worker shows the others of the requests that wait on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The rank of the waiter that wants what becomes free next.
    pub(super) best: Option<Rank>,
    pub(super) occupancy: Occupancy,
    /// What all workers have started, as far as this one knows.
    pub(super) given: u64,
    pub(super) classes: Vec<ClassNotice>,
}

/// What a worker shows of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClassNotice {
    pub(super) virtual_time: u64,
    pub(super) owed_at: u64,
    /// Tenants that have had more than the virtual time.
    pub(super) tags: Vec<(u64, u64)>,
}

impl Notice {
    /// The rank of the waiter that wants what becomes free next.
    #[must_use]
    pub fn best(&self) -> Option<Rank> {
        self.best
    }

    /// What waits on the worker.
    #[must_use]
    pub fn occupancy(&self) -> &Occupancy {
        &self.occupancy
    }

    /// The notice as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let rank = self.best.unwrap_or(Rank {
            level: 0,
            tag: 0,
            until: Timestamp::ZERO,
            arrived: Timestamp::ZERO,
        });
        bytes.extend([u8::from(self.best.is_some()), rank.level]);
        bytes.extend((self.classes.len() as u16).to_le_bytes());
        let (until, arrived) = (rank.until.as_nanos(), rank.arrived.as_nanos());
        for number in [rank.tag, until, arrived, self.given] {
            bytes.extend(number.to_le_bytes());
        }
        for (number, class) in self.classes.iter().enumerate() {
            let waiting = self.occupancy.of(number);
            bytes.extend(waiting.requests.to_le_bytes());
            bytes.extend((class.tags.len() as u32).to_le_bytes());
            for number in [waiting.bytes, class.virtual_time, class.owed_at] {
                bytes.extend(number.to_le_bytes());
            }
            for (tenant, tag) in &class.tags {
                bytes.extend(tenant.to_le_bytes());
                bytes.extend(tag.to_le_bytes());
            }
        }
        bytes
    }

    /// The notice from its bytes; `None` where they are none.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        if take(rest)? != MAGIC {
            return None;
        }
        let [is_wanting, level] = take(rest)?;
        let classes = take_u16(rest)?;
        let rank = Rank {
            level,
            tag: take_u64(rest)?,
            until: Timestamp::from_nanos(take_u64(rest)?),
            arrived: Timestamp::from_nanos(take_u64(rest)?),
        };
        let mut notice = Notice {
            best: (is_wanting != 0).then_some(rank),
            given: take_u64(rest)?,
            ..Notice::default()
        };
        for number in 0..classes.into() {
            let requests = take_u32(rest)?;
            let tags = take_u32(rest)?;
            let waiting = Waiting {
                requests,
                bytes: take_u64(rest)?,
            };
            notice.occupancy.set(number, waiting);
            let mut class = ClassNotice {
                virtual_time: take_u64(rest)?,
                owed_at: take_u64(rest)?,
                tags: Vec::new(),
            };
            for _ in 0..tags {
                class.tags.push((take_u64(rest)?, take_u64(rest)?));
            }
            notice.classes.push(class);
        }
        bytes.is_empty().then_some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notice() -> Notice {
        let mut occupancy = Occupancy::default();
        occupancy.set(
            1,
            Waiting {
                requests: 3,
                bytes: 1 << 40,
            },
        );
        Notice {
            best: Some(Rank {
                level: 2,
                tag: 7,
                until: Timestamp::from_nanos(u64::MAX),
                arrived: Timestamp::from_nanos(9),
            }),
            occupancy,
            given: 1 << 50,
            classes: vec![
                ClassNotice::default(),
                ClassNotice {
                    virtual_time: 5,
                    owed_at: 6,
                    tags: vec![(u64::MAX, 8), (1, 9)],
                },
            ],
        }
    }

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        for notice in [
            notice(),
            Notice {
                best: None,
                ..notice()
            },
            Notice::default(),
        ] {
            assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        }
    }

    #[test]
    fn a_part_of_a_notice_is_none() {
        let bytes = notice().encode();
        for length in 0..bytes.len() {
            assert_eq!(Notice::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Notice::decode(&[bytes.as_slice(), &[0]].concat()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Notice::decode(&bytes), None);
            let _ = Notice::decode(&[MAGIC.as_slice(), &bytes].concat());
        }
    }
}
