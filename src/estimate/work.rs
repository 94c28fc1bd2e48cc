//! Observed work: what a finished request turned out to cost, told by the
//! bytes of its answer.
//!
//! A long answer is not a slow server. Most of the noise in a pace sample is
//! the request's own size, and the answer shows it: a language model's answer
//! is about four bytes a token, an image's its pixels. The relation between
//! bytes and cost is learned per pool by least squares over recent requests:
//! `cost = a + b x bytes`, where cost is the latency over load and over the
//! pace of the server that took it, so that slow servers and busy ones do not
//! bend the line. Where size explains little, the slope shrinks to zero by
//! itself and every request counts as one.

/// An exponentially weighted least-squares line of cost over response bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObservedWork {
    samples: f32,
    mean_size: f32,
    mean_cost: f32,
    size_variance: f32,
    cost_variance: f32,
    covariance: f32,
}

impl ObservedWork {
    /// Numbers that make up the model.
    pub const PARTS: usize = 6;
    /// Memory, in samples.
    const MEMORY: f64 = 500.0;
    /// Before this many samples all requests count as one.
    const NEEDED: f64 = 20.0;
    /// The work of one request, in units of the pool's mean request, stays
    /// within this factor of it: the line is not trusted far beyond what
    /// made it.
    const WIDEST: f64 = 20.0;
    /// A cost counts for no more than this many mean costs.
    const HIGHEST_COST: f64 = 20.0;

    /// The model from its parts; an empty one where they make no sense.
    #[must_use]
    pub fn from_parts(parts: [f32; Self::PARTS]) -> Self {
        let [
            samples,
            mean_size,
            mean_cost,
            size_variance,
            cost_variance,
            covariance,
        ] = parts;
        let sound = parts.iter().all(|part| part.is_finite())
            && samples >= 0.0
            && size_variance >= 0.0
            && cost_variance >= 0.0;
        if !sound {
            return ObservedWork::default();
        }
        ObservedWork {
            samples,
            mean_size,
            mean_cost,
            size_variance,
            cost_variance,
            covariance,
        }
    }

    /// The parts, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; Self::PARTS] {
        [
            self.samples,
            self.mean_size,
            self.mean_cost,
            self.size_variance,
            self.cost_variance,
            self.covariance,
        ]
    }

    /// The work of a request whose answer had `bytes`, in units of the pool's
    /// mean request: positive, 1 where size says nothing.
    #[must_use]
    pub fn of(&self, bytes: u64) -> f64 {
        let slope = self.trusted_slope();
        let mean_cost = f64::from(self.mean_cost);
        if slope <= 0.0 || mean_cost <= 0.0 {
            return 1.0;
        }
        let work = 1.0 + slope * (bytes as f64 - f64::from(self.mean_size)) / mean_cost;
        work.clamp(1.0 / Self::WIDEST, Self::WIDEST)
    }

    /// The slope, shrunk by how likely it is to be chance: the F statistic of
    /// the regression, `F = r^2 (n - 2) / (1 - r^2)`, gives the factor
    /// `max(0, 1 - 1 / F)` (the positive-part James-Stein estimator for one
    /// coefficient).
    fn trusted_slope(&self) -> f64 {
        let samples = f64::from(self.samples);
        let size_variance = f64::from(self.size_variance);
        let product = size_variance * f64::from(self.cost_variance);
        if samples < Self::NEEDED || product <= 0.0 {
            return 0.0;
        }
        let covariance = f64::from(self.covariance);
        let explained = (covariance * covariance / product).min(0.9999);
        let f = explained * (samples - 2.0) / (1.0 - explained);
        let trust = if f > 1.0 { 1.0 - 1.0 / f } else { 0.0 };
        trust * covariance / size_variance
    }

    /// Takes in a finished request: `bytes` of answer and its `cost`, the
    /// latency in seconds over the load at pick and over the pace of the
    /// upstream.
    pub fn observe(&mut self, bytes: u64, cost: f64) {
        if !cost.is_finite() || cost <= 0.0 {
            return;
        }
        let mean_cost = f64::from(self.mean_cost);
        let cost = if mean_cost > 0.0 {
            cost.min(mean_cost * Self::HIGHEST_COST)
        } else {
            cost
        };
        let samples = (f64::from(self.samples) + 1.0).min(Self::MEMORY);
        let weight = 1.0 / samples;
        let size_gap = bytes as f64 - f64::from(self.mean_size);
        let cost_gap = cost - mean_cost;
        let blend =
            |old: f32, product: f64| ((1.0 - weight) * (f64::from(old) + weight * product)) as f32;
        let next = [
            samples as f32,
            (f64::from(self.mean_size) + weight * size_gap) as f32,
            (mean_cost + weight * cost_gap) as f32,
            blend(self.size_variance, size_gap * size_gap),
            blend(self.cost_variance, cost_gap * cost_gap),
            blend(self.covariance, size_gap * cost_gap),
        ];
        *self = ObservedWork::from_parts(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use proptest::prelude::*;

    fn learn(rounds: usize, mut cost: impl FnMut(f64, &mut Rng) -> f64) -> ObservedWork {
        let (mut model, mut rng) = (ObservedWork::default(), Rng::new(11));
        for _ in 0..rounds {
            let bytes = rng.below(2_000) as f64;
            let cost = cost(bytes, &mut rng);
            model.observe(bytes as u64, cost);
        }
        model
    }

    #[test]
    fn finds_a_known_line() {
        // Mean size 1000, so mean cost 3: work is (1 + 0.002 x bytes) / 3.
        let model = learn(3_000, |bytes, _| 1.0 + 0.002 * bytes);
        for bytes in [0u64, 500, 1_000, 1_999] {
            let expected = (1.0 + 0.002 * bytes as f64) / 3.0;
            assert!(
                (model.of(bytes) - expected).abs() < 0.05,
                "{bytes}: {}",
                model.of(bytes)
            );
        }
    }

    #[test]
    fn finds_the_line_through_noise() {
        let model = learn(3_000, |bytes, rng| {
            (1.0 + 0.002 * bytes) * (0.5 + rng.unit())
        });
        assert!(
            (model.of(1_800) - 4.6 / 3.0).abs() < 0.2,
            "{}",
            model.of(1_800)
        );
    }

    #[test]
    fn counts_every_request_as_one_where_size_says_nothing() {
        let model = learn(3_000, |_, rng| 0.5 + rng.unit());
        for bytes in [0, 500, 2_000] {
            assert!((model.of(bytes) - 1.0).abs() < 0.05, "{}", model.of(bytes));
        }
        assert_eq!(
            learn(10, |bytes, _| 1.0 + bytes).of(0),
            1.0,
            "too few samples"
        );
    }

    #[test]
    fn follows_a_change() {
        let (mut model, mut rng) = (learn(3_000, |bytes, _| 1.0 + 0.002 * bytes), Rng::new(5));
        for _ in 0..3_000 {
            model.observe(rng.below(2_000) as u64, 1.0 + 0.1 * rng.unit());
        }
        assert!((model.of(2_000) - 1.0).abs() < 0.1, "{}", model.of(2_000));
    }

    proptest! {
        #[test]
        fn work_is_positive_and_bounded_whatever_it_is_fed(
            feed in proptest::collection::vec((any::<u64>(), any::<f64>()), 1..60),
            bytes in any::<u64>(),
        ) {
            let mut model = ObservedWork::default();
            for (bytes, cost) in feed {
                model.observe(bytes, cost);
                let work = model.of(bytes);
                prop_assert!((0.05..=20.0).contains(&work));
            }
            prop_assert!((0.05..=20.0).contains(&model.of(bytes)));
        }
    }
}
