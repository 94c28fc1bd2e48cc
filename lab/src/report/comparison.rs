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
    /// The p99 of each policy over that of each other.
    pub p99_ratios: Vec<Ratio>,
}

/// How many times the p99 of one policy is that of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The one policy.
    pub of: String,
    /// The other policy.
    pub to: String,
    /// Its p99 over the other's, run by run.
    pub p99: Spread,
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

    /// How many times this p99 is the other's: of runs with the same seed, which had the same arrivals. `None` without any such runs.
    pub fn p99_ratio(&self, other: &Self) -> Option<Spread> {
        let pairs = self.runs.iter().filter_map(|run| {
            let twin = other.runs.iter().find(|twin| twin.seed == run.seed)?;
            Some((run.latency?.p99, twin.latency?.p99))
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
        let p99_ratios = series
            .iter()
            .flat_map(|of| series.iter().map(move |to| (of, to)))
            .filter(|(of, to)| of.name != to.name)
            .filter_map(|(of, to)| {
                Some(Ratio {
                    of: of.name.clone(),
                    to: to.name.clone(),
                    p99: of.p99_ratio(to)?,
                })
            })
            .collect();
        Self {
            setting,
            series,
            p99_ratios,
        }
    }
}
