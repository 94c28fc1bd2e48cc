//! Requests go where the filter says, and nowhere that a client says.

use serde_json::{Value, json};

use crate::support::client::{raw, request};
use crate::support::fleet::{CONNECTION_MANAGER, Fleet, HTTP_FILTERS, one_pool, paceline};
use crate::support::upstream::Behaviour;

const HEADER: &str = "x-upstream-cluster";

/// Ways in which a client may send the routing header itself. `b` is a cluster
/// that Envoy has and the filter may not pick.
const FORGERIES: [(&str, &str); 6] = [
    ("once", "x-upstream-cluster: b\r\n"),
    (
        "twice",
        "x-upstream-cluster: b\r\nx-upstream-cluster: b\r\n",
    ),
    ("empty", "x-upstream-cluster:\r\n"),
    ("mixed case", "X-Upstream-Cluster: b\r\n"),
    ("in a list", "x-upstream-cluster: b, b\r\n"),
    (
        "empty and not",
        "x-upstream-cluster:\r\nX-UPSTREAM-CLUSTER: b\r\n",
    ),
];

fn forged(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: models\r\n{header}connection: close\r\n\r\n")
}

/// A pool for one path, which `a` alone serves.
fn pool_for_v1() -> Value {
    json!({ "pools": [{
        "name": "v1",
        "match": { "path_prefix": "/v1" },
        "upstreams": [{ "cluster": "a" }],
    }]})
}

#[tokio::test]
async fn the_picked_cluster_serves_the_request() {
    for workers in [1, 2] {
        let config = one_pool(3, "round_robin");
        let fleet = Fleet::start_on(workers, 3, Behaviour::OK, &config).await;
        let answers = fleet.get_in_turn(6).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(fleet.counts(), [2, 2, 2]);
        for upstream in &fleet.upstreams {
            assert!(
                upstream
                    .seen()
                    .iter()
                    .all(|headers| headers[HEADER] == upstream.name)
            );
            let label = [("upstream", upstream.name.as_str()), ("pool", "default")];
            assert_eq!(fleet.counter("paceline_picks_total", &label).await, 2);
        }
    }
}

#[tokio::test]
async fn a_client_cannot_choose_a_cluster() {
    let config = json!({ "upstreams": [{ "cluster": "a" }] });
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    for (how, header) in FORGERIES {
        let answer = raw(fleet.gateway.address(), &forged("/", header)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{how}: {answer}");
        assert!(answer.contains("x-served-by: a\r\n"), "{how}: {answer}");
    }
    for headers in fleet.upstreams[0].seen() {
        assert_eq!(headers.get_all(HEADER).iter().collect::<Vec<_>>(), ["a"]);
    }
    assert_eq!(fleet.counts(), [FORGERIES.len(), 0]);
}

/// Whatever is switched off: the filter taken out, or disabled for the virtual host
/// or for the route that follows the header.
#[tokio::test]
async fn a_client_cannot_choose_a_cluster_where_the_filter_is_not() {
    let disabled = json!({ "paceline": {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true,
    }});
    let host = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0");
    for (place, value) in [
        (format!("{HTTP_FILTERS}/0"), Value::Null),
        (format!("{host}/typed_per_filter_config"), disabled.clone()),
        (format!("{host}/routes/0/typed_per_filter_config"), disabled),
    ] {
        let config = json!({ "upstreams": [{ "cluster": "a" }] });
        let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
            topology.amendments = vec![
                (place.clone(), value.clone()),
                // What is not routed goes to `a` alone.
                (format!("{host}/routes/1/route/cluster"), json!("a")),
            ];
        })
        .await;
        for (how, header) in FORGERIES {
            let answer = raw(fleet.gateway.address(), &forged("/", header)).await;
            assert!(
                answer.contains("x-served-by: a\r\n"),
                "{place} {how}: {answer}"
            );
        }
        assert_eq!(fleet.counts(), [FORGERIES.len(), 0], "{place}");
        // Nor an endpoint.
        let endpoint = format!(
            "x-gateway-destination-endpoint: {}\r\n",
            fleet.upstreams[1].address
        );
        raw(fleet.gateway.address(), &forged("/", &endpoint)).await;
        let seen = fleet.upstreams[0].seen();
        assert!(
            seen.iter()
                .all(|headers| !headers.contains_key("x-gateway-destination-endpoint"))
        );
    }
}

#[tokio::test]
async fn what_passes_through_takes_the_fallback_route_without_the_header() {
    let fleet = Fleet::start(2, Behaviour::OK, &pool_for_v1()).await;
    for (how, header) in FORGERIES {
        let answer = raw(fleet.gateway.address(), &forged("/other", header)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{how}: {answer}");
    }
    for upstream in &fleet.upstreams {
        assert!(
            upstream
                .seen()
                .iter()
                .all(|headers| headers.get(HEADER).is_none())
        );
    }
    let reason = [("reason", "no_pool")];
    let passed = fleet.counter("paceline_pass_through_total", &reason).await;
    assert_eq!(passed, FORGERIES.len() as u64);
    assert_eq!(fleet.counter("paceline_picks_total", &[]).await, 0);
    assert_eq!(fleet.counts().iter().sum::<usize>(), FORGERIES.len());
}

#[tokio::test]
async fn the_fallback_route_reaches_every_upstream() {
    let fleet = Fleet::start(3, Behaviour::OK, &pool_for_v1()).await;
    let mut connection = fleet.connect().await;
    // All are idle, so each is picked with probability 1/3. That one of three
    // is missed has probability 3 x (2/3)^60, about 1e-10.
    for _ in 0..60 {
        assert_eq!(
            connection
                .request(request("GET", "/other", &[]))
                .await
                .status,
            200
        );
    }
    assert!(
        fleet.counts().iter().all(|count| *count > 0),
        "{:?}",
        fleet.counts()
    );
}

#[tokio::test]
async fn the_first_pool_that_matches_takes_the_request() {
    let config = json!({ "pools": [
        {
            "name": "completions",
            "match": { "path_prefix": "/v1", "headers": { "x-model": "small" } },
            "upstreams": [{ "cluster": "a" }],
        },
        {
            "name": "v1",
            "match": { "path_prefix": "/v1" },
            "upstreams": [{ "cluster": "b" }],
        },
        { "name": "rest", "upstreams": [{ "cluster": "c" }] },
    ]});
    let fleet = Fleet::start(3, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    for (path, model, server) in [
        ("/v1/chat", "small", "a"),
        ("/v1/chat", "large", "b"),
        ("/status", "small", "c"),
    ] {
        let answer = connection
            .request(request("GET", path, &[("x-model", model)]))
            .await;
        assert_eq!(answer.served_by(), server, "{path} {model}");
    }
    for pool in ["completions", "v1", "rest"] {
        assert_eq!(
            fleet
                .counter("paceline_picks_total", &[("pool", pool)])
                .await,
            1,
            "{pool}"
        );
    }
}

#[tokio::test]
async fn another_route_header_is_kept_from_clients_too() {
    let config = json!({ "upstreams": [{ "cluster": "a" }], "route_header": "x-other" });
    let fleet = Fleet::start(1, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    let answer = connection
        .request(request("GET", "/", &[("x-other", "forged")]))
        .await;
    assert_eq!(answer.status, 200);
    let seen = fleet.upstreams[0].seen();
    assert_eq!(seen[0].get_all("x-other").iter().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn header_bytes_that_are_not_utf_8_do_no_harm() {
    let config = json!({ "pools": [{
        "name": "named",
        "match": { "headers": { "x-model": "small" } },
        "upstreams": [{ "cluster": "a" }],
    }]});
    let fleet = Fleet::start(1, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    let mut odd = request("GET", "/", &[]);
    let value = hyper::header::HeaderValue::from_bytes(b"\xff\xfe small").unwrap();
    odd.headers_mut().insert("x-model", value);
    assert_eq!(connection.request(odd).await.status, 200);
    let reason = [("reason", "no_pool")];
    assert_eq!(
        fleet.counter("paceline_pass_through_total", &reason).await,
        1
    );
    assert_eq!(
        connection
            .request(request("GET", "/", &[("x-model", "small")]))
            .await
            .status,
        200
    );
    assert_eq!(fleet.counter("paceline_picks_total", &[]).await, 1);
}
