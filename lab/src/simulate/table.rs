use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::experiment::{CaseResult, Part, PolicyResult};
use super::statistics::Estimate;

/// The policy that ratios are taken to.
const REFERENCE: &str = "envoy:least_request_full_scan";

/// A case's figures after the warm-up, a row a policy, with ratios to full-scan least request if that is among them; and the
/// p99 from the first request on.
pub fn table(result: &CaseResult) -> String {
    let reference = result.policies.iter().find(|it| it.policy == REFERENCE);
    let has_goal = result
        .policies
        .iter()
        .any(|it| it.steady.within_goal.is_some());
    let mut builder = Builder::default();
    let mut head = vec!["", "mean", "p99", "failed"];
    if has_goal {
        head.push("within goal");
    }
    if reference.is_some() {
        head.extend(["mean ratio", "p99 ratio"]);
    }
    head.push("whole run: mean");
    head.push("p99");
    builder.push_record(head);
    for policy in &result.policies {
        builder.push_record(row(policy, reference, has_goal));
    }
    let mut table = builder.build();
    table
        .with(Style::sharp())
        .modify(Columns::new(1..), Alignment::right());
    table.to_string()
}

fn row(policy: &PolicyResult, reference: Option<&PolicyResult>, has_goal: bool) -> Vec<String> {
    let Part {
        mean, p99, failed, ..
    } = &policy.steady;
    let mut row = vec![
        policy.policy.clone(),
        figure(mean),
        figure(p99),
        percent(*failed),
    ];
    if has_goal {
        row.push(policy.steady.within_goal.map_or_else(String::new, percent));
    }
    if let Some(reference) = reference {
        row.push(ratio(&policy.steady.mean_ratio(&reference.steady)));
        row.push(ratio(&policy.steady.p99_ratio(&reference.steady)));
    }
    row.push(figure(&policy.whole.mean));
    row.push(figure(&policy.whole.p99));
    row
}

fn figure(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = *estimate;
    let (scale, unit) = if value < 1.0 { (1e3, "ms") } else { (1.0, "s") };
    let decimals = match value * scale {
        it if it < 10.0 => 2,
        it if it < 100.0 => 1,
        _ => 0,
    };
    format!(
        "{:.decimals$} ({:.decimals$}-{:.decimals$}) {unit}",
        value * scale,
        low * scale,
        high * scale
    )
}

fn ratio(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    format!("{value:.3} ({low:.3}-{high:.3})")
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}
