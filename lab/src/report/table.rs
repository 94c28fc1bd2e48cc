use std::collections::BTreeSet;

use tabled::builder::Builder;
use tabled::settings::formatting::AlignmentStrategy;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::{Series, Spread};
use crate::load::Tally;

/// The figures of the series as a table, a column each.
///
/// The last series is the one that the others are measured by: a row gives its p99 as a ratio to theirs. A figure of
/// several runs is their median, with the least and the greatest in brackets; counts are sums over the runs.
pub fn table(series: &[Series]) -> String {
    let mut builder = Builder::default();
    let mut row = |label: &str, cell: &dyn Fn(&Series) -> String| {
        builder.push_record(std::iter::once(label.to_owned()).chain(series.iter().map(cell)));
    };
    row("", &|series| series.name.replace(':', "\n"));
    row("mean", &|series| times(series.mean));
    row("p50", &|series| times(series.p50));
    row("p95", &|series| times(series.p95));
    row("p99", &|series| times(series.p99));
    if let [others @ .., last] = series
        && !others.is_empty()
    {
        let short = last.name.rsplit(':').next().unwrap_or(&last.name);
        row(&format!("p99 of {short}\nas a ratio to it"), &|series| {
            last.p99_ratio(series)
                .map_or_else(none, |ratio| spread(ratio, &|ratio| format!("{ratio:.2}")))
        });
    }
    row("requests", &|series| sum(series, Tally::total).to_string());
    row("errors", &|series| sum(series, Tally::errors).to_string());
    row("rejects", &|series| sum(series, Tally::rejects).to_string());
    let upstreams: BTreeSet<&String> = series
        .iter()
        .flat_map(|series| &series.runs)
        .flat_map(|run| run.upstreams.keys())
        .collect();
    for upstream in upstreams {
        row(&format!("to {upstream}"), &|series| {
            let counts = series
                .runs
                .iter()
                .filter_map(|run| run.upstreams.get(upstream));
            counts.sum::<u64>().to_string()
        });
    }
    let mut table = builder.build();
    table
        .with(Style::sharp())
        .modify(Columns::new(1..), Alignment::right())
        .modify(Columns::new(1..), AlignmentStrategy::PerLine);
    table.to_string()
}

/// What the table does not say: a line for each run with failures, for each that is void, and for each remark.
pub fn notes(series: &[Series]) -> Vec<String> {
    let mut notes = Vec::new();
    for series in series {
        for run in &series.runs {
            let of = format!("{}, seed {}", series.name, run.seed);
            let failures = run.requests.failures();
            if !failures.is_empty() {
                let first = run.first_failure.iter().map(|first| format!(" ({first})"));
                notes.push(format!("{of}: {failures}{}", first.collect::<String>()));
            }
            let failures = run.warm_up.failures();
            if !failures.is_empty() {
                notes.push(format!("{of}, warm-up: {failures}"));
            }
            if !run.schedule_delay.valid {
                notes.push(format!("{of}: {}", run.schedule_delay.line));
            }
            notes.extend(run.remarks.iter().map(|remark| format!("{of}: {remark}")));
        }
    }
    notes
}

fn sum(series: &Series, count: fn(&Tally) -> u64) -> u64 {
    series.runs.iter().map(|run| count(&run.requests)).sum()
}

fn times(figure: Option<Spread>) -> String {
    figure.map_or_else(none, |figure| spread(figure, &seconds))
}

fn none() -> String {
    "none".to_owned()
}

fn spread(figure: Spread, show: &dyn Fn(f64) -> String) -> String {
    let median = show(figure.median);
    if figure.is_spread() {
        format!("{median}\n({} to {})", show(figure.min), show(figure.max))
    } else {
        median
    }
}

/// A time in the unit that suits it, to three digits.
pub(crate) fn seconds(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "us"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}
