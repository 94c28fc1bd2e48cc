//! The simulator against queueing theory: models whose answers are known in closed form.
//!
//! Runs are long and their seeds fixed; the bounds are 1 %, some three standard errors of such a run.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use lab::simulate::{Policy, Scenario, run_one};

const SEEDS: u64 = 4;

/// Exponential services, Poisson arrivals.
fn queue(servers: usize, load: f64, requests: usize) -> Scenario {
    let rate = load * servers as f64;
    let json = format!(
        r#"{{
            "fleet": {{ "servers": [{{ "name": "s", "count": {servers}, "kind": "slots" }}] }},
            "workload": {{ "service": {{ "distribution": "exponential", "mean_seconds": 1 }} }},
            "rate": {rate}, "requests": {requests}, "warm_up": 0.05
        }}"#
    );
    Scenario::from_json("queue", &json, Path::new(".")).unwrap()
}

/// The mean time in the system over the mean service time, over four seeds at once.
fn response(policy: &str, servers: usize, load: f64, requests: usize) -> f64 {
    let scenario = queue(servers, load, requests);
    let policy: Policy = policy.parse().unwrap();
    let case = &scenario.cases().unwrap()[0];
    let mean = &|seed| {
        let (_, result) = run_one(case, &policy, seed).unwrap();
        assert_eq!(result.steady.failed, 0.0);
        result.steady.mean
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> = (1..=SEEDS)
            .map(|seed| scope.spawn(move || mean(seed)))
            .collect();
        let means = runs.into_iter().map(|run| run.join().unwrap());
        means.sum::<f64>() / SEEDS as f64
    })
}

/// Erlang's C formula: response over service in M/M/k at load `rho`.
fn erlang(k: u32, rho: f64) -> f64 {
    let offered = rho * f64::from(k);
    let blocking = (1..=k).fold(1.0, |blocking, n| {
        offered * blocking / (f64::from(n) + offered * blocking)
    });
    let waiting = blocking / (1.0 - rho * (1.0 - blocking));
    1.0 + waiting / (f64::from(k) * (1.0 - rho))
}

/// Response over service of the best of `d` random servers, in the limit of many servers (Mitzenmacher 2001).
fn choices(d: f64, rho: f64) -> f64 {
    let terms = (1..200).map(|i| rho.powf((d.powi(i) - d) / (d - 1.0)));
    terms.sum()
}

#[track_caller]
fn assert_near(measured: f64, expected: f64) {
    let off = (measured / expected - 1.0).abs();
    assert!(
        off < 0.01,
        "{measured:.4} is {:.2} % off {expected:.4}",
        off * 100.0
    );
}

#[test]
fn the_formulas_are_those_of_the_textbooks() {
    for (k, rho, expected) in [
        (4, 0.7, 1.36),
        (4, 0.9, 2.97),
        (20, 0.7, 1.02),
        (20, 0.9, 1.28),
    ] {
        assert_near(erlang(k, rho), expected);
    }
    assert_near(erlang(1, 0.7), 1.0 / 0.3);
    assert_near(choices(2.0, 0.7), 1.61);
    assert_near(choices(2.0, 0.9), 2.61);
}

#[test]
fn one_server_is_m_m_1() {
    let measured = response("bound:central_queue", 1, 0.5, 750_000);
    assert_near(measured, erlang(1, 0.5));
}

#[test]
fn where_there_is_nothing_to_choose_it_is_the_same_whoever_picks() {
    let scenario = queue(1, 0.7, 20_000);
    let case = &scenario.cases().unwrap()[0];
    let endings = |policy: &str| {
        let (run, _) = run_one(case, &policy.parse().unwrap(), 1).unwrap();
        run.endings
    };
    let queued = endings("bound:central_queue");
    for policy in ["shortest_expected_delay", "envoy:least_request"] {
        assert_eq!(endings(policy), queued, "{policy}");
    }
}

#[test]
fn a_central_queue_is_m_m_k() {
    for (servers, load, requests) in [(4, 0.7, 500_000), (20, 0.7, 200_000), (20, 0.9, 1_000_000)] {
        assert_near(
            response("bound:central_queue", servers, load, requests),
            erlang(servers as u32, load),
        );
    }
}

#[test]
fn random_choice_makes_queues_of_their_own() {
    assert_near(response("envoy:random", 50, 0.5, 500_000), erlang(1, 0.5));
}

#[test]
fn two_choices_reach_the_limit_of_many_servers() {
    for (load, requests) in [(0.7, 400_000), (0.9, 1_000_000)] {
        assert_near(
            response("envoy:least_request", 500, load, requests),
            choices(2.0, load),
        );
    }
}

#[test]
fn the_filters_two_choices_are_two_choices() {
    let policy = r#"{"name": "least_request", "choice_count": 2}"#;
    // Drawn without replacement, which of so many servers is as good as with it.
    assert_near(response(policy, 250, 0.7, 60_000), choices(2.0, 0.7));
}
