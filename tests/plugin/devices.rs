//! Devices: upstreams that share memory, and requests too large for what is free, or
//! for all there is.

use crate::capacity::{finish, is_sent, rejection};
use crate::fleet::{GET, total_in_flight};
use crate::host::{HeaderMap, Process, Root, Stream, Vm};
use std::collections::VecDeque;
use std::time::Duration;

/// Requests of `bytes` content.
fn sized(process: &Process, root: &Root, bytes: &str) -> Stream {
    let mut headers = GET.to_vec();
    headers.push(("content-length", bytes));
    let stream = root.stream().unwrap();
    stream
        .request_headers(HeaderMap::new(headers), false)
        .unwrap();
    process.advance(Duration::from_millis(1));
    stream
}

#[test]
fn upstreams_of_all_pools_share_the_memory_of_their_device() {
    let process = Process::new();
    let configuration = r#"{ "devices": [ { "name": "gpu-0", "memory": 100 } ], "pools": [
        { "name": "a", "match": { "path_prefix": "/a/" }, "upstreams": [
            { "cluster": "gpu-a", "device": "gpu-0", "memory": { "base": 10, "per_size": 1 } } ] },
        { "name": "b", "upstreams": [
            { "cluster": "gpu-b", "device": "gpu-0", "memory": { "base": 10, "per_size": 2 } } ] } ] }"#;
    let roots = [(); 2].map(|()| Vm::start(&process, configuration).unwrap());
    let first = sized(&process, &roots[0], "20");
    assert!(is_sent(&first), "50 of 100");
    let second = sized(&process, &roots[1], "25");
    assert!(!is_sent(&second), "60 more");
    let small = sized(&process, &roots[0], "1");
    assert!(!is_sent(&small), "behind the large one");
    let too_large = sized(&process, &roots[0], "46");
    assert_eq!(rejection(&too_large), Some((413, "too_large".into())));
    too_large.end().unwrap();
    process.advance(Duration::from_millis(250));
    roots[0].tick().unwrap();
    let used = process.gauges("paceline_device_memory_used_bytes;device=gpu-0");
    assert!(used.values().sum::<u64>() >= 50, "{used:?}");
    finish(&process, first);
    roots
        .iter()
        .for_each(|root| root.vm.deliver_queue_items().unwrap());
    assert!(is_sent(&second));
    for stream in [second, small] {
        stream.end().unwrap();
        roots
            .iter()
            .for_each(|root| root.vm.deliver_queue_items().unwrap());
    }
    roots[0].tick().unwrap();
    let used = process.gauges("paceline_device_memory_used_bytes;device=gpu-0");
    assert_eq!(used.values().sum::<u64>(), 0);
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn small_requests_pass_a_large_one_and_not_for_ever() {
    let process = Process::new();
    let configuration = r#"{ "devices": [ { "name": "gpu-0", "memory": 100 } ], "upstreams": [
        { "cluster": "gpu-a", "device": "gpu-0", "memory": { "per_size": 1 } } ] }"#;
    let root = Vm::start(&process, configuration).unwrap();
    let mut running: VecDeque<Stream> = (0..5).map(|_| sized(&process, &root, "20")).collect();
    let large = sized(&process, &root, "90");
    let mut passed = 0;
    for _ in 0..60 {
        let small = sized(&process, &root, "20");
        finish(&process, running.pop_front().unwrap());
        root.vm.deliver_queue_items().unwrap();
        if is_sent(&large) {
            small.end().unwrap();
            break;
        }
        if is_sent(&small) {
            passed += 1;
            running.push_back(small);
        } else {
            small.end().unwrap();
        }
    }
    assert!(is_sent(&large));
    assert_eq!(passed, 16);
    for stream in running.into_iter().chain([large]) {
        finish(&process, stream);
    }
    root.vm.deliver_queue_items().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_grpc_request_that_is_too_large_is_told_so_in_grpc() {
    let process = Process::new();
    let configuration = r#"{ "devices": [ { "name": "gpu-0", "memory": 100 } ], "upstreams": [
        { "cluster": "gpu-a", "device": "gpu-0", "memory": { "per_size": 1 } } ] }"#;
    let root = Vm::start(&process, configuration).unwrap();
    for (content_type, grpc) in [("application/grpc", Some(8)), ("text/plain", None)] {
        let stream = root.stream().unwrap();
        let further = [("content-length", "101"), ("content-type", content_type)];
        let headers = HeaderMap::new(GET.into_iter().chain(further));
        stream.request_headers(headers, false).unwrap();
        assert_eq!(rejection(&stream), Some((413, "too_large".into())));
        let response = stream.local_response().unwrap();
        assert_eq!(response.grpc_status, grpc, "{content_type}");
        stream.end().unwrap();
    }
    assert_eq!(total_in_flight(&process), 0);
    let rejected = process.counter("paceline_rejections_total;pool=default;reason=too_large");
    assert_eq!(rejected, 2);
}
