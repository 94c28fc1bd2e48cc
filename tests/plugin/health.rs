//! Upstreams are asked whether they are ready, by one worker for all.

use crate::faults::STATUSES;
use crate::fleet::{GET, In, Response};
use crate::fleet::{pass_throughs, picked, respond, serve, total_in_flight};
use crate::host::{Answer, CallOut, Plugin, Process, Root, Status, VM_ID, Vm, Which};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(250);

/// Two upstreams that are asked, each at a cluster of its own.
const CHECKED: &str = r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ],
    "policy": "least_request",
    "health_check": { "path": "/health", "cluster_suffix": "-servers" } }"#;

/// The same pool with one upstream more.
const THREE: &str = r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" },
      { "cluster": "gpu-c" } ],
    "policy": "least_request",
    "health_check": { "path": "/health", "cluster_suffix": "-servers" } }"#;

/// How servers answer probes, by the name of their cluster.
type Servers<'a> = &'a dyn Fn(&str) -> Option<Answer>;

/// All are ready.
fn well(_: &str) -> Option<Answer> {
    Some(Answer::of_upstream(200, ""))
}

/// `gpu-b` still loads.
fn b_loads(cluster: &str) -> Option<Answer> {
    let status = if cluster == "gpu-b-servers" { 503 } else { 200 };
    Some(Answer::of_upstream(status, ""))
}

/// Lets so much time pass; all workers tick, and probes are answered at once.
fn run(process: &Process, roots: &[Root], time: Duration, servers: Servers<'_>) {
    for _ in 0..time.as_millis().div_ceil(TICK.as_millis()) {
        process.advance(TICK);
        for root in roots {
            root.tick().unwrap();
            answer(root, servers);
        }
    }
}

/// Answers the probes of a worker; says to which clusters they were.
fn answer(root: &Root, servers: Servers<'_>) -> Vec<String> {
    let mut asked = Vec::new();
    while let Some(call) = root.calls().into_iter().next() {
        let CallOut { token, cluster, .. } = call;
        root.end_call(token, servers(&cluster)).unwrap();
        asked.push(cluster);
    }
    asked
}

/// Where the next requests go.
fn served(process: &Process, root: &Root, count: usize) -> BTreeSet<String> {
    let upstreams = (0..count).map(|_| serve(process, root).unwrap().expect("it is routed"));
    upstreams.collect()
}

/// Probes so far, by upstream and outcome.
fn probes(process: &Process) -> BTreeMap<String, u64> {
    let prefix = "paceline_probes_total;pool=default;upstream=";
    let counters = process.counters(prefix).into_iter();
    let named = counters.map(|(name, count)| (name[prefix.len()..].to_owned(), count));
    named.collect()
}

/// Which upstreams are shown as ready.
fn ready(process: &Process) -> Vec<(String, u64)> {
    let prefix = "paceline_ready;pool=default;upstream=";
    let gauges = process.gauges(prefix).into_iter();
    let named = gauges.map(|(name, value)| {
        let upstream = name[prefix.len()..].split(';').next().unwrap();
        (upstream.to_owned(), value)
    });
    named.collect()
}

fn names(upstreams: &[&str]) -> BTreeSet<String> {
    upstreams.iter().map(|&it| it.to_owned()).collect()
}

#[test]
fn without_a_health_check_nothing_is_asked_or_read() {
    let process = Process::new();
    let root = Vm::start(&process, crate::fleet::TWO).unwrap();
    for _ in 0..20 {
        serve(&process, &root).unwrap();
        process.advance(TICK);
        root.tick().unwrap();
    }
    let calls = root.vm.take_calls();
    assert!(calls.iter().all(|call| call.function != "proxy_http_call"));
    let keys = process.keys(VM_ID);
    assert!(keys.iter().all(|key| !key.ends_with(b"/health/1")));
    assert!(probes(&process).is_empty() && ready(&process).is_empty());
}

#[test]
fn one_worker_asks_each_upstream_and_all_workers_heed_what_it_hears() {
    let process = Process::new();
    let roots = [(); 3].map(|()| Vm::start(&process, CHECKED).unwrap());
    process.advance(TICK);
    roots.iter().for_each(|root| root.tick().unwrap());
    let calls = roots.each_ref().map(Root::calls);
    assert_eq!(calls.each_ref().map(Vec::len), [2, 0, 0]);
    let call = &calls[0][0];
    assert_eq!(call.cluster, "gpu-a-servers");
    assert_eq!(call.timeout, Duration::from_millis(500));
    for (name, value) in [
        (":method", "GET"),
        (":path", "/health"),
        (":authority", "gpu-a"),
    ] {
        let sent = call.headers.get(name.as_bytes());
        assert_eq!(sent, Some(value.as_bytes()), "{name}");
    }
    run(&process, &roots, Duration::from_secs(2), &b_loads);
    for root in &roots {
        assert_eq!(served(&process, root, 6), names(&["gpu-a"]));
    }
    assert_eq!(ready(&process), [("gpu-a".into(), 1), ("gpu-b".into(), 0)]);
    // It has loaded.
    run(&process, &roots, Duration::from_secs(2), &well);
    for root in &roots {
        assert_eq!(served(&process, root, 6), names(&["gpu-a", "gpu-b"]));
    }
    assert_eq!(ready(&process), [("gpu-a".into(), 1), ("gpu-b".into(), 1)]);
    let probes = probes(&process);
    let outcomes: Vec<&str> = probes.keys().map(String::as_str).collect();
    assert_eq!(
        outcomes,
        [
            "gpu-a;outcome=success",
            "gpu-b;outcome=status",
            "gpu-b;outcome=success"
        ]
    );
    assert!(pass_throughs(&process).is_empty());
}

#[test]
fn the_explanation_names_those_that_were_left_out() {
    let process = Process::new();
    let json = THREE.replacen('{', "{ \"explain\": true,", 1);
    let roots = [Vm::start(&process, &json).unwrap()];
    let decision = || {
        let stream = roots[0].request(GET).unwrap();
        respond(&process, &stream, &Response::OK).unwrap();
        let headers = stream.received_headers();
        let decision = headers.get(b"x-paceline-decision").unwrap().to_vec();
        stream.end().unwrap();
        String::from_utf8(decision).unwrap()
    };
    assert!(!decision().contains("left_out"), "nothing is known");
    let only_a: Servers<'_> = &|cluster| match cluster {
        "gpu-a-servers" => well(cluster),
        _ => Some(Answer::of_upstream(503, "")),
    };
    run(&process, &roots, Duration::from_secs(2), only_a);
    let decision = decision();
    let left_out = "; left_out=gpu-b:not_ready,gpu-c:not_ready";
    assert!(decision.contains(left_out), "{decision}");
}

#[test]
fn until_something_is_known_and_where_nothing_is_ready_all_are_used() {
    let process = Process::new();
    let roots = [Vm::start(&process, CHECKED).unwrap()];
    assert_eq!(served(&process, &roots[0], 6), names(&["gpu-a", "gpu-b"]));
    let down: Servers<'_> = &|_| Some(Answer::of_upstream(503, ""));
    run(&process, &roots, Duration::from_secs(3), down);
    assert_eq!(ready(&process), [("gpu-a".into(), 0), ("gpu-b".into(), 0)]);
    assert_eq!(served(&process, &roots[0], 6), names(&["gpu-a", "gpu-b"]));
    assert!(pass_throughs(&process).is_empty());
}

#[test]
fn another_worker_takes_over_when_the_one_that_asks_traps() {
    let process = Process::new();
    let mut roots = vec![
        Vm::start(&process, CHECKED).unwrap(),
        Vm::start(&process, CHECKED).unwrap(),
    ];
    run(&process, &roots, Duration::from_secs(2), &b_loads);
    // In the middle of telling the others, with probes under way.
    let first = roots.remove(0);
    first.vm.trap(Which::Nth("proxy_set_shared_data", 0));
    let trapped = (0..8).any(|_| {
        process.advance(TICK);
        first.tick().is_err()
    });
    assert!(trapped, "it renews its lease");
    // What it knew holds in the meantime.
    for _ in 0..9 {
        assert_eq!(served(&process, &roots[0], 4), names(&["gpu-a"]));
        run(&process, &roots, TICK, &b_loads);
    }
    run(&process, &roots, Duration::from_millis(1500), &well);
    assert_eq!(served(&process, &roots[0], 6), names(&["gpu-a", "gpu-b"]));
    // The VM in its place joins in, and asks nothing.
    roots.push(Vm::start(&process, CHECKED).unwrap());
    process.advance(TICK);
    roots[1].tick().unwrap();
    assert!(roots[1].calls().is_empty());
    assert_eq!(served(&process, &roots[1], 6), names(&["gpu-a", "gpu-b"]));
}

#[test]
fn a_reload_forgets_nothing_and_what_it_adds_waits_for_its_first_good_answer() {
    let process = Process::new();
    let old = [Vm::start(&process, CHECKED).unwrap()];
    run(&process, &old, Duration::from_secs(2), &b_loads);
    // A stream keeps the old configuration alive, which goes on asking.
    let stream = old[0].request(GET).unwrap();
    let new = [old[0].vm.create_root(Plugin::new(THREE)).unwrap()];
    assert!(new[0].configure().unwrap());
    assert_eq!(served(&process, &new[0], 6), names(&["gpu-a"]));
    let c_hangs: Servers<'_> = &|cluster| match cluster {
        "gpu-c-servers" => Some(Answer::of_envoy(504)),
        _ => b_loads(cluster),
    };
    process.advance(TICK);
    new[0].tick().unwrap();
    assert_eq!(
        answer(&new[0], c_hangs),
        ["gpu-c-servers"],
        "the rest is asked already"
    );
    assert_eq!(served(&process, &new[0], 6), names(&["gpu-a"]));
    run(&process, &new, Duration::from_secs(1), &b_loads);
    // gpu-a still has the stream.
    assert_eq!(served(&process, &new[0], 6), names(&["gpu-c"]));
    stream.end().unwrap();
    let [old] = old;
    old.shut_down().unwrap();
    // All is the new one's now.
    run(&process, &new, Duration::from_secs(2), &well);
    assert_eq!(
        served(&process, &new[0], 9),
        names(&["gpu-a", "gpu-b", "gpu-c"])
    );
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn plugins_of_one_name_with_different_checks_have_a_prober_each() {
    let process = Process::new();
    let other = CHECKED.replace("/health", "/ready");
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let roots = [CHECKED, &other].map(|configuration| {
        let root = vm.create_root(Plugin::new(configuration)).unwrap();
        assert!(root.configure().unwrap());
        root
    });
    process.advance(TICK);
    roots.iter().for_each(|root| root.tick().unwrap());
    let paths = roots.each_ref().map(|root| {
        let calls = root.calls();
        let paths = calls
            .iter()
            .map(|call| call.headers.get(b":path").unwrap().to_vec());
        paths.collect::<Vec<_>>()
    });
    assert_eq!(
        paths,
        [
            [b"/health".to_vec(), b"/health".to_vec()],
            [b"/ready".to_vec(), b"/ready".to_vec()]
        ]
    );
    // Each heeds its own.
    for _ in 0..8 {
        process.advance(TICK);
        for (root, servers) in roots.iter().zip([&well as Servers<'_>, &b_loads]) {
            root.tick().unwrap();
            answer(root, servers);
        }
    }
    assert_eq!(served(&process, &roots[0], 6), names(&["gpu-a", "gpu-b"]));
    assert_eq!(served(&process, &roots[1], 6), names(&["gpu-a"]));
}

#[test]
fn whatever_comes_back_from_a_probe_is_counted_and_hurts_nobody() {
    let json = CHECKED.replace(
        "\"cluster_suffix\"",
        "\"json_pointer\": \"/status\", \"equals\": \"ready\", \"cluster_suffix\"",
    );
    let huge = vec![b' '; 1 << 20];
    let deep = "[".repeat(60_000);
    for (answered, outcome) in [
        (
            Some(Answer::of_upstream(200, r#"{"status": "ready"}"#)),
            "success",
        ),
        (
            Some(Answer::of_upstream(200, r#"{"status": "loading"}"#)),
            "body",
        ),
        (Some(Answer::of_upstream(200, "loading")), "body"),
        (Some(Answer::of_upstream(200, "")), "body"),
        (Some(Answer::of_upstream(200, &deep)), "body"),
        (Some(Answer::of_upstream(200, &huge)), "body_too_large"),
        (Some(Answer::of_upstream(301, "")), "status"),
        (Some(Answer::of_upstream(503, "")), "status"),
        (Some(Answer::of_envoy(503)), "unreachable"),
        (Some(Answer::of_envoy(504)), "timeout"),
        (Some(Answer::default()), "unreachable"),
        (None, "unreachable"),
    ] {
        let process = Process::new();
        let root = Vm::start(&process, &json).unwrap();
        process.advance(TICK);
        root.tick().unwrap();
        answer(&root, &|cluster| match cluster {
            "gpu-b-servers" => answered.clone(),
            _ => Some(Answer::of_upstream(200, r#"{"status": "ready"}"#)),
        });
        let probes = probes(&process);
        assert_eq!(probes[&format!("gpu-b;outcome={outcome}")], 1, "{probes:?}");
        process.advance(TICK);
        let expected = match outcome {
            "success" => names(&["gpu-a", "gpu-b"]),
            _ => names(&["gpu-a"]),
        };
        assert_eq!(served(&process, &root, 6), expected, "{outcome}");
    }
}

#[test]
fn a_cluster_that_envoy_does_not_have_is_not_ready() {
    let process = Process::new();
    process.remove_cluster("gpu-b-servers");
    let roots = [Vm::start(&process, CHECKED).unwrap()];
    run(&process, &roots, Duration::from_secs(3), &well);
    assert_eq!(served(&process, &roots[0], 6), names(&["gpu-a"]));
    assert!(probes(&process)["gpu-b;outcome=no_cluster"] > 1);
}

#[test]
fn a_call_that_nobody_knows_is_ignored() {
    let process = Process::new();
    let root = Vm::start(&process, CHECKED).unwrap();
    // Before and after any is sent, and twice for one.
    root.end_call(7, Some(Answer::of_upstream(200, "")))
        .unwrap();
    process.advance(TICK);
    root.tick().unwrap();
    let token = root.calls()[0].token;
    for token in [token, token, 99] {
        root.end_call(token, Some(Answer::of_upstream(503, "")))
            .unwrap();
    }
    assert_eq!(
        probes(&process),
        [("gpu-a;outcome=status".into(), 1)].into()
    );
}

/// Ticks and answers with `which` failing: nothing traps, requests are served, and
/// when all is well again so are the probes.
fn survives(which: Which, status: Status) {
    let context = format!("{which:?} failing with {status:?}");
    let process = Process::new();
    let root = Vm::start(&process, CHECKED).unwrap();
    root.vm.take_calls();
    root.vm.fail(which, status);
    for _ in 0..3 {
        process.advance(TICK);
        root.tick().in_case(&context);
        while let Some(call) = root.calls().into_iter().next() {
            root.end_call(call.token, b_loads(&call.cluster))
                .in_case(&context);
        }
    }
    let stream = root.request(GET).in_case(&context);
    let accounted = picked(&stream).is_some() || !pass_throughs(&process).is_empty();
    assert!(accounted, "{context}: neither routed nor counted");
    stream.end().in_case(&context);
    root.vm.clear_plans();
    // Calls that failed to be made come again within the interval, and one that is
    // thought to be under way ends within its timeout and five seconds.
    run(
        &process,
        std::slice::from_ref(&root),
        Duration::from_secs(8),
        &b_loads,
    );
    assert_eq!(served(&process, &root, 6), names(&["gpu-a"]), "{context}");
    run(
        &process,
        std::slice::from_ref(&root),
        Duration::from_secs(2),
        &well,
    );
    assert_eq!(
        served(&process, &root, 6),
        names(&["gpu-a", "gpu-b"]),
        "{context}"
    );
}

#[test]
fn probes_survive_each_host_call_failing_in_each_way() {
    let process = Process::new();
    let root = Vm::start(&process, CHECKED).unwrap();
    root.vm.take_calls();
    run(&process, std::slice::from_ref(&root), TICK * 3, &b_loads);
    let calls = root.vm.take_calls();
    let functions: BTreeSet<&str> = calls.iter().map(|call| call.function).collect();
    assert!(functions.contains("proxy_http_call"));
    for status in STATUSES {
        for index in 0..calls.len() {
            survives(Which::At(index), status);
        }
        for function in &functions {
            survives(Which::Every(function), status);
        }
    }
}
