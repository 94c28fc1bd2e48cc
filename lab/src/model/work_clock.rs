//! The time that a server has had to work, as against the time that passed.

use std::time::Duration;

use super::time::Time;

/// A point in a server's working time: nanoseconds of work at speed 1 since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Work(u64);

impl Work {
    pub(super) const ZERO: Self = Self(0);

    pub(super) fn after(self, span: Duration) -> Self {
        self.after_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn after_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// Maps time to work, piecewise linearly: engines count in work and know nothing of speed, slow-downs
/// or stops, all of which only change the slope of this map.
///
/// Exact integer arithmetic: `time_of(w)` is the first time at which `work_at` has reached `w`, so a driver that
/// sleeps until then never finds the work undone.
#[derive(Clone, Debug)]
pub(super) struct WorkClock {
    time: Time,
    work: Work,
    /// Work per time, in units of 2^-32.
    rate: u64,
}

const RATE_BITS: u32 = 32;

impl WorkClock {
    pub(super) fn new(speed: f64) -> Self {
        Self {
            time: Time::ZERO,
            work: Work::ZERO,
            rate: fixed_point(speed),
        }
    }

    /// The work that could be done by `now`.
    pub(super) fn work_at(&self, now: Time) -> Work {
        let elapsed = now.as_nanos().saturating_sub(self.time.as_nanos());
        let done = (u128::from(elapsed) * u128::from(self.rate)) >> RATE_BITS;
        self.work
            .after_nanos(u64::try_from(done).unwrap_or(u64::MAX))
    }

    /// The first time at which `work` has been done; `None` while the server does not work.
    pub(super) fn time_of(&self, work: Work) -> Option<Time> {
        let left = u128::from(work.0.saturating_sub(self.work.0)) << RATE_BITS;
        if self.is_stopped() {
            return None;
        }
        let nanos = u64::try_from(left.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX);
        Some(self.time + Duration::from_nanos(nanos))
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.rate == 0
    }

    /// From `now` on the server works at `speed` times its nominal speed; 0 stops it.
    pub(super) fn set_speed(&mut self, now: Time, speed: f64) {
        self.work = self.work_at(now);
        self.time = self.time.max(now);
        self.rate = fixed_point(speed);
    }
}

fn fixed_point(speed: f64) -> u64 {
    (speed * f64::from(RATE_BITS).exp2()).round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn speed_one_is_exact_over_years() {
        let clock = WorkClock::new(1.0);
        let late = Time::from_nanos(u64::MAX / 3);
        assert_eq!(clock.work_at(late), Work(late.as_nanos()));
        assert_eq!(clock.time_of(Work(late.as_nanos())), Some(late));
    }

    #[test]
    fn a_stop_takes_no_work_and_loses_none() {
        let mut clock = WorkClock::new(2.0);
        clock.set_speed(Time::from_nanos(100), 0.0);
        assert_eq!(clock.time_of(Work(300)), None);
        assert_eq!(clock.work_at(Time::from_nanos(5000)), Work(200));
        clock.set_speed(Time::from_nanos(5000), 0.5);
        assert_eq!(clock.time_of(Work(300)), Some(Time::from_nanos(5200)));
    }

    proptest! {
        #![proptest_config(crate::model::tests::cases(500))]
        #[test]
        fn time_of_is_the_first_time_at_which_the_work_is_done(
            speed in 1e-4..1e4_f64, start in 0..1_u64 << 50, work in 1..1_u64 << 40,
        ) {
            let mut clock = WorkClock::new(1.0);
            clock.set_speed(Time::from_nanos(start), speed);
            let target = clock.work_at(Time::from_nanos(start)).after_nanos(work);
            let time = clock.time_of(target).unwrap();
            prop_assert!(clock.work_at(time) >= target);
            prop_assert!(clock.work_at(Time::from_nanos(time.as_nanos() - 1)) < target);
        }
    }
}
