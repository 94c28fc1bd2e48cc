//! A comparison on a real Envoy, as Markdown.

use std::fmt::Write as _;

use tabled::builder::Builder;
use tabled::settings::Style;

use crate::compare::Setting;
use crate::load::Tally;
use crate::report::{Comparison, Series, Spread, notes, seconds};

/// A row a policy, with ratios to the last one of runs on the same requests. A figure is the median of the seeds, with the least and
/// the greatest.
#[must_use]
pub fn comparison_table(comparison: &Comparison<Setting>) -> String {
    let mut table = Builder::default();
    table.push_record([
        "policy",
        "mean",
        "p50",
        "p99",
        "mean / default's",
        "p99 / default's",
        "requests",
        "failed",
    ]);
    let last = comparison.series.last();
    for series in &comparison.series {
        let (mean, p99) = match last {
            Some(last) if last.name != series.name => {
                (series.mean_ratio(last), series.p99_ratio(last))
            }
            _ => (None, None),
        };
        let sum = |count: fn(&Tally) -> u64| -> u64 {
            series.runs.iter().map(|run| count(&run.requests)).sum()
        };
        table.push_record([
            format!("`{}`", series.name),
            figure(series.mean, &seconds),
            figure(series.p50, &seconds),
            figure(series.p99, &seconds),
            figure(mean, &|ratio| format!("{ratio:.2}")),
            figure(p99, &|ratio| format!("{ratio:.2}")),
            sum(Tally::total).to_string(),
            (sum(Tally::errors) + sum(Tally::rejects)).to_string(),
        ]);
    }
    let table = table.build().with(Style::markdown()).to_string();
    let Setting {
        workload,
        rate,
        load,
        requests,
        time_scale,
        servers,
        ..
    } = &comparison.setting;
    let seeds = last.map_or(0, |series| series.runs.len());
    let mut shown = format!(
        "{workload}: {requests} requests a run at {rate:.2} a second, {:.0} % of what the {} servers can serve; {seeds} seeds; emulated \
         {time_scale:.3} times as fast as in life, times are those of life.\n\n{table}\n",
        load * 100.0,
        servers.len()
    );
    for note in notes(&comparison.series) {
        let _ = write!(shown, "\n- {note}");
    }
    shown
}

impl<S> Comparison<S> {
    /// The runs whose figures are of the generator, not of the servers; a sentence each.
    #[must_use]
    pub fn void_runs(&self) -> Vec<String> {
        let of_series = |series: &Series| {
            let void = series.runs.iter().filter(|run| !run.schedule_delay.valid);
            let name = series.name.clone();
            void.map(move |run| {
                let line = &run.schedule_delay.line;
                format!("{name}, seed {}, is void: {line}", run.seed)
            })
            .collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of_series).collect()
    }
}

fn figure(figure: Option<Spread>, show: &dyn Fn(f64) -> String) -> String {
    figure.map_or_else(String::new, |it| {
        if it.is_spread() {
            format!("{} ({} to {})", show(it.median), show(it.min), show(it.max))
        } else {
            show(it.median)
        }
    })
}
