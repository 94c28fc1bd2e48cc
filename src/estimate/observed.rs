//! Observed work: what a finished request turned out to cost, told by the bytes
//! of its answer.
//!
//! A long answer is not a slow server. Most of the noise in a sample of pace is
//! the request's own length, and the answer shows it: a language model's has
//! about four bytes a token, an image's its pixels. It comes too late for the
//! request's own pick, but a sample that is divided by it says more of the
//! server.
//!
//! The relation is a line, cost over bytes, by exponentially weighted least
//! squares over the pool's recent requests, where cost is the sample over the pace
//! of the server that took it: so slow servers and busy ones do not bend the
//! line. The slope is shrunk by its F statistic, as in [`work`](super::work),
//! and where bytes explain nothing every request counts as one.

/// A line of cost over the bytes of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObservedWork {
    samples: f32,
    mean_bytes: f32,
    mean_cost: f32,
    bytes_variance: f32,
    cost_variance: f32,
    covariance: f32,
}

impl ObservedWork {
    /// Numbers that make up the line.
    pub const PARTS: usize = 6;
    /// Memory, in samples.
    const MEMORY: f64 = 500.0;
    /// Before this many samples all requests count as one.
    const NEEDED: f64 = 20.0;
    /// Work is within this factor of the mean request's: the line is not trusted
    /// far beyond what made it.
    pub const WIDEST: f64 = 20.0;
    /// An answer, and a cost, count for no more than this many of their means:
    /// one absurd value must not bend the line.
    const LARGEST: f64 = 30.0;
    /// Answers of more bytes than this are taken as this; their squares fit in
    /// the record.
    const MOST_BYTES: f64 = 1e15;

    /// The line from its parts; an empty one where they make no sense.
    #[must_use]
    pub fn from_parts(parts: [f32; Self::PARTS]) -> Self {
        let [
            samples,
            mean_bytes,
            mean_cost,
            bytes_variance,
            cost_variance,
            covariance,
        ] = parts;
        let not_negative = [
            samples,
            mean_bytes,
            mean_cost,
            bytes_variance,
            cost_variance,
        ];
        let is_sound = parts.iter().all(|part| part.is_finite())
            && not_negative.iter().all(|part| *part >= 0.0);
        if !is_sound {
            return ObservedWork::default();
        }
        ObservedWork {
            samples,
            mean_bytes,
            mean_cost,
            bytes_variance,
            cost_variance,
            covariance,
        }
    }

    /// The parts, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; Self::PARTS] {
        [
            self.samples,
            self.mean_bytes,
            self.mean_cost,
            self.bytes_variance,
            self.cost_variance,
            self.covariance,
        ]
    }

    /// The work of a request whose answer had so many bytes, in units of the
    /// pool's mean request: within a factor of [`ObservedWork::WIDEST`] of 1, and
    /// 1 where bytes say nothing.
    #[must_use]
    pub fn of(&self, bytes: u64) -> f64 {
        let bytes = (bytes as f64).min(Self::MOST_BYTES);
        let more = self.slope() * (bytes - f64::from(self.mean_bytes));
        let work = 1.0 + more / f64::from(self.mean_cost);
        if work.is_finite() {
            work.clamp(1.0 / Self::WIDEST, Self::WIDEST)
        } else {
            1.0
        }
    }

    /// Cost that a byte adds, as far as the evidence goes. An answer that is
    /// longer and cheaper is no less work.
    fn slope(&self) -> f64 {
        let samples = f64::from(self.samples);
        let bytes_variance = f64::from(self.bytes_variance);
        let product = bytes_variance * f64::from(self.cost_variance);
        if samples < Self::NEEDED || product <= 0.0 {
            return 0.0;
        }
        let covariance = f64::from(self.covariance);
        let explained = (covariance * covariance / product).min(0.9999);
        let f = explained * (samples - 2.0) / (1.0 - explained);
        let trust = if f > 1.0 { 1.0 - 1.0 / f } else { 0.0 };
        (trust * covariance / bytes_variance).max(0.0)
    }

    /// Takes in a finished request: the bytes of its answer and its `cost`, its
    /// latency over the load at its pick and over the pace of the upstream.
    pub fn observe(&mut self, bytes: u64, cost: f64) {
        if !(cost.is_finite() && cost > 0.0) {
            return;
        }
        let samples = (f64::from(self.samples) + 1.0).min(Self::MEMORY);
        let weight = 1.0 / samples;
        let (mean_bytes, mean_cost) = (f64::from(self.mean_bytes), f64::from(self.mean_cost));
        let mut bytes = (bytes as f64).min(Self::MOST_BYTES);
        let mut cost = cost;
        if samples > 1.0 {
            bytes = bytes.min(mean_bytes.max(1.0) * Self::LARGEST);
            cost = cost.min(mean_cost.max(f64::MIN_POSITIVE) * Self::LARGEST);
        }
        let (bytes_gap, cost_gap) = (bytes - mean_bytes, cost - mean_cost);
        let blend =
            |old: f32, product: f64| ((1.0 - weight) * (f64::from(old) + weight * product)) as f32;
        *self = ObservedWork::from_parts([
            samples as f32,
            (mean_bytes + weight * bytes_gap) as f32,
            (mean_cost + weight * cost_gap) as f32,
            blend(self.bytes_variance, bytes_gap * bytes_gap),
            blend(self.cost_variance, cost_gap * cost_gap),
            blend(self.covariance, bytes_gap * cost_gap),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use proptest::prelude::*;

    fn feed(model: &mut ObservedWork, rounds: usize, mut cost: impl FnMut(f64, &mut Rng) -> f64) {
        let mut rng = Rng::new(11);
        for _ in 0..rounds {
            let bytes = rng.below(2_000);
            let cost = cost(bytes as f64, &mut rng);
            model.observe(bytes as u64, cost);
        }
    }

    fn learned(rounds: usize, cost: impl FnMut(f64, &mut Rng) -> f64) -> ObservedWork {
        let mut model = ObservedWork::default();
        feed(&mut model, rounds, cost);
        model
    }

    #[test]
    fn finds_a_known_line_and_finds_it_through_noise() {
        // Mean size 1000, so mean cost 3: work is (1 + 0.002 x bytes) / 3.
        let line = |bytes: f64| 1.0 + 0.002 * bytes;
        let exact = learned(3_000, |bytes, _| line(bytes));
        let noisy = learned(3_000, |bytes, rng| line(bytes) * (0.5 + rng.unit()));
        for bytes in [0u32, 500, 1_000, 1_999] {
            let expected = line(f64::from(bytes)) / 3.0;
            for (model, tolerance) in [(exact, 0.05), (noisy, 0.15)] {
                let work = model.of(u64::from(bytes));
                assert!((work - expected).abs() < tolerance, "{bytes}: {work}");
            }
        }
    }

    #[test]
    fn counts_every_request_as_one_where_bytes_say_nothing_or_too_little_is_known() {
        let models = [
            learned(3_000, |_, rng| 0.5 + rng.unit()),
            learned(10, |bytes, _| 1.0 + bytes),
            learned(3_000, |bytes, _| 2_100.0 - bytes),
            ObservedWork::default(),
        ];
        for model in models {
            for bytes in [0, 500, 2_000] {
                let work = model.of(bytes);
                assert!((work - 1.0).abs() < 0.05, "{bytes}: {work}");
            }
        }
    }

    #[test]
    fn follows_a_change_and_forgets_an_absurd_answer() {
        let mut model = learned(3_000, |bytes, _| 1.0 + 0.002 * bytes);
        feed(&mut model, 3_000, |_, rng| 1.0 + 0.1 * rng.unit());
        assert!((model.of(2_000) - 1.0).abs() < 0.1, "{}", model.of(2_000));

        for (bytes, cost) in [(u64::MAX, 1.0), (10, 1e300)] {
            let known = learned(3_000, |bytes, _| 1.0 + 0.002 * bytes);
            let mut model = known;
            model.observe(bytes, cost);
            feed(&mut model, 2_000, |bytes, _| 1.0 + 0.002 * bytes);
            let (work, expected) = (model.of(1_500), known.of(1_500));
            assert!((work - expected).abs() < 0.1, "{work} {expected}");
        }
        for cost in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            let mut same = model;
            same.observe(10, cost);
            assert_eq!(same, model);
        }
    }

    proptest! {
        #[test]
        fn work_is_positive_and_bounded_whatever_it_is_fed(
            feed in proptest::collection::vec((any::<u64>(), any::<f64>()), 1..60),
            parts in any::<[f32; ObservedWork::PARTS]>(),
            bytes in any::<u64>(),
        ) {
            let sound = 1.0 / ObservedWork::WIDEST..=ObservedWork::WIDEST;
            let mut model = ObservedWork::default();
            for (bytes, cost) in feed {
                model.observe(bytes, cost);
                prop_assert!(sound.contains(&model.of(bytes)));
                prop_assert_eq!(ObservedWork::from_parts(model.parts()), model);
            }
            prop_assert!(sound.contains(&model.of(bytes)));
            prop_assert!(sound.contains(&ObservedWork::from_parts(parts).of(bytes)));
        }
    }
}
