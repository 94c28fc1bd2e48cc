//! The shared record of one upstream's latencies in one pool.
//!
//! It is separate from what every pick reads ([`super::learned`]): it is larger,
//! only ticks write it, and no pick waits for it. Each upstream has its own
//! record, so a tick can handle a few upstreams at a time.
//!
//! ```text
//! header  'L', version
//! rows    window u32, measure u8, size class u8, latencies
//! ```
//!
//! Old latencies expire by *windows*: periods of the process's clock that all
//! workers number in the same way. The current window and the one before it
//! count, so a quantile covers the last one to two windows. The next write drops
//! rows of older windows, including those that no configuration names any more:
//! the record is only as large as the recent traffic requires.

use std::cmp::Ordering;
use std::time::Duration;

use super::codec::{take, take_u32};
use crate::estimate::Latencies;
use crate::time::Timestamp;

const MAGIC: u8 = b'L';
const VERSION: u8 = 2;

/// What a latency is the time of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// From the pick to the end of the answer.
    Complete,
    /// From the pick to the first byte of a stream.
    FirstByte,
    /// Between two chunks of a stream, in the mean.
    ChunkGap,
}

impl Measure {
    /// All of them, in the order of [`Measure::index`].
    pub const ALL: [Measure; 3] = [Measure::Complete, Measure::FirstByte, Measure::ChunkGap];

    /// Its place in [`Measure::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    fn from_byte(byte: u8) -> Option<Measure> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Requests of about one size: within a factor of eight.
///
/// The bounds are powers of eight whatever the pool's sizes are, so that they
/// mean the same to every worker, before and after every change: 1 to 8, 8 to
/// 64, and so on. Requests of unknown size are a class of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeClass(u8);

impl SizeClass {
    /// Sizes from 8^11, eight thousand million, are one class.
    const LARGEST: u8 = 12;

    /// The class of a size; sizes that make no sense count as unknown.
    #[must_use]
    pub fn of(size: Option<f64>) -> SizeClass {
        match size {
            Some(size) if size >= 0.0 => {
                // Beyond 2^64 the conversion stops at the greatest number.
                let octaves = (size as u64).max(1).ilog2();
                SizeClass((1 + octaves / 3).min(u32::from(Self::LARGEST)) as u8)
            }
            _ => SizeClass(0),
        }
    }

    fn from_byte(byte: u8) -> Option<SizeClass> {
        (byte <= Self::LARGEST).then_some(SizeClass(byte))
    }
}

/// A window of so many on the process's clock.
#[must_use]
pub fn window_at(now: Timestamp, length: Duration) -> u32 {
    let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    // Windows last a second or more, so this is good for 136 years.
    now.as_nanos().checked_div(length).unwrap_or(0) as u32
}

/// Latencies of what, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// What was measured.
    pub measure: Measure,
    /// Of requests of about this size.
    pub class: SizeClass,
    /// In this window.
    pub window: u32,
}

/// The latencies of an upstream in the present window and the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyRecord {
    /// By their keys.
    rows: Vec<(RowKey, Latencies)>,
}

impl LatencyRecord {
    /// Takes in a request of load `load`.
    pub fn observe(&mut self, key: RowKey, duration: Duration, load: u64) {
        let place = match self.rows.binary_search_by_key(&key, |(known, _)| *known) {
            Ok(place) => place,
            Err(place) => {
                self.rows.insert(place, (key, Latencies::default()));
                place
            }
        };
        if let Some((_, latencies)) = self.rows.get_mut(place) {
            latencies.record(duration, load);
        }
    }

    /// Takes in all that `other` has.
    pub fn merge(&mut self, other: &LatencyRecord) {
        let mut added = other.rows.iter().peekable();
        let mut merged = Vec::with_capacity(self.rows.len() + other.rows.len());
        for (key, mut latencies) in std::mem::take(&mut self.rows) {
            while let Some((next, more)) = added.peek() {
                match next.cmp(&key) {
                    Ordering::Less => merged.push((*next, more.clone())),
                    Ordering::Equal => latencies.merge(more),
                    Ordering::Greater => break,
                }
                added.next();
            }
            merged.push((key, latencies));
        }
        merged.extend(added.cloned());
        self.rows = merged;
    }

    /// Drops what was seen before the window before `window`. What is from
    /// later than the next cannot be from a clock that was read a moment later:
    /// it is garbage, and would stay for ever.
    pub fn keep_recent(&mut self, window: u32) {
        let recent = window.saturating_sub(1)..=window.saturating_add(1);
        self.rows.retain(|(key, _)| recent.contains(&key.window));
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rows.clear();
    }

    /// The rows, by measure, class and window.
    pub fn rows(&self) -> &[(RowKey, Latencies)] {
        &self.rows
    }

    /// As bytes, for shared data.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![MAGIC, VERSION];
        for (key, latencies) in &self.rows {
            bytes.extend_from_slice(&key.window.to_le_bytes());
            bytes.push(key.measure as u8);
            bytes.push(key.class.0);
            latencies.write(&mut bytes);
        }
        bytes
    }

    /// From its bytes; `None` where they are not a record of this version.
    /// Rows out of order are damage, too.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<LatencyRecord> {
        if take(&mut bytes)? != [MAGIC, VERSION] {
            return None;
        }
        let mut rows: Vec<(RowKey, Latencies)> = Vec::new();
        while !bytes.is_empty() {
            let key = RowKey {
                window: take_u32(&mut bytes)?,
                measure: Measure::from_byte(byte(&mut bytes)?)?,
                class: SizeClass::from_byte(byte(&mut bytes)?)?,
            };
            let latencies = Latencies::read(&mut bytes)?;
            if rows.last().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            rows.push((key, latencies));
        }
        Some(LatencyRecord { rows })
    }
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take(bytes).map(|[byte]| byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = RowKey> {
        (0usize..3, 0u8..=12, 0u32..5).prop_map(|(measure, class, window)| RowKey {
            measure: Measure::ALL[measure],
            class: SizeClass(class),
            window,
        })
    }

    fn record() -> impl Strategy<Value = LatencyRecord> {
        let samples = (key(), 0u64..1 << 42, 1u64..100);
        proptest::collection::vec(samples, 0..60).prop_map(|samples| {
            let mut record = LatencyRecord::default();
            for (key, nanos, load) in samples {
                record.observe(key, Duration::from_nanos(nanos), load);
            }
            record
        })
    }

    #[test]
    fn sizes_within_a_factor_of_eight_are_a_class() {
        let class = |size| SizeClass::of(Some(size)).0;
        assert_eq!(SizeClass::of(None), SizeClass(0));
        for nonsense in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert_eq!(SizeClass::of(Some(nonsense)), SizeClass::of(None));
        }
        assert_eq!([0.0, 0.5, 1.0, 7.9].map(class), [1; 4]);
        assert_eq!([8.0, 63.0, 64.0, 512.0].map(class), [2, 2, 3, 4]);
        assert_eq!([1e10, 1e300, f64::INFINITY].map(class), [12; 3]);
    }

    #[test]
    fn windows_are_counted_on_the_clock_that_all_share() {
        let minute = Duration::from_secs(60);
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        assert_eq!(window_at(at(59), minute), 0);
        assert_eq!(window_at(at(60), minute), 1);
        assert_eq!(window_at(at(3_600), minute), 60);
        assert_eq!(window_at(at(3_600), Duration::ZERO), 0);
    }

    #[test]
    fn what_is_older_than_the_last_window_is_forgotten() {
        let mut record = LatencyRecord::default();
        for window in 0..8 {
            let key = RowKey {
                measure: Measure::Complete,
                class: SizeClass(0),
                window,
            };
            record.observe(key, Duration::from_secs(1), 1);
        }
        record.keep_recent(4);
        let kept: Vec<u32> = record.rows().iter().map(|(key, _)| key.window).collect();
        assert_eq!(kept, [3, 4, 5], "5 is from a clock read a moment later");
        record.keep_recent(7);
        assert!(record.is_empty());
    }

    proptest! {
        #[test]
        fn a_record_survives_the_round_trip(record in record()) {
            prop_assert_eq!(LatencyRecord::decode(&record.encode()), Some(record));
        }

        #[test]
        fn merging_is_the_union_in_any_order(one in record(), other in record()) {
            let mut forward = one.clone();
            forward.merge(&other);
            let mut backward = other.clone();
            backward.merge(&one);
            prop_assert_eq!(&forward, &backward);
            let count = |record: &LatencyRecord| -> u64 {
                record.rows().iter().map(|(_, latencies)| latencies.durations().count()).sum()
            };
            prop_assert_eq!(count(&forward), count(&one) + count(&other));
        }

        #[test]
        fn damaged_bytes_are_refused_or_decode_soundly(
            record in record(),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = record.encode();
            for (place, byte) in flips {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Some(record) = LatencyRecord::decode(&bytes) {
                prop_assert_eq!(LatencyRecord::decode(&record.encode()), Some(record));
            }
        }

        #[test]
        fn rows_that_stand_twice_are_refused(record in record()) {
            let bytes = record.encode();
            let twice = [&*bytes, &bytes[2..]].concat();
            prop_assert_eq!(LatencyRecord::decode(&twice).is_some(), record.is_empty());
        }

        #[test]
        fn noise_is_refused_or_decodes_soundly(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[MAGIC, VERSION], &*bytes].concat();
            if let Some(record) = LatencyRecord::decode(&bytes) {
                prop_assert_eq!(LatencyRecord::decode(&record.encode()), Some(record));
            }
        }
    }
}
