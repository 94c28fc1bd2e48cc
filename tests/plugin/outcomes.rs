//! What the metrics say of a request when it is over.

use crate::fleet::{GET, Response, TWO, picked, respond, total_in_flight};
use crate::host::{HeaderMap, Process, Property, Root, Stream, Vm};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests by outcome, over all upstreams.
fn outcomes(process: &Process) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    for (name, count) in process.counters("paceline_outcomes_total;") {
        let outcome = name.rsplit_once(";outcome=").expect("labelled").1;
        *outcomes.entry(outcome.into()).or_default() += count;
    }
    outcomes.retain(|_, count| *count > 0);
    outcomes
}

/// Sends a request, lets `end` bring it to its end, and checks what is counted.
fn ends_as(outcome: &str, end: impl FnOnce(&Process, &Stream)) {
    let process = Process::new();
    let root: Root = Vm::start(&process, TWO).unwrap();
    let stream = root.request(GET).unwrap();
    end(&process, &stream);
    stream.end().unwrap();
    assert_eq!(outcomes(&process), [(outcome.into(), 1)].into());
    assert_eq!(total_in_flight(&process), 0, "{outcome}");
}

fn answered(status: u16) -> Response {
    Response {
        status,
        ..Response::OK
    }
}

#[test]
fn a_status_says_whose_fault_it_was() {
    let cases = [
        (200, "success"),
        (302, "success"),
        (404, "client_error"),
        (429, "rejected"),
        (500, "upstream_error"),
        (503, "upstream_error"),
    ];
    for (status, outcome) in cases {
        ends_as(outcome, |process, stream| {
            respond(process, stream, &answered(status)).unwrap();
        });
    }
}

#[test]
fn the_attempts_are_those_of_the_header_where_envoy_sets_it() {
    let set_by_envoy = r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ],
        "include_attempt_count_in_response": true }"#;
    // The configuration, the header, the property, and what came of it.
    let cases = [
        (set_by_envoy, Some("1"), 2, "success"),
        (set_by_envoy, Some("2"), 1, "retried"),
        (set_by_envoy, Some("12"), 2, "retried"),
        (set_by_envoy, Some("none"), 1, "success"),
        (set_by_envoy, None, 2, "retried"),
        (TWO, Some("1"), 2, "retried"),
    ];
    for (configuration, header, property, outcome) in cases {
        let process = Process::new();
        let root = Vm::start(&process, configuration).unwrap();
        let stream = root.request(GET).unwrap();
        let value = Property::int(property);
        stream.set_property(&["upstream", "request_attempt_count"], value);
        let headers = [(":status", "200")].into_iter();
        let count = header.map(|value| ("x-envoy-attempt-count", value));
        stream
            .response_headers(HeaderMap::new(headers.chain(count)), true)
            .unwrap();
        stream.end().unwrap();
        let expected = [(outcome.into(), 1)].into();
        assert_eq!(outcomes(&process), expected, "{header:?}, {property}");
    }
}

#[test]
fn the_status_is_that_of_the_headers_and_without_them_of_the_property() {
    let attempts = ["upstream", "request_attempt_count"];
    let cases = [
        (":status", "503", None, "upstream_error"),
        (":status", "404", Some(200), "client_error"),
        (":status", "20", Some(404), "client_error"),
        (":status", "2000", Some(404), "client_error"),
        ("other", "200", Some(503), "upstream_error"),
        ("other", "200", None, "unknown"),
    ];
    for (name, value, property, outcome) in cases {
        ends_as(outcome, |_, stream| {
            stream.set_property(&attempts, Property::int(1));
            let headers = HeaderMap::new([(name, value)]);
            stream.response_headers(headers, false).unwrap();
            if let Some(property) = property {
                stream.set_property(&["response", "code"], Property::int(property));
            }
            stream.response_body(b"done", true).unwrap();
        });
    }
}

/// An answer that ends with its headers, as Envoy describes it: whatever it is,
/// `response.grpc_status` has a value.
fn ends_with_its_headers(content_type: &str, grpc_status: i64) -> impl FnOnce(&Process, &Stream) {
    let headers = HeaderMap::new([(":status", "200"), ("content-type", content_type)]);
    move |_, stream| {
        stream.set_property(&["upstream", "request_attempt_count"], Property::int(1));
        stream.response_headers(headers, true).unwrap();
        stream.set_property(&["response", "code"], Property::int(200));
        stream.set_property(&["response", "flags"], Property::int(0));
        stream.set_property(&["response", "grpc_status"], Property::int(grpc_status));
    }
}

#[test]
fn a_grpc_status_counts_for_answers_of_grpc_alone() {
    const UNKNOWN: i64 = 2;
    const UNAVAILABLE: i64 = 14;
    ends_as(
        "success",
        ends_with_its_headers("application/json", UNKNOWN),
    );
    ends_as("success", ends_with_its_headers("application/grpc", 0));
    ends_as(
        "upstream_error",
        ends_with_its_headers("application/grpc", UNAVAILABLE),
    );
}

#[test]
fn a_second_attempt_means_that_the_first_failed_whatever_the_status() {
    let response = Response {
        attempts: 2,
        ..Response::OK
    };
    ends_as("retried", |process, stream| {
        respond(process, stream, &response).unwrap();
    });
}

#[test]
fn a_client_that_leaves_before_the_answer_is_no_fault_of_the_upstream() {
    const DOWNSTREAM_CLOSED: i64 = 1 << 14;
    ends_as("client_abort", |_, stream| {
        stream.set_property(&["response", "flags"], Property::int(DOWNSTREAM_CLOSED));
        let attempts = ["upstream", "request_attempt_count"];
        stream.set_property(&attempts, Property::int(1));
    });
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_to_blame() {
    const UPSTREAM_TIMEOUT: i64 = 1 << 2;
    ends_as("timeout", |_, stream| {
        stream.set_property(&["response", "code"], Property::int(504));
        stream.set_property(&["response", "flags"], Property::int(UPSTREAM_TIMEOUT));
        let attempts = ["upstream", "request_attempt_count"];
        stream.set_property(&attempts, Property::int(1));
    });
}

#[test]
fn an_answer_of_the_proxy_itself_is_nobodys() {
    ends_as("local_reply", |_, stream| {
        stream.set_property(&["response", "code"], Property::int(403));
        stream.set_property(&["response", "flags"], Property::int(0));
    });
}

#[test]
fn latencies_are_measured_on_the_monotonic_clock() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let stream = root.request(GET).unwrap();
    let upstream = picked(&stream).expect("routed");
    let response = Response {
        latency: Duration::from_millis(80),
        ..Response::OK
    };
    respond(&process, &stream, &response).unwrap();
    stream.end().unwrap();
    let named =
        |metric: &str| format!("paceline_{metric}_milliseconds;pool=default;upstream={upstream}");
    let histograms = process.histograms("paceline_");
    assert_eq!(histograms[&named("first_byte")], [40]);
    assert_eq!(histograms[&named("latency")], [80]);
}

#[test]
fn every_request_is_counted_once_where_it_was_picked_and_once_where_it_ended() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let statuses = [200, 404, 503, 200, 429, 200];
    for status in statuses {
        let stream = root.request(GET).unwrap();
        respond(&process, &stream, &answered(status)).unwrap();
        stream.end().unwrap();
    }
    let requests = statuses.len() as u64;
    assert_eq!(crate::fleet::picks(&process), requests);
    assert_eq!(outcomes(&process).values().sum::<u64>(), requests);
}
