//! The state that the filter tells, on a real Envoy with two workers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Connection, request};
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// Upstreams behind two workers that tell their state.
async fn fleet(count: usize, behaviour: Behaviour, config: &Value) -> Fleet {
    Fleet::start_with(count, behaviour, paceline(config), |topology| {
        topology.workers = 2;
        topology.status = true;
    })
    .await
}

async fn ask(fleet: &Fleet, method: &str, path: &str, accept: &str) -> Answer {
    let address = fleet.gateway.status_address().await.unwrap();
    let mut connection = Connection::open(address).await;
    let headers = [("accept", accept)];
    connection.request(request(method, path, &headers)).await
}

async fn state(fleet: &Fleet) -> Value {
    let answer = ask(fleet, "GET", "/paceline?format=json", "*/*").await;
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

/// One entry of each upstream of the only pool.
fn of_upstreams<'a>(state: &'a Value, key: &str) -> Vec<&'a Value> {
    let upstreams = state["pools"][0]["upstreams"].as_array().unwrap();
    upstreams.iter().map(|it| &it[key]).collect()
}

#[tokio::test]
async fn counts_of_both_workers_are_true() {
    let mut fleet = fleet(3, Behaviour::Hold, &one_pool(3, "least_request")).await;
    let before = state(&fleet).await;
    assert_eq!(before["version"], 1);
    assert_eq!(of_upstreams(&before, "in_flight"), [0, 0, 0]);
    assert_eq!(before["pools"][0]["policy"], "least_request");
    assert_eq!(before["workers"], json!([]), "none has had a request");

    let mut held = Vec::new();
    for connection in fleet.connect_to_each_worker().await {
        held.push(fleet.hold_on(connection).await);
    }
    held.extend(fleet.hold(4).await);
    let now = eventually("six in flight", SOON, async || {
        let now = state(&fleet).await;
        let counts = of_upstreams(&now, "in_flight");
        (counts == [2, 2, 2])
            .then(|| now.clone())
            .ok_or(now.to_string())
    })
    .await;
    assert_eq!(of_upstreams(&now, "name"), ["a", "b", "c"]);
    let workers = now["workers"].as_array().unwrap();
    let in_flight: Vec<u64> = workers
        .iter()
        .map(|it| it["in_flight"].as_u64().unwrap())
        .collect();
    assert_eq!(in_flight.len(), 2, "{now}");
    assert_eq!(in_flight.iter().sum::<u64>(), 6, "{now}");

    for it in held {
        it.arrival.answer(200);
        assert_eq!(it.response.answer().await.status, 200);
    }
    eventually("none in flight", SOON, async || {
        let now = state(&fleet).await;
        let paces = of_upstreams(&now, "pace");
        let is_done = of_upstreams(&now, "in_flight") == [0, 0, 0]
            && paces
                .iter()
                .all(|pace| pace["measured"].as_f64() > Some(0.0));
        is_done.then_some(()).ok_or(now.to_string())
    })
    .await;
}

#[tokio::test]
async fn decisions_of_all_workers_are_told_to_those_who_look() {
    let fleet = fleet(2, Behaviour::OK, &one_pool(2, "round_robin")).await;
    let mut connections = fleet.connect_to_each_worker().await;
    eventually("decisions of two workers", SOON, async || {
        for connection in &mut connections {
            connection.get().await;
        }
        let now = state(&fleet).await;
        let decisions = now["decisions"].as_array().unwrap();
        let by_lane = |lane: u64| decisions.iter().find(|it| it["lane"] == lane);
        let (Some(one), Some(_)) = (by_lane(0), by_lane(1)) else {
            return Err(now.to_string());
        };
        assert_eq!(one["pool"], "default");
        let text = one["decision"].as_str().unwrap();
        assert!(text.starts_with("upstream="), "{text}");
        assert!(text.contains("; policy=round_robin; "), "{text}");
        assert!(text.ends_with("; reason=policy"), "{text}");
        assert!(one["age"].as_f64() < Some(10.0));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_fails_is_told_with_the_reason() {
    let behaviour = Behaviour::after(Duration::from_millis(2));
    let fleet = fleet(4, behaviour, &one_pool(4, "least_request")).await;
    fleet.upstreams[1].set(Behaviour::failing(503));
    fleet.load(4, 50).await;
    let now = eventually("b to be ejected", SOON, async || {
        fleet.load(4, 10).await;
        let now = state(&fleet).await;
        let is_out = of_upstreams(&now, "state")[1] == "ejected";
        is_out.then(|| now.clone()).ok_or(now.to_string())
    })
    .await;
    assert_eq!(of_upstreams(&now, "state"), ["in", "ejected", "in", "in"]);
    let ejected = &now["pools"][0]["upstreams"][1];
    assert!(ejected["reason"].is_string(), "{ejected}");
    assert!(ejected["out_for"].as_f64() > Some(0.0), "{ejected}");
    let others = &now["pools"][0]["upstreams"][0];
    assert_eq!(others["reason"], Value::Null);
    let now = eventually("quantiles", SOON, async || {
        let now = state(&fleet).await;
        let p99 = now["pools"][0]["upstreams"][0]["latency"]["p99"].as_f64();
        p99.map(|_| now.clone()).ok_or(now.to_string())
    })
    .await;
    let latency = &now["pools"][0]["upstreams"][0]["latency"];
    let [p50, p99] = ["p50", "p99"].map(|key| latency[key].as_f64().unwrap());
    assert!(0.002 <= p50 * 1.05 && p50 <= p99 && p99 < 10.0, "{latency}");
}

#[tokio::test]
async fn a_browser_gets_a_page_and_others_json() {
    let fleet = fleet(1, Behaviour::OK, &one_pool(1, "random")).await;
    let json = ask(&fleet, "GET", "/paceline", "*/*").await;
    assert_eq!(json.header("content-type"), "application/json");
    assert_eq!(json.header("cache-control"), "no-store");
    let head = ask(&fleet, "HEAD", "/paceline", "*/*").await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    let refused = ask(&fleet, "POST", "/paceline", "*/*").await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.header("allow"), "GET, HEAD");
    let elsewhere = ask(&fleet, "GET", "/paceline/", "*/*").await;
    assert_eq!(elsewhere.status, 404, "Envoy's own answer");
    assert_eq!(elsewhere.body, "see /paceline\n");
    let ingress = fleet.get_in_turn(1).await;
    assert_eq!(ingress[0].status, 200);
    let mut client = fleet.connect().await;
    let public = client.request(request("GET", "/paceline", &[])).await;
    assert_eq!(public.served_by(), "a", "never on the listener for clients");
}
