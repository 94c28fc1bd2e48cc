//! What goes wrong with servers, in the simulator: Paceline beside Envoy's defences and one who knows.

use std::num::NonZeroUsize;

use tabled::builder::Builder;
use tabled::settings::Style;

use crate::report::seconds;
use crate::simulate::{CaseResult, Estimate, Policy, Scenario, ScenarioError, run_case};

/// The scenarios.
pub const SIMULATED_FAULTS: [&str; 14] = [
    "linkerd-2016",
    "fail-fast",
    "refuse-fast",
    "fault-unauthorized",
    "fault-reset",
    "flaky",
    "fault-cold-hangs",
    "fault-cold-unavailable",
    "fault-cold-says",
    "slow-down",
    "fault-slow-two-equal",
    "fault-restart",
    "hang",
    "fault-full",
];

/// Names of the policies, in the table and for the simulator.
const POLICIES: [(&str, &str); 6] = [
    ("`LEAST_REQUEST`", "envoy:least_request"),
    ("with outlier detection", "envoy:least_request_ejecting"),
    ("and health checks", "envoy:least_request_checked"),
    ("Paceline", "paceline:shortest_expected_delay"),
    (
        "with `health_check`",
        // Its keys in alphabetical order: how the simulator prints it, whatever serde_json keeps.
        r#"paceline:{"config":{"health_check":{"equals":"ready","json_pointer":"/status","path":"/health"}},"name":"shortest_expected_delay"}"#,
    ),
    ("oracle", ORACLE),
];
/// Knows the speeds of all servers at every moment, and which of them serve.
const ORACLE: &str = "bound:pace_of_serving";

/// Runs one of [`SIMULATED_FAULTS`] under all policies; `seeds` in place of the scenario's number.
///
/// # Errors
/// As of the simulator.
pub fn simulate_fault(
    name: &str,
    seeds: Option<usize>,
    threads: NonZeroUsize,
) -> Result<Vec<CaseResult>, ScenarioError> {
    let scenario = Scenario::load(name)?;
    let policies = POLICIES
        .iter()
        .map(|(_, name)| name.parse::<Policy>().map_err(ScenarioError::Inside))
        .collect::<Result<Vec<_>, _>>()?;
    let seeds = seeds.unwrap_or(scenario.seeds);
    let cases = scenario.cases()?;
    cases
        .iter()
        .map(|case| run_case(case, &policies, seeds, threads))
        .collect()
}

/// All of it as Markdown: a row a policy. Ratios are paired, to the oracle.
#[must_use]
pub fn simulated_faults_table(results: &[(&str, CaseResult)]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "scenario",
        "policy",
        "failed",
        "mean",
        "p99",
        "p99 / oracle",
        "within goal",
        "sent to servers at fault",
    ]);
    for (name, case) in results {
        let oracle = case.policies.iter().find(|it| it.policy == ORACLE);
        for (place, (result, (label, _))) in case.policies.iter().zip(POLICIES).enumerate() {
            let ratio = oracle.map(|oracle| result.whole.p99_ratio(&oracle.whole));
            let percent = |part: f64| format!("{:.2} %", part * 100.0);
            table.push_record([
                if place == 0 { *name } else { "" }.to_owned(),
                label.to_owned(),
                percent(result.whole.failed),
                time(&result.whole.mean),
                time(&result.whole.p99),
                ratio.map_or_else(String::new, interval),
                result.whole.within_goal.map_or_else(String::new, percent),
                result.sent_to_faulty().map_or_else(String::new, percent),
            ]);
        }
    }
    table.build().with(Style::markdown()).to_string()
}

fn time(estimate: &Estimate) -> String {
    if estimate.value.is_nan() {
        "none".to_owned()
    } else {
        seconds(estimate.value)
    }
}

fn interval(Estimate { value, low, high }: Estimate) -> String {
    format!("{value:.2} ({low:.2}-{high:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_shipped_and_every_policy_one() {
        for name in SIMULATED_FAULTS {
            Scenario::load(name).unwrap();
        }
        for (_, name) in POLICIES {
            assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
        }
    }
}
