//! The simulator: equal runs, nothing lost, published results, and what the default policy does to a fleet.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use lab::model::Time;
use lab::simulate::{Case, Offered, Policy, RunResult, Scenario, ScenarioError, run_case, run_one};
use paceline::outcome::Outcome;

const DEFAULT: &str = "paceline:shortest_expected_delay";
const FULL_SCAN: &str = "envoy:least_request_full_scan";

fn scenario(json: &str) -> Scenario {
    Scenario::from_json("test", json, Path::new(".")).unwrap()
}

fn policy(name: &str) -> Policy {
    name.parse().unwrap()
}

/// The figures of one policy, seed by seed.
fn figures(case: &Case<'_>, name: &str, seeds: u64) -> Vec<RunResult> {
    let run = |seed| run_one(case, &policy(name), seed).unwrap().1;
    (1..=seeds).map(run).collect()
}

fn mean(results: &[RunResult], figure: fn(&RunResult) -> f64) -> f64 {
    results.iter().map(figure).sum::<f64>() / results.len() as f64
}

#[track_caller]
fn assert_near(measured: f64, expected: f64, tolerance: f64) {
    assert!(
        (measured / expected - 1.0).abs() < tolerance,
        "{measured} is not within {tolerance} of {expected}"
    );
}

/// Everything that can happen, in one short scenario.
const EVENTFUL: &str = r#"{
    "fleet": { "servers": [
        { "name": "a", "count": 2, "kind": "batching", "gpu": "a100", "kv_tokens": 20000 },
        { "name": "b", "kind": "batching", "gpu": "a40", "max_waiting": 2 },
        { "name": "c", "kind": "slots", "slots": 2 },
        { "name": "late", "kind": "batching", "gpu": "h100" }
    ] },
    "workload": "conversation",
    "rate": 22,
    "requests": 3000,
    "gateways": 2,
    "workers": 3,
    "timeout_seconds": 20,
    "abandon": { "share": 0.1, "after_seconds": 3 },
    "warm_up": 0,
    "events": [
        { "at_seconds": 10, "until_seconds": 30, "servers": ["a-1"], "control": { "speed": 0.2 } },
        { "at_seconds": 15, "until_seconds": 25, "servers": ["b"], "control": { "mode": { "fail": { "status": 503, "retry_after_seconds": 2 } } } },
        { "at_seconds": 40, "until_seconds": 45, "servers": ["a-2"], "control": { "mode": "drop" } },
        { "at_seconds": 50, "servers": ["late"], "membership": "join" },
        { "at_seconds": 50, "until_seconds": 60, "servers": ["late"], "control": { "speed": 0.3 } },
        { "at_seconds": 70, "servers": ["a-1", "c"], "membership": "leave" },
        { "at_seconds": 80, "servers": ["c"], "membership": "join" },
        { "at_seconds": 90, "servers": ["a-2"], "control": { "reload_seconds": 10 } },
        { "at_seconds": 95, "until_seconds": 100, "servers": ["b"], "control": { "mode": "stop", "error_rate": 0.5 } },
        { "at_seconds": 60, "restart_worker": { "gateway": 0, "worker": 1 } },
        { "at_seconds": 100, "restart_worker": { "gateway": 1, "worker": 2 } },
        { "at_seconds": 105, "until_seconds": 125, "reports": { "delay_seconds": 1.5 } }
    ]
}"#;

const POLICIES: [&str; 12] = [
    "envoy:round_robin",
    "envoy:random",
    "envoy:least_request",
    FULL_SCAN,
    "tower:peak_ewma",
    "prequal:hcl",
    "bound:clairvoyant",
    "bound:own_delay",
    "bound:added_delay",
    "bound:pace_times_load",
    "paceline:round_robin",
    DEFAULT,
];

#[test]
fn every_call_ends_once_and_nothing_stays_counted() {
    let scenario = scenario(EVENTFUL);
    let case = &scenario.cases().unwrap()[0];
    for name in POLICIES {
        for seed in 1..=3 {
            let (run, result) = run_one(case, &policy(name), seed).unwrap();
            assert_eq!(run.endings.len(), 3000);
            let unfinished = run.endings.iter().filter(|it| it.end.is_none()).count();
            assert_eq!(unfinished, 0, "{name}");
            let outcomes = Outcome::ALL.map(|outcome| run.count(outcome));
            assert_eq!(outcomes.iter().sum::<usize>(), 3000, "{name}: {outcomes:?}");
            for expected in [Outcome::Success, Outcome::ClientAbort] {
                assert!(run.count(expected) > 0, "{name}: {expected:?}");
            }
            let failed = run.count(Outcome::Reset)
                + run.count(Outcome::UpstreamError)
                + run.count(Outcome::Timeout);
            assert!(failed > 0, "{name}: {outcomes:?}");
            assert_eq!(result.counters.leaked, 0, "{name}");
            assert_eq!(result.counters.pass_through, 0, "{name}");
            for ending in &run.endings {
                assert!(ending.end >= Some(ending.sent), "{name}: {ending:?}");
                assert!(ending.first_byte.is_none_or(|it| it >= ending.sent));
            }
        }
    }
}

#[test]
fn ends_that_are_lost_stay_counted_and_no_others() {
    let scenario = scenario(
        r#"{
            "fleet": "unequal8", "workload": "conversation", "load": 0.5, "requests": 3000,
            "events": [{ "at_seconds": 0, "reports": { "lost": 0.02 } }]
        }"#,
    );
    let case = &scenario.cases().unwrap()[0];
    let (run, result) = run_one(case, &policy(DEFAULT), 1).unwrap();
    assert_eq!(
        run.count(Outcome::Success),
        3000,
        "clients have their answers"
    );
    // 60 expected, six standard deviations of 8.
    let leaked = result.counters.leaked;
    assert!((12..=108).contains(&leaked), "{leaked}");
}

#[test]
fn reports_that_are_late_are_of_later_ends() {
    let mean_with = |events: &str| {
        let scenario = scenario(&format!(
            r#"{{ "fleet": "equal8", "workload": "conversation", "load": 0.5, "requests": 5000, "events": [{events}] }}"#
        ));
        let case = &scenario.cases().unwrap()[0];
        let run = |name| mean(&figures(case, name, 2), |it| it.steady.mean);
        (run(FULL_SCAN), run("envoy:random"))
    };
    let (prompt, random) = mean_with("");
    let (late, same) = mean_with(r#"{ "at_seconds": 0, "reports": { "delay_seconds": 30 } }"#);
    assert_eq!(random, same, "who counts nothing misses nothing");
    assert!(late > prompt, "{late} and {prompt}");
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let scenario = scenario(EVENTFUL);
    let case = &scenario.cases().unwrap()[0];
    for name in POLICIES {
        let run = |seed| run_one(case, &policy(name), seed).unwrap().0;
        assert_eq!(run(7), run(7), "{name}");
        assert_ne!(run(7).endings, run(8).endings, "{name}");
    }
}

#[test]
fn threads_change_no_figure() {
    let scenario = scenario(EVENTFUL);
    let case = &scenario.cases().unwrap()[0];
    let policies = [policy(FULL_SCAN), policy(DEFAULT)];
    let json = |threads| {
        let threads = NonZeroUsize::new(threads).unwrap();
        let result = run_case(case, &policies, 3, threads).unwrap();
        serde_json::to_string(&result).unwrap()
    };
    assert_eq!(json(1), json(4));
}

#[test]
fn every_policy_is_given_the_same_calls() {
    let scenario = scenario(EVENTFUL);
    let case = &scenario.cases().unwrap()[0];
    let sent = |name: &str| -> Vec<Time> {
        let run = run_one(case, &policy(name), 3).unwrap().0;
        run.endings.iter().map(|it| it.sent).collect()
    };
    assert_eq!(sent(FULL_SCAN), sent(DEFAULT));
    // Neither gateways nor load change who asks what.
    let json = EVENTFUL.replace(r#""gateways": 2"#, r#""gateways": 5"#);
    let more = self::scenario(&json);
    let more_calls = more.cases().unwrap()[0].setup(3).unwrap().calls;
    let calls = case.setup(3).unwrap().calls;
    assert!(calls.iter().zip(&more_calls).all(|(a, b)| {
        (a.arrival, a.prompt_tokens, a.output_tokens)
            == (b.arrival, b.prompt_tokens, b.output_tokens)
    }));
}

/// The figures that the load-normalised pace was found to reach when it was first tried, on this fleet at these rates:
/// mean of full-scan least request, mean and p99 of the default, seconds.
const FIRST_TRIED: [(f64, f64, f64, f64); 3] = [
    (60.0, 3.67, 2.88, 8.3),
    (94.0, 4.44, 3.60, 10.7),
    (122.0, 5.30, 4.42, 12.8),
];

#[test]
fn the_default_reaches_on_an_unequal_fleet_what_was_first_found() {
    for (rate, full_scan_mean, default_mean, default_p99) in FIRST_TRIED {
        let scenario = scenario(&format!(
            r#"{{
                "fleet": {{ "servers": [
                    {{ "name": "h100", "count": 5, "kind": "batching", "gpu": "h100" }},
                    {{ "name": "a100", "count": 10, "kind": "batching", "gpu": "a100" }},
                    {{ "name": "a40", "count": 5, "kind": "batching", "gpu": "a40" }}
                ] }},
                "workload": "conversation", "rate": {rate}
            }}"#
        ));
        let case = &scenario.cases().unwrap()[0];
        let full_scan = figures(case, FULL_SCAN, 3);
        let default = figures(case, DEFAULT, 3);
        assert_near(mean(&full_scan, |it| it.whole.mean), full_scan_mean, 0.03);
        assert_near(mean(&default, |it| it.whole.mean), default_mean, 0.03);
        assert_near(mean(&default, |it| it.whole.p99), default_p99, 0.1);
        let worst = mean(&full_scan, |it| it.whole.p99);
        assert!(worst > 1.6 * default_p99, "{worst}");
    }
}

#[test]
fn published_experiments_come_out_as_published() {
    let linkerd = Scenario::load("linkerd-2016").unwrap();
    let case = &linkerd.cases().unwrap()[0];
    let good = |name| mean(&figures(case, name, 3), |it| it.whole.within_goal.unwrap());
    // Published: 95, 99 and 99.9 %.
    assert_near(good("envoy:round_robin"), 0.95, 0.01);
    assert_near(good("envoy:least_request"), 0.99, 0.006);
    assert_near(good("tower:peak_ewma"), 0.999, 0.001);
    assert!(good(DEFAULT) >= 0.999, "the default is no worse");

    let tower = Scenario::load("tower-latency-mix").unwrap();
    let case = &tower.cases().unwrap()[0];
    let round_robin = figures(case, "envoy:round_robin", 2);
    assert_near(mean(&round_robin, |it| it.whole.p99), 0.906, 0.01);
    assert_near(mean(&round_robin, |it| it.whole.p999), 0.988, 0.01);
    let peak_ewma = figures(case, "tower:peak_ewma", 2);
    assert_near(mean(&peak_ewma, |it| it.whole.p99), 0.096, 0.02);
    assert_near(mean(&peak_ewma, |it| it.whole.p999), 0.105, 0.1);
    let default = figures(case, DEFAULT, 2);
    assert!(
        mean(&default, |it| it.whole.p99) < 0.096,
        "the default is no worse"
    );
}

#[test]
fn a_server_that_fails_fast_draws_no_calls_from_the_default() {
    let scenario = Scenario::load("fail-fast").unwrap();
    let case = &scenario.cases().unwrap()[0];
    let failed = |name| mean(&figures(case, name, 2), |it| it.whole.failed);
    let (full_scan, default) = (failed(FULL_SCAN), failed(DEFAULT));
    assert!(full_scan > 0.1, "least request has no defence: {full_scan}");
    assert!(default < 0.01, "{default}");
}

#[test]
fn a_server_that_alone_refuses_at_once_draws_no_calls_from_the_default() {
    let scenario = Scenario::load("refuse-fast").unwrap();
    let case = &scenario.cases().unwrap()[0];
    let failed = |name| mean(&figures(case, name, 2), |it| it.whole.failed);
    let (full_scan, default) = (failed(FULL_SCAN), failed(DEFAULT));
    assert!(full_scan > 0.1, "least request has no defence: {full_scan}");
    assert!(default < 0.01, "{default}");
    let run = run_one(case, &policy(DEFAULT), 1).unwrap().0;
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    let share = |from, to| {
        let calls = run
            .endings
            .iter()
            .filter(|it| at(from) <= it.sent && it.sent < at(to));
        let (all, there) = calls.fold((0, 0), |(all, there), it| {
            (all + 1, there + usize::from(it.server == Some(2)))
        });
        f64::from(there as u32) / f64::from(all as u32)
    };
    let (before, after) = (share(20, 100), share(460, 600));
    assert!(
        (0.7..1.4).contains(&(after / before)),
        "mended, it gets its share again: {before} before, {after} after"
    );
}

#[test]
fn requests_that_are_wrong_everywhere_change_nothing() {
    let scenario = Scenario::load("wrong-requests").unwrap();
    let case = &scenario.cases().unwrap()[0];
    let (least, ours) = (figures(case, FULL_SCAN, 2), figures(case, DEFAULT, 2));
    let failed = mean(&ours, |it| it.whole.failed);
    assert!((0.09..0.11).contains(&failed), "{failed}");
    let p99 = |results: &[RunResult]| mean(results, |it| it.steady.p99);
    let ratio = p99(&ours) / p99(&least);
    assert!(ratio < 0.75, "{ratio}");
}

#[test]
fn a_server_that_joins_is_used_and_one_that_left_is_not() {
    let scenario = scenario(EVENTFUL);
    let case = &scenario.cases().unwrap()[0];
    let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
    for name in [FULL_SCAN, DEFAULT, "prequal:hcl", "bound:own_delay"] {
        let run = run_one(case, &policy(name), 1).unwrap().0;
        let between = |server, from, to| {
            let calls = run.endings.iter().filter(|it| it.server == Some(server));
            calls
                .filter(|it| at(from) <= it.sent && it.sent < at(to))
                .count()
        };
        assert_eq!(between(4, 0, 50), 0, "{name}: not there yet");
        assert!(between(4, 65, 130) > 100, "{name}: there");
        assert!(between(0, 40, 70) > 10, "{name}: there");
        assert_eq!(between(0, 70, 140), 0, "{name}: gone");
        assert_eq!(between(3, 70, 80), 0, "{name}: gone for a while");
        assert!(between(3, 80, 140) > 0, "{name}: back");
    }
}

#[test]
fn a_fleet_without_servers_to_choose_fails_calls_and_ends() {
    let scenario = scenario(
        r#"{
            "fleet": { "servers": [{ "name": "a", "kind": "slots" }] },
            "workload": { "service": { "distribution": "constant", "seconds": 0.5 } },
            "rate": 1, "requests": 100,
            "events": [{ "at_seconds": 50, "servers": ["a"], "membership": "leave" }]
        }"#,
    );
    let case = &scenario.cases().unwrap()[0];
    for name in POLICIES {
        let run = run_one(case, &policy(name), 1).unwrap().0;
        assert!(run.count(Outcome::Success) > 30, "{name}");
        let refused = run.endings.iter().filter(|it| it.server.is_none()).count();
        assert!(refused > 30, "{name}: {refused}");
        assert!(run.endings.iter().all(|it| it.end.is_some()), "{name}");
    }
}

#[test]
fn calls_at_a_server_that_never_moves_again_do_not_hang_the_run() {
    let scenario = scenario(
        r#"{
            "fleet": { "servers": [{ "name": "a", "kind": "slots" }, { "name": "b", "kind": "slots" }] },
            "workload": { "service": { "distribution": "constant", "seconds": 0.5 } },
            "rate": 2, "requests": 200,
            "events": [{ "at_seconds": 20, "servers": ["a"], "control": { "mode": "stop" } }]
        }"#,
    );
    let case = &scenario.cases().unwrap()[0];
    let (run, result) = run_one(case, &policy(FULL_SCAN), 1).unwrap();
    let stuck = run.endings.iter().filter(|it| it.end.is_none()).count();
    assert!((1..150).contains(&stuck), "{stuck}");
    assert!(
        result.whole.failed > 0.0,
        "what never ended was not answered"
    );
}

#[test]
fn shipped_scenarios_are_valid_and_say_what_they_are() {
    for name in Scenario::shipped() {
        let scenario = Scenario::load(name).unwrap();
        assert!(!scenario.description.is_empty(), "{name}");
        // The tables are about the last policy: the default one, as it is or with limits.
        let last = scenario.policies.last().unwrap().to_string();
        let has_limits = last.contains("max_in_flight") || last.contains("\"devices\":true");
        let is_capped = has_limits && last.contains("shortest_expected_delay");
        assert!(last == DEFAULT || is_capped, "{name}: {last}");
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    for file in std::fs::read_dir(directory).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".json");
        assert!(
            Scenario::shipped().any(|it| it == name),
            "{name} is not listed"
        );
    }
}

#[test]
fn the_scenario_in_the_documentation_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = text
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        scenario(block);
    }
}

fn error_of(replaced: &str, by: &str) -> String {
    const VALID: &str = r#"{
        "fleet": "equal8",
        "workload": "conversation",
        "load": 0.5,
        "events": [{ "at_seconds": 1, "servers": ["a100-1"], "control": { "speed": 0.5 } }]
    }"#;
    assert!(VALID.contains(replaced), "{replaced}");
    let json = VALID.replacen(replaced, by, 1);
    match Scenario::from_json("test", &json, Path::new(".")) {
        Ok(_) => panic!("valid: {json}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn errors_name_the_place_the_value_and_what_is_allowed() {
    let load = r#""load": 0.5"#;
    let cases = [
        (
            load,
            r#""lod": 0.5"#,
            "lod: unknown field `lod`, expected one of",
        ),
        (
            load,
            r#""seeds": 3"#,
            "load: nothing is not allowed: one of load, rate and clients",
        ),
        (
            load,
            r#""load": 0.5, "before": [{ "seconds": -1, "workload": "conversation" }]"#,
            "before[0].seconds: -1 is not allowed: 0 to 1000000 seconds",
        ),
        (
            load,
            r#""load": 0.5, "before": [{ "seconds": 1, "workload": { "tokens": { "prompt": 0, "output": 1 } } }]"#,
            "before[0].workload.tokens.prompt: 0 is not allowed: 1 to ",
        ),
        (
            load,
            r#""clients": 3, "before": [{ "seconds": 1, "workload": "conversation" }]"#,
            "before: an array is not allowed: only where requests come by load",
        ),
        (
            load,
            r#""load": [0.5, -1]"#,
            "load: -1 is not allowed: 0.001 to 100",
        ),
        (
            load,
            r#""load": []"#,
            "load: invalid length 0, expected at least one number",
        ),
        (
            load,
            r#""load": "high""#,
            "load: invalid type: string \"high\", expected a number or an array of numbers",
        ),
        (
            load,
            r#""load": 0.5, "rate": 3"#,
            "load: more than one of load, rate and clients is not allowed",
        ),
        (
            load,
            r#""load": 0.5, "load": 0.6"#,
            "top level: duplicate field `load`",
        ),
        (
            load,
            r#""rate": 0"#,
            "rate: 0 is not allowed: 0.001 to 1000000 requests a second",
        ),
        (
            load,
            r#""load": 1, "requests": 0"#,
            "requests: 0 is not allowed: 1 to 10000000",
        ),
        (
            load,
            r#""load": 1, "requests": 5, "duration_seconds": 9"#,
            "duration_seconds: 9 is not allowed: either this or requests",
        ),
        (
            load,
            r#""clients": 5, "duration_seconds": 9"#,
            "duration_seconds: 9 is not allowed: with clients",
        ),
        (
            load,
            r#""load": 1, "gateways": [1, 0]"#,
            "gateways[1]: invalid value: integer `0`",
        ),
        (
            load,
            r#""load": 1, "workers": 300"#,
            "workers: 300 is not allowed: 1 to 256",
        ),
        (
            load,
            r#""load": 1, "warm_up": 1"#,
            "warm_up: 1 is not allowed: 0 to 0.9",
        ),
        (
            load,
            r#""load": 1, "timeout_seconds": 0"#,
            "timeout_seconds: 0 is not allowed: 0.001 to 1000000 seconds",
        ),
        (
            load,
            r#""load": 1, "abandon": { "share": 2, "after_seconds": 1 }"#,
            "abandon.share: 2 is not allowed: 0 to 1",
        ),
        (
            load,
            r#""load": 1, "abandon": { "share": 1 }"#,
            "abandon: missing field `after_seconds`",
        ),
        (
            load,
            r#""load": 1, "arrivals": "steady""#,
            "arrivals: no arrivals are called \"steady\": allowed are poisson",
        ),
        (
            load,
            r#""load": 1, "arrivals": "recorded""#,
            "arrivals: recorded arrivals need a trace",
        ),
        (
            load,
            r#""load": 1, "policies": []"#,
            "policies: [] is not allowed: at least one",
        ),
        (
            load,
            r#""load": 1, "policies": ["random", "best"]"#,
            "policies[1]: ",
        ),
        (
            load,
            r#""load": 1, "policies": ["random", "paceline:random"]"#,
            "policies[1]: paceline:random is not allowed: each policy once",
        ),
        (
            load,
            r#""load": 1, "policies": ["bound:central_queue"]"#,
            "policies[0]: bound:central_queue: \"a100-1\" is not allowed",
        ),
        (
            load,
            r#""load": 1, "policies": [{"name": "peak_ewma", "decay": "1s"}]"#,
            "policies[0]: ",
        ),
        (
            load,
            r#""load": 1, "config": {"upstreams": []}"#,
            "config.upstreams: this key is not allowed",
        ),
        (load, r#""load": 1, "config": {"lease": 5}"#, "config: "),
        ("equal8", "equal9", "fleet: fleet "),
        (
            r#""equal8""#,
            r#"{"servers": [{"name": "a", "kind": "slots", "slots": 0}]}"#,
            "fleet.servers[0].slots: ",
        ),
        (
            r#""equal8""#,
            r#"{"servers": [{"name": "a", "kind": "slots", "kind": "slots"}]}"#,
            "fleet.servers[0]: duplicate field `kind`",
        ),
        (
            r#""conversation""#,
            r#""chat""#,
            "workload: no workload is called \"chat\": allowed are conversation",
        ),
        (
            r#""conversation""#,
            r#"{"shape": "x"}"#,
            "workload: {\"shape\": \"x\"} is not allowed: the name of a shape, or",
        ),
        (
            r#""conversation""#,
            r#"{"trace": "none.csv"}"#,
            "workload.trace: ./none.csv: ",
        ),
        (
            r#""conversation""#,
            r#"{"service": {"distribution": "pareto"}}"#,
            "workload.service",
        ),
        (
            r#""conversation""#,
            r#"{"service": {"distribution": "uniform", "min_seconds": 2, "max_seconds": 1}}"#,
            "workload.service.min_seconds: 2 is not allowed: 0 to max_seconds, 1",
        ),
        (
            r#""workload": "conversation""#,
            r#""workload": { "service": { "distribution": "lognormal", "median_seconds": 1, "cv": 1 }, "size": { "correlation": 1.5 } }"#,
            "workload.size.correlation: 1.5 is not allowed: -1 to 1",
        ),
        (
            r#""workload": "conversation""#,
            r#""workload": { "service": { "distribution": "constant", "seconds": 1 }, "size": { "correlation": 1 } }"#,
            "workload.service: a service time, constant 1 s, is not allowed: sizes correlate with lognormal ones",
        ),
        (
            r#""workload": "conversation""#,
            r#""workload": { "mix": [{ "share": 1, "workload": "chat" }] }"#,
            "workload.mix[0].workload: no workload is called \"chat\"",
        ),
        (
            r#""workload": "conversation""#,
            r#""workload": { "mix": [{ "share": 1, "workload": "conversation" }, { "share": 1, "workload": "diffusion" }] }"#,
            "workload.mix[1].workload: diffusion is not allowed: all parts with service times, or none",
        ),
        (
            r#""workload": "conversation""#,
            r#""workload": { "phases": [] }"#,
            "workload.phases: no part is not allowed: at least one",
        ),
        (
            "a100-1",
            "a100-9",
            "events[0].servers[0]: \"a100-9\" is not allowed: the name of a server of the fleet",
        ),
        (
            r#""at_seconds": 1"#,
            r#""at_seconds": -1"#,
            "events[0].at_seconds: -1 is not allowed: 0 to 1000000 seconds",
        ),
        (
            r#""at_seconds": 1"#,
            r#""at_seconds": 5, "until_seconds": 5"#,
            "events[0].until_seconds: 5 is not allowed: a time after at_seconds",
        ),
        (
            r#""speed": 0.5"#,
            r#""speed": 0"#,
            "events[0].control.speed: 0 is not allowed",
        ),
        (
            r#""speed": 0.5"#,
            r#""sped": 1"#,
            "events[0].control.sped: unknown field",
        ),
        (
            r#""servers": ["a100-1"], "control""#,
            r#""control""#,
            "events[0].servers: nothing is not allowed: at least one server",
        ),
        (
            r#""control": { "speed": 0.5 }"#,
            r#""membership": "come""#,
            "events[0].membership: unknown variant `come`, expected `join` or `leave`",
        ),
        (
            r#", "control": { "speed": 0.5 }"#,
            "",
            "events[0]: this event is not allowed: one of control, membership, restart_worker and reports",
        ),
        (
            r#""servers": ["a100-1"], "control": { "speed": 0.5 }"#,
            r#""restart_worker": { "gateway": 1, "worker": 0 }"#,
            "events[0].restart_worker.gateway: 1 is not allowed: 0 to 0",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(replaced, by, expected)| (by, error_of(replaced, by), expected))
        .filter(|(_, error, expected)| !error.starts_with(*expected))
        .map(|(by, error, _)| format!("{by} gave {error:?}"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let error = Scenario::load("no-such-scenario").unwrap_err();
    assert!(matches!(error, ScenarioError::Read { .. }), "{error}");
    assert!(error.to_string().contains("linkerd-2016"), "{error}");
}

/// The part of the calls sent after `from` seconds that went to the server of that number.
fn share_after(scenario: &Scenario, name: &str, seed: u64, server: usize, from: u64) -> f64 {
    let cases = scenario.cases().unwrap();
    let (run, _) = run_one(cases.first().unwrap(), &policy(name), seed).unwrap();
    let from = Time::ZERO + Duration::from_secs(from);
    let late: Vec<_> = run.endings.iter().filter(|it| it.sent >= from).collect();
    let there = late.iter().filter(|it| it.server == Some(server));
    there.count() as f64 / late.len() as f64
}

#[test]
fn a_server_that_hangs_while_clients_give_up_loses_its_calls() {
    // The third server hangs from second 60 on.
    let scenario = Scenario::load("hang").unwrap();
    for seed in 1..=3 {
        let share = share_after(&scenario, DEFAULT, seed, 2, 120);
        assert!(share < 0.01, "{share}");
    }
}

/// Ratios to full-scan least request, of the median and the worst of 40 seeds: mean, then p99.
fn first_minutes(name: &str) -> [(f64, f64); 2] {
    let scenario = Scenario::load(name).unwrap();
    let cases = scenario.cases().unwrap();
    let case = cases.first().unwrap();
    let threads = NonZeroUsize::new(2).unwrap();
    let result = run_case(case, &scenario.policies, scenario.seeds, threads).unwrap();
    let own = result.policies.last().unwrap();
    let ratios = own.seeds_to_least_request.unwrap();
    [ratios.mean, ratios.p99].map(|it| (it.median, it.worst))
}

#[test]
fn odd_requests_do_not_mislead_the_default_in_the_first_minutes() {
    let [plain_mean, plain_p99] = first_minutes("first-plain-unequal8");
    for (odd, worst_mean) in [
        ("one", 1.0),
        ("three", 1.0),
        ("tenth", 1.05),
        ("third", 1.05),
        ("huge", 1.0),
        ("failing", 1.0),
    ] {
        let [mean, p99] = first_minutes(&format!("first-{odd}-unequal8"));
        assert!(mean.1 < worst_mean, "{odd}: {mean:?}");
        assert!(p99.1 < 1.10, "{odd}: {p99:?}");
        assert!(mean.0 < plain_mean.0 + 0.02, "{odd}: {mean:?}");
        assert!(p99.0 < plain_p99.0 + 0.05, "{odd}: {p99:?}");
    }
}

#[test]
fn cheap_requests_do_not_throw_the_default_about() {
    // Without them: 0.84 and 0.58 on batching servers, 0.85 and 0.66 on slots.
    for (name, mean, p99) in [
        ("cheap-requests", 0.86, 0.64),
        ("cheap-requests-slots", 0.88, 0.72),
    ] {
        let mut scenario = Scenario::load(name).unwrap();
        scenario.offered = Offered::Load(vec![0.7]);
        scenario.policies = vec![policy(FULL_SCAN), policy(DEFAULT)];
        let case = &scenario.cases().unwrap()[0];
        let result = run_case(case, &scenario.policies, 2, NonZeroUsize::MIN).unwrap();
        let [other, own] = &result.policies[..] else {
            panic!("two policies");
        };
        let found = own.steady.mean_ratio(&other.steady).value;
        assert!(found < mean, "{name}: mean {found}");
        let found = own.steady.p99_ratio(&other.steady).value;
        assert!(found < p99, "{name}: p99 {found}");
    }
}

#[test]
fn requests_before_the_workload_are_sent_first_and_in_no_figure() {
    let scenario = scenario(
        r#"{
        "fleet": "equal8",
        "workload": { "tokens": { "prompt": 100, "output": 10 } },
        "rate": 10,
        "requests": 50,
        "warm_up": 0,
        "before": [
            { "seconds": 1, "workload": "conversation" },
            { "seconds": 3, "workload": { "tokens": { "prompt": 20, "output": 1 } } }
        ]
    }"#,
    );
    let case = &scenario.cases().unwrap()[0];
    let setup = case.setup(1).unwrap();
    assert_eq!((setup.calls.len(), setup.before), (52, 2));
    let at = |place: usize| setup.calls[place].arrival.as_secs_f64();
    assert_eq!((at(0), at(1)), (0.0, 2.0));
    assert_eq!(setup.calls[0].prompt_tokens.get(), 20);
    assert!(
        setup.calls[2..]
            .iter()
            .all(|it| it.arrival >= Time::ZERO + Duration::from_secs(3))
    );
    assert!(
        setup.calls[2..]
            .iter()
            .all(|it| it.output_tokens.get() == 10)
    );
    let result = &figures(case, FULL_SCAN, 1)[0];
    assert_eq!(result.whole.requests, 50);
}

#[test]
fn ratios_seed_by_seed_have_their_median_and_their_worst() {
    let scenario = scenario(
        r#"{ "fleet": "unequal8", "workload": "conversation", "load": 0.7, "requests": 500, "warm_up": 0, "seeds": 3 }"#,
    );
    let case = &scenario.cases().unwrap()[0];
    let policies = [policy(FULL_SCAN), policy(DEFAULT)];
    let result = run_case(case, &policies, 3, NonZeroUsize::MIN).unwrap();
    let [other, own] = &result.policies[..] else {
        panic!("two policies");
    };
    let mut ratios: Vec<f64> = (own.runs.iter().zip(&other.runs))
        .map(|(own, other)| own.whole.mean / other.whole.mean)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let found = own.seeds_to_least_request.unwrap().mean;
    assert_eq!((found.median, found.worst), (ratios[1], ratios[2]));
    let alone = run_case(case, &policies[1..], 1, NonZeroUsize::MIN).unwrap();
    assert!(alone.policies[0].seeds_to_least_request.is_none());
}
