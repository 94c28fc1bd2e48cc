//! Exchanges on a host in memory.

mod bodies;
mod observed;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::host::attributes;
use crate::host::fake::{Call, Fake};

const TWO: &str = r#"{"explain": true, "upstreams": [{"cluster": "gpu-a"}, {"cluster": "gpu-b"}]}"#;

const HEADER: &str = "x-upstream-cluster";
/// The client names a cluster itself, which it may not.
const POST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/v1/chat"),
    ("content-type", "application/json"),
    (HEADER, "forged"),
];

/// A worker, and the proxy that it runs in.
struct Case {
    host: Fake,
    worker: Worker,
    streams: u32,
}

impl Case {
    fn new(config: &str) -> Self {
        let mut host = Fake::new();
        let config = Config::parse(Some(config.as_bytes())).unwrap();
        let worker = Worker::new(config, &mut host).unwrap();
        Case {
            host,
            worker,
            streams: 0,
        }
    }

    /// A request whose headers have come, and whether it goes on.
    fn request(&mut self, headers: &[(&str, &str)], end: bool) -> (Exchange, Flow) {
        self.streams += 1;
        self.host.advance(Duration::from_millis(1));
        self.host.begin(self.streams, headers);
        let mut exchange = Exchange::new(self.streams);
        let flow = exchange.on_request_headers(&mut self.worker, &mut self.host, end);
        (exchange, flow)
    }

    /// A request that is complete, and where it was sent.
    fn routed(&mut self) -> (Exchange, String) {
        let (exchange, flow) = self.request(POST, true);
        assert_eq!(flow, Flow::Continue);
        let upstream = self.named(&exchange);
        (exchange, upstream)
    }

    /// The cluster that the request names now.
    fn named(&mut self, exchange: &Exchange) -> String {
        let stream = self.host.stream(exchange.context);
        stream.request_header(HEADER).to_owned()
    }

    /// A part of the request's body comes.
    fn body(&mut self, exchange: &mut Exchange, part: &[u8], end: bool) -> Flow {
        self.host.stream(exchange.context).body = part.to_vec();
        exchange.on_request_body(&mut self.worker, &mut self.host, part.len(), end)
    }

    /// An upstream begins to answer, `millis` later.
    fn answer(&mut self, exchange: &mut Exchange, answer: &Answered<'_>, millis: u64) {
        self.host.advance(Duration::from_millis(millis));
        let stream = self.host.stream(exchange.context);
        let status = answer.status.to_string();
        stream.response.insert(":status".into(), status.into());
        stream.set_number(attributes::RESPONSE_CODE, answer.status);
        stream.set_number(attributes::RESPONSE_FLAGS, answer.flags);
        stream.set_number(attributes::UPSTREAM_ATTEMPTS, answer.attempts);
        stream.set_text(attributes::UPSTREAM_ADDRESS, answer.address);
        stream.set_text(attributes::CLUSTER_NAME, answer.cluster);
        stream.set_text(attributes::RESPONSE_CODE_DETAILS, answer.details);
        exchange.on_response_headers(&mut self.worker, &mut self.host, false);
    }

    /// The answer's body comes, whole.
    fn complete(&mut self, exchange: &mut Exchange, millis: u64) {
        self.host.advance(Duration::from_millis(millis));
        exchange.on_response_body(&mut self.worker, &mut self.host, 5, true);
    }

    fn end(&mut self, mut exchange: Exchange) {
        self.host.stream(exchange.context);
        exchange.end(&mut self.worker, &mut self.host);
        self.host.forget(exchange.context);
        // Any further end is none.
        exchange.end(&mut self.worker, &mut self.host);
    }

    /// What is in flight, where anything is.
    fn in_flight(&mut self) -> BTreeMap<String, u64> {
        let due = self.worker.tick(&mut self.host);
        assert_eq!(due, [], "nothing is due");
        let gauges = self.host.values("paceline_in_flight;upstream=");
        let name = |name: String| name.trim_end_matches(";plugin=test").to_owned();
        gauges.into_iter().map(|(it, n)| (name(it), n)).collect()
    }

    fn outcomes(&self) -> BTreeMap<String, u64> {
        self.host.values("paceline_outcomes_total;pool=default;")
    }

    fn passed_through(&self) -> BTreeMap<String, u64> {
        self.host.values("paceline_pass_through_total;reason=")
    }
}

/// An answer, as the proxy has it.
#[derive(Clone, Copy)]
struct Answered<'a> {
    status: u64,
    flags: u64,
    attempts: u64,
    address: &'a str,
    cluster: &'a str,
    details: &'a str,
}

/// An answer of an upstream, each of which has an address of its own.
fn answer_of(upstream: &str) -> Answered<'_> {
    Answered {
        status: 200,
        flags: 0,
        attempts: 1,
        address: if upstream == "gpu-a" {
            "10.0.0.1:80"
        } else {
            "10.0.0.2:80"
        },
        cluster: upstream,
        details: "via_upstream",
    }
}

fn one<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[test]
fn a_request_is_counted_from_its_pick_to_its_end() {
    let mut case = Case::new(TWO);
    let (mut exchange, upstream) = case.routed();
    assert!(["gpu-a", "gpu-b"].contains(&&*upstream), "{upstream}");
    assert_eq!(case.in_flight(), one([(&upstream, 1)]));
    case.answer(&mut exchange, &answer_of(&upstream), 30);
    let shown = case.host.stream(exchange.context).response[DECISION_HEADER].clone();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains(&upstream), "{shown}");
    case.complete(&mut exchange, 20);
    assert_eq!(case.in_flight(), one([(&upstream, 1)]), "until its end");
    case.end(exchange);
    assert_eq!(case.in_flight(), one([]));
    let success = format!("upstream={upstream};outcome=success");
    assert_eq!(case.outcomes(), one([(&success, 1)]));
    let of_it = format!(";pool=default;upstream={upstream}");
    assert_eq!(case.host.values("paceline_picks_total"), one([(&of_it, 1)]));
    assert_eq!(case.host.samples("paceline_latency_milliseconds"), [50]);
    assert_eq!(case.host.samples("paceline_first_byte_milliseconds"), [50]);
    assert_eq!(case.passed_through(), one([]));
}

#[test]
fn many_requests_at_once_are_each_counted_once() {
    let mut case = Case::new(TWO);
    let mut open: Vec<_> = (0..9).map(|_| case.routed()).collect();
    while !open.is_empty() {
        let mut counts = BTreeMap::new();
        for (_, upstream) in &open {
            *counts.entry(upstream.clone()).or_insert(0) += 1;
        }
        assert_eq!(case.in_flight(), counts);
        let (mut exchange, upstream) = open.swap_remove(open.len() / 2);
        case.answer(&mut exchange, &answer_of(&upstream), 5);
        case.complete(&mut exchange, 0);
        case.end(exchange);
    }
    assert_eq!(case.in_flight(), one([]));
}

#[test]
fn what_no_pool_takes_passes_through_without_the_clients_header() {
    let config = TWO.replace(
        r#""upstreams""#,
        r#""pools": [{"name": "a", "match": {"path_prefix": "/other/"}, "upstreams""#,
    );
    let mut case = Case::new(&config.replace("]}", "]}]}"));
    let (mut exchange, upstream) = case.routed();
    assert_eq!(upstream, "");
    assert_eq!(case.passed_through(), one([("no_pool", 1)]));
    case.answer(&mut exchange, &answer_of("app"), 5);
    let shown = &case.host.stream(exchange.context).response[DECISION_HEADER];
    assert!(shown.starts_with(b"pass_through; reason=no_pool"));
    case.end(exchange);
    assert_eq!(case.in_flight(), one([]));
    assert_eq!(case.host.values("paceline_outcomes_total"), one([]));
}

#[test]
fn a_request_that_cannot_be_counted_or_named_passes_through() {
    for call in [Call::Get, Call::Set, Call::SetRequestHeader] {
        let mut case = Case::new(TWO);
        case.host.fail(call);
        let (exchange, upstream) = case.routed();
        assert_eq!(upstream, "", "{call:?}");
        assert_eq!(case.passed_through(), one([("host_error", 1)]), "{call:?}");
        case.host.heal();
        case.end(exchange);
        assert_eq!(case.in_flight(), one([]), "{call:?}");
        let (exchange, upstream) = case.routed();
        assert_ne!(upstream, "", "{call:?}");
        case.end(exchange);
        assert_eq!(case.in_flight(), one([]), "{call:?}");
    }
}

#[test]
fn a_request_ends_in_each_way_and_is_counted_nowhere_afterwards() {
    const RESET: u64 = 1 << 6;
    const TIMEOUT: u64 = 1 << 2;
    const CLIENT_GONE: u64 = 1 << 14;
    let cases = [
        ("success", 200, 0, 1, "via_upstream"),
        ("client_error", 404, 0, 1, "via_upstream"),
        ("rejected", 429, 0, 1, "via_upstream"),
        ("upstream_error", 500, 0, 1, "via_upstream"),
        (
            "reset",
            503,
            RESET,
            1,
            "upstream_reset_before_response_started",
        ),
        ("timeout", 504, TIMEOUT, 1, "response_timeout"),
        ("client_abort", 200, CLIENT_GONE, 1, "via_upstream"),
        ("retried", 200, 0, 2, "via_upstream"),
        ("local_reply", 403, 0, 0, "ext_authz_denied"),
    ];
    for (outcome, status, flags, attempts, details) in cases {
        let mut case = Case::new(TWO);
        let (mut exchange, upstream) = case.routed();
        let answer = Answered {
            status,
            flags,
            attempts,
            details,
            ..answer_of(&upstream)
        };
        case.answer(&mut exchange, &answer, 10);
        if !matches!(outcome, "client_abort" | "reset") {
            case.complete(&mut exchange, 10);
        }
        case.end(exchange);
        assert_eq!(case.in_flight(), one([]), "{outcome}");
        let name = format!("upstream={upstream};outcome={outcome}");
        assert_eq!(case.outcomes(), one([(&name, 1)]), "{outcome}");
    }
}

#[test]
fn a_request_without_an_answer_or_whose_end_is_not_told_is_released() {
    for fails in [false, true] {
        let mut case = Case::new(TWO);
        let (exchange, upstream) = case.routed();
        if fails {
            case.host.fail(Call::Property);
        }
        case.end(exchange);
        case.host.heal();
        assert_eq!(case.in_flight(), one([]));
        let unknown = format!("upstream={upstream};outcome=unknown");
        assert_eq!(case.outcomes(), one([(&unknown, 1)]));
    }
}

#[test]
fn a_request_that_another_upstream_serves_is_counted_there() {
    let mut case = Case::new(TWO);
    // It is known who answers from where.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let (mut exchange, upstream) = case.routed();
        case.answer(&mut exchange, &answer_of(&upstream), 5);
        case.complete(&mut exchange, 0);
        case.end(exchange);
        seen.insert(upstream);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let before = case.outcomes();
    let (mut exchange, picked) = case.routed();
    let other = if picked == "gpu-a" { "gpu-b" } else { "gpu-a" };
    let answer = Answered {
        attempts: 2,
        cluster: &picked,
        ..answer_of(other)
    };
    case.answer(&mut exchange, &answer, 30);
    assert_eq!(case.in_flight(), one([(other, 1)]), "picked {picked}");
    let adoptions = case.host.values("paceline_adoptions_total;pool=default;");
    assert_eq!(adoptions, one([(&format!("upstream={other}"), 1)]));
    case.complete(&mut exchange, 5);
    case.end(exchange);
    assert_eq!(case.in_flight(), one([]));
    let now = case.outcomes();
    let more = |name: &str| now[name] - before.get(name).unwrap_or(&0);
    assert_eq!(more(&format!("upstream={picked};outcome=retried")), 1);
    assert_eq!(more(&format!("upstream={other};outcome=success")), 1);
}

#[test]
fn a_request_that_another_route_takes_is_counted_nowhere() {
    let mut case = Case::new(TWO);
    let (mut exchange, upstream) = case.routed();
    case.answer(&mut exchange, &answer_of(&upstream), 5);
    case.complete(&mut exchange, 0);
    case.end(exchange);
    let (mut exchange, picked) = case.routed();
    let answer = Answered {
        address: "10.0.9.9:80",
        ..answer_of("app")
    };
    case.answer(&mut exchange, &answer, 5);
    assert_eq!(case.in_flight(), one([]), "from its answer on");
    case.end(exchange);
    assert_eq!(case.in_flight(), one([]));
    let name = format!("upstream={picked};outcome=not_routed");
    assert_eq!(case.outcomes()[&name], 1);
}
