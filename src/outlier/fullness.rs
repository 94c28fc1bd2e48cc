//! Upstreams that are full: they say 429, or 503 while they answer others well.
//!
//! A full server is not broken. It works as fast as it can, and the only thing to do
//! is to send it less for a while. So each answer that says so raises a rate, each
//! success lowers it, and it fades within seconds.

use crate::estimate::{ErrorRate, Tuning};

/// A recency-weighted share of the answers that said that the upstream is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fullness {
    /// At the last outcome: a part of [`ErrorRate::HIGHEST`], in units of 1 / 65535.
    rate: u16,
}

const UNITS: f64 = u16::MAX as f64;

/// Odds that count as none.
const NEGLIGIBLE: f64 = 0.01;

impl Fullness {
    /// From its part.
    #[must_use]
    pub const fn from_part(rate: u16) -> Self {
        Fullness { rate }
    }

    /// The rate, to be stored.
    #[must_use]
    pub const fn part(self) -> u16 {
        self.rate
    }

    /// Whether nothing is known of the kind.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.rate == 0
    }

    /// The share of requests for which there is no room, `elapsed` seconds after the
    /// last outcome: 0 to [`ErrorRate::HIGHEST`].
    #[must_use]
    pub fn get(self, elapsed: f64, tuning: &Tuning) -> f64 {
        if self.is_none() {
            return 0.0;
        }
        // Odds fade, as those of failures do.
        let rate = f64::from(self.rate) / UNITS * ErrorRate::HIGHEST;
        let odds = rate / (1.0 - rate) * (-elapsed.max(0.0) / tuning.error_decay_seconds).exp();
        // Where all are idle, the least trace of it would send every request elsewhere.
        if odds < NEGLIGIBLE {
            return 0.0;
        }
        odds / (1.0 + odds)
    }

    /// Takes in whether there was room for a request, `elapsed` seconds after the last
    /// outcome.
    pub fn observe(&mut self, was_full: bool, elapsed: f64, tuning: &Tuning) {
        if self.is_none() && !was_full {
            return;
        }
        let before = self.get(elapsed, tuning);
        let seen = f64::from(u8::from(was_full));
        let rate = before + tuning.error_step * (seen - before);
        // Rounded down, so that successes bring it to nothing.
        self.rate = (rate / ErrorRate::HIGHEST * UNITS).clamp(0.0, UNITS) as u16;
    }

    /// Takes in that something else happened, `elapsed` seconds after the last outcome.
    pub fn age(&mut self, elapsed: f64, tuning: &Tuning) {
        if !self.is_none() {
            self.rate = (self.get(elapsed, tuning) / ErrorRate::HIGHEST * UNITS) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNING: Tuning = Tuning::DEFAULT;

    #[test]
    fn it_grows_with_refusals_and_fades_with_time_and_with_answers() {
        let mut full = Fullness::default();
        for _ in 0..10 {
            full.observe(true, 0.0, &TUNING);
        }
        assert!((0.95..=0.99).contains(&full.get(0.0, &TUNING)));
        assert!(full.get(60.0, &TUNING) < 0.1);
        let mut answered = full;
        answered.observe(false, 0.0, &TUNING);
        assert!(answered.get(0.0, &TUNING) < 0.7);
        for _ in 0..60 {
            answered.observe(false, 0.0, &TUNING);
        }
        assert!(answered.is_none());
        full.age(1e9, &TUNING);
        assert!(full.is_none());
    }

    #[test]
    fn it_stays_below_one_whatever_comes() {
        let mut full = Fullness::from_part(u16::MAX);
        for elapsed in [0.0, -5.0, f64::INFINITY] {
            full.observe(true, elapsed, &TUNING);
            assert!((0.0..=ErrorRate::HIGHEST).contains(&full.get(elapsed, &TUNING)));
        }
    }
}
