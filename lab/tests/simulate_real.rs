//! The simulator against a real Envoy: the same requests, the same servers, the same policy, once at virtual and once at real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lab::compare::Plan;
use lab::model::Fleet;
use lab::simulate::{Scenario, run_one};
use lab::workload::{Shape, Workload};

const REQUESTS: usize = 2_500;
const SEED: u64 = 1;

/// What is allowed between the two. At real time there are timers and HTTP, and what is drawn at random is drawn otherwise; both were seen to
/// come to 1 % while other programs kept the machine busy.
const MEAN_TOLERANCE: f64 = 0.05;
const P99_TOLERANCE: f64 = 0.10;

/// Mean and p99 in emulated seconds.
type MeanAndP99 = (f64, f64);

fn simulated(policy: &str) -> MeanAndP99 {
    let json = format!(
        r#"{{ "fleet": "unequal8", "workload": "conversation", "load": [0.7], "requests": {REQUESTS}, "warm_up": 0.1 }}"#
    );
    let scenario = Scenario::from_json("real", &json, Path::new(".")).unwrap();
    let case = &scenario.cases().unwrap()[0];
    let (_, result) = run_one(case, &policy.parse().unwrap(), SEED).unwrap();
    (result.steady.mean, result.steady.p99)
}

async fn measured(policy: &str) -> MeanAndP99 {
    let plan = Plan {
        fleet: Fleet::load("unequal8").unwrap(),
        workload: Workload::of_shape(Shape::Conversation),
        policies: vec![policy.parse().unwrap()],
        load: 0.7,
        requests: REQUESTS,
        seeds: vec![SEED],
        time_scale: None,
        warm_up: 0.1,
        timeout: Duration::from_secs(600),
        workers: 1,
        size_header: None,
    };
    let prepared = plan.prepare().unwrap();
    let comparison = prepared.run(&(Arc::new(|_| {}) as _)).await.unwrap();
    let series = &comparison.series[0];
    (series.mean.unwrap().median, series.p99.unwrap().median)
}

#[tokio::test]
async fn agrees_with_a_real_envoy() {
    for policy in [
        "envoy:least_request_full_scan",
        "paceline:shortest_expected_delay",
    ] {
        let (real, virtual_) = (measured(policy).await, simulated(policy));
        println!("{policy}: real {real:?}, simulated {virtual_:?}");
        let near = |a: f64, b: f64, tolerance: f64| (a / b - 1.0).abs() < tolerance;
        assert!(
            near(real.0, virtual_.0, MEAN_TOLERANCE) && near(real.1, virtual_.1, P99_TOLERANCE),
            "{policy}: mean and p99 are {real:?} on a real Envoy, {virtual_:?} in the simulator"
        );
    }
}
