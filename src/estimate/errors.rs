//! How often an upstream fails, and what that costs a request sent there.
//!
//! A server that fails at once looks fast and idle, and would attract traffic
//! only to fail it: errors must never look fast. A failed request must
//! be tried again, so the expected delay of an upstream that fails with
//! probability `p` is its delay times the expected number of tries,
//! `1 / (1 - p)`.

use std::time::Duration;

use super::Tuning;
use crate::time::Timestamp;

/// A recency-weighted failure rate that also fades with time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorRate {
    /// At the last outcome, 0 to [`ErrorRate::HIGHEST`].
    rate: f32,
    /// Until when the upstream asked to be left alone (`Retry-After`).
    back_off_until: Timestamp,
}

impl ErrorRate {
    /// The rate never exceeds this, so that a pool whose upstreams all fail
    /// still ranks them by delay.
    pub const HIGHEST: f64 = 0.99;
    /// The longest `Retry-After` that is honoured.
    pub const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

    /// From its parts; no errors where they make no sense.
    #[must_use]
    pub fn from_parts(rate: f32, back_off_until: Timestamp) -> Self {
        let rate = if rate.is_finite() {
            rate.clamp(0.0, Self::HIGHEST as f32)
        } else {
            0.0
        };
        ErrorRate {
            rate,
            back_off_until,
        }
    }

    /// The rate at the last outcome and the end of the back-off, to be stored.
    #[must_use]
    pub const fn parts(self) -> (f32, Timestamp) {
        (self.rate, self.back_off_until)
    }

    /// The failure rate at `now`, where the last outcome was `elapsed` seconds
    /// ago: 0 to [`ErrorRate::HIGHEST`].
    #[must_use]
    pub fn get(self, now: Timestamp, elapsed: f64, tuning: &Tuning) -> f64 {
        if self.is_backing_off(now) {
            return Self::HIGHEST;
        }
        self.faded(elapsed, tuning)
    }

    /// The rate after `elapsed` seconds in which nothing was sent. Odds fade,
    /// not the rate: what is as good as certain to fail stays so for longer
    /// than what fails now and then.
    fn faded(self, elapsed: f64, tuning: &Tuning) -> f64 {
        let rate = f64::from(self.rate);
        let odds = rate / (1.0 - rate) * (-elapsed.max(0.0) / tuning.error_decay_seconds).exp();
        odds / (1.0 + odds)
    }

    /// By how much failures lengthen the expected delay: 1 to 100.
    #[must_use]
    pub fn penalty(self, now: Timestamp, elapsed: f64, tuning: &Tuning) -> f64 {
        if self.rate <= 0.0 && !self.is_backing_off(now) {
            return 1.0;
        }
        1.0 / (1.0 - self.get(now, elapsed, tuning))
    }

    /// Whether the upstream asked to be left alone. A moment further ahead
    /// than any that is honoured cannot have come from an answer.
    #[must_use]
    pub fn is_backing_off(self, now: Timestamp) -> bool {
        self.back_off_until > now && self.back_off_until.since(now) <= Self::LONGEST_BACK_OFF
    }

    /// Takes in a success, `elapsed` seconds after the last outcome.
    pub fn succeed(&mut self, elapsed: f64, tuning: &Tuning) {
        self.observe(0.0, elapsed, tuning);
    }

    /// Takes in a failure at `now`, `elapsed` seconds after the last outcome,
    /// with the time for which the upstream asked to be left alone.
    pub fn fail(
        &mut self,
        now: Timestamp,
        elapsed: f64,
        retry_after: Option<Duration>,
        tuning: &Tuning,
    ) {
        self.observe(1.0, elapsed, tuning);
        self.back_off(now, retry_after);
    }

    /// Takes in for how long the upstream asked at `now` to be left alone, if it did.
    pub fn back_off(&mut self, now: Timestamp, retry_after: Option<Duration>) {
        if let Some(wait) = retry_after {
            let until = now.after(wait.min(Self::LONGEST_BACK_OFF));
            self.back_off_until = self.back_off_until.max(until);
        }
    }

    /// What failed before counts no more; how long it asked to be left alone still does.
    pub fn forgive(&mut self) {
        self.rate = 0.0;
    }

    /// Takes in that something else happened, `elapsed` seconds after the last
    /// outcome.
    pub fn age(&mut self, elapsed: f64, tuning: &Tuning) {
        if self.rate > 0.0 {
            self.rate = self.faded(elapsed, tuning) as f32;
        }
    }

    fn observe(&mut self, outcome: f64, elapsed: f64, tuning: &Tuning) {
        let faded = self.faded(elapsed, tuning);
        let rate = faded + tuning.error_step * (outcome - faded);
        self.rate = rate.clamp(0.0, Self::HIGHEST) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

    fn after_failures(count: usize) -> ErrorRate {
        let mut errors = ErrorRate::default();
        for _ in 0..count {
            errors.fail(NOW, 0.0, None, &Tuning::DEFAULT);
        }
        errors
    }

    #[test]
    fn failures_in_a_row_weigh_ever_more() {
        let penalties: Vec<f64> = [0, 1, 5, 10, 100]
            .map(|count| after_failures(count).penalty(NOW, 0.0, &Tuning::DEFAULT))
            .to_vec();
        assert!((penalties[0] - 1.0).abs() < 1e-9);
        assert!((penalties[1] - 1.0 / 0.7).abs() < 1e-5);
        assert!((penalties[2] - 1.0 / 0.7f64.powi(5)).abs() < 1e-3);
        assert!((penalties[3] - 1.0 / 0.7f64.powi(10)).abs() < 1e-2);
        assert!((penalties[4] - 100.0).abs() < 0.1);
    }

    #[test]
    fn the_penalty_fades_with_successes_and_with_time() {
        let failed = after_failures(5);
        let mut better = failed;
        better.succeed(0.0, &Tuning::DEFAULT);
        assert!(
            better.penalty(NOW, 0.0, &Tuning::DEFAULT) < failed.penalty(NOW, 0.0, &Tuning::DEFAULT)
        );
        assert!(failed.penalty(NOW, 60.0, &Tuning::DEFAULT) < 1.02);
    }

    #[test]
    fn retry_after_holds_the_penalty_until_it_ends_and_is_bounded() {
        let mut errors = ErrorRate::default();
        errors.fail(NOW, 0.0, Some(Duration::from_secs(5)), &Tuning::DEFAULT);
        let in_seconds = |s| NOW.after(Duration::from_secs(s));
        assert!(errors.penalty(in_seconds(4), 4.0, &Tuning::DEFAULT) > 99.0);
        assert!(errors.penalty(in_seconds(6), 6.0, &Tuning::DEFAULT) < 1.3);
        errors.fail(
            NOW,
            0.0,
            Some(Duration::from_secs(86_400)),
            &Tuning::DEFAULT,
        );
        assert!(errors.penalty(in_seconds(59), 59.0, &Tuning::DEFAULT) > 99.0);
        assert!(errors.penalty(in_seconds(61), 61.0, &Tuning::DEFAULT) < 1.3);
    }

    #[test]
    fn garbage_is_no_error() {
        let garbage = ErrorRate::from_parts(f32::NAN, Timestamp::from_nanos(u64::MAX));
        assert_eq!(garbage.penalty(NOW, 0.0, &Tuning::DEFAULT), 1.0);
        assert!(
            ErrorRate::from_parts(7.0, Timestamp::ZERO).penalty(NOW, 0.0, &Tuning::DEFAULT)
                <= 100.1
        );
    }
}
