//! Figures of runs, how sure they are, and their ratios.

use paceline::random::Rng;
use serde::{Serialize, Serializer};

use super::engine::Run;

/// A figure and the interval that holds it with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure; the mean of the seeds' figures.
    #[serde(serialize_with = "finite")]
    pub value: f64,
    /// The lower end.
    #[serde(serialize_with = "finite")]
    pub low: f64,
    /// The upper end.
    #[serde(serialize_with = "finite")]
    pub high: f64,
}

/// JSON knows no infinity and no NaN: nothing stands for a figure that there is not.
fn finite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Some(*value)
        .filter(|it| it.is_finite())
        .serialize(serializer)
}

/// Latencies of one run in the order of sending, cut into blocks for the bootstrap.
///
/// Latencies of requests that are sent close together depend on each other, those far apart hardly do: so it is
/// stretches of a run that are drawn again, not single requests.
#[derive(Clone, Debug)]
pub struct Sample {
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    count: usize,
    sum: f64,
    /// The greatest latencies of the block, all that are in the greatest tenth of the run.
    tail: Vec<f64>,
}

const BLOCKS: usize = 20;
const TAIL: f64 = 0.10;
const RESAMPLES: usize = 1_000;

impl Sample {
    /// From latencies in the order of sending; `None` is a request without an answer, of which they say nothing.
    pub fn new(latencies: &[Option<f64>]) -> Self {
        let mut sorted: Vec<f64> = latencies.iter().flatten().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let threshold = quantile(&sorted, 1.0 - TAIL);
        let length = latencies.len().div_ceil(BLOCKS).max(1);
        let block = |latencies: &[Option<f64>]| {
            let answered = || latencies.iter().flatten().copied();
            Block {
                count: answered().count(),
                sum: answered().sum(),
                tail: answered().filter(|it| *it >= threshold).collect(),
            }
        };
        Self {
            blocks: latencies.chunks(length).map(block).collect(),
        }
    }
}

/// Which stretches of which runs are drawn, for figures of all policies alike, so that ratios of them are paired.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    draws: Vec<Draw>,
}

/// For each run drawn, its number and its blocks'.
type Draw = Vec<(usize, Vec<usize>)>;

impl Bootstrap {
    /// Draws runs with replacement, and blocks of each of them with replacement.
    pub fn new(runs: usize) -> Self {
        let mut rng = Rng::new(0xb007);
        let mut draw = || -> Draw {
            let run = |_| {
                let blocks = (0..BLOCKS).map(|_| rng.below(BLOCKS)).collect();
                (rng.below(runs), blocks)
            };
            (0..runs).map(run).collect()
        };
        Self {
            draws: (0..RESAMPLES).map(|_| draw()).collect(),
        }
    }

    /// A figure of each draw, the first of all runs as they are.
    pub fn distribution(&self, runs: &[Sample], figure: Figure) -> Vec<f64> {
        let all: Vec<usize> = (0..BLOCKS).collect();
        let mut values = Vec::new();
        let mut of = |run: &Sample, blocks: &[usize]| figure.of(run, blocks, &mut values);
        let as_they_are = mean(runs.iter().map(|run| of(run, &all)));
        let drawn = self.draws.iter().map(|draw| {
            mean(draw.iter().filter_map(|(run, blocks)| {
                let run = runs.get(*run)?;
                Some(of(run, blocks))
            }))
        });
        std::iter::once(as_they_are).chain(drawn).collect()
    }
}

/// What is bootstrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The mean latency.
    Mean,
    /// The 99 % quantile.
    P99,
}

impl Figure {
    fn of(self, run: &Sample, blocks: &[usize], values: &mut Vec<f64>) -> f64 {
        let drawn = || blocks.iter().filter_map(|block| run.blocks.get(*block));
        let count: usize = drawn().map(|block| block.count).sum();
        match self {
            Self::Mean => drawn().map(|block| block.sum).sum::<f64>() / count as f64,
            Self::P99 => {
                values.clear();
                values.extend(drawn().flat_map(|block| block.tail.iter().copied()));
                // The tails hold a tenth of each run, so the rank is as good as always among them.
                let above = count - rank(count, 0.99);
                let place = values.len().saturating_sub(above + 1);
                if values.is_empty() {
                    return f64::NAN;
                }
                *values.select_nth_unstable_by(place, f64::total_cmp).1
            }
        }
    }
}

impl Estimate {
    /// From a distribution as [`Bootstrap::distribution`] gives it: the percentile interval.
    pub fn of(distribution: &[f64]) -> Self {
        let (value, drawn) = distribution
            .split_first()
            .map_or((f64::NAN, &[][..]), |(value, drawn)| (*value, drawn));
        let mut sorted = drawn.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            value,
            low: quantile(&sorted, 0.025),
            high: quantile(&sorted, 0.975),
        }
    }

    /// Of the ratios of two distributions over the same draws.
    pub fn of_ratio(of: &[f64], to: &[f64]) -> Self {
        let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        Self::of(&ratios)
    }
}

/// The place, from 1, of a quantile among `count` sorted values: the first that at least this part of them does not exceed.
fn rank(count: usize, quantile: f64) -> usize {
    ((count as f64 * quantile).ceil() as usize).clamp(usize::from(count > 0), count)
}

/// The quantile of sorted values; NaN of none.
pub(super) fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let place = rank(sorted.len(), quantile).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The mean; NaN of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), it| (count + 1, sum + it));
    sum / count as f64
}

/// What a run, or a part of it, showed. Times are in seconds and of requests that were answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Requests sent.
    pub requests: usize,
    /// Requests answered in full.
    pub answered: usize,
    /// The part of the requests, 0 to 1, that were not answered, rejected ones included.
    pub failed: f64,
    /// The part of the requests, 0 to 1, that were answered within the scenario's goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_goal: Option<f64>,
    /// Mean latency.
    #[serde(serialize_with = "finite")]
    pub mean: f64,
    /// Median latency.
    #[serde(serialize_with = "finite")]
    pub p50: f64,
    /// 90 % quantile.
    #[serde(serialize_with = "finite")]
    pub p90: f64,
    /// 99 % quantile.
    #[serde(serialize_with = "finite")]
    pub p99: f64,
    /// 99.9 % quantile.
    #[serde(serialize_with = "finite")]
    pub p999: f64,
    /// Mean time to the first token.
    #[serde(serialize_with = "finite")]
    pub first_byte_mean: f64,
    /// 99 % quantile of the time to the first token.
    #[serde(serialize_with = "finite")]
    pub first_byte_p99: f64,
}

impl Figures {
    /// Of a run without the first part of its requests, 0 to 1; answers within `goal` seconds are good.
    pub fn of(run: &Run, skip: f64, goal: Option<f64>) -> Self {
        Self::of_endings(counted(run, skip).iter(), goal)
    }

    /// Of these endings; answers within `goal` seconds are good.
    pub fn of_endings<'a>(
        endings: impl Iterator<Item = &'a super::call::Ending>,
        goal: Option<f64>,
    ) -> Self {
        let endings: Vec<_> = endings.collect();
        let mut latencies: Vec<f64> = endings.iter().filter_map(|it| it.latency()).collect();
        let mut first_bytes: Vec<f64> = endings
            .iter()
            .filter_map(|it| it.time_to_first_byte())
            .collect();
        latencies.sort_by(f64::total_cmp);
        first_bytes.sort_by(f64::total_cmp);
        let requests = endings.len();
        let part = |count: usize| count as f64 / requests.max(1) as f64;
        Self {
            requests,
            answered: latencies.len(),
            failed: part(requests - latencies.len()),
            within_goal: goal.map(|goal| part(latencies.partition_point(|it| *it <= goal))),
            mean: mean(latencies.iter().copied()),
            p50: quantile(&latencies, 0.5),
            p90: quantile(&latencies, 0.9),
            p99: quantile(&latencies, 0.99),
            p999: quantile(&latencies, 0.999),
            first_byte_mean: mean(first_bytes.iter().copied()),
            first_byte_p99: quantile(&first_bytes, 0.99),
        }
    }
}

/// The endings of a run's workload without its first part.
pub(super) fn counted(run: &Run, skip: f64) -> &[super::call::Ending] {
    let workload = run.endings.get(run.before..).unwrap_or_default();
    let first = (workload.len() as f64 * skip).round() as usize;
    workload.get(first..).unwrap_or_default()
}

/// A figure of each seed's run over another policy's, summed up: a mean over seeds hides the start that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BySeed {
    /// The median seed's; of an even number of seeds the lower of the two in the middle.
    #[serde(serialize_with = "finite")]
    pub median: f64,
    /// The worst seed's, the greatest.
    #[serde(serialize_with = "finite")]
    pub worst: f64,
}

impl BySeed {
    /// Of the seeds' ratios; NaN of none. A ratio that is not a number, because a run answered nothing, is the worst.
    pub fn of(ratios: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = ratios
            .map(|it| if it.is_nan() { f64::INFINITY } else { it })
            .collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: quantile(&sorted, 0.5),
            worst: quantile(&sorted, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_first_that_so_many_do_not_exceed() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&hundred, 0.5), 50.0);
        assert_eq!(quantile(&hundred, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    /// Runs of exponential latencies, `scale` times each.
    fn runs(seeds: u64, scale: f64) -> Vec<Vec<Option<f64>>> {
        let run = |seed| {
            let mut rng = Rng::new(seed);
            let draw = || Some(-scale * (1.0 - rng.unit()).ln());
            std::iter::repeat_with(draw).take(2_000).collect()
        };
        (1..=seeds).map(run).collect()
    }

    fn samples(runs: &[Vec<Option<f64>>]) -> Vec<Sample> {
        runs.iter().map(|run| Sample::new(run)).collect()
    }

    #[test]
    fn figures_of_all_runs_as_they_are_are_exact() {
        let runs = runs(3, 1.0);
        let bootstrap = Bootstrap::new(3);
        let figure = |figure| Estimate::of(&bootstrap.distribution(&samples(&runs), figure)).value;
        let sorted = |run: &[Option<f64>]| {
            let mut sorted: Vec<f64> = run.iter().flatten().copied().collect();
            sorted.sort_by(f64::total_cmp);
            sorted
        };
        let exact = mean(runs.iter().map(|run| quantile(&sorted(run), 0.99)));
        assert!((figure(Figure::P99) - exact).abs() < 1e-12);
        let exact = mean(runs.iter().map(|run| mean(run.iter().flatten().copied())));
        assert!((figure(Figure::Mean) - exact).abs() < 1e-12);
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // Mean 1; p99 ln 100. Of 60 intervals of 95 %, less than 52 hold it with a probability of less than 1 in 100;
        // five runs drawn again are a little too alike, hence a few less.
        let mut held = [0, 0];
        for repetition in 0..60 {
            let all = runs(60 * 5, 1.0);
            let five = &all[repetition * 5..][..5];
            let bootstrap = Bootstrap::new(5);
            let samples = samples(five);
            for (place, (figure, truth)) in [(Figure::Mean, 1.0), (Figure::P99, 100f64.ln())]
                .into_iter()
                .enumerate()
            {
                let it = Estimate::of(&bootstrap.distribution(&samples, figure));
                held[place] += usize::from(it.low <= truth && truth <= it.high);
            }
        }
        assert!(held.iter().all(|held| *held >= 50), "{held:?}");
    }

    #[test]
    fn ratios_are_paired() {
        let bootstrap = Bootstrap::new(5);
        let distribution = |scale| bootstrap.distribution(&samples(&runs(5, scale)), Figure::P99);
        let (once, twice) = (distribution(1.0), distribution(2.0));
        let alone = Estimate::of(&twice);
        assert!(alone.high / alone.low > 1.02, "{alone:?}");
        let ratio = Estimate::of_ratio(&twice, &once);
        assert!((ratio.low - 2.0).abs() < 1e-9 && (ratio.high - 2.0).abs() < 1e-9);
    }

    #[test]
    fn requests_without_an_answer_are_not_latencies() {
        let mut run: Vec<Option<f64>> = vec![Some(2.0); 1_000];
        run.extend([None; 500]);
        let bootstrap = Bootstrap::new(1);
        let estimate = |figure| Estimate::of(&bootstrap.distribution(&[Sample::new(&run)], figure));
        assert_eq!(estimate(Figure::Mean).value, 2.0);
        assert_eq!(estimate(Figure::P99).value, 2.0);
        let nothing = Sample::new(&[None, None]);
        let none = Estimate::of(&bootstrap.distribution(&[nothing], Figure::P99));
        assert!(none.value.is_nan());
    }
}
