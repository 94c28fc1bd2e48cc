//! Observed work: what a finished request turned out to cost, according to the
//! bytes of its answer.
//!
//! A long answer does not mean a slow server. Most of the noise in a sample of pace
//! is the request's own length, and the answer shows it: a language model's answer
//! has about four bytes per token, an image its pixels. This comes too late for the
//! request's own pick, but dividing the sample by it says more about the
//! server.
//!
//! The relation is a line, cost over bytes, by exponentially weighted least
//! squares over the pool's recent requests, where cost is the sample divided by the
//! pace of its server, so slow or busy servers do not distort the
//! line. The F statistic shrinks the slope, as in [`work`](super::work);
//! if bytes explain nothing, every request counts as one.

use super::line::Line;

/// A line of cost over the bytes of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ObservedWork {
    line: Line,
}

impl ObservedWork {
    /// Numbers that make up the line.
    pub const PARTS: usize = Line::PARTS;
    /// Memory, in samples.
    const MEMORY: f64 = 500.0;
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
        let line = Line::from_parts(parts).filter(|line| line.mean_x() >= 0.0);
        ObservedWork {
            line: line.unwrap_or_default(),
        }
    }

    /// The parts, to be stored.
    #[must_use]
    pub const fn parts(self) -> [f32; Self::PARTS] {
        self.line.parts()
    }

    /// The work of a request whose answer had so many bytes, in units of the
    /// pool's mean request: within a factor of [`ObservedWork::WIDEST`] of 1, and
    /// 1 where bytes say nothing.
    #[must_use]
    pub fn of(&self, bytes: u64) -> f64 {
        let bytes = (bytes as f64).min(Self::MOST_BYTES);
        let more = self.slope() * (bytes - self.line.mean_x());
        let work = 1.0 + more / self.line.mean_y();
        if work.is_finite() {
            work.clamp(1.0 / Self::WIDEST, Self::WIDEST)
        } else {
            1.0
        }
    }

    /// Cost that a byte adds, as far as the evidence goes. An answer that is
    /// longer and cheaper is no less work.
    fn slope(&self) -> f64 {
        let slope = self.line.slope();
        slope.map_or(0.0, |slope| (slope.trust * slope.fitted).max(0.0))
    }

    /// Takes in a finished request: the bytes of its answer and its `cost`, its
    /// latency over the load at its pick and over the pace of the upstream.
    pub fn observe(&mut self, bytes: u64, cost: f64) {
        if !(cost.is_finite() && cost > 0.0) {
            return;
        }
        let samples = self.line.next_samples(Self::MEMORY);
        let mut bytes = (bytes as f64).min(Self::MOST_BYTES);
        let mut cost = cost;
        if samples > 1.0 {
            bytes = bytes.min(self.line.mean_x().max(1.0) * Self::LARGEST);
            cost = cost.min(self.line.mean_y().max(f64::MIN_POSITIVE) * Self::LARGEST);
        }
        self.line = self.line.with(bytes, cost, samples).unwrap_or_default();
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
