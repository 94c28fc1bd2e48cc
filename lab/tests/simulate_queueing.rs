//! The simulator against queueing theory: models whose answers are known in closed form.
//!
//! Runs are long and their seeds fixed; the bounds are some three standard errors of such a run.

use std::path::Path;

use lab::simulate::{Policy, Scenario, run_one};

/// The mean time in the system over the mean service time, of exponential services and Poisson arrivals.
fn response(policy: &str, servers: usize, load: f64, requests: usize, seeds: u64) -> f64 {
    let rate = load * servers as f64;
    let json = format!(
        r#"{{
            "fleet": {{ "servers": [{{ "name": "s", "count": {servers}, "kind": "slots" }}] }},
            "workload": {{ "service": {{ "distribution": "exponential", "mean_seconds": 1 }} }},
            "rate": {rate}, "requests": {requests}, "warm_up": 0.05
        }}"#
    );
    let scenario = Scenario::from_json("queue", &json, Path::new(".")).unwrap();
    let policy: Policy = policy.parse().unwrap();
    let case = &scenario.cases().unwrap()[0];
    let means = (1..=seeds).map(|seed| {
        let (_, result) = run_one(case, &policy, seed).unwrap();
        assert_eq!(result.steady.failed, 0.0);
        result.steady.mean
    });
    means.sum::<f64>() / seeds as f64
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
fn assert_near(measured: f64, expected: f64, tolerance: f64) {
    let off = (measured / expected - 1.0).abs();
    assert!(
        off < tolerance,
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
        assert_near(erlang(k, rho), expected, 0.005);
    }
    assert_near(erlang(1, 0.7), 1.0 / 0.3, 1e-9);
    assert_near(choices(2.0, 0.7), 1.61, 0.005);
    assert_near(choices(2.0, 0.9), 2.61, 0.005);
}

#[test]
fn one_server_is_m_m_1() {
    assert_near(
        response("bound:central_queue", 1, 0.7, 600_000, 2),
        erlang(1, 0.7),
        0.015,
    );
    // Whoever picks, there is nothing to choose.
    assert_near(
        response("shortest_expected_delay", 1, 0.5, 200_000, 1),
        erlang(1, 0.5),
        0.015,
    );
}

#[test]
fn a_central_queue_is_m_m_k() {
    assert_near(
        response("bound:central_queue", 4, 0.7, 500_000, 1),
        erlang(4, 0.7),
        0.01,
    );
    assert_near(
        response("bound:central_queue", 20, 0.7, 200_000, 1),
        erlang(20, 0.7),
        0.01,
    );
    assert_near(
        response("bound:central_queue", 20, 0.9, 600_000, 1),
        erlang(20, 0.9),
        0.015,
    );
    assert_near(
        response("bound:central_queue", 4, 0.9, 800_000, 2),
        erlang(4, 0.9),
        0.02,
    );
}

#[test]
fn random_choice_makes_queues_of_their_own() {
    assert_near(
        response("envoy:random", 50, 0.7, 600_000, 1),
        erlang(1, 0.7),
        0.02,
    );
}

#[test]
fn two_choices_reach_the_limit_of_many_servers() {
    assert_near(
        response("envoy:least_request", 400, 0.7, 400_000, 1),
        choices(2.0, 0.7),
        0.01,
    );
    assert_near(
        response("envoy:least_request", 400, 0.9, 800_000, 1),
        choices(2.0, 0.9),
        0.02,
    );
}

#[test]
fn the_filters_two_choices_are_two_choices() {
    let policy = r#"{"name": "least_request", "choice_count": 2}"#;
    // Drawn without replacement from 60 servers: less than the limit of many, which draws with it, by 1 to 2 %.
    assert_near(
        response(policy, 60, 0.7, 60_000, 1),
        choices(2.0, 0.7),
        0.025,
    );
}
