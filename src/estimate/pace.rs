//! Pace: seconds that an upstream takes per unit of work and of load.
//!
//! A sample is `latency / (work x load)`, where `load` is what was outstanding
//! at the upstream when the request was picked, including that request. Dividing
//! by the load makes pace a property of the server, independent of how busy it
//! was: without it load would count twice, once in the measured latency and
//! once when a pick multiplies by what is outstanding.
//!
//! Samples spread over orders of magnitude and the spread is multiplicative,
//! so the estimate lives in logarithms. It is the *local level model* (Harvey,
//! "Forecasting, structural time series models and the Kalman filter", 1989,
//! section 2.3): the level is a random walk seen through noise, and the filter
//! gives each sample the weight that its evidence deserves. In steady state
//! that is an exponentially weighted mean, at the start a plain mean; after a
//! silence, a new sample counts for more.

use super::{Credit, Tuning};

/// Samples shorter than this (seconds per unit) are taken as this.
const SHORTEST: f64 = 1e-9;
/// Samples longer than this (seconds per unit) are taken as this.
const LONGEST: f64 = 1e9;

/// The estimated logarithm of an upstream's pace and how far to trust it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    mean_log: f32,
    /// Variance of `mean_log` over the residual variance of a single sample;
    /// infinite where there was no sample yet.
    uncertainty: f32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace::UNKNOWN
    }
}

impl Pace {
    /// The estimate before any sample.
    pub const UNKNOWN: Pace = Pace {
        mean_log: 0.0,
        uncertainty: f32::INFINITY,
    };

    /// An estimate from its parts, as [`Pace::parts`] gave them; unknown where
    /// they make no sense.
    #[must_use]
    pub fn from_parts(mean_log: f32, uncertainty: f32) -> Pace {
        if mean_log.is_finite() && uncertainty.is_finite() && uncertainty > 0.0 {
            Pace {
                mean_log,
                uncertainty,
            }
        } else {
            Pace::UNKNOWN
        }
    }

    /// The mean logarithm and the uncertainty, to be stored.
    #[must_use]
    pub const fn parts(self) -> (f32, f32) {
        (self.mean_log, self.uncertainty)
    }

    /// Whether there was a sample.
    #[must_use]
    pub fn is_known(self) -> bool {
        self.uncertainty.is_finite()
    }

    /// The mean of the logarithms of the samples (of seconds per unit).
    #[must_use]
    pub fn mean_log(self) -> f64 {
        f64::from(self.mean_log)
    }

    /// Variance of [`Pace::mean_log`] after `silence` seconds without a
    /// sample, over the residual variance of one sample.
    #[must_use]
    pub fn uncertainty(self, silence: f64, tuning: &Tuning) -> f64 {
        f64::from(self.uncertainty) + tuning.drift_per_second * silence.max(0.0)
    }

    /// Takes in one sample (seconds per unit of work and load), `silence`
    /// seconds after the last.
    ///
    /// Returns by how much its logarithm differed from what was expected,
    /// scaled so that its square estimates the residual variance; `None` for
    /// the first sample, of which nothing was expected, and for one that is
    /// not a number.
    pub fn observe(&mut self, sample: f64, silence: f64, tuning: &Tuning) -> Option<f64> {
        self.observe_in_part(sample, Credit::FULL, silence, tuning)
    }

    /// Takes in a sample that is a part of a full one: its noise has the residual
    /// variance over that part. The estimate before it is at least as uncertain as the
    /// credit's doubt.
    pub fn observe_in_part(
        &mut self,
        sample: f64,
        credit: Credit,
        silence: f64,
        tuning: &Tuning,
    ) -> Option<f64> {
        if sample.is_nan() || credit.part.is_nan() {
            return None;
        }
        let log = sample.clamp(SHORTEST, LONGEST).ln();
        let part = credit.part.clamp(Credit::LEAST, 1.0);
        let noise = 1.0 / part;
        if !self.is_known() {
            *self = Pace {
                mean_log: log as f32,
                uncertainty: noise as f32,
            };
            return None;
        }
        let before = self.uncertainty(silence, tuning).max(credit.doubt);
        let prior = before + tuning.drift_per_sample * part;
        let surprise = log - self.mean_log();
        let weight = prior / (prior + noise);
        self.mean_log = (self.mean_log() + weight * surprise) as f32;
        self.uncertainty = (weight * noise) as f32;
        Some(surprise / (prior + noise).sqrt())
    }
}

/// The variance of a single sample's logarithm about its upstream's pace,
/// pooled over the upstreams of a pool: how noisy a sample is depends on the
/// requests, and those are the same for all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResidualVariance {
    variance: f32,
    samples: f32,
}

impl Default for ResidualVariance {
    fn default() -> Self {
        ResidualVariance {
            variance: Self::ASSUMED,
            samples: 0.0,
        }
    }
}

impl ResidualVariance {
    /// What is assumed before any sample: a spread of a factor of two, as
    /// language models show.
    pub const ASSUMED: f32 = 0.5;
    /// How many samples the assumption is worth.
    const ASSUMED_SAMPLES: f64 = 10.0;
    /// Memory, in samples.
    const MEMORY: f64 = 200.0;
    /// No residual counts for more than this: one absurd sample must not make
    /// all estimates of the pool look worthless.
    const LARGEST: f64 = 5.0;

    /// An estimate from its parts; the default where they make no sense.
    #[must_use]
    pub fn from_parts(variance: f32, samples: f32) -> Self {
        if variance.is_finite() && variance >= 0.0 && samples.is_finite() && samples > 0.0 {
            ResidualVariance { variance, samples }
        } else {
            ResidualVariance::default()
        }
    }

    /// The variance and the number of samples, to be stored.
    #[must_use]
    pub const fn parts(self) -> (f32, f32) {
        (self.variance, self.samples)
    }

    /// The variance; positive.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.variance).max(1e-6)
    }

    /// Takes in one residual, as [`Pace::observe`] returns it for a full sample.
    pub fn observe(&mut self, residual: f64) {
        self.observe_in_part(residual, 1.0);
    }

    /// Takes in the residual of a sample that is this part of a full one.
    pub fn observe_in_part(&mut self, residual: f64, part: f64) {
        let square = residual.clamp(-Self::LARGEST, Self::LARGEST).powi(2);
        if square.is_nan() || part.is_nan() {
            return;
        }
        let part = part.clamp(0.0, 1.0);
        let samples = (f64::from(self.samples) + part).min(Self::MEMORY);
        let weight = part / (samples + Self::ASSUMED_SAMPLES);
        let variance = f64::from(self.variance);
        self.variance = (variance + weight * (square - variance)) as f32;
        self.samples = samples as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use proptest::prelude::*;

    #[test]
    fn the_first_samples_count_alike() {
        let mut pace = Pace::UNKNOWN;
        assert_eq!(pace.observe(1.0, 0.0, &Tuning::DEFAULT), None);
        for sample in [2.0, 4.0, 8.0] {
            pace.observe(sample, 0.0, &Tuning::DEFAULT);
        }
        // The plain mean of the logs of 1, 2, 4, 8 is ln 2 x 1.5.
        assert!((pace.mean_log() - 1.5 * 2f64.ln()).abs() < 0.03);
        assert!((pace.uncertainty(0.0, &Tuning::DEFAULT) - 0.25).abs() < 0.02);
    }

    #[test]
    fn in_steady_state_a_sample_weighs_eight_percent() {
        let mut pace = Pace::UNKNOWN;
        for _ in 0..1_000 {
            pace.observe(1.0, 0.0, &Tuning::DEFAULT);
        }
        pace.observe(std::f64::consts::E, 0.0, &Tuning::DEFAULT);
        assert!((pace.mean_log() - 0.08).abs() < 0.001, "{pace:?}");
    }

    #[test]
    fn a_sample_after_a_silence_weighs_more() {
        let mut steady = Pace::UNKNOWN;
        for _ in 0..1_000 {
            steady.observe(1.0, 0.0, &Tuning::DEFAULT);
        }
        let (mut at_once, mut late) = (steady, steady);
        at_once.observe(4.0, 0.0, &Tuning::DEFAULT);
        late.observe(4.0, 600.0, &Tuning::DEFAULT);
        assert!(late.mean_log() > 1.5 * at_once.mean_log());
        assert!(late.mean_log() < 4f64.ln());
    }

    #[test]
    fn residuals_estimate_the_noise_of_the_samples() {
        // Logarithms uniform in [-1, 1]: variance 1/3.
        let (mut rng, mut pace, mut variance) =
            (Rng::new(3), Pace::UNKNOWN, ResidualVariance::default());
        let mut mean = 0.0;
        for round in 0..20_000 {
            if let Some(residual) =
                pace.observe((rng.unit() * 2.0 - 1.0).exp(), 0.0, &Tuning::DEFAULT)
            {
                variance.observe(residual);
            }
            if round >= 1_000 {
                mean += variance.get() / 19_000.0;
            }
        }
        // The filter allows for a drift that is not there: some 4 % too low.
        assert!((mean - 1.0 / 3.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn parts_that_make_no_sense_are_unknown() {
        for (mean, uncertainty) in [
            (f32::NAN, 1.0),
            (0.0, 0.0),
            (0.0, -1.0),
            (f32::INFINITY, 1.0),
        ] {
            assert!(!Pace::from_parts(mean, uncertainty).is_known());
        }
        assert_eq!(
            ResidualVariance::from_parts(-1.0, 3.0),
            ResidualVariance::default()
        );
    }

    proptest! {
        #[test]
        fn stays_finite_whatever_it_is_fed(feed in proptest::collection::vec((any::<f64>(), any::<f64>()), 1..50)) {
            let (mut pace, mut variance) = (Pace::UNKNOWN, ResidualVariance::default());
            for (sample, silence) in feed {
                if let Some(residual) = pace.observe(sample, silence, &Tuning::DEFAULT) {
                    prop_assert!(residual.is_finite());
                    variance.observe(residual);
                }
                prop_assert!(pace.mean_log().is_finite());
                prop_assert!(variance.get().is_finite() && variance.get() > 0.0);
            }
        }
    }
}
