use std::time::{Duration, Instant};

use crate::model::Time;

/// The servers' time: real time since the start, multiplied by the time scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaledClock {
    start: Instant,
    scale: f64,
}

impl ScaledClock {
    pub(super) fn start(scale: f64) -> Self {
        Self {
            start: Instant::now(),
            scale,
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::from_secs_f64(self.start.elapsed().as_secs_f64() * self.scale)
    }

    /// How long to sleep, really, until it is `time`.
    pub(super) fn until(&self, time: Time) -> Duration {
        let real = Duration::from_secs_f64(time.as_secs_f64() / self.scale);
        real.saturating_sub(self.start.elapsed())
    }
}
