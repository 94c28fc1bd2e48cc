//! Mean and peak response time, for the policies that rank by them.

/// An exponentially weighted mean of response times in which a sample's weight
/// falls with the time that has passed since, not with the number of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseTime {
    /// Seconds; 0 where there was no sample yet.
    seconds: f32,
}

impl ResponseTime {
    /// From seconds as [`ResponseTime::seconds`] gave them; unknown where they
    /// make no sense.
    #[must_use]
    pub fn from_seconds(seconds: f32) -> Self {
        ResponseTime {
            seconds: sound(seconds),
        }
    }

    /// The mean in seconds; `None` before the first sample.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        (self.seconds > 0.0).then(|| f64::from(self.seconds))
    }

    /// The mean in seconds, 0 before the first sample, to be stored.
    #[must_use]
    pub const fn seconds(self) -> f32 {
        self.seconds
    }

    /// Takes in a response time in seconds, `elapsed` seconds after the last,
    /// where samples lose weight by a factor of e in `decay` seconds.
    pub fn observe(&mut self, sample: f64, elapsed: f64, decay: f64) {
        let sample = positive(sample);
        let seconds = match self.get() {
            // Samples that arrive together share their weight: a mean over the
            // window, not only the last of them.
            Some(mean) => {
                let kept = (-elapsed.max(decay / 100.0) / decay).exp();
                mean * kept + sample * (1.0 - kept)
            }
            None => sample,
        };
        self.seconds = sound(seconds as f32);
    }
}

/// A peak-sensitive mean of response times: it jumps up to any slower sample
/// at once and comes down slowly.
///
/// As in Finagle's and tower's peak-EWMA: a slower sample replaces the
/// estimate; otherwise it decays towards the sample with the time since the
/// last, and towards zero while nothing arrives, so that an upstream that is
/// avoided is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeakResponseTime {
    /// Seconds at the last sample; 0 where there was none yet.
    seconds: f32,
}

impl PeakResponseTime {
    /// From seconds as [`PeakResponseTime::seconds`] gave them; unknown where
    /// they make no sense.
    #[must_use]
    pub fn from_seconds(seconds: f32) -> Self {
        PeakResponseTime {
            seconds: sound(seconds),
        }
    }

    /// The estimate in seconds at the last sample, 0 before the first, to be
    /// stored.
    #[must_use]
    pub const fn seconds(self) -> f32 {
        self.seconds
    }

    /// The estimate in seconds, `elapsed` seconds after the last sample;
    /// `None` before the first.
    #[must_use]
    pub fn get(self, elapsed: f64, decay: f64) -> Option<f64> {
        let kept = (-elapsed.max(0.0) / decay).exp();
        (self.seconds > 0.0).then(|| f64::from(self.seconds) * kept)
    }

    /// Takes in a response time in seconds, `elapsed` seconds after the last.
    pub fn observe(&mut self, sample: f64, elapsed: f64, decay: f64) {
        let sample = positive(sample);
        let estimate = f64::from(self.seconds);
        let kept = (-elapsed.max(0.0) / decay).exp();
        let seconds = if sample > estimate {
            sample
        } else {
            estimate * kept + sample * (1.0 - kept)
        };
        self.seconds = sound(seconds as f32);
    }
}

/// Response times are at least a nanosecond: zero stands for "no sample".
fn positive(sample: f64) -> f64 {
    if sample.is_nan() {
        return 1e-9;
    }
    sample.clamp(1e-9, 1e9)
}

fn sound(seconds: f32) -> f32 {
    if seconds.is_finite() && seconds > 0.0 {
        seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DECAY: f64 = 10.0;

    #[test]
    fn the_mean_forgets_by_time() {
        let mut mean = ResponseTime::default();
        assert_eq!(mean.get(), None);
        mean.observe(1.0, 0.0, DECAY);
        assert_eq!(mean.get(), Some(1.0));
        mean.observe(3.0, DECAY, DECAY);
        let kept = (-1f64).exp();
        assert!((mean.get().unwrap() - (kept + 3.0 * (1.0 - kept))).abs() < 1e-6);
    }

    #[test]
    fn samples_at_one_moment_all_count() {
        let mut mean = ResponseTime::default();
        mean.observe(1.0, 0.0, DECAY);
        mean.observe(2.0, 0.0, DECAY);
        let after = mean.get().unwrap();
        assert!(after > 1.0 && after < 1.1, "{after}");
    }

    #[test]
    fn the_peak_jumps_up_and_comes_down_slowly() {
        let mut peak = PeakResponseTime::default();
        peak.observe(1.0, 0.0, DECAY);
        peak.observe(5.0, 0.1, DECAY);
        assert_eq!(peak.get(0.0, DECAY), Some(5.0));
        peak.observe(1.0, DECAY, DECAY);
        let kept = (-1f64).exp();
        let expected = 5.0 * kept + (1.0 - kept);
        assert!((peak.get(0.0, DECAY).unwrap() - expected).abs() < 1e-6);
        assert!((peak.get(DECAY, DECAY).unwrap() - expected * kept).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn stay_finite_whatever_they_are_fed(feed in proptest::collection::vec((any::<f64>(), 0.0f64..1e6), 1..30)) {
            let (mut mean, mut peak) = (ResponseTime::default(), PeakResponseTime::default());
            for (sample, elapsed) in feed {
                mean.observe(sample, elapsed, DECAY);
                peak.observe(sample, elapsed, DECAY);
                prop_assert!(mean.get().is_some_and(f64::is_finite));
                prop_assert!(peak.get(0.0, DECAY).is_none_or(f64::is_finite));
            }
        }
    }
}
