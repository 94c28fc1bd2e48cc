//! Differences between upstreams count only as far as the evidence supports them.
//!
//! A mean of few noisy samples says more about luck than about the server, and
//! a pick that follows luck is worse than one that ignores it. So each
//! upstream's mean is drawn towards the pool's (*empirical Bayes*; Efron and
//! Morris, "Stein's estimation rule and its competitors", JASA 1973) by the
//! factor `between / (between + v)`: `v` is the variance of that mean, and
//! `between` the variance between upstreams beyond what their `v` explain,
//! by the moment estimator of DerSimonian and Laird ("Meta-analysis in clinical
//! trials", 1986). Equal servers shrink to equal; unequal ones stay apart.

/// What the pool as a whole says of its upstreams' means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    mean: f64,
    between: f64,
}

impl Prior {
    /// From the upstreams' means and their variances (positive). Means with
    /// an infinite variance, of which nothing is known, have no say.
    ///
    /// One pass, O(n), no allocation.
    #[must_use]
    pub fn from_means(means: impl Iterator<Item = (f64, f64)>) -> Prior {
        let (mut count, mut weights, mut weights_squared) = (0.0, 0.0, 0.0);
        // Sums are taken about the first mean: means lie close together, and
        // the difference of two large sums would lose what tells them apart.
        let (mut origin, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (mean, variance) in means {
            if !(variance > 0.0 && variance < f64::INFINITY) {
                continue;
            }
            if count == 0.0 {
                origin = mean;
            }
            let (weight, offset) = (1.0 / variance, mean - origin);
            count += 1.0;
            weights += weight;
            weights_squared += weight * weight;
            sum += weight * offset;
            squares += weight * offset * offset;
        }
        if count == 0.0 {
            return Prior {
                mean: 0.0,
                between: 0.0,
            };
        }
        let offset = sum / weights;
        let spread = squares - offset * sum;
        let denominator = weights - weights_squared / weights;
        let between = if denominator > 0.0 {
            ((spread - (count - 1.0)) / denominator).max(0.0)
        } else {
            0.0
        };
        Prior {
            mean: origin + offset,
            between,
        }
    }

    /// The pool's mean: that of an upstream of which nothing is known.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The mean to act on for an upstream whose own mean has `variance`.
    #[must_use]
    pub fn shrink(&self, mean: f64, variance: f64) -> f64 {
        if self.between == 0.0 {
            return self.mean;
        }
        let factor = self.between / (self.between + variance);
        if factor.is_finite() {
            self.mean + factor * (mean - self.mean)
        } else {
            self.mean
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_upstreams_become_equal() {
        // Differences smaller than the noise explains.
        let means = [(0.1, 0.02), (-0.1, 0.02), (0.05, 0.02), (-0.05, 0.02)];
        let prior = Prior::from_means(means.iter().copied());
        for (mean, variance) in means {
            assert!(prior.shrink(mean, variance).abs() < 1e-9);
        }
    }

    #[test]
    fn upstreams_that_differ_stay_apart() {
        let means = [(1.0, 0.01), (-1.0, 0.01)];
        let prior = Prior::from_means(means.iter().copied());
        assert!(prior.shrink(1.0, 0.01) > 0.98);
        assert!(prior.shrink(-1.0, 0.01) < -0.98);
    }

    #[test]
    fn matches_a_worked_example() {
        // Weights 1, 2, 4; mean (0 + 2 + 8) / 7; Q = sum w (m - mean)^2.
        let means = [(0.0, 1.0), (1.0, 0.5), (2.0, 0.25)];
        let prior = Prior::from_means(means.iter().copied());
        let mean = 10.0 / 7.0;
        let q: f64 = means.iter().map(|(m, v)| (m - mean).powi(2) / v).sum();
        let between = (q - 2.0) / (7.0 - 21.0 / 7.0);
        assert!((prior.mean - mean).abs() < 1e-12);
        assert!((prior.between - between).abs() < 1e-12);
        assert!((prior.shrink(0.0, 1.0) - (mean - between / (between + 1.0) * mean)).abs() < 1e-12);
    }

    #[test]
    fn the_unknown_gets_the_mean_of_the_known() {
        let means = [(1.0, 0.1), (3.0, 0.1), (0.0, f64::INFINITY)];
        let prior = Prior::from_means(means.iter().copied());
        assert!((prior.shrink(0.0, f64::INFINITY) - 2.0).abs() < 1e-9);
        let nothing = Prior::from_means(std::iter::empty());
        assert_eq!(nothing.shrink(0.0, f64::INFINITY), 0.0);
    }

    proptest! {
        #[test]
        fn lands_between_the_own_mean_and_the_pools(
            means in proptest::collection::vec((-20.0f64..20.0, 1e-6f64..10.0), 1..20)
        ) {
            let prior = Prior::from_means(means.iter().copied());
            for (mean, variance) in means {
                let shrunk = prior.shrink(mean, variance);
                let (low, high) = (mean.min(prior.mean), mean.max(prior.mean));
                prop_assert!(shrunk >= low - 1e-9 && shrunk <= high + 1e-9);
            }
        }
    }
}
