//! When a client that was rejected should try again.

use std::time::Duration;

use crate::time::{Timestamp, seconds};

/// How fast requests of a pool end, as one worker sees it: an exponentially weighted
/// count, over some 30 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DrainRate {
    /// Ends, each with a weight that fades.
    count: f64,
    /// When it was last brought up to date; `None` before the first end.
    at: Option<Timestamp>,
    /// Since when ends have been counted.
    since: Timestamp,
}

/// The time in which an end loses its weight by a factor of e.
const MEMORY_SECONDS: f64 = 30.0;

/// What is assumed where nothing is known.
const UNKNOWN: Duration = Duration::from_secs(5);

/// The longest that a client is asked to wait before the jitter.
const LONGEST: Duration = Duration::from_secs(60);

impl DrainRate {
    /// A request ended at `now`.
    pub fn observe(&mut self, now: Timestamp) {
        if self.at.is_none() {
            self.since = now;
        }
        self.count = self.faded(now) + 1.0;
        self.at = Some(now);
    }

    /// Requests that end in a second; `None` before any did.
    #[must_use]
    pub fn per_second(&self, now: Timestamp) -> Option<f64> {
        self.at?;
        // Of a process that began a while ago, the weights so far. One second at least:
        // of the first end nobody knows what it took.
        let age = now.seconds_since(self.since).max(1.0);
        let weights = MEMORY_SECONDS * (1.0 - (-age / MEMORY_SECONDS).exp());
        Some(self.faded(now) / weights)
    }

    fn faded(&self, now: Timestamp) -> f64 {
        let elapsed = self.at.map_or(0.0, |at| now.seconds_since(at));
        self.count * (-elapsed / MEMORY_SECONDS).exp()
    }
}

/// After how long a client should try again where so many requests wait before it: the
/// time in which they are through at this rate, from 1 to 60 seconds, and up to twice
/// that, as `draw` in [0, 1) says. Clients that were rejected together so do not come
/// back together.
#[must_use]
pub fn retry_after(waiting: u32, per_second: Option<f64>, draw: f64) -> Duration {
    let through = match per_second {
        None => UNKNOWN,
        Some(rate) => {
            let through = (f64::from(waiting) + 1.0) / rate;
            seconds(through.min(LONGEST.as_secs_f64()))
        }
    };
    let through = through.clamp(Duration::from_secs(1), LONGEST);
    through + seconds(through.as_secs_f64() * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((seconds * 1e9) as u64)
    }

    #[test]
    fn a_steady_rate_is_found_from_the_start_and_followed() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.per_second(at(100.0)), None);
        for end in 0..2000 {
            let now = at(100.0 + f64::from(end) / 10.0);
            rate.observe(now);
            let found = rate.per_second(now).unwrap();
            let least_found = if end < 100 { 5.0 } else { 9.5 };
            let most_found = if end < 10 { 11.0 } else { 12.0 };
            if end >= 20 {
                assert!((least_found..most_found).contains(&found), "{end}: {found}");
            }
        }
        // Nothing ends any more.
        let after = rate.per_second(at(330.0)).unwrap();
        assert!((3.0..4.5).contains(&after), "{after}");
        assert!(rate.per_second(at(1e6)).unwrap() < 1e-9);
    }

    #[test]
    fn clients_come_back_when_those_before_them_are_through_and_not_together() {
        let after = |waiting, rate, draw| retry_after(waiting, rate, draw).as_secs_f64();
        assert_eq!(after(9, Some(2.0), 0.0), 5.0);
        assert_eq!(after(9, Some(2.0), 0.5), 7.5);
        assert_eq!(after(0, Some(1e9), 0.0), 1.0);
        assert_eq!(after(0, Some(1e9), 0.999), 1.999);
        assert_eq!(after(1_000_000, Some(1.0), 0.0), 60.0);
        assert_eq!(after(3, Some(0.0), 0.0), 60.0);
        assert_eq!(after(3, Some(f64::NAN), 0.0), 60.0);
        assert_eq!(after(3, None, 0.0), 5.0);
    }
}
