//! Who is next of those that wait, and who waits in vain: priority, fairness, deadlines.

use crate::capacity::{finish, is_sent, rejection, request};
use crate::fleet::{GET, Response, picked, respond, total_in_flight};
use crate::host::{Process, Root, Stream, Vm};
use std::time::Duration;

/// One upstream that takes one request, with this admission.
fn admitting(admission: &str) -> String {
    format!(
        r#"{{ "admission": {admission},
            "upstreams": [ {{ "cluster": "gpu-a", "max_in_flight": 1 }} ] }}"#
    )
}

/// A request with these headers besides the usual ones.
fn request_with(root: &Root, headers: &[(&str, &str)]) -> Stream {
    let all = GET.iter().chain(headers).copied();
    root.request(all).unwrap()
}

/// In which order these start, if each ends before the next starts.
fn order(process: &Process, roots: &[Root], waiting: Vec<(&str, Stream)>) -> Vec<String> {
    let mut waiting = waiting;
    let mut order = Vec::new();
    while !waiting.is_empty() {
        for root in roots.iter().chain(roots) {
            root.vm.deliver_queue_items().unwrap();
        }
        let started = waiting.iter().position(|(_, stream)| is_sent(stream));
        let (name, stream) = waiting.remove(started.expect("one starts"));
        assert!(
            !waiting.iter().any(|(_, stream)| is_sent(stream)),
            "only one"
        );
        order.push(name.to_owned());
        finish(process, stream);
    }
    order
}

#[test]
fn more_important_requests_start_first_on_any_worker() {
    let process = Process::new();
    let admission = r#"{ "priority": { "header": "x-priority",
        "classes": [ "high", "normal", "low" ], "default": "normal" } }"#;
    let roots = [(); 2].map(|()| Vm::start(&process, admitting(admission)).unwrap());
    let running = request(&roots[0]);
    let with = |worker: usize, class| request_with(&roots[worker], &[("x-priority", class)]);
    let waiting = vec![
        ("low", with(0, "low")),
        ("normal", with(1, "normal")),
        ("unnamed", with(0, "what?")),
        ("high on 1", with(1, "high")),
        ("high on 0", with(0, "high")),
    ];
    finish(&process, running);
    let order = order(&process, &roots, waiting);
    assert_eq!(
        order,
        ["high on 1", "high on 0", "normal", "unnamed", "low"]
    );
    let invalid = process.counter("paceline_admission_header_invalid_total;pool=default");
    assert_eq!(invalid, 1);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn tenants_share_what_is_free_whoever_sends_more() {
    let process = Process::new();
    let admission = r#"{ "fairness": { "header": "x-tenant" } }"#;
    let roots = [(); 2].map(|()| Vm::start(&process, admitting(admission)).unwrap());
    let running = request_with(&roots[0], &[("x-tenant", "greedy")]);
    let with = |worker: usize, tenant| request_with(&roots[worker], &[("x-tenant", tenant)]);
    let mut waiting: Vec<(&str, Stream)> =
        (0..12).map(|n| ("greedy", with(n % 2, "greedy"))).collect();
    waiting.extend((0..4).map(|n| ("modest", with(n % 2, "modest"))));
    finish(&process, running);
    let order = order(&process, &roots, waiting);
    let modest = order[..9].iter().filter(|name| *name == "modest").count();
    assert!(modest >= 4, "{order:?}");
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_request_waits_no_longer_than_its_deadline() {
    let process = Process::new();
    let admission = r#"{ "deadline": { "header": "x-timeout" } }"#;
    let root = Vm::start(&process, admitting(admission)).unwrap();
    let running = request(&root);
    let short = request_with(&root, &[("x-timeout", "100")]);
    let long = request_with(&root, &[("x-timeout", "60000")]);
    process.advance(Duration::from_millis(90));
    root.tick().unwrap();
    assert_eq!(rejection(&short), None);
    process.advance(Duration::from_millis(20));
    root.tick().unwrap();
    assert_eq!(rejection(&short), Some((503, "deadline".into())));
    short.end().unwrap();
    finish(&process, running);
    root.vm.deliver_queue_items().unwrap();
    assert!(is_sent(&long));
    finish(&process, long);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn who_arrives_on_one_worker_can_displace_who_waits_on_another() {
    let process = Process::new();
    let admission = r#"{ "queue": { "max_requests": 2 }, "priority": { "header": "x-priority",
        "classes": [ "high", "low" ], "default": "low" } }"#;
    let roots = [(); 2].map(|()| Vm::start(&process, admitting(admission)).unwrap());
    let running = request(&roots[0]);
    let high = |worker: usize| request_with(&roots[worker], &[("x-priority", "high")]);
    let low = request(&roots[0]);
    let (first, second) = (high(1), high(1));
    for root in &roots {
        root.tick().unwrap();
        root.vm.deliver_queue_items().unwrap();
    }
    process.advance(Duration::from_millis(250));
    roots[0].tick().unwrap();
    let (status, reason) = rejection(&low).expect("it makes room");
    assert_eq!((status, reason.as_str()), (503, "queue_full"));
    low.end().unwrap();
    finish(&process, running);
    let order = order(&process, &roots, vec![("first", first), ("second", second)]);
    assert_eq!(order, ["first", "second"]);
    let name = "paceline_rejections_total;pool=default;reason=queue_full;class=low";
    assert_eq!(process.counter(name), 1);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_grpc_client_is_answered_in_grpc() {
    let process = Process::new();
    let configuration = admitting(r#"{ "queue": { "max_requests": 0 } }"#);
    let root = Vm::start(&process, configuration).unwrap();
    let running = request(&root);
    let rejected = request_with(&root, &[("content-type", "application/grpc")]);
    let response = rejected.local_response().unwrap();
    assert_eq!((response.status, response.grpc_status), (503, Some(14)));
    rejected.end().unwrap();
    let plain = request(&root);
    let response = plain.local_response().unwrap();
    assert_eq!((response.status, response.grpc_status), (503, None));
    plain.end().unwrap();
    finish(&process, running);
}

/// A worker that knows that `gpu-a` takes 400 ms and `gpu-b`, which takes `most` requests,
/// 50 ms.
fn of_known_speeds(process: &Process, mode: &str, most: u32) -> Root {
    let configuration = format!(
        r#"{{ "policy": {{ "name": "shortest_expected_delay", "exploration": 0 }},
            "admission": {{ "deadline": {{ "header": "x-timeout", "mode": "{mode}" }} }},
            "upstreams": [ {{ "cluster": "gpu-a", "max_in_flight": 4 }},
                           {{ "cluster": "gpu-b", "max_in_flight": {most} }} ] }}"#
    );
    let root = Vm::start(process, configuration).unwrap();
    for _ in 0..40 {
        let pair = [(); 2].map(|()| request(&root));
        for stream in pair {
            if let Some(upstream) = picked(&stream) {
                let slow = upstream == "gpu-a";
                let latency = Duration::from_millis(if slow { 400 } else { 50 });
                let response = Response {
                    latency,
                    ..Response::OK
                };
                respond(process, &stream, &response).unwrap();
            }
            stream.end().unwrap();
        }
    }
    process.advance(Duration::from_millis(20));
    root.tick().unwrap();
    root
}

#[test]
fn a_deadline_that_nobody_can_meet_is_refused_at_once_or_served_late() {
    for (mode, refused) in [("enforce", true), ("prefer", false), ("off", false)] {
        let process = Process::new();
        let root = of_known_speeds(&process, mode, 2);
        let in_time = request_with(&root, &[("x-timeout", "3000")]);
        assert!(is_sent(&in_time), "{mode}");
        let hopeless = request_with(&root, &[("x-timeout", "1")]);
        let expected = refused.then(|| (503, "deadline".to_owned()));
        assert_eq!(rejection(&hopeless), expected, "{mode}");
        assert_eq!(is_sent(&hopeless), !refused, "{mode}");
        for stream in [in_time, hopeless] {
            stream.end().unwrap();
            root.vm.deliver_queue_items().unwrap();
        }
        root.tick().unwrap();
        assert_eq!(total_in_flight(&process), 0, "{mode}");
    }
}

#[test]
fn with_room_at_a_slow_upstream_only_a_request_waits_for_the_fast_one_but_not_for_ever() {
    let process = Process::new();
    let root = of_known_speeds(&process, "off", 1);
    let on_fast = request(&root);
    assert_eq!(picked(&on_fast).as_deref(), Some("gpu-b"));
    let waits = request(&root);
    assert!(!is_sent(&waits), "though gpu-a is idle");
    finish(&process, on_fast);
    root.vm.deliver_queue_items().unwrap();
    assert_eq!(picked(&waits).as_deref(), Some("gpu-b"));
    // Now the fast one hangs.
    let patient = request(&root);
    assert!(!is_sent(&patient));
    for _ in 0..10 {
        process.advance(Duration::from_millis(100));
        root.tick().unwrap();
    }
    assert_eq!(picked(&patient).as_deref(), Some("gpu-a"));
    for stream in [waits, patient] {
        finish(&process, stream);
    }
    assert_eq!(total_in_flight(&process), 0);
}
