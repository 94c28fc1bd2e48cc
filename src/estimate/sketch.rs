//! Quantiles of durations in fixed memory.
//!
//! A histogram whose bins are linear within an octave and double from one to
//! the next (*log-linear*, as in Gil Tene's HdrHistogram): eight bins an
//! octave, so the middle of a bin is within [`Sketch::RELATIVE_ERROR`] of every
//! duration in it. Integers only, and two sketches are merged by adding their
//! bins: the merged sketch is the one of both sets of samples, in any order and
//! grouping, which is what lets workers sketch apart and share the sum.
//!
//! Only bins that have counted something are stored.

use std::time::Duration;

/// Nanoseconds of the finest bin, as a power of two: 16.4 us.
const UNIT_BITS: u32 = 14;
/// Bins of an octave, as a power of two.
const STEP_BITS: u32 = 3;
const STEPS: u64 = 1 << STEP_BITS;
/// Bins: eight for the durations below eight units, and those of 23 octaves.
const BINS: u8 = 192;

/// How often durations were seen, by bin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Bins that have counted something, in ascending order.
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bin {
    number: u8,
    count: u32,
}

impl Bin {
    /// The bin that a duration falls into. The last takes all that are longer.
    fn of(duration: Duration) -> u8 {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let units = nanos >> UNIT_BITS;
        if units < STEPS {
            return units as u8;
        }
        let octave = units.ilog2() - STEP_BITS;
        let step = (units >> octave) - STEPS;
        let number = STEPS + u64::from(octave) * STEPS + step;
        number.min(u64::from(BINS) - 1) as u8
    }

    /// Where a bin begins and how wide it is, in units.
    fn units(number: u8) -> (u64, u64) {
        let number = u64::from(number);
        if number < STEPS {
            return (number, 1);
        }
        let octave = number / STEPS - 1;
        ((STEPS + number % STEPS) << octave, 1 << octave)
    }

    /// The middle of the bin, in seconds.
    fn middle(number: u8) -> f64 {
        let (low, width) = Bin::units(number);
        seconds(low as f64 + 0.5 * width as f64)
    }
}

impl Sketch {
    /// The most by which a quantile differs from the sample that it stands for,
    /// relative to that sample: half a bin over the shortest duration in it. It
    /// holds from [`Sketch::SHORTEST`] to [`Sketch::LONGEST`].
    pub const RELATIVE_ERROR: f64 = 1.0 / (2 * STEPS) as f64;
    /// Below this quantiles are within 8.2 us instead.
    pub const SHORTEST: Duration = Duration::from_nanos(STEPS << UNIT_BITS);
    /// About 18 minutes. Longer durations count as this.
    pub const LONGEST: Duration =
        Duration::from_nanos((STEPS << (BINS as u64 / STEPS - 1)) << UNIT_BITS);

    /// The variance of the logarithm of a duration that is known to within half
    /// a bin.
    pub const ROUNDING: f64 = Self::RELATIVE_ERROR * Self::RELATIVE_ERROR / 3.0;

    /// Counts a duration. A bin that can count no further stays as it is.
    pub fn record(&mut self, duration: Duration) {
        self.add(Bin {
            number: Bin::of(duration),
            count: 1,
        });
    }

    fn add(&mut self, added: Bin) {
        let place = self
            .bins
            .binary_search_by_key(&added.number, |bin| bin.number);
        match place {
            Ok(place) => {
                if let Some(bin) = self.bins.get_mut(place) {
                    bin.count = bin.count.saturating_add(added.count);
                }
            }
            Err(place) => self.bins.insert(place, added),
        }
    }

    /// Counts everything that `other` has counted.
    pub fn merge(&mut self, other: &Sketch) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        for bin in &other.bins {
            self.add(*bin);
        }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| u64::from(bin.count)).sum()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// The `q`-quantile in seconds: of `n` durations the one at rank `q x n`,
    /// rounded up. `q` is 0 to 1; `None` where nothing was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.at_rank(rank(q, self.count()))
    }

    /// The duration at a rank from 1, in seconds; the longest beyond the last.
    fn at_rank(&self, rank: u64) -> Option<f64> {
        let mut below = 0;
        let reached = |bin: &&Bin| {
            below += u64::from(bin.count);
            below >= rank
        };
        let bin = self.bins.iter().find(reached).or(self.bins.last())?;
        Some(Bin::middle(bin.number))
    }

    /// The logarithm of the `q`-quantile in seconds, and the variance that it
    /// has by chance, times the number of samples. `None` where nothing was
    /// counted.
    ///
    /// Durations are taken as spread evenly over their bin: smoother than
    /// [`Sketch::quantile`], for comparisons, but of a bound twice as wide.
    /// [`Sketch::ROUNDING`] is what that leaves.
    ///
    /// No shape is assumed. By chance the number of samples below the true
    /// quantile varies with deviation `h = sqrt(n q (1 - q))`, so the samples
    /// `h` ranks apart from it tell how far off the quantile may be (Woodruff,
    /// "Confidence intervals for medians and other position measures", JASA
    /// 1952).
    #[must_use]
    pub fn log_quantile(&self, q: f64) -> Option<(f64, f64)> {
        let n = self.count() as f64;
        let (rank, reach) = (q * n, (n * q * (1.0 - q)).sqrt().max(1.0));
        let (low_rank, high_rank) = ((rank - reach).max(0.0), (rank + reach).min(n));
        let (low, high) = (self.within_bin(low_rank)?, self.within_bin(high_rank)?);
        let slope = (high / low).ln() / (high_rank - low_rank).max(1.0);
        let deviation = slope * reach;
        Some((self.within_bin(rank)?.ln(), deviation * deviation * n))
    }

    /// The duration below which so many samples are, in seconds.
    fn within_bin(&self, rank: f64) -> Option<f64> {
        let mut below = 0.0;
        for bin in &self.bins {
            let count = f64::from(bin.count);
            if rank <= below + count {
                let (low, width) = Bin::units(bin.number);
                let part = ((rank - below) / count).max(0.0);
                // Never nothing, whose logarithm is not a number.
                return Some(seconds((low as f64 + width as f64 * part).max(0.5)));
            }
            below += count;
        }
        let (low, width) = Bin::units(self.bins.last()?.number);
        Some(seconds((low + width) as f64))
    }

    /// Appends the sketch to `bytes`: the number of bins, then for each its
    /// distance from the one before and its count. Seven bits a byte, the
    /// lowest first (LEB128).
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.bins.len() as u8);
        let mut next = 0;
        for bin in &self.bins {
            bytes.push(bin.number - next);
            write_number(bytes, bin.count);
            next = bin.number + 1;
        }
    }

    /// Takes a sketch off the front of `bytes`; `None` where they are not what
    /// [`Sketch::write`] could have written.
    #[must_use]
    pub fn read(bytes: &mut &[u8]) -> Option<Sketch> {
        let length = read_byte(bytes)?;
        if length > BINS {
            return None;
        }
        let mut bins = Vec::with_capacity(usize::from(length));
        let mut next = 0u8;
        for _ in 0..length {
            let number = next.checked_add(read_byte(bytes)?)?;
            let count = read_number(bytes)?;
            if number >= BINS || count == 0 {
                return None;
            }
            bins.push(Bin { number, count });
            next = number + 1;
        }
        Some(Sketch { bins })
    }
}

fn seconds(units: f64) -> f64 {
    units * (1u64 << UNIT_BITS) as f64 * 1e-9
}

/// The rank of the `q`-quantile of `n` samples, from 1.
fn rank(q: f64, n: u64) -> u64 {
    ((q * n as f64).ceil() as u64).clamp(1, n.max(1))
}

/// Appends a number, seven bits a byte, the lowest first.
fn write_number(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number off the front; `None` where the bytes end, or the number does
/// not fit or is longer than it need be.
fn read_number(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u64;
    for place in 0..5 {
        let byte = read_byte(bytes)?;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            let is_shortest = byte > 0 || place == 0;
            return u32::try_from(number).ok().filter(|_| is_shortest);
        }
    }
    None
}

/// Takes so many bytes off the front.
pub(crate) fn read_array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Takes a byte off the front.
pub(crate) fn read_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(nanos: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        for nanos in nanos {
            sketch.record(Duration::from_nanos(*nanos));
        }
        sketch
    }

    /// Durations over the whole range, each octave as likely as another, and
    /// some beyond it.
    fn nanos() -> impl Strategy<Value = u64> {
        (0u32..43, any::<u64>()).prop_map(|(bits, noise)| (1 << bits) | (noise & ((1 << bits) - 1)))
    }

    fn encoded(sketch: &Sketch) -> Vec<u8> {
        let mut bytes = Vec::new();
        sketch.write(&mut bytes);
        bytes
    }

    #[test]
    fn bins_follow_one_another_without_gaps() {
        assert_eq!(Sketch::LONGEST, Duration::from_nanos(1 << 40));
        assert!(Sketch::LONGEST >= Duration::from_secs(600));
        assert!(Sketch::SHORTEST <= Duration::from_millis(1));
        let mut last = 0;
        for units in 0..1u64 << 26 {
            // Every start of a bin of the last octaves, and all of the others.
            if units > 1 << 12 && !units.is_multiple_of(1 << 9) {
                continue;
            }
            let bin = Bin::of(Duration::from_nanos(units << UNIT_BITS));
            assert!(bin == last || bin == last + 1, "{units} units: bin {bin}");
            last = bin;
        }
        assert_eq!(last, BINS - 1);
        assert_eq!(Bin::of(Duration::MAX), BINS - 1);
        assert_eq!(Bin::of(Duration::from_nanos(u64::MAX)), BINS - 1);
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(Sketch::default().log_quantile(0.5), None);
        assert_eq!(Sketch::default().count(), 0);
    }

    #[test]
    fn no_time_at_all_has_a_logarithm() {
        let (log, variance) = sketch(&[0, 0, 0]).log_quantile(0.0).unwrap();
        assert!(log.is_finite() && variance.is_finite(), "{log} {variance}");
    }

    #[test]
    fn counts_stop_at_their_greatest() {
        let mut sketch = sketch(&[1_000_000]);
        for _ in 0..40 {
            let twice = sketch.clone();
            sketch.merge(&twice);
        }
        assert_eq!(sketch.count(), u64::from(u32::MAX));
        assert!(sketch.quantile(1.0).is_some());
    }

    #[test]
    fn the_variance_of_a_quantile_is_that_of_many_draws() {
        // Exponential, mean one second: the variance of the logarithm of the
        // sample's q-quantile is q / (1 - q) / (n ln(1 - q)^2) for large n.
        let mut rng = crate::random::Rng::new(4);
        for q in [0.5, 0.9, 0.99] {
            let n = 2_000;
            let draws = 300;
            let (mut sum, mut squares, mut told) = (0.0, 0.0, 0.0);
            for _ in 0..draws {
                let mut sketch = Sketch::default();
                for _ in 0..n {
                    let seconds = -(1.0 - rng.unit()).ln();
                    sketch.record(Duration::from_secs_f64(seconds));
                }
                let (log, scaled) = sketch.log_quantile(q).unwrap();
                sum += log;
                squares += log * log;
                told += scaled / f64::from(n);
            }
            let draws = f64::from(draws);
            let seen = squares / draws - (sum / draws).powi(2);
            let told = told / draws;
            assert!((0.5..2.0).contains(&(told / seen)), "{q}: {told} {seen}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_half_a_bin_of_the_sample_at_its_rank(
            mut nanos in proptest::collection::vec(nanos(), 1..400),
            q in 0.0f64..=1.0,
        ) {
            let told = sketch(&nanos).quantile(q).unwrap();
            nanos.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
            let truth = nanos[rank - 1] as f64 * 1e-9;
            if truth > Sketch::LONGEST.as_secs_f64() {
                prop_assert!(told >= Sketch::LONGEST.as_secs_f64() * (1.0 - Sketch::RELATIVE_ERROR));
            } else if truth >= Sketch::SHORTEST.as_secs_f64() {
                let error = (told - truth).abs() / truth;
                prop_assert!(error <= Sketch::RELATIVE_ERROR, "{} for {}: {}", told, truth, error);
            } else {
                prop_assert!((told - truth).abs() <= 8.2e-6, "{} for {}", told, truth);
            }
        }

        #[test]
        fn merged_sketches_are_the_sketch_of_all(
            one in proptest::collection::vec(nanos(), 0..100),
            other in proptest::collection::vec(nanos(), 0..100),
        ) {
            let mut merged = sketch(&one);
            merged.merge(&sketch(&other));
            let mut backwards = sketch(&other);
            backwards.merge(&sketch(&one));
            let all = sketch(&[one, other].concat());
            prop_assert_eq!(&merged, &all);
            prop_assert_eq!(&backwards, &all);
        }

        #[test]
        fn a_sketch_survives_the_round_trip_in_bounded_bytes(
            nanos in proptest::collection::vec(nanos(), 0..600),
            rest in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let sketch = sketch(&nanos);
            let mut bytes = encoded(&sketch);
            prop_assert!(bytes.len() <= 1 + 6 * usize::from(BINS));
            bytes.extend_from_slice(&rest);
            let mut left = &*bytes;
            prop_assert_eq!(Sketch::read(&mut left), Some(sketch));
            prop_assert_eq!(left, &*rest);
        }

        #[test]
        fn any_bytes_are_refused_or_are_a_sketch(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            q in 0.0f64..=1.0,
        ) {
            let mut left = &*bytes;
            if let Some(sketch) = Sketch::read(&mut left) {
                let read = bytes.len() - left.len();
                prop_assert_eq!(encoded(&sketch), &bytes[..read]);
                prop_assert!(sketch.quantile(q).is_none_or(|seconds| seconds > 0.0 && seconds < 2_000.0));
                prop_assert!(sketch.log_quantile(q).is_none_or(|(log, v)| log.is_finite() && v >= 0.0 && v.is_finite()));
            }
        }

        #[test]
        fn a_sketch_that_was_cut_is_refused(nanos in proptest::collection::vec(nanos(), 1..60), cut in any::<proptest::sample::Index>()) {
            let bytes = encoded(&sketch(&nanos));
            let mut left = &bytes[..cut.index(bytes.len())];
            prop_assert_eq!(Sketch::read(&mut left), None);
        }
    }
}
