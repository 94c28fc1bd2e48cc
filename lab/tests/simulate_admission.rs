//! Requests that wait in the gateway: the filter's own caps and queues, at virtual time.

// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::num::NonZeroUsize;

use lab::simulate::{
    Case, Figures, Offered, Policy, PolicyResult, Run, RunResult, Scenario, Setup, run_case,
    run_one,
};

const SEED: u64 = 1;

/// A shipped scenario, a bit shorter.
fn scenario(name: &str) -> Scenario {
    let mut scenario = Scenario::load(name).unwrap();
    scenario.set_requests(10_000).unwrap();
    scenario
}

/// The scenario's own policy that caps servers: the last.
fn capped(scenario: &Scenario) -> Policy {
    scenario.policies.last().unwrap().clone()
}

fn run(case: &Case<'_>, policy: &Policy) -> (Setup, Run, RunResult) {
    let (run, result) = run_one(case, policy, SEED).unwrap();
    (case.setup(SEED).unwrap(), run, result)
}

/// By policy, the p99 of two seeds.
fn p99s(case: &Case<'_>, policies: &[Policy]) -> Vec<f64> {
    let result = run_case(case, policies, 2, NonZeroUsize::new(2).unwrap()).unwrap();
    let p99s: Vec<f64> = result
        .policies
        .iter()
        .map(|it| it.steady.p99.value)
        .collect();
    println!("{}: {p99s:?}", result.case);
    for policy in &result.policies {
        assert_eq!(policy.steady.failed, 0.0, "{}", policy.policy);
    }
    p99s
}

/// The policies of these names, and the scenario's capped one.
fn with_capped(scenario: &Scenario, names: &[&str]) -> Vec<Policy> {
    let named = names.iter().map(|name| name.parse().unwrap());
    named.chain([capped(scenario)]).collect()
}

/// The scenario as it is shipped, and with requests whose sizes tell their service times.
fn without_and_with_sizes(name: &str) -> [Scenario; 2] {
    let mut sized = scenario(name);
    sized.workload = Scenario::load("size-slots-equal").unwrap().workload;
    [scenario(name), sized]
}

#[test]
fn caps_of_one_make_equal_servers_one_queue() {
    for scenario in without_and_with_sizes("held-slots-equal") {
        let policies = with_capped(&scenario, &["bound:central_queue"]);
        for case in scenario.cases().unwrap() {
            let p99s = p99s(&case, &policies);
            assert!(p99s[1] <= 1.15 * p99s[0], "{case}: {p99s:?}");
        }
    }
}

#[test]
fn on_unequal_servers_caps_are_far_better_than_two_choices() {
    for scenario in without_and_with_sizes("held-slots-unequal") {
        let policies = with_capped(&scenario, &["envoy:least_request"]);
        for case in scenario.cases().unwrap() {
            let p99s = p99s(&case, &policies);
            assert!(2.5 * p99s[1] <= p99s[0], "{case}: {p99s:?}");
        }
    }
}

#[test]
fn waiting_for_a_faster_server_is_better_than_the_first_that_is_free() {
    // p99 at most this part of it, without and with sizes.
    for (scenario, part) in without_and_with_sizes("held-slots-unequal")
        .into_iter()
        .zip([0.97, 0.88])
    {
        let impatient = r#"{ "name": "shortest_expected_delay", "max_in_flight": 1,
            "tuning": { "patience": 0.0 },
            "config": { "admission": { "queue": { "max_requests": 10000, "max_wait": "1h" } } } }"#;
        let policies = [
            Policy::paceline(serde_json::from_str(impatient).unwrap()).unwrap(),
            capped(&scenario),
        ];
        for case in scenario.cases().unwrap() {
            let p99s = p99s(&case, &policies);
            assert!(p99s[1] <= part * p99s[0], "{case}: {p99s:?}");
        }
    }
}

#[test]
fn no_server_ever_has_more_than_its_cap_and_nothing_leaks() {
    for name in ["held-slots-unequal", "held-two-tenants", "held-priorities"] {
        let scenario = scenario(name);
        for case in scenario.cases().unwrap() {
            let (_, run, result) = run(&case, &capped(&scenario));
            assert_eq!(
                run.peak_outstanding.iter().max(),
                Some(&1),
                "{name}, {case}"
            );
            assert!(run.endings.iter().all(|it| it.end.is_some()));
            assert_eq!(result.counters.leaked, 0);
            assert_eq!(result.counters.pass_through, 0);
        }
    }
}

#[test]
fn a_tenant_that_sends_little_does_not_wait_for_one_that_sends_much() {
    let scenario = scenario("held-two-tenants");
    // Its share alone: half of the servers, and its own requests.
    let mut alone = scenario.clone();
    let half = r#"{ "servers": [{ "name": "slot", "count": 10, "kind": "slots" }] }"#;
    alone.fleet = lab::model::Fleet::from_json(half).unwrap();
    alone.present = vec![true; 10];
    alone.callers = vec![alone.callers[1].clone()];
    alone.offered = Offered::Load(vec![2.0 * 1.2 / 11.0]);
    let alone_p99 = run(&alone.cases().unwrap()[0], &capped(&alone))
        .2
        .steady
        .p99;
    for case in scenario.cases().unwrap() {
        let (_, _, result) = run(&case, &capped(&scenario));
        let [many, few] = result.callers[..] else {
            panic!("two callers");
        };
        println!("{case}: {:.1} s alone {alone_p99:.1} s, {many:?}", few.p99);
        assert!(few.p99 <= 1.2 * alone_p99, "{} to {alone_p99}", few.p99);
        assert_eq!(few.failed, 0.0);
        assert!(many.failed > 0.1, "somebody has to wait");
    }
}

#[test]
fn who_is_important_does_not_notice_that_there_is_too_much() {
    let scenario = scenario("held-priorities");
    for case in scenario.cases().unwrap() {
        let (_, _, result) = run(&case, &capped(&scenario));
        let [high, normal, low] = result.callers[..] else {
            panic!("three callers");
        };
        println!("{case}: {high:?} {normal:?} {low:?}");
        assert_eq!(high.failed, 0.0);
        assert!(normal.failed < 0.01, "{normal:?}");
        // Two thirds of all are what the servers can do; low gets the rest of that.
        assert!(low.failed > 0.5 && low.failed < 0.8, "{low:?}");
        assert!(high.p99 < 1.3 * 106.0, "the service time's own is 106 s");
        assert!(low.p50 > normal.p50 && normal.p50 >= high.p50);
    }
}

/// The p99 of the requests that take a second.
fn short_p99((setup, run, _): &(Setup, Run, RunResult)) -> f64 {
    let calls = setup.calls.iter().zip(&run.endings).skip(2_000);
    let short = calls.filter(|(call, _)| call.service.unwrap().as_secs() < 2);
    Figures::of_endings(short.map(|(_, ending)| ending), None).p99
}

#[test]
fn short_requests_do_not_stand_behind_long_ones() {
    let scenario = scenario("held-head-of-line");
    for case in scenario.cases().unwrap() {
        let two_choices = "envoy:least_request".parse().unwrap();
        let envoy = short_p99(&run(&case, &two_choices));
        let held = short_p99(&run(&case, &capped(&scenario)));
        println!("{case}: {held:.2} s, with two choices {envoy:.2} s");
        assert!(3.0 * held < envoy, "{held} to {envoy}");
    }
}

/// What was answered in time, as a part of what the servers can do.
fn goodput(case: &Case<'_>, result: &RunResult) -> f64 {
    result.steady.within_goal.unwrap() * case.rate().unwrap() / case.capacity
}

#[test]
fn overload_with_deadlines_costs_the_fleet_and_the_important_nothing() {
    let mut scenario = scenario("held-overload");
    // Whether a gateway gives requests up that are late or lets the servers finish them.
    for timeout in [None, scenario.goal] {
        scenario.timeout = timeout;
        for case in scenario.cases().unwrap() {
            let plain = run(&case, &"envoy:least_request_full_scan".parse().unwrap());
            let held = run(&case, &capped(&scenario));
            let [plain, held_part] = [&plain.2, &held.2].map(|result| goodput(&case, result));
            let high = held.2.callers[0].within_goal.unwrap();
            println!("{case}, {timeout:?}: {held_part:.3}, plain {plain:.3}, high {high:.4}");
            assert!(held_part >= 0.95, "{held_part}");
            assert!(
                plain < if timeout.is_none() { 0.05 } else { 0.85 },
                "{plain}"
            );
            // Seven in a thousand take longer than two minutes alone.
            assert!(high > 0.985, "{high}");
        }
    }
}

#[test]
fn devices_run_out_of_memory_unless_the_gateway_knows_them() {
    let mut scenario = Scenario::load("devices").unwrap();
    scenario.seeds = 2;
    let case = scenario.cases().unwrap().remove(0);
    let result = run_case(&case, &scenario.policies, 2, NonZeroUsize::new(2).unwrap()).unwrap();
    let good = |policy: &PolicyResult| policy.whole.within_goal.unwrap();
    let (own, others) = result.policies.split_last().unwrap();
    for run in &own.runs {
        assert_eq!((run.crashes, run.counters.leaked), (0, 0));
    }
    assert_eq!(own.whole.failed, 0.0);
    for other in others {
        let crashes: Vec<u64> = other.runs.iter().map(|run| run.crashes).collect();
        println!("{}: {crashes:?} crashes", other.policy);
        assert!(
            crashes.iter().all(|crashes| *crashes >= 3),
            "{}",
            other.policy
        );
        assert!(good(own) > good(other), "{}", other.policy);
    }
}

/// A figure without a cap and with a learned one, at the highest load of the scenario.
fn with_and_without_learned_caps(
    scenario: &Scenario,
    figure: impl Fn(&PolicyResult) -> f64,
) -> [f64; 2] {
    let [_, none, _, learned] = &scenario.policies[..] else {
        panic!("{}: other policies", scenario.name);
    };
    let policies = [none.clone(), learned.clone()];
    let cases = scenario.cases().unwrap();
    let case = cases.last().unwrap();
    let result = run_case(case, &policies, 1, NonZeroUsize::new(2).unwrap()).unwrap();
    let figures = [0, 1].map(|place| figure(&result.policies[place]));
    println!("{}, {case}: {figures:?}", scenario.name);
    figures
}

/// The table in docs/capacity.md has the losses: the greatest are on slots at 90 %.
#[test]
fn a_learned_cap_loses_little_on_batching_servers_and_less_than_half_on_slots() {
    for (name, most) in [
        ("learned-slots-1", 1.5),
        ("learned-slots-16-unequal", 2.0),
        ("learned-batching", 1.15),
    ] {
        let scenario = Scenario::load(name).unwrap();
        let [none, learned] = with_and_without_learned_caps(&scenario, |it| it.steady.p99.value);
        assert!(learned < most * none, "{name}: {learned}, {none}");
    }
}

#[test]
fn under_overload_a_learned_cap_keeps_what_none_keeps() {
    for (name, more) in [
        ("learned-slots-1-overload", 1.0),
        ("learned-slots-16-overload", 0.98),
        ("learned-batching-overload", 0.95),
    ] {
        let scenario = Scenario::load(name).unwrap();
        let in_time = |it: &PolicyResult| it.steady.within_goal.unwrap();
        let [none, learned] = with_and_without_learned_caps(&scenario, in_time);
        assert!(learned > more * none, "{name}: {learned}, {none}");
    }
}
