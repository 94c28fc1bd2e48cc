//! Comparing the slow ends of upstreams' latencies.
//!
//! A policy cannot rank by measured quantiles as they are. All requests would go
//! to the upstream with the lowest quantile until it is no longer the lowest:
//! they would herd. So a quantile is divided by the load under which it
//! was measured,
//!
//! ```text
//! tail pace = quantile of the latencies / mean load when they were picked
//! ```
//!
//! in seconds per unit of load, and a pick multiplies it by the current
//! load: when load rises the upstream looks slower at once, long before any
//! answer could show it.
//!
//! A high quantile of few samples is mostly luck. Its variance follows from the
//! samples around it ([`Sketch::log_quantile`]), pooled over the upstreams, and
//! the quantiles are drawn together as far as that explains their differences
//! ([`super::shrinkage`]).

use std::time::Duration;

use super::shrinkage::Prior;
use super::sketch::{self, Sketch};

/// Latencies of one kind, and the load under which they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    durations: Sketch,
    /// Sum of the loads.
    load: u64,
}

impl Latencies {
    /// Takes in a request that took so long and was picked at this load,
    /// itself included.
    pub fn record(&mut self, duration: Duration, load: u64) {
        self.durations.record(duration);
        self.load = self.load.saturating_add(load.max(1));
    }

    /// Takes in all that `other` has.
    pub fn merge(&mut self, other: &Latencies) {
        self.durations.merge(&other.durations);
        self.load = self.load.saturating_add(other.load);
    }

    /// The durations.
    #[must_use]
    pub const fn durations(&self) -> &Sketch {
        &self.durations
    }

    /// The tail at the `q`-quantile; `None` where fewer than `min_samples` are known.
    #[must_use]
    pub fn tail(&self, q: f64, min_samples: u64) -> Option<Tail> {
        let samples = self.durations.count();
        if samples < min_samples {
            return None;
        }
        let (log, chance) = self.durations.log_quantile(q)?;
        Some(Tail {
            log: log - self.mean_load().ln(),
            chance,
            samples: samples as f64,
        })
    }

    /// Mean load; 1 where nothing was seen.
    fn mean_load(&self) -> f64 {
        let samples = self.durations.count().max(1);
        (self.load as f64 / samples as f64).max(1.0)
    }

    /// Appends it to `bytes`.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.load.to_le_bytes());
        self.durations.write(bytes);
    }

    /// Takes one off the front of `bytes`; `None` where they are not what
    /// [`Latencies::write`] could have written.
    #[must_use]
    pub fn read(bytes: &mut &[u8]) -> Option<Latencies> {
        let load = u64::from_le_bytes(sketch::read_array(bytes)?);
        let durations = Sketch::read(bytes)?;
        (load >= durations.count().min(1)).then_some(Latencies { durations, load })
    }
}

/// What was measured of an upstream's tail: a quantile relative to the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// The logarithm of the quantile over the mean load, in seconds.
    log: f64,
    /// The variance that it has by chance, times the number of samples.
    chance: f64,
    samples: f64,
}

/// Seconds per unit of load of each upstream's tail, shrunk; see the module. An
/// upstream without one has the pool's mean. `None` where all are without.
#[must_use]
pub fn tail_paces(tails: &[Option<Tail>]) -> Option<Vec<f64>> {
    let known = tails.iter().flatten();
    let count = known.clone().count();
    if count == 0 {
        return None;
    }
    // By itself each is too noisy to be believed: a tail that happens to have
    // no gap would count as certain.
    let chance = known.map(|tail| tail.chance).sum::<f64>() / count as f64;
    let mean = |tail: &Option<Tail>| match tail {
        Some(tail) => (tail.log, chance / tail.samples + Sketch::ROUNDING),
        None => (0.0, f64::INFINITY),
    };
    let prior = Prior::from_means(tails.iter().map(mean));
    let pace = |tail| {
        let (log, variance) = mean(tail);
        prior.shrink(log, variance).exp()
    };
    Some(tails.iter().map(pace).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;
    use proptest::prelude::*;

    /// Exponential latencies, of this mean per unit of load.
    fn exponential(seed: u64, samples: usize, mean: f64, load: u64) -> Latencies {
        let (mut latencies, mut rng) = (Latencies::default(), Rng::new(seed));
        for _ in 0..samples {
            let seconds = -mean * load as f64 * (1.0 - rng.unit()).ln();
            latencies.record(Duration::from_secs_f64(seconds), load);
        }
        latencies
    }

    fn paces(all: &[Latencies]) -> Vec<f64> {
        let all: Vec<_> = all.iter().map(|it| it.tail(0.99, 20)).collect();
        tail_paces(&all).unwrap()
    }

    #[test]
    fn load_does_not_count_as_slowness() {
        let all = [
            exponential(1, 3_000, 0.1, 1),
            exponential(2, 3_000, 0.1, 9),
            exponential(3, 3_000, 0.4, 4),
        ];
        let paces = paces(&all);
        assert!((0.8..1.25).contains(&(paces[1] / paces[0])), "{paces:?}");
        assert!((3.0..5.0).contains(&(paces[2] / paces[0])), "{paces:?}");
        // The 0.99-quantile is 4.6 means.
        assert!((0.4..0.53).contains(&paces[0]), "{paces:?}");
    }

    #[test]
    fn equal_upstreams_are_told_apart_by_little() {
        // Of 60 samples the 0.99-quantile varies by a third.
        let mut spread = 0.0;
        let mut raw = 0.0;
        for round in 0..50 {
            let all: Vec<_> = (0..8)
                .map(|n| exponential(100 + 8 * round + n, 60, 0.1, 2))
                .collect();
            let variance = |logs: &[f64]| {
                let mean = logs.iter().sum::<f64>() / logs.len() as f64;
                let squares = logs.iter().map(|log| (log - mean).powi(2));
                squares.sum::<f64>() / logs.len() as f64
            };
            let logs: Vec<f64> = paces(&all).iter().map(|pace| pace.ln()).collect();
            spread += variance(&logs);
            let logs = all
                .iter()
                .map(|l| l.durations.log_quantile(0.99).unwrap().0);
            raw += variance(&logs.collect::<Vec<_>>());
        }
        assert!(spread < raw / 3.0, "{spread} of {raw}");
    }

    #[test]
    fn an_unknown_upstream_has_the_pools_mean() {
        let (one, other) = (exponential(1, 5_000, 0.1, 1), exponential(2, 5_000, 0.4, 1));
        let few = exponential(3, 5, 9.0, 1);
        let tail = |it: &Latencies| it.tail(0.9, 20);
        let paces = tail_paces(&[tail(&one), tail(&other), None, tail(&few)]).unwrap();
        assert!(paces[0] < paces[2] && paces[2] < paces[1], "{paces:?}");
        assert_eq!(paces[2], paces[3]);
        assert_eq!(tail_paces(&[None, tail(&few)]), None);
        assert_eq!(tail_paces(&[]), None);
    }

    proptest! {
        #[test]
        fn paces_are_positive_whatever_was_seen(
            feed in proptest::collection::vec((0usize..3, any::<u64>(), any::<u64>()), 0..80),
            q in 0.0f64..=1.0,
        ) {
            let mut all = vec![Latencies::default(); 3];
            for (upstream, nanos, load) in feed {
                all[upstream].record(Duration::from_nanos(nanos), load);
            }
            let all: Vec<_> = all.iter().map(|it| it.tail(q, 1)).collect();
            for pace in tail_paces(&all).unwrap_or_default() {
                prop_assert!(pace.is_finite() && pace > 0.0, "{}", pace);
            }
        }
    }
}
