//! Work: what a request will cost, predicted from its size before it runs.
//!
//! A model answers a small picture in milliseconds and a large one in seconds.
//! Each pool learns how cost depends on size, without any setting, as a line: work
//! is `1 + b (r - 1)`, where `r` is the size over the pool's mean size, so the
//! mean request has work 1 in whatever unit sizes are measured.
//!
//! The slope comes from an exponentially weighted least-squares fit. A request
//! that is picked with `n` others outstanding takes about
//! `pace x (n others' work + own work)`. Over the pace and over the load
//! `n + 1` that is a cost whose expectation is
//!
//! ```text
//! k + k b (r - 1) / (n + 1)
//! ```
//!
//! plus the known difference between the others' work and `n`, which is subtracted.
//! So neither slow or busy servers nor the sizes of the others distort the line.
//! Sizes count only as far as the evidence supports them: the F statistic shrinks
//! the slope, and if size explains nothing, every request counts as one.

use super::line::Line;

/// A line of expected work over size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkModel {
    mean_size: f32,
    /// Of cost over the relative size beyond 1 over the load.
    line: Line,
}

/// What was known when a request was picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtPick {
    /// Requests that were outstanding at the upstream, this one included.
    pub load: f64,
    /// The work that was expected of the others, in mean requests.
    pub others_work: f64,
}

impl WorkModel {
    /// Numbers that make up the model.
    pub const PARTS: usize = 1 + Line::PARTS;
    /// Memory, in samples.
    const MEMORY: f64 = 300.0;
    /// Work is at least this many mean requests...
    pub const LEAST: f64 = 0.02;
    /// ...and at most so many: the line is not trusted far beyond what made it.
    pub const MOST: f64 = 50.0;
    /// A size, and a cost, count for no more than this many of their means: one
    /// absurd value must not bend the line.
    const WIDEST: f64 = 30.0;
    /// Sizes beyond this are taken as this; their squares fit in the record.
    const LARGEST: f64 = 1e15;

    /// The model from its parts; an empty one where they make no sense.
    #[must_use]
    pub fn from_parts(parts: [f32; Self::PARTS]) -> Self {
        let [mean_size, line @ ..] = parts;
        match Line::from_parts(line) {
            Some(line) if mean_size.is_finite() && mean_size >= 0.0 => {
                WorkModel { mean_size, line }
            }
            _ => WorkModel::default(),
        }
    }

    /// The parts, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; Self::PARTS] {
        let [a, b, c, d, e, f] = self.line.parts();
        [self.mean_size, a, b, c, d, e, f]
    }

    /// The work to expect of a request of this size, in units of the pool's mean
    /// request: [`WorkModel::LEAST`] to [`WorkModel::MOST`]; 1 where the size is
    /// not known or says nothing.
    #[must_use]
    pub fn of(&self, size: Option<f64>) -> f64 {
        let Some(relative) = size.and_then(|size| self.relative(size)) else {
            return 1.0;
        };
        let work = 1.0 + self.slope() * (relative - 1.0);
        work.clamp(Self::LEAST, Self::MOST)
    }

    /// The size over the mean size, if both are known.
    fn relative(&self, size: f64) -> Option<f64> {
        let size = valid(size)?;
        let mean = f64::from(self.mean_size);
        (mean > 0.0).then(|| size / mean)
    }

    /// The part of a mean request's work that grows with its size, 0 to 1,
    /// as far as the evidence goes.
    #[must_use]
    pub fn slope(&self) -> f64 {
        let Some(slope) = self.line.slope() else {
            return 0.0;
        };
        // The line's value at excess 0 is the cost of a mean request.
        let mean_cost = self.line.mean_y() - slope.fitted * self.line.mean_x();
        let relative = slope.trust * slope.fitted / mean_cost;
        if relative.is_finite() {
            relative.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    /// Takes in a finished request of this `size`: its `cost` is its latency in
    /// seconds over the load at its pick and over the pace of the upstream.
    pub fn observe(&mut self, size: f64, cost: f64, at_pick: AtPick) {
        let Some(size) = valid(size) else {
            return;
        };
        if !(cost.is_finite() && cost > 0.0 && at_pick.load >= 1.0) {
            return;
        }
        let samples = self.line.next_samples(Self::MEMORY);
        let mean_cost = self.line.mean_y();
        let mean_size = f64::from(self.mean_size);
        let (size, cost) = if samples > 1.0 {
            (
                size.min(mean_size.max(f64::MIN_POSITIVE) * Self::WIDEST),
                cost.min(mean_cost.max(f64::MIN_POSITIVE) * Self::WIDEST),
            )
        } else {
            (size, cost)
        };
        let mean_size = mean_size + (1.0 / samples) * (size - mean_size);
        let relative = if mean_size > 0.0 {
            size / mean_size
        } else {
            1.0
        };
        let excess = (relative - 1.0) / at_pick.load;
        let others = at_pick.load - 1.0;
        let known = mean_cost * (at_pick.others_work - others) / at_pick.load;
        let own_cost = if known.is_finite() {
            cost - known
        } else {
            cost
        };

        *self = match self.line.with(excess, own_cost, samples) {
            Some(line) => WorkModel {
                mean_size: mean_size as f32,
                line,
            },
            None => WorkModel::default(),
        };
    }
}

/// A size that can be one, within what is reckoned with.
fn valid(size: f64) -> Option<f64> {
    (size >= 0.0).then(|| size.min(WorkModel::LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use proptest::prelude::*;

    /// A request's cost on a server that works at its line of requests in
    /// turn, where the work of each is `work(size)` times a noise with mean 1.
    fn feed(
        model: &mut WorkModel,
        rng: &mut Rng,
        samples: usize,
        noise: f64,
        mut size: impl FnMut(&mut Rng) -> f64,
        work: impl Fn(f64) -> f64,
    ) {
        for _ in 0..samples {
            let others = rng.below(6);
            let (mut total, mut others_work) = (0.0, 0.0);
            let mut own = 0.0;
            for _ in 0..=others {
                own = size(rng);
                others_work += model.of(Some(own));
                total += work(own) * (1.0 + noise * (2.0 * rng.unit() - 1.0));
            }
            others_work -= model.of(Some(own));
            let load = others as f64 + 1.0;
            model.observe(own, total / load, AtPick { load, others_work });
        }
    }

    fn uniform(rng: &mut Rng) -> f64 {
        2_000.0 * rng.unit()
    }

    fn learned(samples: usize, noise: f64, work: impl Fn(f64) -> f64) -> WorkModel {
        let (mut model, mut rng) = (WorkModel::default(), Rng::new(11));
        feed(&mut model, &mut rng, samples, noise, uniform, work);
        model
    }

    #[test]
    fn finds_a_known_line_whatever_is_queued_before_and_whatever_the_unit() {
        // Mean size 1000, so mean work 3: (1 + 0.002 x size) / 3.
        for unit in [1e-3, 1.0, 1e9] {
            let (mut model, mut rng) = (WorkModel::default(), Rng::new(11));
            feed(
                &mut model,
                &mut rng,
                3_000,
                0.5,
                |rng| unit * uniform(rng),
                |size| 1.0 + 0.002 * size / unit,
            );
            for size in [0.0, 500.0, 1_000.0, 1_999.0] {
                let (found, expected) = (model.of(Some(unit * size)), (1.0 + 0.002 * size) / 3.0);
                assert!((found - expected).abs() < 0.1, "{unit} {size}: {found}");
            }
        }
    }

    #[test]
    fn counts_every_request_as_one_where_size_says_nothing_or_too_little_is_known() {
        let model = learned(3_000, 0.9, |_| 1.0);
        for size in [0.0, 500.0, 2_000.0] {
            let work = model.of(Some(size));
            assert!((work - 1.0).abs() < 0.05, "{work}");
        }
        assert_eq!(learned(15, 0.0, |size| size).of(Some(0.0)), 1.0);
        assert_eq!(learned(3_000, 0.0, |size| size).of(None), 1.0);
    }

    #[test]
    fn work_that_falls_with_size_counts_as_one() {
        assert_eq!(
            learned(3_000, 0.1, |size| 2_100.0 - size).of(Some(5.0)),
            1.0
        );
    }

    #[test]
    fn follows_a_drift_and_a_change_of_kind() {
        let mut rng = Rng::new(5);
        let mut model = learned(3_000, 0.3, |size| size);
        assert!(model.slope() > 0.9, "{model:?}");
        feed(&mut model, &mut rng, 2_000, 0.3, uniform, |_| 1_000.0);
        assert!(model.slope() < 0.05, "{model:?}");
        for step in 0..20 {
            let part = f64::from(step) / 19.0;
            let work = |size: f64| 1_000.0 * (1.0 - part) + part * size;
            feed(&mut model, &mut rng, 200, 0.3, uniform, work);
        }
        assert!(model.slope() > 0.85, "{model:?}");
        // From bytes to pixels.
        let small = |rng: &mut Rng| 0.04 * rng.unit();
        feed(&mut model, &mut rng, 5_000, 0.3, small, |size| {
            50_000.0 * size
        });
        assert!(model.slope() > 0.85, "{model:?}");
        feed(&mut model, &mut rng, 3_000, 0.3, uniform, |size| size);
        assert!(model.slope() > 0.85, "{model:?}");
    }

    #[test]
    fn absurd_sizes_and_costs_do_not_bend_the_line_for_long() {
        let known = learned(3_000, 0.3, |size| 500.0 + size);
        let at_pick = AtPick {
            load: 1.0,
            others_work: 0.0,
        };
        for (size, cost) in [(1e300, 1.0), (f64::INFINITY, 1.0), (100.0, 1e300)] {
            let mut model = known;
            model.observe(size, cost, at_pick);
            feed(&mut model, &mut Rng::new(2), 1_500, 0.3, uniform, |size| {
                500.0 + size
            });
            let (slope, expected) = (model.slope(), known.slope());
            assert!((slope - expected).abs() < 0.1, "{slope} {expected}");
        }
        for (size, cost) in [
            (f64::NAN, 1.0),
            (-1.0, 1.0),
            (1.0, f64::NAN),
            (1.0, f64::INFINITY),
            (1.0, -1.0),
        ] {
            let mut model = known;
            model.observe(size, cost, at_pick);
            assert_eq!(model, known, "{size} {cost}");
        }
    }

    #[test]
    fn heavy_tailed_sizes_give_their_line() {
        // Lognormal with a sigma of 1.4, by the sum of twelve uniforms.
        let size = |rng: &mut Rng| {
            let normal = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
            1e5 * (1.4 * normal).exp()
        };
        let (mut model, mut rng) = (WorkModel::default(), Rng::new(3));
        feed(&mut model, &mut rng, 5_000, 0.5, size, |size| size / 2.7e5);
        assert!(model.slope() > 0.8, "{model:?}");
    }

    proptest! {
        #[test]
        fn work_is_positive_and_bounded_whatever_it_is_fed(
            feed in proptest::collection::vec(
                (any::<f64>(), any::<f64>(), any::<f64>(), any::<f64>()), 1..60),
            size in any::<f64>(),
        ) {
            let mut model = WorkModel::default();
            let sound = WorkModel::LEAST..=WorkModel::MOST;
            for (size, cost, load, others_work) in feed {
                model.observe(size, cost, AtPick { load, others_work });
                prop_assert!(sound.contains(&model.of(Some(size))));
                prop_assert_eq!(WorkModel::from_parts(model.parts()), model);
            }
            prop_assert!(sound.contains(&model.of(Some(size))));
            prop_assert_eq!(model.of(None), 1.0);
        }

        #[test]
        fn any_parts_give_sound_work(parts in any::<[f32; WorkModel::PARTS]>(), size in any::<f64>()) {
            let work = WorkModel::from_parts(parts).of(Some(size));
            prop_assert!((WorkModel::LEAST..=WorkModel::MOST).contains(&work));
        }
    }
}
