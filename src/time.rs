//! Moments on the host's monotonic clock.

use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since an origin that all
/// workers of one Envoy process share.
///
/// It is never wall time: it is stored in shared data and compared between
/// workers, and a wall clock may be set back at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the clock.
    pub const ZERO: Timestamp = Timestamp(0);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Timestamp(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero where `earlier` is later,
    /// which happens when two workers read the clock in the other order than
    /// they use it.
    #[must_use]
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// [`Timestamp::since`] in seconds. Policies ask for it several times for
    /// each upstream, so it spares the division that a `Duration` costs.
    #[must_use]
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 * 1e-9
    }

    /// The moment `duration` after this one; the end of time where that
    /// overflows.
    #[must_use]
    pub fn after(self, duration: Duration) -> Timestamp {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(nanos))
    }
}

/// So many seconds: none where the number is negative or none, the longest time that a
/// [`Timestamp`] can tell where it is more.
#[must_use]
pub fn seconds(seconds: f64) -> Duration {
    Duration::from_nanos((seconds * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_before_counts_as_no_time() {
        let (early, late) = (Timestamp::from_nanos(5), Timestamp::from_nanos(9));
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn any_number_of_seconds_is_a_time() {
        assert_eq!(seconds(0.25), Duration::from_millis(250));
        assert_eq!(seconds(0.01), Duration::from_millis(10));
        assert_eq!(seconds(-1.0), Duration::ZERO);
        assert_eq!(seconds(f64::NAN), Duration::ZERO);
        assert_eq!(seconds(f64::INFINITY), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let end = Timestamp::from_nanos(u64::MAX).after(Duration::MAX);
        assert_eq!(end.as_nanos(), u64::MAX);
    }
}
