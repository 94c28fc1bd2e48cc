//! Lognormal distributions from the figures that papers publish of a size.

/// The logarithm of a size is normal with mean `mu` and standard deviation `sigma`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lognormal {
    pub(super) mu: f64,
    pub(super) sigma: f64,
}

/// The 99 % quantile of the standard normal distribution.
const Z99: f64 = 2.326_347_874_040_841;

impl Lognormal {
    /// The one with this mean and this 99 % quantile.
    ///
    /// `ln(p99 / mean) = Z99 sigma - sigma^2 / 2` has two roots; the smaller is the one whose median is near the mean.
    /// There is none where `p99 / mean` exceeds `exp(Z99^2 / 2)`, about 15: the nearest is taken, with `sigma = Z99`.
    pub(super) fn from_mean_and_p99(mean: f64, p99: f64) -> Self {
        let spread = (p99 / mean).ln();
        let sigma = Z99 - (Z99 * Z99 - 2.0 * spread).max(0.0).sqrt();
        Self {
            mu: mean.ln() - sigma * sigma / 2.0,
            sigma,
        }
    }

    /// The one with this median and this coefficient of variation.
    pub(super) fn from_median_and_cv(median: f64, cv: f64) -> Self {
        Self {
            mu: median.ln(),
            sigma: cv.mul_add(cv, 1.0).ln().sqrt(),
        }
    }

    /// The value that `z` standard deviations of the logarithm lead to.
    pub(super) fn at(self, z: f64) -> f64 {
        self.sigma.mul_add(z, self.mu).exp()
    }

    /// The correlation that two standard normals need for the values of `self` and `other` to have the
    /// correlation `wanted`; as near as lognormals of these spreads can have it.
    pub(super) fn normal_correlation(self, other: Self, wanted: f64) -> f64 {
        let scale = (self.sigma.powi(2).exp_m1() * other.sigma.powi(2).exp_m1()).sqrt();
        let correlation = (wanted * scale).ln_1p() / (self.sigma * other.sigma);
        if correlation.is_nan() {
            -1.0
        } else {
            correlation.clamp(-1.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meets_the_mean_and_the_p99() {
        for (mean, p99) in [(1155.0, 4142.0), (28.0, 252.0), (12_000.0, 85_000.0)] {
            let fit = Lognormal::from_mean_and_p99(mean, p99);
            let fitted_mean = (fit.mu + fit.sigma * fit.sigma / 2.0).exp();
            assert!((fitted_mean / mean - 1.0).abs() < 1e-9, "{fit:?}");
            assert!((fit.at(Z99) / p99 - 1.0).abs() < 1e-9, "{fit:?}");
        }
    }

    #[test]
    fn meets_the_median_and_the_cv() {
        let fit = Lognormal::from_median_and_cv(23.0, 0.73);
        assert!((fit.at(0.0) - 23.0).abs() < 1e-9);
        assert!((fit.sigma.powi(2).exp_m1().sqrt() - 0.73).abs() < 1e-9);
    }

    #[test]
    fn a_correlation_out_of_reach_is_the_nearest_in_reach() {
        let wide = Lognormal {
            mu: 0.0,
            sigma: 2.0,
        };
        assert_eq!(wide.normal_correlation(wide, -0.9), -1.0);
        assert_eq!(wide.normal_correlation(wide, 1.0), 1.0);
        assert_eq!(wide.normal_correlation(wide, 0.0), 0.0);
    }
}
