//! What a request shows of itself before it runs: a size that tells more or less of the work that it is.

use std::fmt;

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::Deserialize;

use super::Request;
use super::lognormal::Lognormal;

/// Lognormal sizes that correlate with lognormal service times: both are joined by a Gaussian copula. Its JSON form:
///
/// ```
/// use lab::workload::SizeHint;
///
/// let hint: SizeHint = lab::json::from_slice(br#"{ "correlation": 0.8, "mean": 250000, "cv": 1 }"#)?;
/// assert_eq!(hint, SizeHint { correlation: 0.8, mean: 250_000.0, cv: Some(1.0) });
/// # Ok::<(), lab::json::JsonError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeHint {
    /// The correlation (Pearson's) of sizes and service times: -1 to 1, as near as the two distributions can have it.
    pub correlation: f64,
    /// The mean size, in any unit: 1 to 1e12.
    #[serde(default = "default_mean")]
    pub mean: f64,
    /// The coefficient of variation of sizes, 0.01 to 100; that of the service times unless given.
    pub cv: Option<f64>,
}

/// A picture of 100 kB.
const fn default_mean() -> f64 {
    100_000.0
}

impl SizeHint {
    /// Checks the numbers.
    ///
    /// # Errors
    /// Names the first that is out of its range, its value and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, least: f64, most: f64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name}: {value} is not allowed: {least} to {most}"))
            }
        };
        within("correlation", self.correlation, -1.0, 1.0)?;
        within("mean", self.mean, 1.0, 1e12)?;
        within("cv", self.cv.unwrap_or(1.0), 0.01, 100.0)
    }

    /// Gives requests whose service times are drawn from `service` their sizes.
    pub(super) fn assign(self, requests: &mut [Request], service: Lognormal, rng: &mut impl Rng) {
        let sizes = match self.cv {
            Some(cv) => Lognormal::from_median_and_cv(1.0, cv),
            None => Lognormal { mu: 0.0, ..service },
        };
        let sizes = Lognormal {
            mu: self.mean.ln() - sizes.sigma * sizes.sigma / 2.0,
            ..sizes
        };
        let shared = service.normal_correlation(sizes, self.correlation);
        let own = (1.0 - shared * shared).sqrt();
        for request in requests {
            let seconds = request.service.unwrap_or_default().as_secs_f64();
            let of_service = (seconds.max(1e-9).ln() - service.mu) / service.sigma;
            let independent: f64 = rng.sample(StandardNormal);
            let size = sizes.at(shared * of_service + own * independent);
            request.size = Some(size.round() as u64);
        }
    }
}

impl fmt::Display for SizeHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sizes of correlation {}", self.correlation)
    }
}
