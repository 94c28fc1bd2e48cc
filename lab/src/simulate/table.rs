//! Results for people.

use tabled::Table;
use tabled::builder::Builder;
use tabled::settings::formatting::AlignmentStrategy;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::experiment::{CaseResult, Part, PolicyResult, SeedRatios};
use super::plan::Need;
use super::statistics::{BySeed, Estimate};
use crate::report::seconds;

/// A case's figures after the warm-up, a row a policy, with ratios to full-scan least request and to the best bound where
/// they are among them; and ratios to the former from the first request on, of all runs together and of the median and the worst of them.
pub fn table(result: &CaseResult) -> String {
    let (least_request, bound) = (result.least_request(), result.best_bound());
    let goal = |it: &PolicyResult| it.steady.within_goal;
    let has_goal = result.policies.iter().any(|it| goal(it).is_some());
    let has_crashes = result.policies.iter().any(|it| crashes(it) > 0.0);
    let cells = |policy: Option<&PolicyResult>| {
        let mut row = Vec::new();
        let mut cell = |head: &str, of: &dyn Fn(&PolicyResult) -> String| {
            row.push(policy.map_or_else(|| head.to_owned(), of));
        };
        cell("", &|it| it.policy.clone());
        cell("mean", &|it| time(&it.steady.mean));
        cell("p99", &|it| time(&it.steady.p99));
        cell("failed", &|it| percent(it.steady.failed));
        if has_crashes {
            cell("crashes\na run", &|it| format!("{:.1}", crashes(it)));
        }
        if has_goal {
            cell("within goal", &|it| {
                goal(it).map_or_else(String::new, percent)
            });
        }
        let mut ratios =
            |other: Option<&PolicyResult>, to: &str, part: fn(&PolicyResult) -> &Part| {
                let Some(other) = other else { return };
                cell(&format!("mean {to}"), &|it| {
                    ratio(part(it).mean_ratio(part(other)))
                });
                cell(&format!("p99 {to}"), &|it| {
                    ratio(part(it).p99_ratio(part(other)))
                });
            };
        ratios(least_request, "to\nleast request", |it| &it.steady);
        ratios(bound, "to\nbest bound", |it| &it.steady);
        ratios(least_request, "to\nleast request,\nwhole run", |it| {
            &it.whole
        });
        if least_request.is_some() {
            cell("mean, median\n(worst) seed", &|it| seeds(it, |it| it.mean));
            cell("p99, median\n(worst) seed", &|it| seeds(it, |it| it.p99));
        }
        row
    };
    let rows = std::iter::once(None).chain(result.policies.iter().map(Some));
    let builder: Builder = rows.map(cells).collect();
    styled(builder.build())
}

/// How often devices ran out of memory in a run, on average.
fn crashes(policy: &PolicyResult) -> f64 {
    let runs = &policy.runs;
    runs.iter().map(|run| run.crashes as f64).sum::<f64>() / runs.len() as f64
}

/// One policy over many cases, a row a case: its ratios to full-scan least request and to the best bound.
pub fn overview(policy: &str, cases: &[(&str, &CaseResult)]) -> String {
    let mut builder = Builder::default();
    builder.push_record([
        "",
        "mean",
        "p99",
        "failed",
        "mean to\nleast request",
        "p99 to\nleast request",
        "whole run, mean\nto least request",
        "whole run, p99\nto least request",
        "mean, median\n(worst) seed",
        "p99, median\n(worst) seed",
        "best bound",
        "mean to it",
        "p99 to it",
    ]);
    for (scenario, case) in cases {
        let Some(own) = case.policies.iter().find(|it| it.policy == policy) else {
            continue;
        };
        let to = |other: Option<&PolicyResult>, of: &dyn Fn(&PolicyResult) -> Estimate| {
            other.map_or_else(String::new, |other| ratio(of(other)))
        };
        let (least_request, bound) = (case.least_request(), case.best_bound());
        builder.push_record([
            format!("{scenario}\n{}", case.case),
            time(&own.steady.mean),
            time(&own.steady.p99),
            percent(own.steady.failed),
            to(least_request, &|it| own.steady.mean_ratio(&it.steady)),
            to(least_request, &|it| own.steady.p99_ratio(&it.steady)),
            to(least_request, &|it| own.whole.mean_ratio(&it.whole)),
            to(least_request, &|it| own.whole.p99_ratio(&it.whole)),
            seeds(own, |it| it.mean),
            seeds(own, |it| it.p99),
            bound.map_or_else(String::new, |it| {
                it.policy.trim_start_matches("bound:").to_owned()
            }),
            to(bound, &|it| own.steady.mean_ratio(&it.steady)),
            to(bound, &|it| own.steady.p99_ratio(&it.steady)),
        ]);
    }
    styled(builder.build())
}

/// How many replicas each policy needs for a p99 of so many seconds.
pub fn needs(goal: f64, needs: &[Need]) -> String {
    let mut builder = Builder::default();
    builder.push_record(["", "replicas", "p99", "p99 with\none less"]);
    for need in needs {
        let replicas = need.replicas.map(|replicas| replicas.to_string());
        let less = need.p99_with_one_less.as_ref().map(time);
        let cannot = need.replicas.map_or("", |_| "cannot keep up");
        builder.push_record([
            need.policy.clone(),
            replicas.unwrap_or_else(|| format!("more than {}", need.tried)),
            time(&need.p99),
            less.unwrap_or_else(|| cannot.to_owned()),
        ]);
    }
    let goal = seconds(goal);
    format!("replicas for a p99 of {goal}\n{}", styled(builder.build()))
}

fn styled(mut table: Table) -> String {
    table
        .with(Style::sharp())
        .modify(Columns::new(1..), Alignment::right())
        .modify(Columns::new(1..), AlignmentStrategy::PerLine);
    table.to_string()
}

fn time(estimate: &Estimate) -> String {
    let Estimate { value, low, high } = *estimate;
    if value.is_nan() {
        return "none".to_owned();
    }
    format!(
        "{}\n({} to {})",
        seconds(value),
        seconds(low),
        seconds(high)
    )
}

fn ratio(estimate: Estimate) -> String {
    let Estimate { value, low, high } = estimate;
    if value.is_nan() {
        return "none".to_owned();
    }
    format!("{value:.3}\n({low:.3} to {high:.3})")
}

/// The ratios to least request over the whole run, seed by seed.
fn seeds(policy: &PolicyResult, figure: fn(&SeedRatios) -> BySeed) -> String {
    let ratios = policy.seeds_to_least_request.as_ref();
    ratios.map_or_else(String::new, |ratios| {
        let BySeed { median, worst } = figure(ratios);
        format!("{median:.3}\n({worst:.3})")
    })
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// What is worth saying of a case beside its table.
pub fn notes(result: &CaseResult) -> Vec<String> {
    let mut notes = Vec::new();
    for policy in &result.policies {
        let runs = || policy.runs.iter();
        let leaked: u64 = runs().map(|run| run.counters.leaked).sum();
        let passed: u64 = runs().map(|run| run.counters.pass_through).sum();
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                notes.push(format!("{}: {count} {what}", policy.policy));
            }
        };
        note(
            passed,
            "requests passed through to the proxy's own balancing",
        );
        note(leaked, "requests were still counted when none was left");
    }
    notes
}

/// Draws the latencies after the warm-up of all policies but the bounds, of which only the best is drawn.
///
/// # Errors
/// No request was answered.
pub fn picture(title: &str, result: &CaseResult) -> Result<String, crate::report::PlotError> {
    let best = result.best_bound().map(|it| it.policy.as_str());
    let drawn = result
        .policies
        .iter()
        .filter(|it| !it.is_bound() || Some(it.policy.as_str()) == best);
    let series: Vec<(&str, Vec<f64>)> = drawn
        .map(|it| (it.policy.as_str(), it.latencies()))
        .collect();
    crate::report::distribution_svg(title, &series)
}

impl CaseResult {
    /// Envoy's full-scan least request, if it took part: what the filter is never to be much worse than.
    pub fn least_request(&self) -> Option<&PolicyResult> {
        let name = "envoy:least_request_full_scan";
        self.policies.iter().find(|it| it.policy == name)
    }

    /// Of the bounds that took part, the one with the least p99 after the warm-up.
    pub fn best_bound(&self) -> Option<&PolicyResult> {
        let bounds = self.policies.iter().filter(|it| it.is_bound());
        let p99 = |it: &PolicyResult| Part::p99_or_worst(&it.steady);
        bounds.min_by(|a, b| p99(a).total_cmp(&p99(b)))
    }
}

impl Part {
    fn p99_or_worst(&self) -> f64 {
        if self.p99.value.is_nan() {
            f64::INFINITY
        } else {
            self.p99.value
        }
    }
}

impl PolicyResult {
    fn is_bound(&self) -> bool {
        self.policy.starts_with("bound:")
    }
}
