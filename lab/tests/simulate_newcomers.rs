//! Servers that join a pool in use: neither starved nor stampeded under any policy, also without slow start.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use lab::model::Time;
use lab::simulate::{Scenario, run_one};

const POLICIES: [&str; 7] = [
    "shortest_expected_delay",
    "least_request",
    "peak_ewma",
    "latency_percentile",
    "round_robin",
    "weighted_round_robin",
    "random",
];
const OLD: usize = 3;
const CLIENTS: usize = 12;
/// After the beginning of a pool, in which all are new.
const GROWN: Time = Time::from_nanos(12_000_000_000);

/// Three servers whose answers take about equally long under any load grow to ten under twelve clients. The newcomers' first answers take
/// so many times as long.
fn growth(first: f64, workers: usize) -> Scenario {
    let newcomers = r#"["new-1", "new-2", "new-3", "new-4", "new-5", "new-6", "new-7"]"#;
    let speed = 1.0 / first;
    let json = format!(
        r#"{{
            "fleet": {{ "servers": [{{ "name": "old", "count": {OLD}, "kind": "slots", "slots": 64 }},
                                    {{ "name": "new", "count": 7, "kind": "slots", "slots": 64 }}] }},
            "workload": {{ "service": {{ "distribution": "uniform", "min_seconds": 0.018, "max_seconds": 0.024 }} }},
            "clients": {CLIENTS}, "workers": {workers}, "requests": 8100, "warm_up": 0,
            "events": [{{ "at_seconds": 12, "servers": {newcomers}, "membership": "join" }},
                       {{ "at_seconds": 12, "until_seconds": 12.1, "servers": {newcomers}, "control": {{ "speed": {speed} }} }}]
        }}"#
    );
    Scenario::from_json("test", &json, Path::new(".")).unwrap()
}

/// What each newcomer gets of the first thousand requests after the growth, and the most that one has at once.
fn shares(scenario: &Scenario, policy: &str, seed: u64) -> (Vec<usize>, usize) {
    let case = &scenario.cases().unwrap()[0];
    let policy = format!("paceline:{policy}").parse().unwrap();
    let run = run_one(case, &policy, seed).unwrap().0;
    let later = run.endings.iter().filter(|it| it.sent >= GROWN);
    let mut counts = vec![0; run.peak_outstanding.len()];
    later
        .take(1_000)
        .filter_map(|it| it.server)
        .for_each(|server| counts[server] += 1);
    let most = run.peak_outstanding[OLD..].iter().max();
    (counts[OLD..].to_vec(), *most.unwrap())
}

fn expect_fair(policy: &str, first: f64) {
    for workers in [1, 2] {
        let scenario = growth(first, workers);
        for seed in 1..=6 {
            let (counts, most) = shares(&scenario, policy, seed);
            let about = format!("{policy}, {workers} workers, seed {seed}: {counts:?}, {most}");
            // A hundred each; a policy that draws has a deviation of ten.
            assert!(counts.iter().all(|it| (40..250).contains(it)), "{about}");
            // Whoever draws may draw the same one again.
            assert!(most <= CLIENTS / 2 || policy == "random", "{about}");
        }
    }
}

#[test]
fn newcomers_get_their_share_of_a_pool_where_load_costs_no_time() {
    for policy in POLICIES.into_iter().chain(["least_response_time"]) {
        expect_fair(policy, 1.0);
    }
}

#[test]
fn newcomers_whose_first_answers_are_slow_get_their_share_too() {
    // Those of `least_response_time` wait until a slow answer has faded, some ten seconds.
    for policy in POLICIES {
        expect_fair(policy, 5.0);
    }
}
