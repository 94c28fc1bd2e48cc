//! What a request costs: host calls, each of them some tenths of a microsecond of
//! Envoy's time, and instructions in the VM. Unlike times both are the same on
//! every machine, so they are counted, and more of them have to be argued for.

use crate::fleet::{address, config, picked};
use crate::host::{CallTable, HeaderMap, Plugin, Process, Property, Root, Vm};
use crate::observe::METADATA;
use std::time::Duration;

/// Most host calls in a request's whole life, and most bytes copied across the
/// VM's boundary, with eight upstreams and the default policy: where requests
/// follow each other slowly, so that each of them reads what others have shared
/// and shares what it has learned, and where they follow each other quickly.
const MAX_CALLS: usize = 16;
/// A row of what was learned has 104 bytes, of which 24 tell all workers who is ejected. A
/// merge reads and writes it once.
const MAX_BYTES: usize = 2900;
const MAX_CALLS_DENSE: usize = 13;
const MAX_BYTES_DENSE: usize = 670;

/// Most instructions that the VM executes for it. The interpreter counts a block when it
/// enters it, with what a branch skips then, so it counts up to three times too many.
const MAX_INSTRUCTIONS: u64 = 49_400;

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
    root.tick().unwrap();
    root.vm.take_calls();
    root
}

/// A request and its answer, as HTTP/1 has them: both end with their bodies.
fn life(process: &Process, root: &Root) {
    life_of(process, root, Duration::from_millis(20));
}

/// One whose answer takes so long.
fn life_of(process: &Process, root: &Root, latency: Duration) {
    let stream = root.stream().unwrap();
    stream.set_property(&["destination", "port"], Property::int(10_000));
    stream.request_headers(HeaderMap::new(POST), false).unwrap();
    stream.request_body(&[b'x'; 1_000], true).unwrap();
    process.advance(latency);
    let served_by = Property::text(&address(&stream));
    stream.set_property(&["upstream", "address"], served_by);
    let details = Property::text("via_upstream");
    stream.set_property(&["response", "code_details"], details);
    if let Some(cluster) = picked(&stream) {
        stream.set_property(&["xds", "cluster_name"], Property::text(&cluster));
    } else {
        stream.set_property(&METADATA, Property::text("gpu-1"));
    }
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
    // Of all calls those for properties are the dearest: who answered,
    // and after how many attempts.
    for (function, at_most) in [
        ("proxy_get_shared_data", 2),
        ("proxy_set_shared_data", 3),
        ("proxy_get_property", 2),
    ] {
        let calls = table.calls_of(function);
        assert!(calls <= at_most, "{calls} calls of {function}:\n{table}");
    }
}

/// Calls, bytes and instructions of a request on one of `workers` workers, each
/// of which gets one every ten microseconds.
fn dense(workers: usize, configuration: &str) -> (f64, f64, f64) {
    const ROUNDS: usize = 2_000;
    let process = Process::new();
    let roots: Vec<Root> = (0..workers)
        .map(|_| warm(&process, configuration))
        .collect();
    let turn = |rounds: usize| {
        for _ in 0..rounds {
            for root in &roots {
                let latency = Duration::from_micros(10) / workers as u32;
                life_of(&process, root, latency);
            }
        }
    };
    turn(100);
    roots[0].vm.take_calls();
    roots[0].vm.take_work();
    turn(ROUNDS);
    let table = CallTable::new(&roots[0].vm.take_calls());
    let work = roots[0].vm.take_work();
    println!("{workers} workers, instructions:");
    for (callback, instructions) in &work {
        println!("  {callback} {}", instructions / ROUNDS as u64);
    }
    let work: u64 = work.values().sum();
    let each = |all: usize| all as f64 / ROUNDS as f64;
    (
        each(table.calls()),
        each(table.bytes()),
        each(work as usize),
    )
}

#[test]
fn dense_traffic_costs_little_and_other_workers_hardly_more() {
    let configuration = config(8, "shortest_expected_delay");
    let (calls, bytes, work) = dense(1, &configuration);
    println!("dense traffic, one worker: {calls} calls, {bytes} bytes, {work} instructions");
    assert!(calls < MAX_CALLS_DENSE as f64 + 0.1, "{calls}");
    assert!(bytes < MAX_BYTES_DENSE as f64, "{bytes}");
    assert!(work < MAX_INSTRUCTIONS as f64, "{work}");
    let (calls_among, bytes_among, work_among) = dense(8, &configuration);
    println!("one of eight: {calls_among} calls, {bytes_among} bytes, {work_among} instructions");
    assert!(calls_among < calls + 0.2, "{calls_among}, alone {calls}");
    assert!(bytes_among < bytes + 200.0, "{bytes_among}, alone {bytes}");
    assert!(work_among < work * 1.05, "{work_among}, alone {work}");
}

/// Most instructions that each upstream more costs a request: a few to add its load up,
/// a few to rank it, and its part of what is done once for many picks.
const MAX_INSTRUCTIONS_PER_UPSTREAM: f64 = 220.0;

#[test]
fn an_upstream_more_costs_a_request_few_instructions() {
    let [(_, _, few), (_, _, many)] =
        [8, 256].map(|upstreams| dense(1, &config(upstreams, "shortest_expected_delay")));
    let each = (many - few) / 248.0;
    println!("8 upstreams: {few} instructions, 256: {many}, {each} for each");
    assert!(each < MAX_INSTRUCTIONS_PER_UPSTREAM, "{each}");
}

#[test]
fn a_health_check_costs_a_request_no_host_call() {
    let plain = config(8, "shortest_expected_delay");
    let checked = plain.replacen('{', r#"{ "health_check": "vllm","#, 1);
    let (calls, bytes, work) = dense(1, &plain);
    let (calls_checked, bytes_checked, work_checked) = dense(1, &checked);
    println!("with a health check: {calls_checked} calls, {work_checked} instructions");
    // The record is read ten times a second, which is once in 10,000 of these requests.
    assert!(
        calls_checked < calls + 0.01,
        "{calls_checked}, without {calls}"
    );
    assert!(
        bytes_checked < bytes + 1.0,
        "{bytes_checked}, without {bytes}"
    );
    assert!(work_checked < work * 1.1, "{work_checked}, without {work}");
}

/// `configuration` with one key more.
fn with(configuration: &str, key: &str) -> String {
    configuration.replacen('{', &format!("{{ {key},"), 1)
}

#[test]
fn what_is_not_switched_on_costs_a_request_nothing() {
    let plain = config(8, "shortest_expected_delay");
    let cost = dense(1, &plain);
    for key in [
        r#""access_log": false"#,
        r#""explain": false"#,
        r#""mode": "balance""#,
    ] {
        let (calls, bytes, work) = dense(1, &with(&plain, key));
        assert_eq!((calls, bytes), (cost.0, cost.1), "{key}");
        // A longer configuration displaces what is allocated later, no more than that.
        let ratio = work / cost.2;
        assert!((0.999..1.001).contains(&ratio), "{key}: {work}, {cost:?}");
    }
}

#[test]
fn the_access_log_the_status_and_dry_runs_cost_a_request_little() {
    let plain = config(8, "shortest_expected_delay");
    let (calls, bytes, work) = dense(1, &plain);
    println!("nothing: {calls} calls, {bytes} bytes, {work} instructions");
    // What is switched on, and the most that it adds: host calls, bytes, instructions.
    for (key, most) in [
        (r#""access_log": true"#, (1.0, 100.0, 6_000.0)),
        (r#""explain": true"#, (1.0, 250.0, 16_000.0)),
        (r#""status": { "path": "/paceline" }"#, (1.0, 40.0, 4_000.0)),
        (
            r#""status": { "path": "/paceline", "port": 9902 }"#,
            (1.0, 40.0, 4_000.0),
        ),
        (r#""mode": "observe""#, (11.0, 250.0, 25_000.0)),
        (
            r#""mode": "observe", "access_log": true"#,
            (13.0, 450.0, 36_000.0),
        ),
        (r#""mode": { "balance_percent": 99 }"#, (3.1, 20.0, 1_000.0)),
    ] {
        let (with_calls, with_bytes, with_work) = dense(1, &with(&plain, key));
        let more = (with_calls - calls, with_bytes - bytes, with_work - work);
        println!("{key}: {more:?} more");
        assert!(more.0 <= most.0 + 0.1, "{key}: {more:?}");
        assert!(more.1 <= most.1, "{key}: {more:?}");
        assert!(more.2 <= most.2, "{key}: {more:?}");
    }
}

#[test]
fn a_status_listener_costs_requests_of_clients_nothing() {
    let process = Process::new();
    let plain = config(8, "shortest_expected_delay");
    let root = warm(&process, &plain);
    let cost = |root: &Root| {
        for _ in 0..100 {
            life_of(&process, root, Duration::from_micros(10));
        }
        let (calls, work) = (root.vm.take_calls(), root.vm.take_work());
        let table = CallTable::new(&calls);
        (table.calls(), table.bytes(), work.values().sum::<u64>())
    };
    cost(&root);
    let alone = cost(&root);
    let told = with(&plain, r#""status": { "path": "/paceline", "port": 9902 }"#);
    let telling = root.vm.create_root(Plugin::new(told)).unwrap();
    assert!(telling.configure().unwrap());
    root.vm.take_calls();
    root.vm.take_work();
    let beside = cost(&root);
    assert_eq!((beside.0, beside.1), (alone.0, alone.1));
    // What the other plugin keeps displaces what is allocated, so paths there differ.
    let ratio = beside.2 as f64 / alone.2 as f64;
    assert!((0.98..1.02).contains(&ratio), "{alone:?}, {beside:?}");
}

/// Most that caps add to a request where nothing waits: two host calls to look who waits,
/// two each to take a place and to give it back, and what these copy and work out.
const MAX_CALLS_OF_CAPS: f64 = 6.1;
const MAX_BYTES_OF_CAPS: f64 = 360.0;
const MAX_INSTRUCTIONS_OF_CAPS: f64 = 30_000.0;
/// Most bytes that learned caps of 8 upstreams add to that: 36 for each and 4 for all, read
/// and written, and the name of the header that may report a queue.
const MAX_BYTES_OF_LEARNED_CAPS: usize = 2 * (8 * 36 + 4) + "endpoint-load-metrics".len();

#[test]
fn a_cap_that_is_not_reached_adds_little() {
    let plain = config(8, "shortest_expected_delay");
    let capped = plain.replace("\" }", "\", \"max_in_flight\": 100 }");
    let ((calls, bytes, work), (calls_capped, bytes_capped, work_capped)) =
        (dense(1, &plain), dense(1, &capped));
    let more = (
        calls_capped - calls,
        bytes_capped - bytes,
        work_capped - work,
    );
    println!("caps add calls, bytes and instructions: {more:?}");
    assert!(more.0 > 1.0, "the caps are there");
    assert!(
        more.0 < MAX_CALLS_OF_CAPS,
        "{calls_capped}, without {calls}"
    );
    assert!(
        more.1 < MAX_BYTES_OF_CAPS,
        "{bytes_capped}, without {bytes}"
    );
    assert!(
        more.2 < MAX_INSTRUCTIONS_OF_CAPS,
        "{work_capped}, without {work}"
    );
}

#[test]
fn only_who_learns_caps_has_them_in_what_is_learned() {
    let plain = config(8, "shortest_expected_delay");
    let bytes = |cap: &str| {
        let capped = format!("\", \"max_in_flight\": {cap} }}");
        let process = Process::new();
        let root = warm(&process, &plain.replace("\" }", &capped));
        life(&process, &root);
        CallTable::new(&root.vm.take_calls()).bytes()
    };
    let (fixed, learned) = (bytes("100"), bytes("\"auto\""));
    println!("bytes of a request: {fixed} with caps, {learned} with learned ones");
    let most = fixed + MAX_BYTES_OF_LEARNED_CAPS;
    assert!(learned <= most, "{learned}, more than {most}");
    assert!(learned > fixed, "they are learned");
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
    for ((_, workers), calls) in POINTS.iter().zip(&seen) {
        // Each other worker's lane is read.
        assert!(*calls < MAX_CALLS + workers, "{table}");
    }
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

/// Most instructions of a tick, with 256 upstreams that have all streamed answers to
/// requests of several sizes since the last: well under a millisecond.
const MAX_TICK_INSTRUCTIONS: u64 = 2_000_000;

#[test]
fn a_tick_is_short_however_many_upstreams_there_are() {
    let process = Process::new();
    let upstreams: Vec<String> = (0..256)
        .map(|number| format!(r#"{{ "cluster": "gpu-{number}" }}"#))
        .collect();
    let configuration = format!(
        r#"{{ "policy": "latency_percentile", "latency": {{ "signal": "first_byte" }},
            "upstreams": [ {} ] }}"#,
        upstreams.join(", ")
    );
    let root = Vm::start(&process, &configuration).unwrap();
    let mut longest = 0;
    for round in 0..24 {
        for request in 0..128 {
            let length = 10usize.pow(2 + (request + round) % 4).to_string();
            let headers = POST.map(|(name, value)| match name {
                "content-length" => (name, length.as_str()),
                _ => (name, value),
            });
            let stream = root.stream().unwrap();
            stream
                .request_headers(HeaderMap::new(headers), false)
                .unwrap();
            process.advance(Duration::from_millis(20 + u64::from(request)));
            stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
            let headers = HeaderMap::new([(":status", "200")]);
            stream.response_headers(headers, false).unwrap();
            for _ in 0..5 {
                stream.response_body(b"token", false).unwrap();
                process.advance(Duration::from_millis(5));
            }
            stream.response_body(b"end", true).unwrap();
            stream.end().unwrap();
        }
        root.vm.take_work();
        root.tick().unwrap();
        let work = root.vm.take_work();
        longest = longest.max(work["proxy_on_tick"]);
    }
    println!("the longest tick with 256 upstreams: {longest} instructions");
    assert!(longest <= MAX_TICK_INSTRUCTIONS, "{longest}");
}

/// A chat request of about 200 kB, as clients with a long context send it.
fn long_chat() -> String {
    let text = r#"The quick brown fox said \"hello\" and jumped.\n"#.repeat(4_300);
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}],"max_tokens":100}}"#)
}

/// Bytes that one read of Envoy's socket brings.
const PIECE: usize = 16 << 10;
/// Most instructions that the VM executes for each byte of a body that it reads.
const MAX_INSTRUCTIONS_PER_BYTE: f64 = 100.0;

#[test]
fn a_long_body_is_copied_once_and_read_in_one_pass() {
    let process = Process::new();
    let root = Vm::start(
        &process,
        r#"{ "request_size": "openai", "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ] }"#,
    )
    .unwrap();
    let body = long_chat();
    let headers = POST.map(|(name, value)| match name {
        "content-length" => (name, body.len().to_string()),
        _ => (name, value.to_owned()),
    });
    // The second request finds everything defined and claimed.
    for round in 0..2 {
        let stream = root.stream().unwrap();
        let headers = HeaderMap::new(headers.iter().map(|(name, value)| (*name, value.as_str())));
        stream.request_headers(headers, false).unwrap();
        root.vm.take_calls();
        root.vm.take_work();
        let pieces = body.as_bytes().chunks(PIECE);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.enumerate() {
            assert_eq!(picked(&stream), None, "it needs the whole body");
            stream.request_body(piece, number == last).unwrap();
        }
        assert!(picked(&stream).is_some());
        let copied = CallTable::new(&root.vm.take_calls()).bytes();
        let work = root.vm.take_work()["proxy_on_request_body"];
        let per_byte = work as f64 / body.len() as f64;
        println!(
            "{} bytes: {copied} copied, {per_byte:.1} instructions each",
            body.len()
        );
        if round > 0 {
            assert!(
                copied < body.len() + MAX_BYTES,
                "{copied} of {}",
                body.len()
            );
            assert!(per_byte < MAX_INSTRUCTIONS_PER_BYTE, "{per_byte}");
        }
        stream.end().unwrap();
    }
}
