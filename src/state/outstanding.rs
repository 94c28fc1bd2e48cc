//! What is outstanding at an upstream: requests, their expected work, and their
//! age.
//!
//! All are whole numbers, so a release takes back exactly what was reserved, and
//! an idle upstream has exactly nothing outstanding. Sums of floating-point
//! numbers could not guarantee that.

use crate::time::Timestamp;

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

    /// In parts of a mean request: whole numbers, whose sums are exact.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0 as u64
    }

    /// In mean requests.
    #[must_use]
    pub fn requests(self) -> f64 {
        f64::from(self.0) / SCALE
    }
}

/// One request's part of what is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The work expected of it.
    pub work: Work,
    /// When it was picked.
    pub picked_at: Timestamp,
}

/// Requests that were picked and have not ended, the work expected of them, and
/// when they were picked. The sums do not overflow: they stop at the greatest
/// number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    requests: u64,
    work: u64,
    /// The sum of the moments of their picks, in milliseconds on the process's
    /// clock.
    picked_at: u64,
}

impl Outstanding {
    /// Bytes of an encoded entry.
    pub(super) const SIZE: usize = 16;

    /// So much, with these ages in seconds at `now`.
    #[cfg(test)]
    pub(crate) fn of(requests: u64, work: f64, ages: f64, now: Timestamp) -> Self {
        let picked_at = requests * milliseconds(now) - (ages * 1e3) as u64;
        Outstanding {
            requests,
            work: (work * SCALE) as u64,
            picked_at,
        }
    }

    /// How many requests.
    #[inline]
    #[must_use]
    pub const fn requests(self) -> u64 {
        self.requests
    }

    /// The work expected of them, in mean requests of their pools.
    #[inline]
    #[must_use]
    pub fn work(self) -> f64 {
        self.work as f64 / SCALE
    }

    /// The ages of all of them together at `now`, in seconds.
    #[must_use]
    pub fn ages(self, now: Timestamp) -> f64 {
        let all = self.requests.saturating_mul(milliseconds(now));
        all.saturating_sub(self.picked_at) as f64 / 1e3
    }

    /// With one request more.
    pub(super) fn add(&mut self, job: Job) {
        self.requests = self.requests.saturating_add(1);
        self.work = self.work.saturating_add(job.work.0.into());
        self.picked_at = self.picked_at.saturating_add(milliseconds(job.picked_at));
    }

    /// With one request less.
    pub(super) fn remove(&mut self, job: Job) {
        self.requests = self.requests.saturating_sub(1);
        self.work = self.work.saturating_sub(job.work.0.into());
        self.picked_at = self.picked_at.saturating_sub(milliseconds(job.picked_at));
    }

    /// Together with what is outstanding elsewhere.
    #[must_use]
    pub(super) const fn plus(self, other: Outstanding) -> Outstanding {
        Outstanding {
            requests: self.requests.saturating_add(other.requests),
            work: self.work.saturating_add(other.work),
            picked_at: self.picked_at.saturating_add(other.picked_at),
        }
    }

    /// As bytes. What does not fit, four thousand million requests or four
    /// million mean requests' work, is written as the most that does; whoever
    /// counted it still knows the truth.
    pub(super) fn encode(self) -> [u8; Self::SIZE] {
        let [requests, work] =
            [self.requests, self.work].map(|n| u128::from(u32::try_from(n).unwrap_or(u32::MAX)));
        (u128::from(self.picked_at) << 64 | work << 32 | requests).to_le_bytes()
    }

    /// From its bytes.
    #[inline]
    pub(super) fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let all = u128::from_le_bytes(bytes);
        Outstanding {
            requests: u64::from(all as u32),
            work: u64::from((all >> 32) as u32),
            picked_at: (all >> 64) as u64,
        }
    }
}

fn milliseconds(time: Timestamp) -> u64 {
    time.as_nanos() / 1_000_000
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

    fn job(requests: f64, milliseconds: u64) -> Job {
        Job {
            work: Work::of_requests(requests),
            picked_at: Timestamp::from_nanos(milliseconds * 1_000_000),
        }
    }

    #[test]
    fn more_than_fits_is_published_as_the_most_that_does() {
        let mut much = Outstanding::default();
        for _ in 0..3 {
            much.add(job(4e6, 5));
        }
        assert_eq!(much.work(), 12e6);
        let published = Outstanding::decode(much.encode());
        assert_eq!(published.requests(), 3);
        assert_eq!(published.work(), f64::from(u32::MAX) / 1024.0);
        for _ in 0..3 {
            much.remove(job(4e6, 5));
        }
        assert_eq!(much, Outstanding::default());
    }

    #[test]
    fn ages_are_of_what_has_not_ended() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let mut outstanding = Outstanding::default();
        for second in 100..103 {
            outstanding.add(job(1.0, second * 1_000));
        }
        assert_eq!(outstanding.ages(at(104)), 9.0);
        outstanding.remove(job(1.0, 101_000));
        assert_eq!(outstanding.ages(at(104)), 6.0);
        assert_eq!(outstanding.ages(at(50)), 0.0, "a clock that went back");
        outstanding.remove(job(1.0, 100_000));
        outstanding.remove(job(1.0, 102_000));
        assert_eq!(outstanding.ages(at(104)), 0.0);
    }

    proptest! {
        #[test]
        fn nothing_is_left_over_when_all_is_released(
            jobs in proptest::collection::vec((any::<f64>(), 0u64..1 << 40), 0..50)
        ) {
            let mut outstanding = Outstanding::default();
            let jobs: Vec<Job> = jobs.into_iter().map(|(requests, at)| job(requests, at)).collect();
            for job in &jobs {
                outstanding.add(*job);
                prop_assert_eq!(Outstanding::decode(outstanding.encode()).requests(), outstanding.requests());
            }
            let sum: f64 = jobs.iter().map(|job| job.work.requests()).sum();
            prop_assert!((outstanding.work() - sum).abs() <= 1e-9 * sum);
            for job in jobs.iter().rev() {
                outstanding.remove(*job);
            }
            prop_assert_eq!(outstanding, Outstanding::default());
        }

        #[test]
        fn any_bytes_decode_and_survive_the_round_trip(bytes in any::<[u8; Outstanding::SIZE]>()) {
            prop_assert_eq!(Outstanding::decode(bytes).encode(), bytes);
        }
    }
}
