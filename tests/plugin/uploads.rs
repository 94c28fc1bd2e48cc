//! From when a request's latency counts: from its end, where its body took time.

use crate::fleet::{Response, TWO, picked, respond};
use crate::host::{CallTable, HeaderMap, Process, Root, Stream, Vm};
use std::time::Duration;

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/infer"),
    (":authority", "models.example.com"),
    (":scheme", "http"),
];

fn post(root: &Root) -> Stream {
    let stream = root.stream().unwrap();
    stream.request_headers(HeaderMap::new(POST), false).unwrap();
    stream
}

/// The milliseconds that the histogram of latencies has.
fn latencies(process: &Process) -> Vec<u64> {
    let histograms = process.histograms("paceline_latency_milliseconds;");
    histograms.into_values().flatten().collect()
}

/// What is recorded of a request whose way to the upstream `upload` plays, and that
/// is answered in 20 ms.
fn latency(upload: impl FnOnce(&Process, &Root, &Stream)) -> u64 {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let stream = post(&root);
    upload(&process, &root, &stream);
    respond(&process, &stream, &Response::OK).unwrap();
    stream.end().unwrap();
    let [latency] = latencies(&process)[..] else {
        panic!("one request");
    };
    latency
}

#[test]
fn a_body_in_pieces_ends_before_the_latency_begins() {
    let in_pieces = |end: fn(&Stream)| {
        latency(|process, _, stream| {
            for _ in 0..5 {
                process.advance(Duration::from_millis(10));
                stream.request_body(b"piece", false).unwrap();
            }
            process.advance(Duration::from_millis(10));
            end(stream);
        })
    };
    // With its last piece, with nothing after it, with trailers.
    assert_eq!(in_pieces(|it| drop(it.request_body(b"piece", true))), 20);
    assert_eq!(in_pieces(|it| drop(it.request_body(b"", true))), 20);
    let trailers = |it: &Stream| drop(it.request_trailers(HeaderMap::default()));
    assert_eq!(in_pieces(trailers), 20);
}

#[test]
fn a_body_in_one_late_piece_does_too_where_time_was_seen_to_pass() {
    let by_tick = latency(|process, root, stream| {
        for _ in 0..4 {
            process.advance(Duration::from_millis(250));
            root.tick().unwrap();
        }
        stream.request_body(b"late", true).unwrap();
    });
    assert_eq!(by_tick, 20);
    let by_another = latency(|process, root, stream| {
        process.advance(Duration::from_millis(50));
        let other = post(root);
        stream.request_body(b"late", true).unwrap();
        // It ends without an answer, so it has no latency.
        other.end().unwrap();
    });
    assert_eq!(by_another, 20);
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_counts_from_the_pick() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let stream = post(&root);
    stream.request_body(b"first", false).unwrap();
    process.advance(Duration::from_millis(30));
    respond(&process, &stream, &Response::OK).unwrap();
    process.advance(Duration::from_millis(30));
    stream.request_body(b"last", true).unwrap();
    stream.end().unwrap();
    assert_eq!(latencies(&process), [80]);
}

#[test]
fn a_body_that_comes_with_the_headers_costs_no_look_at_the_clock() {
    let clock_reads = |pieces: &[&[u8]]| {
        let process = Process::new();
        let root = Vm::start(&process, TWO).unwrap();
        let stream = post(&root);
        root.vm.take_calls();
        for (number, piece) in pieces.iter().enumerate() {
            stream
                .request_body(piece, number + 1 == pieces.len())
                .unwrap();
        }
        let calls = CallTable::new(&root.vm.take_calls()).calls();
        stream.end().unwrap();
        calls
    };
    assert_eq!(clock_reads(&[b"whole"]), 0);
    assert_eq!(clock_reads(&[b"whole", b""]), 0, "as HTTP/1 ends it");
    assert_eq!(clock_reads(&[b"one", b"two", b"three", b""]), 1);
}

#[test]
fn slow_uploads_to_one_of_two_equals_do_not_shift_its_share() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let mut shares = [0; 2];
    for _ in 0..400 {
        let stream = post(&root);
        let is_slow = picked(&stream).as_deref() == Some("gpu-a");
        shares[usize::from(is_slow)] += 1;
        for _ in 0..4 {
            process.advance(Duration::from_millis(if is_slow { 50 } else { 0 }));
            stream.request_body(b"piece", false).unwrap();
        }
        stream.request_body(b"", true).unwrap();
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
    }
    // 200 expected; six standard deviations of 10.
    assert!(shares.iter().all(|n| (140..260).contains(n)), "{shares:?}");
}
