//! The bytes of what probes have found out, under one key of shared data.
//!
//! ```text
//! header   magic, version, number of probers u32, number of rows u32
//! probers  who u64, heartbeat u64, checks u64
//! rows     target u64, upstream u64, prober u64, changed at u64, readiness u8, streak u8
//! ```
//!
//! Rows belong to the prober that they name: it alone changes them. Whoever writes
//! the record leaves the rows of others as they are. A damaged record is rejected as
//! a whole, and the probers write it again from memory.

use super::codec::{take, take_u32, take_u64};
use crate::time::Timestamp;

const MAGIC: u32 = u32::from_le_bytes(*b"PACH");
/// Version of the layout; it stands in the key as well.
pub const VERSION: u32 = 1;

/// The most probers and rows that are read: each configuration has one prober, and
/// a row for each of its upstreams.
const MOST_PROBERS: u32 = 256;
const MOST_ROWS: u32 = 1 << 16;

/// A worker that probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prober {
    /// Tells it apart from all other workers.
    pub id: u64,
    /// When it was last alive.
    pub heartbeat: Timestamp,
    /// A hash of the checks that it makes: one prober is enough for workers of one
    /// configuration.
    pub checks: u64,
}

/// Whether a target is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// No probe of it has ended yet.
    #[default]
    Unknown,
    /// It takes requests.
    Ready,
    /// It takes none.
    NotReady,
}

/// What is known of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// A hash of the upstream's names and of the check.
    pub target: u64,
    /// The upstream's identity, see [`crate::pool::Upstream`].
    pub upstream: u64,
    /// Whose row it is.
    pub prober: u64,
    /// When it became ready or ceased to be.
    pub changed_at: Timestamp,
    /// Whether it is.
    pub readiness: Readiness,
    /// How many probes in a row have said otherwise.
    pub streak: u8,
}

/// What all probers of the process have found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthRecord {
    /// Who probes.
    pub probers: Vec<Prober>,
    /// What they know.
    pub rows: Vec<Row>,
}

impl HealthRecord {
    /// The record from its bytes; `None` where they are none.
    #[must_use]
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if take_u32(bytes)? != MAGIC || take_u32(bytes)? != VERSION {
            return None;
        }
        let (probers, rows) = (take_u32(bytes)?, take_u32(bytes)?);
        if probers > MOST_PROBERS || rows > MOST_ROWS {
            return None;
        }
        let mut record = HealthRecord::default();
        for _ in 0..probers {
            record.probers.push(Prober {
                id: take_u64(bytes)?,
                heartbeat: Timestamp::from_nanos(take_u64(bytes)?),
                checks: take_u64(bytes)?,
            });
        }
        for _ in 0..rows {
            record.rows.push(Row {
                target: take_u64(bytes)?,
                upstream: take_u64(bytes)?,
                prober: take_u64(bytes)?,
                changed_at: Timestamp::from_nanos(take_u64(bytes)?),
                readiness: match take(bytes)? {
                    [0] => Readiness::Unknown,
                    [1] => Readiness::Ready,
                    [2] => Readiness::NotReady,
                    _ => return None,
                },
                streak: {
                    let [streak] = take(bytes)?;
                    streak
                },
            });
        }
        bytes.is_empty().then_some(record)
    }

    /// The record as bytes; what is beyond the most that is read is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let probers = self.probers.len().min(MOST_PROBERS as usize);
        let rows = self.rows.len().min(MOST_ROWS as usize);
        let mut bytes = Vec::with_capacity(16 + probers * 24 + rows * 34);
        for number in [MAGIC, VERSION, probers as u32, rows as u32] {
            bytes.extend(number.to_le_bytes());
        }
        for prober in self.probers.iter().take(probers) {
            for number in [prober.id, prober.heartbeat.as_nanos(), prober.checks] {
                bytes.extend(number.to_le_bytes());
            }
        }
        for row in self.rows.iter().take(rows) {
            let changed_at = row.changed_at.as_nanos();
            for number in [row.target, row.upstream, row.prober, changed_at] {
                bytes.extend(number.to_le_bytes());
            }
            let readiness = match row.readiness {
                Readiness::Unknown => 0,
                Readiness::Ready => 1,
                Readiness::NotReady => 2,
            };
            bytes.extend([readiness, row.streak]);
        }
        bytes
    }

    /// The prober with this id.
    #[must_use]
    pub fn prober(&self, id: u64) -> Option<&Prober> {
        self.probers.iter().find(|prober| prober.id == id)
    }

    /// Whether the row's prober was alive within `lease` before `now`. A heartbeat from
    /// further in the future than that is garbage.
    #[must_use]
    pub fn is_fresh(&self, row: &Row, lease: std::time::Duration, now: Timestamp) -> bool {
        self.prober(row.prober)
            .is_some_and(|prober| prober.is_alive(lease, now))
    }
}

impl Prober {
    /// Whether it was alive within `lease` before `now`.
    #[must_use]
    pub fn is_alive(&self, lease: std::time::Duration, now: Timestamp) -> bool {
        now.since(self.heartbeat) <= lease && self.heartbeat.since(now) <= lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> HealthRecord {
        let row = |target, readiness, streak| Row {
            target,
            upstream: target + 100,
            prober: 7,
            changed_at: Timestamp::from_nanos(5),
            readiness,
            streak,
        };
        HealthRecord {
            probers: vec![Prober {
                id: 7,
                heartbeat: Timestamp::from_nanos(9),
                checks: 3,
            }],
            rows: vec![
                row(1, Readiness::Unknown, 0),
                row(2, Readiness::Ready, 1),
                row(3, Readiness::NotReady, 255),
            ],
        }
    }

    #[test]
    fn records_survive_the_round_trip() {
        for record in [HealthRecord::default(), sample()] {
            assert_eq!(HealthRecord::parse(&record.encode()), Some(record));
        }
    }

    #[test]
    fn a_cut_or_lengthened_record_is_none() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert_eq!(HealthRecord::parse(&bytes[..length]), None, "{length}");
        }
        assert_eq!(HealthRecord::parse(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn a_heartbeat_from_the_future_is_garbage() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let lease = std::time::Duration::from_secs(2);
        let prober = Prober {
            id: 1,
            heartbeat: at(10),
            checks: 0,
        };
        let alive = [7, 8, 10, 12, 13].map(|now| prober.is_alive(lease, at(now)));
        assert_eq!(alive, [false, true, true, true, false]);
    }

    proptest! {
        #[test]
        fn no_blob_is_misread(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(HealthRecord::parse(&bytes), None);
        }

        #[test]
        fn damage_is_survived(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = HealthRecord::parse(&bytes);
        }
    }
}
