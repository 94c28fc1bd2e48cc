//! What a request costs: host calls, each of them some tenths of a microsecond of
//! Envoy's time, and instructions in the VM. Unlike times both are the same on
//! every machine, so they are counted, and more of them have to be argued for.

use crate::fleet::config;
use crate::host::{CallTable, HeaderMap, Process, Property, Root, Vm};
use std::time::Duration;

/// Most host calls in a request's whole life, and most bytes copied across the
/// VM's boundary, with eight upstreams and the default policy.
const MAX_CALLS: usize = 15;
const MAX_BYTES: usize = 2048;

/// Most instructions that the VM executes for it, the SDK's dispatch of callbacks included.
const MAX_INSTRUCTIONS: u64 = 75_000;

/// A request with a body, as those to model servers are.
const POST: [(&str, &str); 6] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions"),
    (":authority", "models.example.com"),
    (":scheme", "http"),
    ("content-type", "application/json"),
    ("content-length", "1000"),
];

/// A worker that has found its feet: lane claimed, metrics of all upstreams defined.
fn warm(process: &Process, configuration: &str) -> Root {
    let root = Vm::start(process, configuration).unwrap();
    for _ in 0..100 {
        life(process, &root);
    }
    // The tick writes what was measured under a key of its own, so the next
    // requests cannot tell how the host numbers writes before they have read.
    root.tick().unwrap();
    life(process, &root);
    life(process, &root);
    root.vm.take_calls();
    root
}

/// A request and its answer, as HTTP/1 has them: both end with their bodies.
fn life(process: &Process, root: &Root) {
    let stream = root.stream().unwrap();
    stream.request_headers(HeaderMap::new(POST), false).unwrap();
    stream.request_body(&[b'x'; 1_000], true).unwrap();
    process.advance(Duration::from_millis(20));
    stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
    stream.set_property(&["response", "code"], Property::int(200));
    let headers = [(":status", "200"), ("content-length", "4")];
    stream
        .response_headers(HeaderMap::new(headers), false)
        .unwrap();
    stream.response_body(b"done", true).unwrap();
    stream.end().unwrap();
}

#[test]
fn a_request_makes_few_host_calls() {
    let process = Process::new();
    let root = warm(&process, &config(8, "shortest_expected_delay"));
    life(&process, &root);
    let table = CallTable::new(&root.vm.take_calls());
    println!("host calls of one request, 8 upstreams:\n{table}\n");
    assert!(
        table.calls() <= MAX_CALLS,
        "more than {MAX_CALLS} host calls:\n{table}"
    );
    assert!(
        table.bytes() <= MAX_BYTES,
        "more than {MAX_BYTES} bytes:\n{table}"
    );
    // Alone, a worker knows what it would read; and of all calls those for
    // properties are the dearest.
    for (function, at_most) in [
        ("proxy_get_shared_data", 0),
        ("proxy_set_shared_data", 2),
        ("proxy_get_property", 1),
    ] {
        let calls = table.calls_of(function);
        assert!(calls <= at_most, "{calls} calls of {function}:\n{table}");
    }
}

#[test]
fn a_request_executes_few_instructions() {
    let process = Process::new();
    let root = warm(&process, &config(8, "shortest_expected_delay"));
    root.vm.take_work();
    life(&process, &root);
    let work = root.vm.take_work();
    let all: u64 = work.values().sum();
    println!("instructions of one request, 8 upstreams: {all}, {work:#?}");
    assert!(all <= MAX_INSTRUCTIONS, "{all}, {work:#?}");
}

#[test]
fn other_workers_cost_a_request_two_reads_and_few_bytes() {
    let cost = |workers: usize| {
        let process = Process::new();
        let configuration = config(8, "shortest_expected_delay");
        let roots: Vec<Root> = (0..workers)
            .map(|_| warm(&process, &configuration))
            .collect();
        // The first that finds itself among others tries in vain to do without.
        for _ in 0..2 {
            for root in &roots {
                life(&process, root);
            }
        }
        roots[0].vm.take_calls();
        life(&process, &roots[0]);
        CallTable::new(&roots[0].vm.take_calls())
    };
    let (alone, among) = (cost(1), cost(9));
    assert_eq!(
        among.calls(),
        alone.calls() + 2,
        "alone:\n{alone}\namong nine:\n{among}"
    );
    // Eight lanes of eight counts of requests and work, read and written by two
    // transactions, and what a worker that is alone need not read.
    let most = 8 * (8 * 8 + 16) * 4 + 2 * 1024;
    let more = among.bytes() - alone.bytes();
    assert!(
        more <= most,
        "{more} bytes more, at most {most}:\n{alone}\n{among}"
    );
}

/// Upstreams and workers of the rows of the table for people.
const POINTS: [(usize, usize); 6] = [(2, 1), (8, 1), (8, 2), (64, 1), (256, 1), (1000, 1)];

/// Writes what it saw to `target/tmp/host-calls.md`, from where it goes into `docs/benchmarks.md`.
#[test]
fn more_upstreams_cost_a_request_bytes_and_no_calls() {
    let mut table = String::from(
        "| upstreams | workers | host calls | of them on shared data | bytes out of the VM | bytes into it |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut seen = Vec::new();
    for (upstreams, workers) in POINTS {
        let process = Process::new();
        let configuration = config(upstreams, "shortest_expected_delay");
        let roots: Vec<Root> = (0..workers)
            .map(|_| warm(&process, &configuration))
            .collect();
        let lives = (0..50).map(|_| {
            roots[0].vm.take_calls();
            life(&process, &roots[0]);
            CallTable::new(&roots[0].vm.take_calls())
        });
        // An upstream's first request defines its metrics, and of a thousand some have not had one.
        let cost = lives.min_by_key(CallTable::calls).unwrap();
        let shared =
            cost.calls_of("proxy_get_shared_data") + cost.calls_of("proxy_set_shared_data");
        let (calls, out, into) = (
            cost.calls(),
            cost.bytes_in(),
            cost.bytes() - cost.bytes_in(),
        );
        table += &format!("| {upstreams} | {workers} | {calls} | {shared} | {out} | {into} |\n");
        seen.push(calls);
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-calls.md");
    std::fs::write(&path, &table).unwrap();
    assert!(seen.iter().all(|calls| *calls == seen[0]), "{table}");
}

#[test]
fn metrics_are_defined_once_for_each_vm() {
    let process = Process::new();
    let root = warm(&process, &config(8, "round_robin"));
    let ten_turns = || {
        for _ in 0..80 {
            life(&process, &root);
        }
        root.tick().unwrap();
        root.vm.metric_definitions()
    };
    let defined = ten_turns();
    assert_eq!(ten_turns(), defined);
}

#[test]
fn a_vm_does_not_grow_with_the_requests_it_has_seen() {
    let process = Process::new();
    let root = warm(&process, &config(8, "shortest_expected_delay"));
    for _ in 0..200 {
        life(&process, &root);
    }
    let before = root.vm.memory_size();
    for _ in 0..2_000 {
        life(&process, &root);
    }
    let after = root.vm.memory_size();
    assert_eq!(after, before, "bytes of VM memory, 2000 requests later");
}
