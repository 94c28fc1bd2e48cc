use serde::Serialize;

use super::{RunReport, Spread, Summary};

/// The runs of one policy, and their figures.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The policy.
    pub name: String,
    /// Mean latency, in seconds; `None` where no request of any run was answered, as in the other figures.
    pub mean: Option<Spread>,
    /// Median latency, in seconds.
    pub p50: Option<Spread>,
    /// The 95th percentile of latency, in seconds.
    pub p95: Option<Spread>,
    /// The 99th percentile of latency, in seconds.
    pub p99: Option<Spread>,
    /// The runs, each on arrivals of its own.
    pub runs: Vec<RunReport>,
}

/// Several policies on the same arrivals.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison<S> {
    /// What was compared: whatever one needs to know to do it again.
    pub setting: S,
    /// The policies, in the order in which they are shown.
    pub series: Vec<Series>,
    /// Each policy's figures over those of each other.
    pub ratios: Vec<Ratio>,
}

/// How many times the figures of one policy are those of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The one policy.
    pub of: String,
    /// The other policy.
    pub to: String,
    /// Its p99 over the other's, run by run.
    pub p99: Spread,
    /// Its mean over the other's, run by run.
    pub mean: Spread,
}

impl Series {
    /// The figures of these runs.
    pub fn new(name: impl Into<String>, runs: Vec<RunReport>) -> Self {
        let spread = |figure: fn(&Summary) -> f64| {
            Spread::of(
                runs.iter()
                    .filter_map(|run| run.latency.as_ref())
                    .map(figure),
            )
        };
        Self {
            name: name.into(),
            mean: spread(|latency| latency.mean),
            p50: spread(|latency| latency.p50),
            p95: spread(|latency| latency.p95),
            p99: spread(|latency| latency.p99),
            runs,
        }
    }

    /// How many times this p99 is the other's: of runs with the same seed, which had the same requests. `None` without any such runs.
    pub fn p99_ratio(&self, other: &Self) -> Option<Spread> {
        self.ratio(other, |latency| latency.p99)
    }

    /// How many times this mean is the other's, as with the p99.
    pub fn mean_ratio(&self, other: &Self) -> Option<Spread> {
        self.ratio(other, |latency| latency.mean)
    }

    fn ratio(&self, other: &Self, figure: fn(&Summary) -> f64) -> Option<Spread> {
        let pairs = self.runs.iter().filter_map(|run| {
            let twin = other.runs.iter().find(|twin| twin.seed == run.seed)?;
            Some((
                figure(run.latency.as_ref()?),
                figure(twin.latency.as_ref()?),
            ))
        });
        Spread::of(
            pairs
                .filter(|(_, twin)| *twin > 0.0)
                .map(|(run, twin)| run / twin),
        )
    }
}

impl<S> Comparison<S> {
    /// Compares these series.
    pub fn new(setting: S, series: Vec<Series>) -> Self {
        let ratios = series
            .iter()
            .flat_map(|of| series.iter().map(move |to| (of, to)))
            .filter(|(of, to)| of.name != to.name)
            .filter_map(|(of, to)| {
                Some(Ratio {
                    of: of.name.clone(),
                    to: to.name.clone(),
                    p99: of.p99_ratio(to)?,
                    mean: of.mean_ratio(to)?,
                })
            })
            .collect();
        Self {
            setting,
            series,
            ratios,
        }
    }
    /// How the last policy does against each other one, a sentence each.
    pub fn summary(&self) -> Vec<String> {
        let Some((last, others)) = self.series.split_last() else {
            return Vec::new();
        };
        let sentence = |other: &Series| {
            let p99 = better(other.p99_ratio(last)?);
            let mean = better(other.mean_ratio(last)?);
            Some(format!(
                "{} against {}: p99 {p99}, mean {mean}",
                last.name, other.name
            ))
        };
        others.iter().filter_map(sentence).collect()
    }
}

/// In words, what it means that the other's figure is so many times one's own.
fn better(ratio: Spread) -> String {
    let words = |ratio: f64| match ratio {
        r if (0.995..1.005).contains(&r) => "as good".to_owned(),
        r if r > 1.0 => format!("{r:.2} times better"),
        r => format!("{:.2} times worse", 1.0 / r),
    };
    if ratio.is_spread() {
        format!(
            "{} ({} to {})",
            words(ratio.median),
            words(ratio.min),
            words(ratio.max)
        )
    } else {
        words(ratio.median)
    }
}
