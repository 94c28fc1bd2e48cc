//! Who really served a request: another route than the pool's, a neighbour in
//! place of an unhealthy server, the server of a retry.

use std::time::Duration;

use lab::gateway::{ENDPOINTS_CLUSTER, Topology, Upstream as Server};
use serde_json::{Value, json};

use crate::support::client::{Answer, request};
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{SOON, eventually};

/// Upstreams, and a server that another route leads to.
async fn beside_another(
    count: usize,
    config: &Value,
    adjust: impl FnOnce(&mut Topology),
) -> (Fleet, Upstream) {
    let app = Upstream::start("app", Behaviour::OK).await;
    let other = Server {
        name: app.name.clone(),
        address: app.address,
    };
    let fleet = Fleet::start_with(count, Behaviour::OK, paceline(config), |topology| {
        topology.other = Some(other);
        adjust(topology);
    })
    .await;
    (fleet, app)
}

/// Sends so many requests, of which every second is for the other route.
async fn load_both(fleet: &Fleet, count: usize) -> Vec<Answer> {
    let mut connection = fleet.connect().await;
    let mut answers = Vec::new();
    for number in 0..count {
        let path = ["/app/page", "/infer"][number % 2];
        answers.push(connection.request(request("GET", path, &[])).await);
    }
    answers
}

async fn outcome(fleet: &Fleet, upstream: &str, outcome: &str) -> u64 {
    let labels = [("upstream", upstream), ("outcome", outcome)];
    fleet.counter("paceline_outcomes_total", &labels).await
}

#[tokio::test]
async fn what_another_route_serves_is_no_endpoint_of_the_pool() {
    let config = json!({ "cluster": ENDPOINTS_CLUSTER });
    let (fleet, app) = beside_another(2, &config, |topology| {
        topology.endpoints = true;
        topology.retries = true;
    })
    .await;
    let answers = load_both(&fleet, 400).await;
    let of_app = answers.iter().filter(|it| it.served_by() == "app").count();
    assert_eq!(of_app, 200);
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    for metric in ["paceline_picks_total", "paceline_adoptions_total"] {
        let upstreams = stats.by_label(metric, "upstream");
        assert!(
            !upstreams.contains_key(&app.address.to_string()),
            "{upstreams:?}"
        );
        assert_eq!(upstreams.len(), 2, "{upstreams:?}");
    }
    let outcomes = stats.by_label("paceline_outcomes_total", "outcome");
    let explored = stats.total("paceline_explorations_total");
    // Those that were picked before the other route took them, and no endpoint
    // was taken for gone on that account.
    assert_eq!(outcomes.get("unavailable").copied().unwrap_or(0), 0);
    assert!(outcomes["not_routed"] + explored >= 200, "{outcomes:?}");
    assert!(outcomes["success"] >= 200 - explored, "{outcomes:?}");
}

#[tokio::test]
async fn what_another_route_serves_teaches_nothing() {
    let config = one_pool(2, "shortest_expected_delay");
    let (fleet, app) = beside_another(2, &config, |topology| topology.retries = true).await;
    let slow = Duration::from_millis(20);
    fleet.set(Behaviour::after(slow));
    load_both(&fleet, 100).await;
    app.set(Behaviour::failing(500));
    load_both(&fleet, 100).await;
    app.stop();
    let answers = load_both(&fleet, 20).await;
    assert!(answers.iter().any(|it| it.status == 503), "nobody answers");
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    let outcomes = stats.by_label("paceline_outcomes_total", "outcome");
    let counted: Vec<_> = outcomes.iter().filter(|(_, count)| **count > 0).collect();
    // The very first answers may come from anywhere: until one has come from the
    // picked cluster, routes may lead from the names of upstreams to others'.
    let (elsewhere, here) = (outcomes["not_routed"], outcomes["success"]);
    assert!((109..=110).contains(&elsewhere), "{counted:?}");
    assert_eq!(elsewhere + here, 220, "{counted:?}");
    // And of what is measured, all is slow.
    for upstream in ["a", "b"] {
        let median = [("upstream", upstream), ("quantile", "0.5")];
        eventually("the median to be a slow server's", SOON, async || {
            let name = "paceline_latency_quantile_milliseconds";
            match fleet.counter(name, &median).await {
                18.. => Ok(()),
                other => Err(format!("{upstream}: {other} ms")),
            }
        })
        .await;
    }
}

/// Stops servers, and waits until Envoy's health checks have seen it.
async fn kill(fleet: &Fleet, servers: &[usize]) {
    for server in servers {
        fleet.upstreams[*server].stop();
    }
    for server in servers {
        let name = format!(
            "cluster.{}-servers.membership_healthy",
            fleet.upstreams[*server].name
        );
        eventually("Envoy to see it", SOON, async || {
            let stats = fleet.gateway.stats().await.unwrap();
            let healthy = stats.iter().find(|it| it.name == name).map(|it| it.value);
            match healthy {
                Some(0) => Ok(()),
                other => Err(format!("{name}: {other:?}")),
            }
        })
        .await;
    }
}

async fn checked(count: usize, policy: &str, names_upstreams: bool) -> Fleet {
    let mut config = one_pool(count, policy);
    // What is dead is to be picked again and again.
    config["outlier_detection"] = "off".into();
    Fleet::start_with(count, Behaviour::OK, paceline(&config), |topology| {
        topology.retries = true;
        topology.health_checks = true;
        topology.names_upstreams = names_upstreams;
    })
    .await
}

/// An aggregate passes over a server that Envoy finds unhealthy, at the first try
/// and without a word. Its neighbour's answer is no success of the dead one's.
#[tokio::test]
async fn what_a_neighbour_serves_is_no_success_of_an_unhealthy_server() {
    // Metadata tell from the start; without, it takes a life before the death.
    for names_upstreams in [true, false] {
        let fleet = checked(4, "round_robin", names_upstreams).await;
        if !names_upstreams {
            fleet.load(1, 40).await;
        }
        let before = outcome(&fleet, "a", "success").await;
        kill(&fleet, &[0, 1]).await;
        let statuses = fleet.load(4, 40).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        fleet.expect_in_flight(0, SOON).await;
        let stats = fleet.gateway.stats().await.unwrap();
        let case = format!("with metadata: {names_upstreams}, {before} before");
        let of = |name, outcome| {
            stats.sum(
                "paceline_outcomes_total",
                &[("upstream", name), ("outcome", outcome)],
            )
        };
        for dead in ["a", "b"] {
            assert_eq!(of(dead, "unavailable"), 40, "{dead}, {case}");
            assert_eq!(of(dead, "success"), before, "{dead}, {case}");
        }
        // Both have `c` behind them.
        let adopted = |name| stats.sum("paceline_adoptions_total", &[("upstream", name)]);
        assert_eq!(["c", "d"].map(adopted), [80, 0], "{case}");
        assert_eq!(of("c", "success"), before + 120, "{case}");
        assert_eq!(of("d", "success"), before + 40, "{case}");
    }
}

#[tokio::test]
async fn an_unhealthy_server_is_soon_left_alone() {
    let fleet = checked(4, "shortest_expected_delay", true).await;
    kill(&fleet, &[0]).await;
    fleet.load(4, 100).await;
    let picks = fleet
        .counter("paceline_picks_total", &[("upstream", "a")])
        .await;
    // A fair share would be 100.
    assert!(picks < 25, "{picks} picks of the dead server");
    assert_eq!(outcome(&fleet, "a", "unavailable").await, picks);
}

#[tokio::test]
async fn a_request_counts_at_the_neighbour_as_soon_as_it_answers() {
    let mut fleet = checked(2, "round_robin", true).await;
    kill(&fleet, &[0]).await;
    fleet.set(Behaviour::Hold);
    let held = fleet.hold(2).await;
    let in_flight = async |expected: [u64; 2]| {
        eventually("the gauges", SOON, async || {
            let stats = fleet.gateway.stats().await.unwrap();
            let gauge = |name| stats.sum("paceline_in_flight", &[("upstream", name)]);
            let gauges = ["a", "b"].map(gauge);
            match gauges == expected {
                true => Ok(()),
                false => Err(format!("{gauges:?}")),
            }
        })
        .await;
    };
    in_flight([1, 1]).await;
    let mut answers = Vec::new();
    for held in held {
        assert_eq!(held.upstream(), "b");
        answers.push((held.arrival.begin_answer(), held.response, held.connection));
    }
    in_flight([0, 2]).await;
    for (body, response, _connection) in answers {
        drop(body);
        assert_eq!(response.answer().await.status, 200);
    }
    in_flight([0, 0]).await;
}

/// What the server of a retry says is its own: `a` fails, and `b` is to be left
/// alone.
#[tokio::test]
async fn the_server_of_a_retry_is_the_one_that_asks_for_time() {
    let config = one_pool(3, "shortest_expected_delay");
    let mut fleet = Fleet::start_with(3, Behaviour::Hold, paceline(&config), |topology| {
        topology.retries = true;
    })
    .await;
    let connection = fleet.connect().await;
    let held = fleet.hold_on(connection).await;
    let picked = held.upstream().to_owned();
    let busy = Behaviour::Answer {
        status: 429,
        after: Duration::ZERO,
        retry_after: Some(60),
    };
    fleet.set(busy);
    held.arrival.reset();
    let answer = held.response.answer().await;
    assert_eq!(answer.status, 429);
    let serving = answer.served_by().to_owned();
    assert_ne!(serving, picked);
    fleet.expect_in_flight(0, SOON).await;
    assert_eq!(outcome(&fleet, &picked, "retried").await, 1);
    assert_eq!(outcome(&fleet, &serving, "rejected").await, 1);
    fleet.set(Behaviour::OK);
    let answers = fleet.get_in_turn(60).await;
    let served = answers.iter().filter(|it| it.served_by() == serving);
    assert_eq!(served.count(), 0, "it had asked for a minute");
}

/// Envoy says 503 by itself for an endpoint that cannot be reached. Without
/// retries, too, three of those are enough.
#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_forgotten_without_retries() {
    let config = json!({ "cluster": ENDPOINTS_CLUSTER, "policy": "round_robin" });
    let fleet = Fleet::start_with(3, Behaviour::OK, paceline(&config), |topology| {
        topology.endpoints = true;
        topology.retries = false;
    })
    .await;
    let dead = fleet.upstreams[0].address.to_string();
    let picks = async || {
        fleet
            .counter("paceline_picks_total", &[("upstream", &dead)])
            .await
    };
    eventually("it to be picked", SOON, async || {
        fleet.load(1, 10).await;
        match picks().await {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    fleet.upstreams[0].stop();
    let before = picks().await;
    fleet.load(1, 60).await;
    let after = picks().await - before;
    // One may have been answered before it stopped.
    assert!(
        (3..=4).contains(&after),
        "{after} picks of what cannot be reached"
    );
    fleet.expect_in_flight(0, SOON).await;
}
