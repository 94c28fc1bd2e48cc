//! Host calls that fail while requests wait for room: whichever it is and however it
//! fails, whoever waits gets a route, an answer or Envoy's own route, and no place is
//! lost.

use crate::capacity::{capped, is_sent, rejection, request};
use crate::faults::STATUSES;
use crate::fleet::{GET, In, Response, pass_throughs, respond, serve, total_in_flight};
use crate::host::{Action, HeaderMap, Process, Root, Status, Stream, Vm, VmResult, Which};
use std::time::Duration;

/// Two workers that have served before.
fn workers(process: &Process) -> [Root; 2] {
    let roots = [(); 2].map(|()| Vm::start(process, capped(1)).unwrap());
    for root in &roots {
        serve(process, root).unwrap();
        root.tick().unwrap();
        root.vm.take_calls();
    }
    roots
}

/// Both workers make the calls that are due, and tick.
fn settle(process: &Process, roots: &[Root; 2], case: &str) {
    for root in roots {
        root.vm.deliver_queue_items().in_case(case);
    }
    process.advance(Duration::from_millis(10));
    for root in roots {
        root.tick().in_case(case);
        root.vm.deliver_queue_items().in_case(case);
    }
}

/// A request runs on the first worker, another waits on the second and then runs.
/// Returns the second and whether it was told to go on at once.
fn life(process: &Process, roots: &[Root; 2]) -> VmResult<(Stream, bool)> {
    let running = roots[0].stream()?;
    running.request_headers(HeaderMap::new(GET), true)?;
    process.advance(Duration::from_millis(2));
    let waiting = roots[1].stream()?;
    let action = waiting.request_headers(HeaderMap::new(GET), true)?;
    let gone = roots[1].stream()?;
    gone.request_headers(HeaderMap::new(GET), true)?;
    gone.end()?;
    if running.local_response().is_none() {
        respond(process, &running, &Response::OK)?;
    }
    running.end()?;
    for root in roots {
        root.vm.deliver_queue_items()?;
    }
    Ok((waiting, action == Action::Continue))
}

fn survives(victim: usize, which: Which, status: Status) {
    let case = format!("worker {victim}: {which:?} failing with {status:?}");
    let process = Process::new();
    let roots = workers(&process);
    roots[victim].vm.fail(which, status);
    let (waiting, goes_on) = life(&process, &roots).in_case(&case);
    roots[victim].vm.clear_plans();
    // As long as it takes to make up for what was not written.
    for _ in 0..30 {
        settle(&process, &roots, &case);
    }
    let is_decided = goes_on || waiting.resumed() || waiting.local_response().is_some();
    assert!(is_decided, "{case}: it waits for ever");
    if is_sent(&waiting) {
        respond(&process, &waiting, &Response::OK).in_case(&case);
    }
    waiting.end().in_case(&case);
    for _ in 0..30 {
        settle(&process, &roots, &case);
    }
    assert_eq!(total_in_flight(&process), 0, "{case}");
    for root in &roots {
        let next = request(root);
        assert!(is_sent(&next), "{case}: a place was lost");
        respond(&process, &next, &Response::OK).in_case(&case);
        next.end().in_case(&case);
    }
}

fn calls_of(victim: usize) -> Vec<&'static str> {
    let process = Process::new();
    let roots = workers(&process);
    let (waiting, _) = life(&process, &roots).unwrap();
    assert!(is_sent(&waiting) && waiting.resumed());
    let calls = roots[victim].vm.take_calls();
    calls.iter().map(|call| call.function).collect()
}

#[test]
fn a_wait_survives_each_host_call_failing() {
    for victim in [0, 1] {
        let calls = calls_of(victim);
        assert!(calls.len() > 20, "{} host calls", calls.len());
        for index in 0..calls.len() {
            for status in [Status::InternalFailure, Status::CasMismatch] {
                survives(victim, Which::At(index), status);
            }
        }
    }
}

#[test]
fn a_wait_survives_each_function_failing_in_each_way() {
    const WAITING: [&str; 7] = [
        "proxy_register_shared_queue",
        "proxy_enqueue_shared_queue",
        "proxy_dequeue_shared_queue",
        "proxy_set_effective_context",
        "proxy_continue_stream",
        "proxy_set_shared_data",
        "proxy_get_shared_data",
    ];
    for victim in [0, 1] {
        let calls = calls_of(victim);
        for function in WAITING.into_iter().filter(|it| calls.contains(it)) {
            for status in STATUSES {
                survives(victim, Which::Every(function), status);
            }
        }
    }
    for function in WAITING {
        let anywhere = [0, 1]
            .iter()
            .any(|victim| calls_of(*victim).contains(&function));
        assert!(anywhere, "{function} is not called");
    }
}

#[test]
fn a_request_that_cannot_be_answered_passes_through() {
    for status in STATUSES {
        let case = format!("{status:?}");
        let process = Process::new();
        let configuration = r#"{ "devices": [ { "name": "gpu", "memory": 10 } ], "upstreams": [
            { "cluster": "gpu-a", "device": "gpu", "memory": { "base": 11 } } ] }"#;
        let root = Vm::start(&process, configuration).unwrap();
        root.vm
            .fail(Which::Every("proxy_send_local_response"), status);
        let stream = root.stream().unwrap();
        let action = stream
            .request_headers(HeaderMap::new(GET), true)
            .in_case(&case);
        assert_eq!(rejection(&stream), None, "{case}");
        assert_eq!(action, Action::Continue, "{case}");
        assert!(!is_sent(&stream), "{case}");
        stream.end().in_case(&case);
        assert_eq!(
            pass_throughs(&process),
            [("too_large".into(), 1)].into(),
            "{case}"
        );
    }
}
