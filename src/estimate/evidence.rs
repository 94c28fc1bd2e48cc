//! Evidence: how much is known about an upstream, in seconds served rather
//! than in answers.
//!
//! Short requests end first. An upstream that has answered one smoke
//! test in 20 ms has shown almost nothing: answers of five seconds say more, and
//! the pool cannot know which is normal until some upstream has given a long
//! answer. So each upstream keeps the sum of the latencies that it has served.
//! Divided by the pool's mean latency, this is the number of *mean* requests that it
//! has shown, and it falls by itself as soon as the pool learns that requests are
//! long. An upstream that really is a hundred times faster shows as much in the
//! same time.

use super::Tuning;

/// The mean latency of a pool's last requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MeanLatency {
    seconds: f32,
    samples: f32,
}

impl MeanLatency {
    /// How many requests it remembers.
    const MEMORY: f64 = 200.0;

    /// The mean from its parts; unknown where they make no sense.
    #[must_use]
    pub fn from_parts(seconds: f32, samples: f32) -> Self {
        if is_sound(seconds) && is_sound(samples) {
            MeanLatency { seconds, samples }
        } else {
            MeanLatency::default()
        }
    }

    /// The mean in seconds and the number of samples, to be stored.
    #[must_use]
    pub const fn parts(self) -> (f32, f32) {
        (self.seconds, self.samples)
    }

    /// The mean in seconds; `None` before the first sample.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        (self.samples > 0.0).then(|| f64::from(self.seconds))
    }

    /// Takes in one latency in seconds.
    pub fn observe(&mut self, latency: f64) {
        if latency.is_nan() {
            return;
        }
        let samples = (f64::from(self.samples) + 1.0).min(Self::MEMORY);
        let mean = f64::from(self.seconds);
        let latency = latency.clamp(0.0, Evidence::LONGEST);
        self.seconds = (mean + (latency - mean) / samples) as f32;
        self.samples = samples as f32;
    }
}

/// What an upstream was seen to serve: the sum of the latencies of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    seconds: f32,
}

impl Evidence {
    /// Latencies beyond this, in seconds, count as this: sums stay finite.
    const LONGEST: f64 = 1e6;

    /// The evidence from its sum; none where that makes no sense.
    #[must_use]
    pub fn from_seconds(seconds: f32) -> Self {
        let is_sound = seconds.is_finite() && seconds > 0.0;
        let seconds = if is_sound { seconds } else { 0.0 };
        Evidence { seconds }
    }

    /// The sum of the latencies, in seconds.
    #[must_use]
    pub const fn seconds(self) -> f32 {
        self.seconds
    }

    /// Takes in one latency in seconds. The sum is no more than `memory` latencies of
    /// the pool's mean: where requests become longer, what was shown by short ones
    /// is little again.
    pub fn observe(&mut self, latency: f64, pool_mean: Option<f64>, memory: f64) {
        if latency.is_nan() {
            return;
        }
        let most = memory * pool_mean.unwrap_or(Self::LONGEST);
        let seconds = f64::from(self.seconds) + latency.clamp(0.0, Self::LONGEST);
        self.seconds = seconds.min(most) as f32;
    }

    /// The least uncertainty of an estimate that rests on this, in variances of one
    /// sample, where `needed` mean requests are worth one: 0 to [`Credit::MOST_DOUBT`].
    /// No doubt where no mean is known.
    #[must_use]
    pub fn doubt(self, needed: f64, pool_mean: Option<f64>) -> f64 {
        let doubt = needed * pool_mean.unwrap_or(0.0) / f64::from(self.seconds);
        if doubt.is_nan() {
            return 0.0;
        }
        doubt.min(Credit::MOST_DOUBT)
    }

    /// By how much the logarithm of the upstream's mean latency lies above that of the
    /// requests that have ended, for what is outstanding and how old that is: `ages` is
    /// in seconds, all together. 0 where nothing has ended.
    #[must_use]
    pub fn untold(self, ages: f64) -> f64 {
        let more = ages / f64::from(self.seconds);
        if more < 0.05 {
            // At rest that is all members: no need of a logarithm for each.
            return more * (1.0 - more / 2.0);
        }
        let untold = more.ln_1p();
        if untold.is_finite() { untold } else { 0.0 }
    }
}

fn is_sound(part: f32) -> bool {
    part.is_finite() && part >= 0.0
}

/// How much a sample, and the estimate that it finds, are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Credit {
    /// The part of a full sample that it is: [`Credit::LEAST`] to 1.
    pub part: f64,
    /// The estimate before it is at least this uncertain, in variances of a sample.
    pub doubt: f64,
}

impl Credit {
    /// A full sample, and no doubt about what was known before.
    pub const FULL: Credit = Credit {
        part: 1.0,
        doubt: 0.0,
    };
    /// No sample is a smaller part of a full one than this.
    pub const LEAST: f64 = 1e-3;
    /// The greatest doubt.
    pub const MOST_DOUBT: f64 = 1e6;
    /// Estimates in more doubt than this are nothing to measure others by.
    pub(super) const DOUBTFUL: f64 = 2.0;

    /// Of a sample of so many seconds, where the member has shown `member` before it
    /// and the pool's mean latency is `pool_mean`.
    #[must_use]
    pub fn of(latency: f64, member: Evidence, pool_mean: Option<f64>, tuning: &Tuning) -> Self {
        let full = tuning.full_evidence * pool_mean.unwrap_or(0.0);
        let part = if full > 0.0 { latency / full } else { 1.0 };
        Credit {
            part: if part.is_nan() {
                Self::LEAST
            } else {
                part.clamp(Self::LEAST, 1.0)
            },
            doubt: member.doubt(1.0, pool_mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(latencies: &[f64]) -> (Evidence, Option<f64>) {
        let (mut evidence, mut mean) = (Evidence::default(), MeanLatency::default());
        for latency in latencies {
            mean.observe(*latency);
            evidence.observe(*latency, mean.get(), 1e4);
        }
        (evidence, mean.get())
    }

    #[test]
    fn tiny_answers_show_nothing_as_soon_as_anybody_has_shown_a_long_one() {
        let (tiny, mean) = seen(&[0.02]);
        let doubt = tiny.doubt(2.0, mean);
        assert!(
            (doubt - 2.0).abs() < 1e-6,
            "the pool knows no other: {doubt}"
        );
        let (_, mean) = seen(&[0.02, 5.0]);
        assert!(tiny.doubt(2.0, mean) > 200.0);
        assert!(seen(&[5.0; 10]).0.doubt(2.0, mean) < 0.2);
        let nothing = Evidence::default();
        assert_eq!(nothing.doubt(2.0, mean), Credit::MOST_DOUBT);
        assert_eq!(nothing.doubt(2.0, None), 0.0);
    }

    #[test]
    fn an_answer_counts_in_full_unless_it_is_much_shorter_than_the_mean() {
        let (shown, mean) = seen(&[4.0]);
        let credit = |latency| Credit::of(latency, shown, mean, &Tuning::DEFAULT);
        assert_eq!(credit(40.0).part, 1.0);
        assert_eq!(credit(0.4).part, 1.0);
        assert!((credit(0.02).part - 0.1).abs() < 1e-6);
        assert_eq!(credit(0.0).part, Credit::LEAST);
        assert_eq!(credit(f64::NAN).part, Credit::LEAST);
        assert!((credit(4.0).doubt - 1.0).abs() < 1e-6);
        let first = Credit::of(0.02, Evidence::default(), None, &Tuning::DEFAULT);
        assert_eq!(first, Credit::FULL);
    }

    #[test]
    fn what_short_answers_have_shown_is_no_more_than_a_memory_of_long_ones() {
        let (mut evidence, mut mean) = (Evidence::default(), MeanLatency::default());
        for _ in 0..1_000 {
            mean.observe(1.0);
            evidence.observe(1.0, mean.get(), 100.0);
        }
        assert_eq!(evidence.seconds(), 100.0);
        for _ in 0..2_000 {
            mean.observe(3.0);
        }
        assert!((mean.get().unwrap() - 3.0).abs() < 0.01);
        assert!(evidence.doubt(1.0, mean.get()) > 0.02);
    }

    proptest! {
        #[test]
        fn stays_finite_whatever_it_is_fed(
            feed in proptest::collection::vec(any::<f64>(), 1..50),
            parts in any::<(f32, f32, f32)>(),
        ) {
            let mut mean = MeanLatency::from_parts(parts.0, parts.1);
            let mut evidence = Evidence::from_seconds(parts.2);
            for latency in feed {
                mean.observe(latency);
                evidence.observe(latency, mean.get(), 1e4);
                prop_assert!(evidence.seconds().is_finite());
                prop_assert!(mean.get().is_none_or(f64::is_finite));
                let credit = Credit::of(latency, evidence, mean.get(), &Tuning::DEFAULT);
                prop_assert!((Credit::LEAST..=1.0).contains(&credit.part));
                prop_assert!((0.0..=Credit::MOST_DOUBT).contains(&credit.doubt));
            }
        }
    }
}
