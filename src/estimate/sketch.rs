//! Quantiles of durations in fixed memory.
//!
//! A histogram whose bins are linear within an octave and double from one to
//! the next (*log-linear*, as in Gil Tene's HdrHistogram): eight bins an
//! octave, so the middle of a bin is within [`Sketch::RELATIVE_ERROR`] of every
//! duration in it. Integers only, and two sketches are merged by adding their
//! bins: the merged sketch is the sketch of both sets of samples, in any order and
//! grouping. So each worker can make its own sketch, and all share the sum.
//!
//! Only bins that have counted something are stored.

#[cfg(test)]
mod tests;

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
