//! Configurations under test, a request's usual life, and how to read from
//! the outside what the filter made of it.

use crate::host::{Action, HeaderMap, Process, Property, Root, Stream, VmResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// The smallest configuration: two upstreams, everything else by default.
pub(crate) const TWO: &str =
    r#"{ "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ] }"#;

/// The header that Envoy routes on.
pub(crate) const ROUTE_HEADER: &[u8] = b"x-upstream-cluster";

/// How long the counts of a dead worker are believed.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// A configuration of one pool with `count` upstreams, `gpu-0` and on.
pub(crate) fn config(count: usize, policy: &str) -> String {
    let upstreams: Vec<String> = (0..count)
        .map(|index| format!(r#"{{ "cluster": "gpu-{index}" }}"#))
        .collect();
    let upstreams = upstreams.join(", ");
    format!(r#"{{ "policy": "{policy}", "upstreams": [ {upstreams} ] }}"#)
}

/// All policies that a configuration can name.
pub(crate) const POLICIES: [&str; 8] = [
    "round_robin",
    "weighted_round_robin",
    "random",
    "least_request",
    "least_response_time",
    "latency_percentile",
    "peak_ewma",
    "shortest_expected_delay",
];

/// For results that must be good: a failure says in which case.
pub(crate) trait In<T> {
    /// The value; panics with `case` if there is none.
    fn in_case(self, case: &str) -> T;
}

impl<T> In<T> for VmResult<T> {
    fn in_case(self, case: &str) -> T {
        self.unwrap_or_else(|error| panic!("{case}: {error}"))
    }
}

/// Headers of a plain request.
pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":path", "/infer"),
    (":authority", "models.example.com"),
    (":scheme", "http"),
];

/// The upstream that a stream was routed to; `None` if it passes through.
pub(crate) fn picked(stream: &Stream) -> Option<String> {
    let headers = stream.sent_headers();
    let values: Vec<&[u8]> = headers.get_all(ROUTE_HEADER).collect();
    assert!(
        values.len() <= 1,
        "the routing header has {} values",
        values.len()
    );
    values
        .first()
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Requests in flight at each upstream, as the metrics of all plugins have it.
pub(crate) fn in_flight(process: &Process) -> BTreeMap<String, u64> {
    process.observe();
    let prefix = "paceline_in_flight;upstream=";
    let gauges = process.gauges(prefix).into_iter();
    let mut all = BTreeMap::<String, u64>::new();
    for (name, value) in gauges {
        let labels = name.strip_prefix(prefix).expect("the prefix");
        let (upstream, _plugin) = labels.split_once(";plugin=").expect("labelled");
        let sum = all.entry(upstream.to_owned()).or_default();
        *sum = sum.wrapping_add(value);
    }
    all
}

/// Requests in flight at all upstreams.
pub(crate) fn total_in_flight(process: &Process) -> u64 {
    in_flight(process)
        .values()
        .fold(0, |sum, value| sum.wrapping_add(*value))
}

/// Picks so far, of all upstreams and pools.
pub(crate) fn picks(process: &Process) -> u64 {
    process.counters("paceline_picks_total;").values().sum()
}

/// Requests that passed through so far, by reason.
pub(crate) fn pass_throughs(process: &Process) -> BTreeMap<String, u64> {
    let prefix = "paceline_pass_through_total;reason=";
    let counters = process
        .counters(prefix)
        .into_iter()
        .filter(|(_, count)| *count > 0);
    let named =
        counters.filter_map(|(name, count)| Some((name.strip_prefix(prefix)?.into(), count)));
    named.collect()
}

/// A response of an upstream, and what Envoy knows of it.
#[derive(Clone, Copy)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) latency: Duration,
    pub(crate) body: &'static [u8],
    pub(crate) attempts: i64,
}

impl Response {
    pub(crate) const OK: Self = Self {
        status: 200,
        latency: Duration::from_millis(20),
        body: b"hello, world",
        attempts: 1,
    };
}

/// Plays the part of Envoy and an upstream for a request that the filter has
/// seen the headers of: an answer with a body and trailers. The stream is left
/// to be ended. Says what the filter let pass.
pub(crate) fn respond(
    process: &Process,
    stream: &Stream,
    response: &Response,
) -> VmResult<Vec<Action>> {
    let status = response.status.to_string();
    process.advance(response.latency / 4);
    stream.set_property(&["response", "code"], Property::int(response.status.into()));
    stream.set_property(&["response", "flags"], Property::int(0));
    stream.set_property(&["upstream", "address"], Property::text(&address(stream)));
    stream.set_property(
        &["upstream", "request_attempt_count"],
        Property::int(response.attempts),
    );
    stream.set_property(
        &["response", "code_details"],
        Property::text("via_upstream"),
    );
    if let Some(cluster) = picked(stream) {
        stream.set_property(&["xds", "cluster_name"], Property::text(&cluster));
    }
    let headers = HeaderMap::new([(":status", status.as_str()), ("content-type", "text/plain")]);
    let mut actions = vec![stream.response_headers(headers, false)?];
    // The first byte of the body comes after half of the time, as from a server
    // that sends its headers at once.
    process.advance(response.latency / 4);
    for part in response.body.chunks(response.body.len().div_ceil(2).max(1)) {
        actions.push(stream.response_body(part, false)?);
        process.advance(response.latency / 4);
    }
    actions.push(stream.response_trailers(HeaderMap::default())?);
    let size = response.body.len() as i64;
    let nanos = response.latency.as_nanos() as i64;
    stream.set_property(&["response", "size"], Property::int(size));
    stream.set_property(&["request", "duration"], Property::int(nanos));
    stream.set_property(&["response", "backend_latency"], Property::int(nanos));
    Ok(actions)
}

/// Where the upstream that a stream was routed to answers from: each cluster has an
/// address of its own.
pub(crate) fn address(stream: &Stream) -> String {
    let name = picked(stream).unwrap_or_default();
    let number = name.rsplit('-').next().unwrap_or_default();
    let number = match (name.as_str(), number.bytes().next()) {
        ("gpus", _) | (_, None) => 1,
        (_, Some(first @ b'a'..=b'z')) => u32::from(first),
        _ => number.parse::<u32>().unwrap_or(0) + 2,
    };
    format!("10.0.{}.{}:8000", number / 256, number % 256)
}

/// A whole request that goes well, answered `Response::OK`; the upstream it went to.
pub(crate) fn serve(process: &Process, root: &Root) -> VmResult<Option<String>> {
    let stream = root.request(GET)?;
    let upstream = picked(&stream);
    respond(process, &stream, &Response::OK)?;
    stream.end()?;
    Ok(upstream)
}
