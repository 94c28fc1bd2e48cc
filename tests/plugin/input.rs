//! Whatever a client, an upstream or an operator sends, the VM lives.

use crate::fleet::{
    GET, ROUTE_HEADER, Response, TWO, pass_throughs, picked, respond, serve, total_in_flight,
};
use crate::host::{Action, HeaderMap, LogLevel, Process, Property, Status, Vm, VmError};

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

fn usual() -> Headers {
    let pairs = GET
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    pairs.collect()
}

fn with(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Headers {
    let mut headers = usual();
    headers.retain(|pair| pair.0 != name.as_ref());
    headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
    headers
}

/// Requests that a client may send, through a codec that lets anything pass.
fn strange_requests() -> Vec<Headers> {
    let huge = vec![b'a'; 1 << 20];
    let all_bytes: Vec<u8> = (0..=255).collect();
    let names = [
        ":path",
        ":method",
        ":authority",
        ":scheme",
        "content-length",
        "content-type",
    ];
    let mut requests = vec![
        Headers::new(),
        with(b"x-\xff\xfe", b"value"),
        with("", "no name"),
    ];
    for name in names
        .into_iter()
        .chain(["x-model", "x-upstream-cluster", "host", "cookie"])
    {
        for value in [
            b"".as_slice(),
            b"\xc3\x28\xff\xfe",
            &all_bytes,
            &huge,
            b"-1",
            b"1e999",
        ] {
            requests.push(with(name, value));
        }
        let mut missing = usual();
        missing.retain(|pair| pair.0 != name.as_bytes());
        requests.push(missing);
        let mut twice = usual();
        twice.push((name.as_bytes().to_vec(), b"again".to_vec()));
        requests.push(twice);
    }
    requests.push(
        (0..2_000)
            .map(|n| (format!("x-{n}").into(), b"v".to_vec()))
            .collect(),
    );
    requests
}

/// A configuration that looks at every part of a request that can be matched.
const MATCHING: &str = r#"{ "pools": [
    { "name": "path", "match": { "path_prefix": "/v1" }, "upstreams": [ { "cluster": "a" } ] },
    { "name": "host", "match": { "host": "b.example.com" }, "upstreams": [ { "cluster": "b" } ] },
    { "name": "header",
      "match": { "headers": { "x-model": "c" } },
      "upstreams": [ { "cluster": "c" } ] },
    { "name": "rest", "upstreams": [ { "cluster": "d" } ] }
] }"#;

#[test]
fn strange_requests_are_routed_all_the_same() {
    for configuration in [TWO, MATCHING] {
        let process = Process::new();
        let root = Vm::start(&process, configuration).unwrap();
        for (index, headers) in strange_requests().into_iter().enumerate() {
            let stream = root.stream().unwrap();
            let action = stream
                .request_headers(HeaderMap::new(headers), true)
                .unwrap();
            assert_eq!(action, Action::Continue, "request {index}");
            assert!(picked(&stream).is_some(), "request {index} was not routed");
            respond(&process, &stream, &Response::OK).unwrap();
            stream.end().unwrap();
        }
        assert_eq!(total_in_flight(&process), 0);
    }
}

#[test]
fn strange_responses_do_no_harm() {
    let process = Process::new();
    let configuration = TWO.replacen('{', r#"{ "explain": true, "#, 1);
    let root = Vm::start(&process, configuration).unwrap();
    for headers in strange_requests() {
        for status in [
            b"".as_slice(),
            b"abc",
            b"99999999999",
            b"-5",
            b"\xff",
            b"200",
            b"429",
        ] {
            let mut headers = HeaderMap::new(headers.clone());
            headers.replace(b":status", status);
            headers.replace(b"retry-after", status);
            let stream = root.request(GET).unwrap();
            assert_eq!(
                stream.response_headers(headers, true).unwrap(),
                Action::Continue
            );
            stream.end().unwrap();
        }
    }
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn strange_properties_do_no_harm() {
    let paths: [&[&str]; 8] = [
        &["response", "code"],
        &["response", "flags"],
        &["response", "size"],
        &["response", "code_details"],
        &["request", "duration"],
        &["upstream", "address"],
        &["upstream", "request_attempt_count"],
        &["xds", "cluster_name"],
    ];
    let values = [
        Property::Value(Vec::new()),
        Property::Value(b"\xff".to_vec()),
        Property::Value(vec![0xff; 8]),
        Property::Value(vec![0x80; 9]),
        Property::int(i64::MIN),
        Property::int(i64::MAX),
        Property::Failing(Status::SerializationFailure),
        Property::Failing(Status::InternalFailure),
        Property::Failing(Status::NotFound),
    ];
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    for path in paths {
        for value in &values {
            let stream = root.request(GET).unwrap();
            respond(&process, &stream, &Response::OK).unwrap();
            stream.set_property(path, value.clone());
            stream.end().unwrap();
        }
    }
    assert!(serve(&process, &root).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_client_cannot_choose_its_upstream() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    let mut headers = HeaderMap::new(GET);
    for forged in ["gpu-b", "billing", ""] {
        headers.add(ROUTE_HEADER, forged.as_bytes());
        headers.add(b"X-Upstream-Cluster", forged.as_bytes());
    }
    let stream = root.stream().unwrap();
    stream.request_headers(headers, true).unwrap();
    let upstream = picked(&stream).expect("routed");
    assert!(
        ["gpu-a", "gpu-b"].contains(&upstream.as_str()),
        "routed to {upstream}"
    );
}

#[test]
fn a_request_of_no_pool_passes_through_without_the_routing_header() {
    let process = Process::new();
    let pool = r#"{ "pools": [ { "name": "v1", "match": { "path_prefix": "/v1" },
        "upstreams": [ { "cluster": "gpu-a" } ] } ] }"#;
    let root = Vm::start(&process, pool).unwrap();
    let mut headers = HeaderMap::new(GET);
    headers.add(ROUTE_HEADER, b"gpu-a");
    let stream = root.stream().unwrap();
    assert_eq!(
        stream.request_headers(headers, true).unwrap(),
        Action::Continue
    );
    assert_eq!(picked(&stream), None);
    assert_eq!(stream.sent_headers().get_all(ROUTE_HEADER).count(), 0);
    let reasons = pass_throughs(&process);
    assert_eq!(reasons.values().sum::<u64>(), 1, "{reasons:?}");
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

/// The error lines with which the filter refuses a configuration.
fn refusal(configuration: impl AsRef<[u8]>) -> String {
    let shown: String = String::from_utf8_lossy(configuration.as_ref())
        .chars()
        .take(80)
        .collect();
    match Vm::start(&Process::new(), configuration) {
        Ok(_) => panic!("taken: {shown}"),
        Err(VmError::Refused { log }) => {
            let errors = log.iter().filter(|line| line.level >= LogLevel::Error);
            errors
                .map(|line| line.text.as_str())
                .collect::<Vec<_>>()
                .join("\n")
        }
        Err(error) => panic!("{shown}: {error}"),
    }
}

#[test]
fn an_absent_configuration_is_refused_for_want_of_upstreams() {
    for configuration in ["", "{}"] {
        let reason = refusal(configuration);
        assert!(
            reason.contains("upstreams"),
            "{configuration:?}: {reason:?}"
        );
    }
}

#[test]
fn a_configuration_that_is_no_json_object_is_refused_with_a_reason() {
    let deep = 100_000;
    let nested = "[".repeat(deep) + &"]".repeat(deep);
    let nested_value = format!(r#"{{ "upstreams": {nested} }}"#);
    let nested_objects = r#"{"a":"#.repeat(deep) + "1" + &"}".repeat(deep);
    let mut garbage = vec![0_u8; 1 << 20];
    fastrand::Rng::with_seed(7).fill(&mut garbage);
    let long_name = format!(r#"{{ "{}": 1 }}"#, "x".repeat(1 << 20));
    let configurations: [&[u8]; 12] = [
        b"\xff\xfe\x00",
        b"{ \"upstreams\": [ { \"cluster\": \"\xff\" } ] }",
        b"null",
        b"[]",
        b"42",
        b"{ \"upstreams\": [",
        b"{ } trailing",
        nested.as_bytes(),
        nested_value.as_bytes(),
        nested_objects.as_bytes(),
        &garbage,
        long_name.as_bytes(),
    ];
    for configuration in configurations {
        let reason = refusal(configuration);
        let shown = String::from_utf8_lossy(&configuration[..configuration.len().min(40)]);
        assert!(!reason.is_empty(), "no reason given for {shown}");
        assert!(
            reason.len() < 4_096,
            "{} bytes of reason for {shown}",
            reason.len()
        );
    }
}

#[test]
fn a_configuration_with_a_mistake_is_refused_with_its_place() {
    let cases = [
        (
            r#"{ "upstreams": [ { "cluster": "gpu-a" } ], "polcy": "random" }"#,
            "polcy",
        ),
        (r#"{ "upstreams": [ { "clutser": "gpu-a" } ] }"#, "clutser"),
        (
            r#"{ "upstreams": [ { "cluster": "gpu-a", "weight": -1 } ] }"#,
            "weight",
        ),
        (r#"{ "upstreams": [ { "cluster": "" } ] }"#, "cluster"),
        (r#"{ "upstreams": [ { "cluster": "a\nb" } ] }"#, "cluster"),
        (
            r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "a" } ] }"#,
            "a",
        ),
        (r#"{ "upstreams": [], "policy": "random" }"#, "upstreams"),
        (
            r#"{ "upstreams": [ { "cluster": "a" } ], "policy": "fastest" }"#,
            "fastest",
        ),
        (
            r#"{ "upstreams": [ { "cluster": "a" } ], "pools": [] }"#,
            "pools",
        ),
        (
            r#"{ "upstreams": [ { "cluster": "a" } ], "upstreams": [ { "cluster": "b" } ] }"#,
            "upstreams",
        ),
    ];
    for (configuration, place) in cases {
        let reason = refusal(configuration);
        assert!(reason.contains(place), "{configuration}: {reason:?}");
    }
}

#[test]
fn requests_that_go_well_log_nothing() {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    root.vm.take_log();
    for _ in 0..10 {
        serve(&process, &root).unwrap();
    }
    root.tick().unwrap();
    assert_eq!(root.vm.take_log(), []);
}

#[test]
fn the_decision_is_told_to_the_client_only_on_request() {
    let header = b"x-paceline-decision";
    for (explain, told) in [(false, 0), (true, 1)] {
        let process = Process::new();
        let configuration = TWO.replacen('{', &format!(r#"{{ "explain": {explain}, "#), 1);
        let root = Vm::start(&process, configuration).unwrap();
        for _ in 0..5 {
            let stream = root.request(GET).unwrap();
            respond(&process, &stream, &Response::OK).unwrap();
            let headers = stream.received_headers();
            let decisions: Vec<&[u8]> = headers.get_all(header).collect();
            assert_eq!(decisions.len(), told, "explain: {explain}");
            if let [decision] = decisions[..] {
                let decision = String::from_utf8_lossy(decision);
                let upstream = picked(&stream).expect("routed");
                assert!(
                    decision.contains(&upstream),
                    "{upstream} picked: {decision}"
                );
            }
            stream.end().unwrap();
        }
    }
}
