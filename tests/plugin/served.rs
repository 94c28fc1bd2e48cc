//! Who really served a request, as Envoy tells it, and what is made of it.

use crate::faults::STATUSES;
use crate::fleet::{GET, ROUTE_HEADER, TWO, config, in_flight, picked, total_in_flight};
use crate::host::{HeaderMap, Process, Property, Root, Stream, Vm};
use std::collections::BTreeMap;
use std::time::Duration;

const DISCOVERING: &str = r#"{ "cluster": "gpus", "policy": "round_robin" }"#;
const ENDPOINT_HEADER: &[u8] = b"x-gateway-destination-endpoint";

/// What Envoy knows of an answer.
struct Answer<'a> {
    address: &'a str,
    cluster: &'a str,
    attempts: i64,
    status: &'a str,
    details: &'a str,
    /// What the metadata of the endpoint say.
    named: Option<Property>,
    retry_after: Option<&'a str>,
}

impl Default for Answer<'_> {
    fn default() -> Self {
        Answer {
            address: "10.0.0.1:8000",
            cluster: "gpu-a",
            attempts: 1,
            status: "200",
            details: "via_upstream",
            named: None,
            retry_after: None,
        }
    }
}

impl Answer<'_> {
    /// The answer's headers come.
    fn begin(&self, stream: &Stream) {
        let text = |path: &[&str], value: &str| stream.set_property(path, Property::text(value));
        text(&["upstream", "address"], self.address);
        text(&["xds", "cluster_name"], self.cluster);
        text(&["response", "code_details"], self.details);
        let attempts = ["upstream", "request_attempt_count"];
        stream.set_property(&attempts, Property::int(self.attempts));
        if let Some(named) = &self.named {
            let path = [
                "xds",
                "upstream_host_metadata",
                "filter_metadata",
                "paceline",
                "upstream",
            ];
            stream.set_property(&path, named.clone());
        }
        let mut headers = HeaderMap::new([(":status", self.status)]);
        if let Some(seconds) = self.retry_after {
            headers.add(b"retry-after", seconds.as_bytes());
        }
        stream.response_headers(headers, false).unwrap();
    }

    /// The whole answer comes.
    fn give(&self, stream: Stream) {
        self.begin(&stream);
        stream.response_body(b"done", true).unwrap();
        stream.end().unwrap();
    }
}

/// Answers a request from the picked server's own address.
fn serve(root: &Root) -> String {
    let stream = root.request(GET).unwrap();
    let cluster = picked(&stream).unwrap();
    let answer = Answer {
        address: own(&cluster),
        cluster: &cluster,
        ..Answer::default()
    };
    answer.give(stream);
    cluster
}

fn own(cluster: &str) -> &'static str {
    match cluster {
        "gpu-a" => "10.0.0.1:8000",
        _ => "10.0.0.2:8000",
    }
}

/// Requests until one is picked for this upstream; the others are served.
fn pick(root: &Root, upstream: &str) -> Stream {
    for _ in 0..100 {
        let stream = root.request(GET).unwrap();
        let cluster = picked(&stream).unwrap();
        if cluster == upstream {
            return stream;
        }
        let answer = Answer {
            address: own(&cluster),
            cluster: &cluster,
            ..Answer::default()
        };
        answer.give(stream);
    }
    panic!("{upstream} is never picked");
}

fn count(process: &Process, metric: &str, upstream: &str, rest: &str) -> u64 {
    process.counter(&format!(
        "paceline_{metric};pool=default;upstream={upstream}{rest}"
    ))
}

fn outcomes(process: &Process, upstream: &str) -> BTreeMap<String, u64> {
    let prefix = format!("paceline_outcomes_total;pool=default;upstream={upstream};outcome=");
    let counters = process.counters(&prefix).into_iter();
    let counted = counters.filter(|(_, count)| *count > 0);
    counted
        .map(|(name, count)| (name[prefix.len()..].to_owned(), count))
        .collect()
}

fn round_robin() -> (Process, Root) {
    let process = Process::new();
    let configuration = TWO.replacen('{', r#"{ "policy": "round_robin", "#, 1);
    let root = Vm::start(&process, configuration).unwrap();
    (process, root)
}

#[test]
fn a_neighbours_answer_is_counted_at_the_neighbour() {
    let (process, root) = round_robin();
    for _ in 0..4 {
        serve(&root);
    }
    let stream = pick(&root, "gpu-a");
    let before = (outcomes(&process, "gpu-a"), outcomes(&process, "gpu-b"));
    let neighbours = Answer {
        address: own("gpu-b"),
        ..Answer::default()
    };
    neighbours.begin(&stream);
    assert_eq!(
        in_flight(&process),
        [("gpu-a".into(), 0), ("gpu-b".into(), 1)].into()
    );
    process.advance(Duration::from_millis(70));
    stream.response_body(b"done", true).unwrap();
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    let mut expected = before;
    expected.0.insert("unavailable".into(), 1);
    *expected.1.get_mut("success").unwrap() += 1;
    assert_eq!(
        (outcomes(&process, "gpu-a"), outcomes(&process, "gpu-b")),
        expected
    );
    assert_eq!(count(&process, "adoptions_total", "gpu-b", ""), 1);
    // It has worked on nothing else, so its time is its own.
    let latencies = process.histograms("paceline_latency_milliseconds;");
    let slow = latencies
        .iter()
        .filter(|(_, samples)| samples.contains(&70));
    let slow: Vec<_> = slow.map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        slow,
        ["paceline_latency_milliseconds;pool=default;upstream=gpu-b"]
    );
}

#[test]
fn metadata_name_the_upstream_from_the_first_answer_on() {
    for (named, expected) in [
        ("gpu-b", "unavailable"),
        ("gpu-a", "success"),
        ("else", "success"),
    ] {
        let (process, root) = round_robin();
        let stream = pick(&root, "gpu-a");
        let answer = Answer {
            address: "10.0.0.9:8000",
            named: Some(Property::text(named)),
            ..Answer::default()
        };
        answer.give(stream);
        assert_eq!(
            outcomes(&process, "gpu-a"),
            [(expected.into(), 1)].into(),
            "{named}"
        );
    }
}

#[test]
fn metadata_may_be_anything() {
    let odd = [
        Property::Value(vec![0xff; 40]),
        Property::text(""),
        Property::text(&"9".repeat(100_000)),
    ];
    for named in odd.into_iter().chain(STATUSES.map(Property::Failing)) {
        let (process, root) = round_robin();
        for _ in 0..4 {
            let answer = Answer {
                named: Some(named.clone()),
                ..Answer::default()
            };
            answer.give(pick(&root, "gpu-a"));
        }
        assert_eq!(
            outcomes(&process, "gpu-a"),
            [("success".into(), 4)].into(),
            "{named:?}"
        );
        assert_eq!(total_in_flight(&process), 0, "{named:?}");
    }
}

/// As through one egress proxy.
#[test]
fn upstreams_behind_one_address_are_told_apart_by_their_names() {
    let (process, root) = round_robin();
    for _ in 0..40 {
        let stream = root.request(GET).unwrap();
        let cluster = picked(&stream).unwrap();
        let answer = Answer {
            cluster: &cluster,
            ..Answer::default()
        };
        answer.give(stream);
    }
    for upstream in ["gpu-a", "gpu-b"] {
        assert_eq!(
            outcomes(&process, upstream),
            [("success".into(), 20)].into()
        );
    }
}

#[test]
fn the_server_of_a_retry_has_the_retrys_end() {
    let (process, root) = round_robin();
    for _ in 0..4 {
        serve(&root);
    }
    let stream = pick(&root, "gpu-a");
    let mut before = outcomes(&process, "gpu-a");
    let answer = Answer {
        address: own("gpu-b"),
        attempts: 2,
        status: "503",
        retry_after: Some("30"),
        ..Answer::default()
    };
    answer.give(stream);
    before.insert("retried".into(), 1);
    assert_eq!(outcomes(&process, "gpu-a"), before);
    assert_eq!(outcomes(&process, "gpu-b")["upstream_error"], 1);
    assert_eq!(total_in_flight(&process), 0);
}

/// A canary of `weighted_clusters` and a route that has nothing to do with the
/// pool look the same.
#[test]
fn what_another_route_serves_is_nobodys() {
    let process = Process::new();
    let root = Vm::start(&process, config(2, "shortest_expected_delay")).unwrap();
    let own = |stream: &Stream| {
        let cluster = picked(stream).unwrap();
        (
            format!(
                "10.0.0.{}:80",
                cluster.len() + usize::from(cluster.ends_with('1'))
            ),
            cluster,
        )
    };
    let ends = |status: &str, address: Option<&str>, details: &str| {
        let stream = root.request(GET).unwrap();
        let picked_for = picked(&stream).unwrap();
        let answer = Answer {
            address: address.unwrap_or(""),
            cluster: "app",
            status,
            details,
            ..Answer::default()
        };
        answer.give(stream);
        picked_for
    };
    for _ in 0..4 {
        let stream = root.request(GET).unwrap();
        let (address, cluster) = own(&stream);
        let answer = Answer {
            address: &address,
            cluster: &cluster,
            ..Answer::default()
        };
        answer.give(stream);
    }
    let before = process.histograms("paceline_latency_milliseconds;");
    let mut expected = 0;
    for status in ["200", "404", "429", "500"] {
        ends(status, Some("10.9.9.9:80"), "via_upstream");
        expected += 1;
    }
    // Its server cannot be reached, or there is none.
    ends(
        "503",
        Some("10.9.9.9:80"),
        "upstream_reset_before_response_started",
    );
    ends("503", None, "no_healthy_upstream");
    expected += 2;
    let all: Vec<_> = ["gpu-0", "gpu-1"].map(|it| outcomes(&process, it)).into();
    let of = |outcome: &str| all.iter().filter_map(|it| it.get(outcome)).sum::<u64>();
    assert_eq!((of("not_routed"), of("success")), (expected, 4), "{all:?}");
    assert_eq!(process.histograms("paceline_latency_milliseconds;"), before);
    assert_eq!(total_in_flight(&process), 0);
}

/// Routes that match the routing header may lead to clusters of any name, and so
/// they do in Istio, where the name has the subset in it.
#[test]
fn clusters_of_other_names_are_the_picks_where_routes_lead_to_them() {
    let names = |prefix: &'static str| move |cluster: &str| format!("{prefix}{cluster}|models");
    for name in [names("outbound|8000|"), names("to-")] {
        let (process, root) = round_robin();
        for _ in 0..20 {
            let stream = root.request(GET).unwrap();
            let cluster = picked(&stream).unwrap();
            let answer = Answer {
                address: own(&cluster),
                cluster: &name(&cluster),
                ..Answer::default()
            };
            answer.give(stream);
        }
        for upstream in ["gpu-a", "gpu-b"] {
            assert_eq!(
                outcomes(&process, upstream),
                [("success".into(), 10)].into()
            );
        }
    }
}

/// Answers a request to endpoints: from the named one, or as Envoy balances.
fn serve_endpoint(root: &Root, otherwise: &str) -> Option<String> {
    let stream = root.request(GET).unwrap();
    let named = named(&stream);
    let answer = Answer {
        address: named.as_deref().unwrap_or(otherwise),
        cluster: "gpus",
        ..Answer::default()
    };
    answer.give(stream);
    named
}

fn named(stream: &Stream) -> Option<String> {
    let headers = stream.sent_headers();
    let list = headers.get_all(ENDPOINT_HEADER).next()?;
    let list = String::from_utf8(list.to_vec()).unwrap();
    Some(list.split(',').next().unwrap().to_owned())
}

/// Two endpoints that are known.
fn discovered(process: &Process) -> Root {
    let root = Vm::start(process, DISCOVERING).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..400 {
        let address = ["10.0.0.1:80", "10.0.0.2:80"][number % 2];
        seen.extend(serve_endpoint(&root, address));
    }
    assert_eq!(seen.len(), 2);
    root
}

#[test]
fn another_routes_servers_are_no_endpoints() {
    let process = Process::new();
    let root = discovered(&process);
    let before = outcomes(&process, "10.0.0.1:80");
    let mut explored = 0;
    for _ in 0..400 {
        let stream = root.request(GET).unwrap();
        explored += u64::from(
            stream
                .sent_headers()
                .get_all(ENDPOINT_HEADER)
                .next()
                .is_none(),
        );
        assert!(stream.sent_headers().get_all(ROUTE_HEADER).next().is_some());
        let answer = Answer {
            address: "10.9.9.9:80",
            cluster: "app",
            ..Answer::default()
        };
        answer.give(stream);
    }
    let picks = process.counters("paceline_picks_total;");
    assert!(
        picks.keys().all(|name| !name.contains("10.9.9.9")),
        "{picks:?}"
    );
    let all: Vec<_> = ["10.0.0.1:80", "10.0.0.2:80"]
        .map(|it| outcomes(&process, it))
        .into();
    let of = |outcome: &str| all.iter().filter_map(|it| it.get(outcome)).sum::<u64>();
    assert_eq!(of("not_routed"), 400 - explored);
    assert_eq!(of("unavailable"), 0, "{before:?} {all:?}");
    assert_eq!(total_in_flight(&process), 0);
}

/// Jobs of 20 minutes: an endpoint that has answered nothing since is at work and
/// not gone, whoever else answers.
#[test]
fn an_endpoint_with_long_jobs_stays_known() {
    let process = Process::new();
    let root = discovered(&process);
    let other = Vm::start(&process, DISCOVERING).unwrap();
    let job = (0..100).find_map(|_| {
        let stream = root.request(GET).unwrap();
        if named(&stream).as_deref() == Some("10.0.0.1:80") {
            return Some(stream);
        }
        let named = named(&stream);
        let answer = Answer {
            address: named.as_deref().unwrap_or("10.0.0.2:80"),
            cluster: "gpus",
            ..Answer::default()
        };
        answer.give(stream);
        None
    });
    let job = job.expect("picked");
    // Meanwhile the other is busy with short ones, which come to whomever they may.
    for _ in 0..20 * 60 {
        process.advance(Duration::from_secs(1));
        let stream = other.request(GET).unwrap();
        if named(&stream).as_deref() == Some("10.0.0.1:80") {
            // A client that leaves is no answer.
            stream.set_property(&["response", "flags"], Property::int(1 << 14));
            stream.end().unwrap();
        } else {
            let answer = Answer {
                address: "10.0.0.2:80",
                cluster: "gpus",
                ..Answer::default()
            };
            answer.give(stream);
        }
        root.tick().unwrap();
        other.tick().unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.extend(serve_endpoint(&other, "10.0.0.2:80"));
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let answer = Answer {
        address: "10.0.0.1:80",
        cluster: "gpus",
        ..Answer::default()
    };
    answer.give(job);
    assert_eq!(total_in_flight(&process), 0);
}

/// An endpoint that goes takes nothing of what the others show: neither its
/// numbers nor its name.
#[test]
fn what_is_measured_stands_under_its_own_name_after_endpoints_have_gone() {
    let process = Process::new();
    let root = discovered(&process);
    // What was measured until now is of no interest any more.
    process.advance(Duration::from_secs(3600));
    let serve = |latency: fn(&str) -> u64| {
        for _ in 0..100 {
            let stream = root.request(GET).unwrap();
            let address = named(&stream).unwrap_or_else(|| "10.0.0.2:80".into());
            process.advance(Duration::from_millis(latency(&address)));
            let answer = Answer {
                address: &address,
                cluster: "gpus",
                ..Answer::default()
            };
            answer.give(stream);
        }
        // What is written on one tick is read on the next.
        root.tick().unwrap();
        root.tick().unwrap();
    };
    let median = |address: &str| {
        let name = "paceline_latency_quantile_milliseconds;pool=default;upstream=";
        process.gauges("paceline_")[&format!("{name}{address};quantile=0.5;plugin=paceline")]
    };
    let latency = |address: &str| {
        if address.starts_with("10.0.0.1:") {
            10
        } else {
            400
        }
    };
    serve(latency);
    assert!(median("10.0.0.1:80") < 20 && median("10.0.0.2:80") > 300);
    // Envoy does not know the first any more.
    let gone = (0..100).any(|_| {
        let stream = root.request(GET).unwrap();
        let first = named(&stream).as_deref() == Some("10.0.0.1:80");
        let answer = Answer {
            address: "10.0.0.2:80",
            cluster: "gpus",
            ..Answer::default()
        };
        answer.give(stream);
        first
    });
    assert!(gone);
    serve(latency);
    assert_eq!(
        median("10.0.0.1:80"),
        0,
        "nothing is measured of what is gone"
    );
    assert!(median("10.0.0.2:80") > 300, "{}", median("10.0.0.2:80"));
    let unavailable = outcomes(&process, "10.0.0.1:80");
    assert_eq!(unavailable["unavailable"], 1, "{unavailable:?}");
}

/// The third failure makes the endpoint forgotten while its request ends.
#[test]
fn the_end_of_what_makes_an_endpoint_forgotten_counts_at_that_endpoint() {
    let process = Process::new();
    let root = discovered(&process);
    let mut failed = 0;
    for _ in 0..200 {
        let stream = root.request(GET).unwrap();
        let address = named(&stream).unwrap_or_else(|| "10.0.0.2:80".into());
        if address != "10.0.0.1:80" {
            let answer = Answer {
                address: &address,
                cluster: "gpus",
                ..Answer::default()
            };
            answer.give(stream);
            continue;
        }
        failed += 1;
        // Connection refused; Envoy answers in its place.
        stream.set_property(&["response", "flags"], Property::int(1 << 5));
        let answer = Answer {
            address: &address,
            cluster: "gpus",
            status: "503",
            details: "upstream_reset_before_response_started{remote_connection_failure}",
            ..Answer::default()
        };
        answer.give(stream);
    }
    assert_eq!(failed, 3, "three strikes");
    assert_eq!(outcomes(&process, "10.0.0.1:80")["reset"], 3);
    assert_eq!(outcomes(&process, "10.0.0.2:80").get("reset"), None);
    assert_eq!(total_in_flight(&process), 0);
}
