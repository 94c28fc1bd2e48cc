//! Who ended a request, where neither a status nor a flag of Envoy says so.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::client::{get, raw, upload};
use crate::support::fleet::{CONNECTION_MANAGER, Fleet, HTTP_FILTERS, one_pool, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually, soon};

/// One upstream behind a gateway with these changes.
async fn changed(behaviour: Behaviour, changes: &[(&str, Value)]) -> Fleet {
    let config = paceline(&one_pool(1, "least_request"));
    Fleet::start_with(1, behaviour, config, |topology| {
        let changes = changes.iter();
        topology.amendments = changes
            .map(|(place, value)| (format!("{CONNECTION_MANAGER}{place}"), value.clone()))
            .collect();
    })
    .await
}

/// The one request has ended like this.
async fn expect(fleet: &Fleet, outcome: &str) {
    fleet.expect_in_flight(0, SOON).await;
    eventually("the request's outcome", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let mut outcomes = stats.by_label("paceline_outcomes_total", "outcome");
        outcomes.retain(|_, count| *count > 0);
        match outcomes.is_empty() {
            true => Err("none".to_owned()),
            false => {
                assert_eq!(outcomes, [(outcome.to_owned(), 1)].into());
                Ok(())
            }
        }
    })
    .await;
}

/// The places where the longest duration of a stream is configured.
fn duration_limits() -> [(&'static str, Value); 2] {
    [
        (
            "/common_http_protocol_options",
            json!({ "max_stream_duration": "0.3s" }),
        ),
        (
            "/route_config/virtual_hosts/0/routes/0/route/max_stream_duration",
            json!({ "max_stream_duration": "0.3s" }),
        ),
    ]
}

#[tokio::test]
async fn a_stream_that_is_cut_at_its_longest_duration_is_no_success() {
    for limit in duration_limits() {
        let mut fleet = changed(Behaviour::Hold, &[limit]).await;
        let mut connection = fleet.connect().await;
        let response = connection.start(get());
        let mut stream = fleet.arrival().await.begin_answer();
        stream.send_data(Bytes::from("token ")).await.unwrap();
        let head = response.head().await;
        assert_eq!(head.status(), 200);
        expect(&fleet, "timeout").await;
    }
}

#[tokio::test]
async fn a_request_that_is_not_answered_within_its_longest_duration_timed_out() {
    for limit in duration_limits() {
        let mut fleet = changed(Behaviour::Hold, &[limit]).await;
        let held = fleet.hold(1).await.remove(0);
        let answer = held.response.answer().await;
        assert!(answer.status == 504 || answer.status == 408);
        expect(&fleet, "timeout").await;
    }
}

#[tokio::test]
async fn what_a_buffering_filter_answers_is_not_the_upstreams() {
    // It keeps the whole answer, to read it.
    let buffers = json!({
        "name": "json",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
            "response_rules": {
                "allow_empty_content_type": true,
                "rules": [{
                    "selectors": [{ "key": "a" }],
                    "on_present": { "metadata_namespace": "x", "key": "y" },
                }],
            },
        },
    });
    // Before the filter, so that it sees the answer after it, and behind it.
    for place in [0, 1] {
        let changes = [
            (format!("{HTTP_FILTERS}/{place}"), buffers.clone()),
            (
                "/static_resources/listeners/0/per_connection_buffer_limit_bytes".to_owned(),
                json!(1024),
            ),
            // It would raise the limit, for answers too.
            (
                format!(
                    "{CONNECTION_MANAGER}/route_config/virtual_hosts/0/request_body_buffer_limit"
                ),
                Value::Null,
            ),
        ];
        let config = paceline(&one_pool(1, "least_request"));
        let mut fleet = Fleet::start_with(1, Behaviour::Hold, config, |topology| {
            topology.amendments = changes.to_vec();
        })
        .await;
        let mut connection = fleet.connect().await;
        let response = connection.start(get());
        let mut stream = fleet.arrival().await.begin_answer();
        for _ in 0..4 {
            // Fails once Envoy has answered.
            let _ = stream.send_data(Bytes::from(vec![b'x'; 64 << 10])).await;
        }
        let answer = response.answer().await;
        assert_eq!(answer.status, 500, "{place}");
        expect(&fleet, "local_reply").await;
    }
}

#[tokio::test]
async fn what_a_route_answers_or_redirects_says_nothing_of_the_upstream() {
    const ROUTE: &str = "/route_config/virtual_hosts/0/routes/0";
    for (action, value) in [
        ("direct_response", json!({ "status": 200 })),
        ("redirect", json!({ "host_redirect": "elsewhere" })),
    ] {
        let route = format!("{ROUTE}/route");
        let instead = format!("{ROUTE}/{action}");
        let changes = [(&*route, Value::Null), (&*instead, value)];
        let fleet = changed(Behaviour::OK, &changes).await;
        fleet.get_in_turn(1).await;
        expect(&fleet, "local_reply").await;
    }
}

#[tokio::test]
async fn a_client_that_sends_its_request_too_slowly_is_to_blame() {
    let limit = ("/request_timeout", json!("0.3s"));
    let mut fleet = changed(Behaviour::Hold, &[limit]).await;
    let mut connection = fleet.connect().await;
    let (mut body, request) = upload(&[], Some(1000));
    let response = connection.start(request);
    body.send_data(Bytes::from("slow")).await.unwrap();
    let _arrival = fleet.arrival().await;
    assert_eq!(response.answer().await.status, 408);
    expect(&fleet, "client_abort").await;
}

#[tokio::test]
async fn a_websocket_that_its_client_leaves_is_no_failure() {
    let upgrades = ("/upgrade_configs", json!([{ "upgrade_type": "websocket" }]));
    let fleet = changed(Behaviour::failing(101), &[upgrades]).await;
    let request = "GET / HTTP/1.1\r\nhost: models\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\n\r\n";
    let answer = raw(fleet.gateway.address(), request).await;
    assert!(!answer.is_empty());
    fleet.expect_in_flight(0, SOON).await;
    let labels = [("outcome", "unknown")];
    assert_eq!(fleet.counter("paceline_outcomes_total", &labels).await, 0);
}

#[tokio::test]
async fn a_stream_that_draining_cuts_is_not_the_clients_doing() {
    let config = paceline(&one_pool(1, "least_request"));
    let mut fleet = Fleet::start_with(1, Behaviour::Hold, config, |topology| {
        topology.reloadable = true;
        topology.drain_time = Duration::from_secs(1);
    })
    .await;
    let mut connection = fleet.connect().await;
    let response = connection.start(get());
    let mut stream = fleet.arrival().await.begin_answer();
    stream.send_data(Bytes::from("token ")).await.unwrap();
    let head = response.head().await;
    let mut next = fleet.topology.clone();
    next.balancing = paceline(&one_pool(1, "random"));
    fleet.gateway.reconfigure(&next).await.unwrap();
    // Envoy cuts it; neither side has ended it.
    let cut = soon("the stream to be cut", head.into_body().collect()).await;
    assert!(cut.is_err());
    expect(&fleet, "local_reply").await;
}
