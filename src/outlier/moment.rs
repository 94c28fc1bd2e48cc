//! Times of a state, in four bytes.

use crate::time::Timestamp;

/// A moment to a sixteenth of a second: 8 years of uptime in four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

impl Moment {
    /// Before everything.
    pub const BEGINNING: Moment = Moment(0);

    /// Nanoseconds in a unit: 2^26, 67 milliseconds.
    const SHIFT: u32 = 26;

    /// The last moment that is not after `time`.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        Moment(u32::try_from(time.as_nanos() >> Self::SHIFT).unwrap_or(u32::MAX))
    }

    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Moment(u32::from_le_bytes(bytes))
    }

    /// Its bytes, to be stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// When that is.
    #[must_use]
    pub const fn time(self) -> Timestamp {
        Timestamp::from_nanos((self.0 as u64) << Self::SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_just_before_its_time() {
        for seconds in [0.0, 1.0, 12_345.678, 86_400.0 * 365.0 * 8.0] {
            let time = Timestamp::ZERO.after(Duration::from_secs_f64(seconds));
            let moment = Moment::of(time);
            assert!(moment.time() <= time);
            assert!(time.since(moment.time()) < Duration::from_millis(68));
            assert_eq!(Moment::from_bytes(moment.to_bytes()), moment);
        }
        let end = Moment::of(Timestamp::from_nanos(u64::MAX));
        assert!(end.time() > Moment::of(Timestamp::from_nanos(1 << 57)).time());
    }
}
