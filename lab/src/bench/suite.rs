//! What is measured on a real Envoy, and what must hold.

use std::time::Duration;

use crate::compare::{Plan, Policy};
use crate::model::{Fleet, FleetError};
use crate::report::{Comparison, Spread};
use crate::workload::{ServiceTimes, Shape, SizeHint, Workload};

/// A comparison, and what it must show.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Names the part of the page that shows it.
    pub name: &'static str,
    /// What is compared. The last policy is the filter's default.
    pub plan: Plan,
    /// The bounds.
    pub bounds: Vec<Bound>,
}

/// A bound on how the filter's default does against another policy: the median over the seeds of how many times the other's figure is its
/// own must not be below `at_least`.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The other policy.
    pub against: &'static str,
    /// Of the p99.
    pub p99_at_least: f64,
    /// Of the mean.
    pub mean_at_least: f64,
}

const LEAST_REQUEST: &str = "envoy:least_request";
const FULL_SCAN: &str = "envoy:least_request_full_scan";
/// The default policy that takes no notice of sizes.
const COUNTING: &str = r#"paceline:{"name":"shortest_expected_delay","basis":"requests"}"#;
const DEFAULT: &str = "paceline:shortest_expected_delay";

/// The comparisons whose figures the page shows, about half an hour.
///
/// # Errors
/// A preset fleet that is none.
pub fn trials() -> Result<Vec<Trial>, FleetError> {
    let goals = Bound {
        against: LEAST_REQUEST,
        p99_at_least: 1.8,
        mean_at_least: 1.0,
    };
    let batching = Load {
        workload: Workload::of_shape(Shape::Conversation),
        requests: 4_000,
        seeds: 3,
        time_scale: None,
        size: None,
    };
    let slots = Load {
        workload: Workload::of_shape(Shape::Diffusion),
        requests: 3_000,
        seeds: 3,
        // A request takes some 30 ms then: timers are no part of the result yet.
        time_scale: Some(800.0),
        size: None,
    };
    let sized = Load {
        workload: sized(),
        size: Some("x-request-size"),
        ..slots.clone()
    };
    let prompts = Load {
        size: Some("x-prompt-tokens"),
        seeds: 2,
        ..batching.clone()
    };
    Ok(vec![
        trial(
            "unequal",
            "unequal8",
            &[
                "envoy:round_robin",
                LEAST_REQUEST,
                FULL_SCAN,
                "paceline:peak_ewma",
                "paceline:least_response_time",
                "paceline:latency_percentile",
                DEFAULT,
            ],
            &batching,
            vec![goals],
        )?,
        trial(
            "equal",
            "equal8",
            &[LEAST_REQUEST, FULL_SCAN, DEFAULT],
            &batching,
            no_worse(1.03),
        )?,
        trial(
            "slots-unequal",
            "slots8",
            &[LEAST_REQUEST, FULL_SCAN, DEFAULT],
            &slots,
            no_worse(1.0),
        )?,
        trial(
            "slots-equal",
            "slots8-equal",
            &[LEAST_REQUEST, FULL_SCAN, DEFAULT],
            &slots,
            no_worse(1.03),
        )?,
        trial(
            "sizes",
            "slots8",
            &[FULL_SCAN, COUNTING, DEFAULT],
            &sized,
            vec![Bound {
                against: COUNTING,
                p99_at_least: 1.0,
                mean_at_least: 1.0,
            }],
        )?,
        trial(
            "prompts",
            "unequal8",
            &[FULL_SCAN, COUNTING, DEFAULT],
            &prompts,
            vec![Bound {
                against: COUNTING,
                p99_at_least: 0.95,
                mean_at_least: 0.95,
            }],
        )?,
    ])
}

/// Neither p99 nor mean more than so many times that of Envoy's least request, of either kind.
fn no_worse(times: f64) -> Vec<Bound> {
    let bound = |against| Bound {
        against,
        p99_at_least: 1.0 / times,
        mean_at_least: 1.0 / times,
    };
    vec![bound(LEAST_REQUEST), bound(FULL_SCAN)]
}

/// The short form, about a minute: so few requests that the bounds are wide. It finds a balancer that has stopped to learn, not one that
/// has become a little worse.
///
/// # Errors
/// A preset fleet that is none.
pub fn short_trials() -> Result<Vec<Trial>, FleetError> {
    let bound = Bound {
        against: LEAST_REQUEST,
        p99_at_least: 1.2,
        mean_at_least: 0.95,
    };
    let load = Load {
        workload: Workload::of_shape(Shape::Conversation),
        requests: 2_500,
        seeds: 1,
        time_scale: None,
        size: None,
    };
    Ok(vec![trial(
        "unequal",
        "unequal8",
        &[LEAST_REQUEST, DEFAULT],
        &load,
        vec![bound],
    )?])
}

/// Service times that sizes tell: correlation 0.95, as in the scenario `size-slots-unequal`.
fn sized() -> Workload {
    let times = ServiceTimes::Lognormal {
        median_seconds: 23.0,
        cv: 0.73,
    };
    let hint = SizeHint {
        correlation: 0.95,
        mean: 250_000.0,
        cv: None,
    };
    // Both are within their ranges.
    Workload::of_sized_service(times, hint).unwrap_or_else(|_| Workload::of_service(times))
}

/// What is asked of a fleet.
#[derive(Clone)]
struct Load {
    workload: Workload,
    requests: usize,
    seeds: u64,
    time_scale: Option<f64>,
    /// The header that shows a request's size to the filter.
    size: Option<&'static str>,
}

fn trial(
    name: &'static str,
    fleet: &str,
    policies: &[&str],
    load: &Load,
    bounds: Vec<Bound>,
) -> Result<Trial, FleetError> {
    let workload = load.workload.clone();
    // Where requests take minutes, some wait for long.
    let timeout = if workload.has_service_times() {
        3_600
    } else {
        600
    };
    let plan = Plan {
        fleet: Fleet::load(fleet)?,
        workload,
        policies: policies
            .iter()
            .filter_map(|name| name.parse::<Policy>().ok())
            .collect(),
        load: 0.7,
        requests: load.requests,
        seeds: (1..=load.seeds).collect(),
        time_scale: load.time_scale,
        warm_up: 0.1,
        timeout: Duration::from_secs(timeout),
        workers: 1,
        size_header: load.size.map(str::to_owned),
    };
    Ok(Trial { name, plan, bounds })
}

impl Bound {
    /// What is wrong with `comparison` under this bound; nothing where it holds.
    pub fn broken_by<S>(&self, comparison: &Comparison<S>) -> Vec<String> {
        let Some(ratio) = comparison
            .ratios
            .iter()
            .find(|ratio| ratio.of == self.against && ratio.to == DEFAULT)
        else {
            return vec![format!("{DEFAULT} was not compared with {}", self.against)];
        };
        let check = |figure: &str, measured: Spread, at_least: f64| {
            (measured.median < at_least).then(|| {
                format!(
                    "{figure} of {} over that of {DEFAULT}: {:.3}, must be at least {at_least:.3}",
                    self.against, measured.median
                )
            })
        };
        let p99 = check("p99", ratio.p99, self.p99_at_least);
        let mean = check("mean", ratio.mean, self.mean_at_least);
        p99.into_iter().chain(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_compares_what_its_bounds_are_about() {
        for trial in trials().unwrap().into_iter().chain(short_trials().unwrap()) {
            let names: Vec<_> = trial
                .plan
                .policies
                .iter()
                .map(|p| p.name().to_owned())
                .collect();
            assert_eq!(names.last().unwrap(), DEFAULT);
            for bound in &trial.bounds {
                assert!(
                    names.iter().any(|name| name == bound.against),
                    "{}",
                    trial.name
                );
            }
        }
    }

    #[test]
    fn a_comparison_without_the_policy_breaks_the_bound() {
        let bound = short_trials().unwrap()[0].bounds[0];
        let nothing = Comparison::new((), Vec::new());
        assert_eq!(bound.broken_by(&nothing).len(), 1);
    }
}
