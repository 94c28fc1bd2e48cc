//! Sweeps: what other values of the constants would do, beside those that the filter has.

use std::num::NonZeroUsize;

use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::simulate::{
    CaseResult, Estimate, Offered, Policy, PolicyResult, Scenario, ScenarioError, run_case,
};

/// A constant, the values to try, and where.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// Its name, and that of the page's part.
    pub name: &'static str,
    /// Where in the policy's settings it is.
    place: Place,
    values: &'static [f64],
    /// The filter's own, one of the values.
    own: f64,
    settings: &'static [Setting],
}

/// Where a constant is set.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A parameter of the policy.
    Parameter,
    /// One of [`Tuning`](paceline::estimate::Tuning).
    Tuning,
    /// The weight of a sample in steady state, of which `drift_per_sample` follows.
    SampleWeight,
    /// `sample`, with scans of no more than that.
    Sample,
    /// The lease, in seconds.
    Lease,
}

/// A case of a shipped scenario.
#[derive(Clone, Copy, Debug)]
struct Setting {
    scenario: &'static str,
    /// The load, if not the scenario's.
    load: Option<f64>,
    /// Gateways, if not the scenario's.
    gateways: Option<usize>,
    seeds: usize,
}

const fn setting(scenario: &'static str, load: f64, gateways: usize, seeds: usize) -> Setting {
    Setting {
        scenario,
        load: Some(load),
        gateways: Some(gateways),
        seeds,
    }
}

const fn event(scenario: &'static str) -> Setting {
    Setting {
        scenario,
        load: None,
        gateways: None,
        seeds: 15,
    }
}

const UNEQUAL: Setting = setting("unequal8", 0.7, 1, 10);
const BUSY: Setting = setting("unequal8", 0.9, 1, 10);
const EQUAL: Setting = setting("equal8", 0.7, 1, 10);
const GATEWAYS: Setting = setting("unequal8-gateways", 0.5, 64, 5);
const BUSY_GATEWAYS: Setting = setting("unequal8-gateways", 0.9, 16, 5);
const SLOTS: Setting = setting("slots-unequal", 0.7, 1, 10);
const SLOW_DOWN: Setting = event("slow-down");
const FAIL_FAST: Setting = event("fail-fast");
const FLAKY: Setting = event("flaky");
const WORKER_RESTART: Setting = event("worker-restart");
const FAST_REQUESTS: Setting = Setting {
    seeds: 8,
    ..event("fast-requests")
};
const THOUSAND: Setting = setting("upstreams-1000", 0.7, 1, 2);

/// All sweeps.
pub const SWEEPS: [Sweep; 11] = [
    Sweep {
        name: "externality",
        place: Place::Parameter,
        values: &[0.0, 0.05, 0.1, 0.2, 0.4],
        own: 0.2,
        settings: &[UNEQUAL, BUSY, EQUAL, GATEWAYS, BUSY_GATEWAYS, SLOTS],
    },
    Sweep {
        name: "sample_weight",
        place: Place::SampleWeight,
        values: &[0.01, 0.02, 0.04, 0.08, 0.16],
        own: 0.08,
        settings: &[UNEQUAL, BUSY, EQUAL, GATEWAYS, SLOTS, SLOW_DOWN],
    },
    Sweep {
        name: "drift_per_second",
        place: Place::Tuning,
        values: &[0.0, 0.00003, 0.0001, 0.0003, 0.001, 0.003],
        own: 0.0001,
        settings: &[UNEQUAL, EQUAL, GATEWAYS, SLOTS, SLOW_DOWN],
    },
    Sweep {
        name: "exploration",
        place: Place::Parameter,
        values: &[0.0, 0.003, 0.01, 0.03, 0.1],
        own: 0.01,
        settings: &[UNEQUAL, GATEWAYS, SLOTS, SLOW_DOWN, FAIL_FAST],
    },
    Sweep {
        name: "silent_seconds",
        place: Place::Tuning,
        values: &[1.0, 3.0, 10.0, 30.0],
        own: 10.0,
        settings: &[UNEQUAL, GATEWAYS, SLOTS, SLOW_DOWN, FAIL_FAST],
    },
    Sweep {
        name: "error_step",
        place: Place::Tuning,
        values: &[0.1, 0.2, 0.3, 0.5, 0.7],
        own: 0.3,
        settings: &[FAIL_FAST, FLAKY],
    },
    Sweep {
        name: "error_decay_seconds",
        place: Place::Tuning,
        values: &[1.0, 3.0, 10.0, 30.0, 100.0],
        own: 10.0,
        settings: &[FAIL_FAST, FLAKY],
    },
    Sweep {
        name: "lease",
        place: Place::Lease,
        values: &[2.0, 5.0, 10.0, 30.0, 60.0],
        own: 10.0,
        settings: &[WORKER_RESTART],
    },
    Sweep {
        name: "reread_seconds",
        place: Place::Tuning,
        values: &[0.0, 0.001, 0.002, 0.005, 0.02],
        own: 0.001,
        settings: &[FAST_REQUESTS],
    },
    Sweep {
        name: "merge_seconds",
        place: Place::Tuning,
        values: &[0.0, 0.003, 0.01, 0.05, 0.2],
        own: 0.01,
        settings: &[FAST_REQUESTS],
    },
    Sweep {
        name: "sample",
        place: Place::Sample,
        values: &[16.0, 32.0, 64.0, 128.0, 256.0],
        own: 64.0,
        settings: &[THOUSAND],
    },
];

impl Sweep {
    /// Runs every value in every setting, and tells as Markdown: p99 and mean over the whole run, over those with the filter's own value on
    /// the same requests.
    ///
    /// # Errors
    /// As of the simulator.
    pub fn run(&self, threads: NonZeroUsize) -> Result<String, ScenarioError> {
        let policies = self
            .values
            .iter()
            .map(|value| Policy::paceline(self.policy(*value)).map_err(ScenarioError::Inside))
            .collect::<Result<Vec<_>, _>>()?;
        let mut results = Vec::new();
        for setting in self.settings {
            let scenario = setting.scenario()?;
            let cases = scenario.cases()?;
            for case in cases.iter().take(1) {
                let result = run_case(case, &policies, scenario.seeds, threads)?;
                results.push((setting.to_string(), result));
            }
        }
        Ok(self.table(&results))
    }

    fn policy(&self, value: f64) -> Value {
        let name = "shortest_expected_delay";
        match self.place {
            Place::Parameter => json!({ "name": name, self.name: value }),
            Place::Tuning => json!({ "name": name, "tuning": { self.name: value } }),
            Place::SampleWeight => {
                let drift = value * value / (1.0 - value);
                json!({ "name": name, "tuning": { "drift_per_sample": drift } })
            }
            Place::Sample => {
                let sample = value as usize;
                json!({ "name": name, "tuning": { "sample": sample, "full_scan": sample } })
            }
            Place::Lease => json!({ "name": name, "config": { "lease": format!("{value}s") } }),
        }
    }

    fn table(&self, results: &[(String, CaseResult)]) -> String {
        let mut table = Builder::default();
        let heads = results.iter().map(|(setting, _)| setting.clone());
        table.push_record(std::iter::once(self.name.to_owned()).chain(heads));
        let own = self.values.iter().position(|value| *value == self.own);
        for (place, value) in self.values.iter().enumerate() {
            let label = if Some(place) == own {
                format!("**{value}**")
            } else {
                value.to_string()
            };
            let cells = results.iter().map(|(_, result)| {
                let policies = &result.policies;
                let pair = policies
                    .get(place)
                    .zip(own.and_then(|own| policies.get(own)));
                pair.map_or_else(String::new, |(it, own)| cell(it, own))
            });
            table.push_record(std::iter::once(label).chain(cells));
        }
        table.build().with(Style::markdown()).to_string()
    }
}

/// p99 and mean over those of the filter's own value, and what failed.
fn cell(it: &PolicyResult, own: &PolicyResult) -> String {
    let ratio = |Estimate { value, low, high }| {
        if it.policy == own.policy {
            "1".to_owned()
        } else {
            format!("{value:.3} ({low:.3}-{high:.3})")
        }
    };
    let mut cell = format!(
        "{}, {}",
        ratio(it.whole.p99_ratio(&own.whole)),
        ratio(it.whole.mean_ratio(&own.whole))
    );
    if it.whole.failed > 0.0 || own.whole.failed > 0.0 {
        cell.push_str(&format!(", {:.2} % failed", it.whole.failed * 100.0));
    }
    cell
}

impl Setting {
    fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let mut scenario = Scenario::load(self.scenario)?;
        if let Some(load) = self.load {
            scenario.offered = Offered::Load(vec![load]);
            scenario.workers = vec![1];
        }
        if let Some(gateways) = self.gateways {
            scenario.gateways = vec![gateways];
        }
        scenario.seeds = self.seeds;
        Ok(scenario)
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.scenario.trim_end_matches("-gateways"))?;
        if let Some(load) = self.load {
            write!(f, ", {:.0} %", load * 100.0)?;
        }
        match self.gateways {
            Some(gateways) if gateways > 1 => write!(f, ", {gateways} gateways"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sweep_has_the_filters_own_value_and_scenarios_that_are_shipped() {
        for sweep in SWEEPS {
            assert!(sweep.values.contains(&sweep.own), "{}", sweep.name);
            for value in sweep.values {
                Policy::paceline(sweep.policy(*value)).unwrap();
            }
            for setting in sweep.settings {
                assert_eq!(setting.scenario().unwrap().cases().unwrap().len(), 1);
            }
        }
    }
}
