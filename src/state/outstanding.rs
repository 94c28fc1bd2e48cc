//! What is outstanding at an upstream: requests, and the work expected of them.
//!
//! Both are whole numbers, so that what is released is exactly what was
//! reserved and an upstream at rest has nothing left over, which sums of
//! floating-point numbers would not promise.

/// The work expected of one request: at least 1/1024 of its pool's mean
/// request, and at most some four million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work(u32);

/// Parts of a mean request that are counted.
const SCALE: f64 = 1024.0;

impl Work {
    /// The pool's mean request.
    pub const MEAN: Work = Work(SCALE as u32);

    /// So many mean requests, rounded and brought into range; the mean request
    /// where `requests` is not a number.
    #[must_use]
    pub fn of_requests(requests: f64) -> Work {
        if requests.is_nan() {
            return Work::MEAN;
        }
        // The conversion stops at the greatest number.
        Work(((requests * SCALE).round() as u32).max(1))
    }

    /// In mean requests.
    #[must_use]
    pub fn requests(self) -> f64 {
        f64::from(self.0) / SCALE
    }
}

/// Requests that were picked and have not ended, and the work expected of
/// them. The sums do not overflow: they stop at the greatest number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    requests: u64,
    work: u64,
}

impl Outstanding {
    /// Bytes of an encoded entry.
    pub(super) const SIZE: usize = 8;

    /// How many requests.
    #[must_use]
    pub const fn requests(self) -> u64 {
        self.requests
    }

    /// The work expected of them, in mean requests of their pools.
    #[must_use]
    pub fn work(self) -> f64 {
        self.work as f64 / SCALE
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Outstanding::default()
    }

    /// With one request more.
    pub(super) fn add(&mut self, work: Work) {
        self.requests = self.requests.saturating_add(1);
        self.work = self.work.saturating_add(work.0.into());
    }

    /// With one request less, of which `work` was expected.
    pub(super) fn remove(&mut self, work: Work) {
        self.requests = self.requests.saturating_sub(1);
        self.work = self.work.saturating_sub(work.0.into());
    }

    /// Together with what is outstanding elsewhere.
    #[must_use]
    pub(super) const fn plus(self, other: Outstanding) -> Outstanding {
        Outstanding {
            requests: self.requests.saturating_add(other.requests),
            work: self.work.saturating_add(other.work),
        }
    }

    /// As bytes. What does not fit, four thousand million requests or four
    /// million mean requests' work, is written as the most that does; whoever
    /// counted it still knows the truth.
    pub(super) fn encode(self) -> [u8; Self::SIZE] {
        let [requests, work] =
            [self.requests, self.work].map(|n| u64::from(u32::try_from(n).unwrap_or(u32::MAX)));
        (work << 32 | requests).to_le_bytes()
    }

    /// From its bytes.
    pub(super) fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let both = u64::from_le_bytes(*bytes);
        Outstanding {
            requests: both & u64::from(u32::MAX),
            work: both >> 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn work_is_rounded_and_brought_into_range() {
        assert_eq!(Work::of_requests(1.0), Work::MEAN);
        assert_eq!(Work::of_requests(f64::NAN), Work::MEAN);
        assert_eq!(Work::of_requests(2.5).requests(), 2.5);
        for small in [0.0, -3.0, f64::NEG_INFINITY, 1e-12] {
            assert_eq!(Work::of_requests(small).requests(), 1.0 / 1024.0);
        }
        let most = Work::of_requests(f64::INFINITY).requests();
        assert!((4e6..5e6).contains(&most), "{most}");
    }

    #[test]
    fn more_than_fits_is_published_as_the_most_that_does() {
        let mut much = Outstanding::default();
        for _ in 0..3 {
            much.add(Work::of_requests(4e6));
        }
        assert_eq!(much.work(), 12e6);
        let published = Outstanding::decode(&much.encode());
        assert_eq!(published.requests(), 3);
        assert_eq!(published.work(), f64::from(u32::MAX) / 1024.0);
        for _ in 0..3 {
            much.remove(Work::of_requests(4e6));
        }
        assert!(much.is_nothing());
    }

    proptest! {
        #[test]
        fn nothing_is_left_over_when_all_is_released(
            works in proptest::collection::vec(any::<f64>(), 0..50)
        ) {
            let mut outstanding = Outstanding::default();
            let works: Vec<Work> = works.into_iter().map(Work::of_requests).collect();
            for work in &works {
                outstanding.add(*work);
                prop_assert_eq!(Outstanding::decode(&outstanding.encode()).requests(), outstanding.requests());
            }
            let sum: f64 = works.iter().map(|work| work.requests()).sum();
            prop_assert!((outstanding.work() - sum).abs() <= 1e-9 * sum);
            for work in works.iter().rev() {
                outstanding.remove(*work);
            }
            prop_assert!(outstanding.is_nothing());
        }

        #[test]
        fn any_bytes_decode_and_survive_the_round_trip(bytes in any::<[u8; Outstanding::SIZE]>()) {
            prop_assert_eq!(Outstanding::decode(&bytes).encode(), bytes);
        }
    }
}
