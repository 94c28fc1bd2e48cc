//! Service times drawn from a distribution that has a name, for queueing models and for published experiments.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::{Exp1, StandardNormal};
use serde::Deserialize;

use super::Request;
use super::lognormal::Lognormal;

/// How long a slot server of speed 1 works at a request. Its JSON form is an object with the `distribution`'s name and its
/// parameters, seconds of 0 to 86400:
///
/// ```
/// use lab::workload::ServiceTimes;
///
/// let text = r#"{ "distribution": "normal", "mean_seconds": 0.167, "deviation_seconds": 0.005 }"#;
/// let times: ServiceTimes = lab::json::from_slice(text.as_bytes())?;
/// assert_eq!(times, ServiceTimes::Normal { mean_seconds: 0.167, deviation_seconds: 0.005 });
/// # Ok::<(), lab::json::JsonError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(
    tag = "distribution",
    rename_all = "lowercase",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum ServiceTimes {
    /// Always the same.
    Constant {
        /// So long.
        seconds: f64,
    },
    /// Exponential.
    Exponential {
        /// Its mean.
        mean_seconds: f64,
    },
    /// Uniform.
    Uniform {
        /// The shortest.
        min_seconds: f64,
        /// The longest.
        max_seconds: f64,
    },
    /// Normal, cut at zero.
    Normal {
        /// Its mean.
        mean_seconds: f64,
        /// Its standard deviation.
        deviation_seconds: f64,
    },
    /// Lognormal.
    Lognormal {
        /// Its median.
        median_seconds: f64,
        /// Its coefficient of variation, standard deviation over mean: 0.01 to 100.
        cv: f64,
    },
}

/// The longest service time, in seconds.
const LONGEST: f64 = 86_400.0;

impl ServiceTimes {
    /// Checks the parameters.
    ///
    /// # Errors
    /// Names the first that is out of its range, its value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let seconds = |name: &str, value: f64| {
            if (0.0..=LONGEST).contains(&value) {
                Ok(())
            } else {
                Err(format!(
                    "{name}: {value} is not allowed: 0 to {LONGEST} seconds"
                ))
            }
        };
        match *self {
            Self::Constant { seconds: value } => seconds("seconds", value),
            Self::Exponential { mean_seconds } => seconds("mean_seconds", mean_seconds),
            Self::Uniform {
                min_seconds,
                max_seconds,
            } => {
                seconds("max_seconds", max_seconds)?;
                if (0.0..=max_seconds).contains(&min_seconds) {
                    Ok(())
                } else {
                    Err(format!(
                        "min_seconds: {min_seconds} is not allowed: 0 to max_seconds, {max_seconds}"
                    ))
                }
            }
            Self::Normal {
                mean_seconds,
                deviation_seconds,
            } => {
                seconds("mean_seconds", mean_seconds)?;
                seconds("deviation_seconds", deviation_seconds)
            }
            Self::Lognormal { median_seconds, cv } => {
                seconds("median_seconds", median_seconds)?;
                if (0.01..=100.0).contains(&cv) {
                    Ok(())
                } else {
                    Err(format!("cv: {cv} is not allowed: 0.01 to 100"))
                }
            }
        }
    }

    /// The distribution, if it is a lognormal one.
    pub(super) fn lognormal(self) -> Option<Lognormal> {
        match self {
            Self::Lognormal { median_seconds, cv } => {
                Some(Lognormal::from_median_and_cv(median_seconds, cv))
            }
            _ => None,
        }
    }

    /// Draws the service times of `count` requests; their arrivals are all zero.
    pub(super) fn sample(self, count: usize, rng: &mut impl Rng) -> Vec<Request> {
        let draw = || {
            let seconds = self.draw(rng).clamp(0.0, LONGEST);
            Request {
                arrival: Duration::ZERO,
                prompt_tokens: NonZeroU32::MIN,
                output_tokens: NonZeroU32::MIN,
                service: Some(Duration::from_secs_f64(seconds)),
                size: None,
            }
        };
        std::iter::repeat_with(draw).take(count).collect()
    }

    fn draw(self, rng: &mut impl Rng) -> f64 {
        match self {
            Self::Constant { seconds } => seconds,
            Self::Exponential { mean_seconds } => mean_seconds * rng.sample::<f64, _>(Exp1),
            Self::Uniform {
                min_seconds,
                max_seconds,
            } => min_seconds + (max_seconds - min_seconds) * rng.random::<f64>(),
            Self::Normal {
                mean_seconds,
                deviation_seconds,
            } => mean_seconds + deviation_seconds * rng.sample::<f64, _>(StandardNormal),
            Self::Lognormal { median_seconds, cv } => {
                Lognormal::from_median_and_cv(median_seconds, cv).at(rng.sample(StandardNormal))
            }
        }
    }
}

impl fmt::Display for ServiceTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant { seconds } => write!(f, "constant {seconds} s"),
            Self::Exponential { mean_seconds } => {
                write!(f, "exponential of mean {mean_seconds} s")
            }
            Self::Uniform {
                min_seconds,
                max_seconds,
            } => write!(f, "uniform from {min_seconds} to {max_seconds} s"),
            Self::Normal {
                mean_seconds,
                deviation_seconds,
            } => write!(
                f,
                "normal of mean {mean_seconds} s and deviation {deviation_seconds} s"
            ),
            Self::Lognormal { median_seconds, cv } => {
                write!(f, "lognormal of median {median_seconds} s and CV {cv}")
            }
        }
    }
}
