//! What was simulated, as Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tabled::builder::Builder;
use tabled::settings::Style;

use super::goals::{Checked, Missed, to_bound};
use crate::report::seconds;
use crate::simulate::{CaseResult, Estimate, Part};

/// One policy over many cases: ratios to full-scan least request and to the best bound, with intervals.
#[must_use]
pub fn simulated_table(policy: &str, cases: &[(&str, &CaseResult)]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "scenario",
        "load",
        "gateways x workers",
        "mean",
        "p99",
        "failed",
        "mean / LR",
        "p99 / LR",
        "whole run: mean / LR",
        "p99 / LR",
        "best bound",
        "mean / bound",
        "p99 / bound",
    ]);
    let mut last = "";
    for (name, case) in cases {
        let Some(own) = case.policies.iter().find(|it| it.policy == policy) else {
            continue;
        };
        let pair = |of: &Part, to: Option<&Part>| {
            to.map_or_else(
                || [String::new(), String::new()],
                |to| [ratio(of.mean_ratio(to)), ratio(of.p99_ratio(to))],
            )
        };
        let (least_request, bound) = (case.least_request(), case.best_bound());
        let steady = pair(&own.steady, least_request.map(|it| &it.steady));
        let whole = pair(&own.whole, least_request.map(|it| &it.whole));
        let to_bound = pair(&own.steady, bound.map(|it| &it.steady));
        let bound = bound.map_or("", |it| it.policy.trim_start_matches("bound:"));
        let mut row = vec![
            if *name == last { "" } else { name }.to_owned(),
            load(case),
            format!("{} x {}", case.gateways, case.workers),
            time(&own.steady.mean),
            time(&own.steady.p99),
            format!("{:.2} %", own.steady.failed * 100.0),
        ];
        row.extend(steady);
        row.extend(whole);
        row.push(bound.to_owned());
        row.extend(to_bound);
        table.push_record(row);
        last = name;
    }
    table.build().with(Style::markdown()).to_string()
}

/// The goals on batching fleets, a row a fleet and load and a column a number of gateways and workers; and what is missed, of these
/// goals and of those against least request.
#[must_use]
pub fn goals_table(policy: &str, cases: &[(&str, &CaseResult)], missed: &[Missed]) -> String {
    let mut columns = BTreeSet::new();
    let mut rows: BTreeMap<String, BTreeMap<(usize, usize), String>> = BTreeMap::new();
    for (name, case) in cases {
        let checked = to_bound(name, case, policy);
        if checked.is_empty() {
            continue;
        }
        let place = (case.gateways, case.workers);
        columns.insert(place);
        let row = format!("{}, {}", name.trim_end_matches("-gateways"), load(case));
        let cell = checked.iter().map(cell).collect::<Vec<_>>().join(", ");
        rows.entry(row).or_default().insert(place, cell);
    }
    let mut table = Builder::default();
    let heads = columns.iter().map(|(gateways, workers)| {
        let plural = |count: &usize| if *count == 1 { "" } else { "s" };
        format!(
            "{gateways} gateway{} of {workers} worker{}",
            plural(gateways),
            plural(workers)
        )
    });
    table.push_record(std::iter::once("fleet, load".to_owned()).chain(heads));
    for (row, cells) in rows {
        let cells = columns.iter().map(|place| cells.get(place).cloned());
        let cells = cells.map(Option::unwrap_or_default);
        table.push_record(std::iter::once(row.clone()).chain(cells));
    }
    let table = table.build().with(Style::markdown()).to_string();
    let mut shown = format!(
        "p99, then mean, over those of the bound that is best in p99. **Bold** is missed.\n\n{table}\n\n"
    );
    if missed.is_empty() {
        shown.push_str(
            "All goals are met, those against full-scan least request in all scenarios included.",
        );
    } else {
        shown.push_str("Missed:\n");
        for missed in missed {
            let _ = write!(shown, "\n- {missed}");
            if missed.checked.ratio.low <= missed.checked.at_most {
                shown.push_str("; the interval holds the goal");
            }
        }
    }
    shown
}

fn cell(checked: &Checked) -> String {
    let value = format!("{:.3}", checked.ratio.value);
    if checked.is_missed() {
        format!("**{value}**")
    } else {
        value
    }
}

fn load(case: &CaseResult) -> String {
    match case.rate {
        Some(rate) => format!("{:.0} %", rate / case.capacity * 100.0),
        None => case.case.split(',').next().unwrap_or_default().to_owned(),
    }
}

fn time(estimate: &Estimate) -> String {
    if estimate.value.is_nan() {
        "none".to_owned()
    } else {
        seconds(estimate.value)
    }
}

fn ratio(Estimate { value, low, high }: Estimate) -> String {
    if value.is_nan() {
        return "none".to_owned();
    }
    format!("{value:.2} ({low:.2}-{high:.2})")
}
