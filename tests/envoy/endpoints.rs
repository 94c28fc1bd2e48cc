//! The endpoints of one cluster, balanced one by one: listed or discovered, coming
//! and going while requests are under way.

use std::collections::BTreeSet;
use std::time::Duration;

use lab::gateway::{ENDPOINTS_CLUSTER, Gateway, Topology, Upstream as Server};
use serde_json::{Value, json};

use crate::support::client::{Connection, raw, request};
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{SOON, eventually};

const HEADER: &str = "x-gateway-destination-endpoint";

async fn start(count: usize, behaviour: Behaviour, config: &Value) -> Fleet {
    Fleet::start_with(count, behaviour, paceline(config), |topology| {
        topology.workers = 2;
        topology.endpoints = true;
        topology.retries = true;
    })
    .await
}

fn discovering(policy: &str) -> Value {
    json!({ "cluster": ENDPOINTS_CLUSTER, "policy": policy, "lease": "5m" })
}

/// Lets Envoy have just these as endpoints of the cluster.
async fn serve_with(fleet: &mut Fleet, upstreams: std::ops::Range<usize>) {
    let servers: Vec<_> = fleet.upstreams[upstreams]
        .iter()
        .map(|upstream| Server {
            name: upstream.name.clone(),
            address: upstream.address,
        })
        .collect();
    fleet.gateway.set_endpoints(&servers).await.unwrap();
}

fn address(upstream: &Upstream) -> String {
    upstream.address.to_string()
}

/// The first choices of all requests until now.
fn first_choices(fleet: &Fleet) -> BTreeSet<String> {
    let seen = fleet.upstreams.iter().flat_map(Upstream::seen);
    let lists = seen.filter_map(|headers| Some(headers.get(HEADER)?.to_str().unwrap().to_owned()));
    lists
        .map(|list| list.split(',').next().unwrap().to_owned())
        .collect()
}

/// Sends requests until these are the endpoints that are picked.
async fn expect_known(fleet: &Fleet, upstreams: std::ops::Range<usize>) {
    let expected: BTreeSet<_> = fleet.upstreams[upstreams].iter().map(address).collect();
    let picks = async || {
        let stats = fleet.gateway.stats().await.unwrap();
        stats.by_label("paceline_picks_total", "upstream")
    };
    eventually("the endpoints to be known", SOON, async || {
        let before = picks().await;
        let statuses = fleet.load(8, 10).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        let mut picked = picks().await;
        picked.retain(|address, picks| *picks > before.get(address).copied().unwrap_or(0));
        let picked: BTreeSet<_> = picked.into_keys().collect();
        if picked == expected {
            Ok(())
        } else {
            Err(format!("{picked:?}, not {expected:?}"))
        }
    })
    .await;
}

/// Nothing is left in flight, and whatever was counted has ended once.
async fn expect_at_rest(fleet: &Fleet) {
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    let counted = stats.total("paceline_picks_total") + stats.total("paceline_adoptions_total");
    assert_eq!(stats.total("paceline_outcomes_total"), counted);
    assert_eq!(stats.total("paceline_state_errors_total"), 0);
    assert_eq!(stats.total("paceline_pass_through_total"), 0);
}

#[tokio::test]
async fn listed_endpoints_are_picked_by_the_policy() {
    // The addresses are known only once the servers run.
    let mut fleet = Fleet::start_with(
        3,
        Behaviour::OK,
        paceline(&discovering("random")),
        |topology| {
            topology.endpoints = true;
            topology.reloadable = true;
            let listed: Vec<_> = topology
                .upstreams
                .iter()
                .map(|it| it.address.to_string())
                .collect();
            let config = json!({
                "cluster": ENDPOINTS_CLUSTER,
                "endpoints": [listed[0], { "address": listed[1], "weight": 2 }],
                "policy": "weighted_round_robin",
                "explain": true,
            });
            topology.balancing = paceline(&config);
        },
    )
    .await;
    let answers = fleet.get_in_turn(30).await;
    assert_eq!(fleet.counts(), [10, 20, 0]);
    let first = address(&fleet.upstreams[0]);
    let decisions: Vec<_> = answers
        .iter()
        .map(|it| it.header("x-paceline-decision"))
        .collect();
    let named = decisions
        .iter()
        .filter(|it| it.contains(&format!("upstream={first}")));
    assert_eq!(named.count(), 10, "{decisions:?}");
    for upstream in &fleet.upstreams[..2] {
        for headers in upstream.seen() {
            let list = headers[HEADER].to_str().unwrap();
            assert!(list.starts_with(&address(upstream)), "{list}");
            assert_eq!(list.split(',').count(), 2, "{list}");
        }
    }
    assert_eq!(fleet.counter("paceline_explorations_total", &[]).await, 0);
    expect_at_rest(&fleet).await;
    // Where the listed ones are gone, Envoy falls back, and says who served.
    serve_with(&mut fleet, 2..3).await;
    let answer = fleet.get_in_turn(1).await.remove(0);
    assert_eq!(answer.served_by(), "c");
    let served = format!("served_by={}", address(&fleet.upstreams[2]));
    assert!(answer.header("x-paceline-decision").ends_with(&served));
    let gone = fleet
        .counter("paceline_outcomes_total", &[("outcome", "unavailable")])
        .await;
    assert_eq!(gone, 1);
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn endpoints_are_discovered_and_forgotten() {
    let mut fleet = start(6, Behaviour::OK, &discovering("round_robin")).await;
    serve_with(&mut fleet, 0..3).await;
    expect_known(&fleet, 0..3).await;
    serve_with(&mut fleet, 0..6).await;
    expect_known(&fleet, 0..6).await;
    serve_with(&mut fleet, 4..6).await;
    expect_known(&fleet, 4..6).await;
    expect_at_rest(&fleet).await;
}

#[tokio::test]
async fn the_workers_share_what_they_discover() {
    let fleet = start(3, Behaviour::OK, &discovering("round_robin")).await;
    let mut connections = fleet.connect_to_each_worker().await;
    let [first, second] = connections.as_mut_slice() else {
        panic!("two workers")
    };
    let all: BTreeSet<_> = fleet.upstreams.iter().map(address).collect();
    eventually("one worker to know all", SOON, async || {
        first.get().await;
        let known = first_choices(&fleet);
        if known == all {
            Ok(())
        } else {
            Err(format!("{known:?}"))
        }
    })
    .await;
    // The other has served nothing, and is told with a tick.
    eventually("the other to pick at once", SOON, async || {
        let before = fleet.counter("paceline_explorations_total", &[]).await;
        for _ in 0..3 {
            second.get().await;
        }
        let explored = fleet.counter("paceline_explorations_total", &[]).await - before;
        if explored < 3 {
            Ok(())
        } else {
            Err(format!("{explored} of 3"))
        }
    })
    .await;
    expect_at_rest(&fleet).await;
}

#[tokio::test]
async fn an_endpoint_killed_under_load_costs_no_error() {
    for policy in ["round_robin", "shortest_expected_delay"] {
        let busy = Behaviour::after(Duration::from_millis(10));
        let fleet = start(4, busy, &discovering(policy)).await;
        expect_known(&fleet, 0..4).await;
        let before = fleet.upstreams[1].count();
        let killed = async {
            while fleet.upstreams[1].count() < before + 10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fleet.upstreams[1].stop();
        };
        let (statuses, ()) = tokio::join!(fleet.load(16, 40), killed);
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        expect_at_rest(&fleet).await;
        let stats = fleet.gateway.stats().await.unwrap();
        let retried = |upstream: &Upstream| {
            let upstream = address(upstream);
            let labels = [("outcome", "retried"), ("upstream", upstream.as_str())];
            stats.sum("paceline_outcomes_total", &labels)
        };
        let retried: Vec<_> = fleet.upstreams.iter().map(retried).collect();
        assert!(retried[1] > 0, "{retried:?}");
        assert_eq!(retried.iter().sum::<u64>(), retried[1], "{retried:?}");
    }
}

/// As soon as an answer begins, its request counts where it comes from.
#[tokio::test]
async fn a_request_counts_where_it_is_served() {
    let mut fleet = start(3, Behaviour::OK, &discovering("least_request")).await;
    expect_known(&fleet, 0..3).await;
    fleet.set(Behaviour::Hold);
    let connection = fleet.connect().await;
    let held = fleet.hold_on(connection).await;
    let picked = held.upstream().to_owned();
    held.arrival.answer(503);
    let second = fleet.arrival().await;
    assert_ne!(second.upstream, picked);
    let serving = second.upstream.clone();
    let serving = fleet
        .upstreams
        .iter()
        .find(|it| it.name == serving)
        .unwrap();
    let serving = address(serving);
    let body = second.begin_answer();
    eventually(
        "the request to count where it is served",
        SOON,
        async || {
            let stats = fleet.gateway.stats().await.unwrap();
            let mut gauges = stats.by_label("paceline_in_flight", "upstream");
            gauges.retain(|_, requests| *requests > 0);
            let expected = [(serving.clone(), 1)].into();
            if gauges == expected {
                Ok(())
            } else {
                Err(format!("{gauges:?}"))
            }
        },
    )
    .await;
    drop(body);
    assert_eq!(held.response.answer().await.status, 200);
    expect_at_rest(&fleet).await;
}

#[tokio::test]
async fn what_is_forgotten_in_flight_is_released() {
    let mut fleet = start(3, Behaviour::OK, &discovering("least_request")).await;
    serve_with(&mut fleet, 0..2).await;
    expect_known(&fleet, 0..2).await;
    fleet.set(Behaviour::Hold);
    let before = fleet.counter("paceline_explorations_total", &[]).await;
    let held = fleet.hold(8).await;
    // What is left to Envoy is counted when its answer begins.
    let explored = fleet.counter("paceline_explorations_total", &[]).await - before;
    let picked = 8 - explored;
    // That all are has probability 8^-8.
    assert!(picked > 0);
    fleet.expect_in_flight(picked, SOON).await;
    fleet.upstreams[2].set(Behaviour::OK);
    serve_with(&mut fleet, 2..3).await;
    expect_known(&fleet, 2..3).await;
    fleet.expect_in_flight(picked, SOON).await;
    for held in held {
        held.arrival.answer(200);
        assert_eq!(held.response.answer().await.status, 200);
    }
    expect_at_rest(&fleet).await;
}

#[tokio::test]
async fn what_is_known_survives_a_reload() {
    let config = discovering("round_robin");
    let mut fleet = Fleet::start_with(3, Behaviour::OK, paceline(&config), |topology| {
        topology.endpoints = true;
        topology.reloadable = true;
        topology.drain_time = Duration::from_secs(1);
    })
    .await;
    expect_known(&fleet, 0..3).await;
    fleet.topology.balancing = paceline(&discovering("least_request"));
    let topology = fleet.topology.clone();
    fleet.gateway.reconfigure(&topology).await.unwrap();
    // While nobody answers, nothing can be found anew.
    fleet.set(Behaviour::Hold);
    let before = fleet.counter("paceline_explorations_total", &[]).await;
    let held = fleet.hold(8).await;
    let explored = fleet.counter("paceline_explorations_total", &[]).await - before;
    // Of what is known, all explore with probability 12^-8.
    assert!(explored < 8, "nothing was known");
    for held in held {
        held.arrival.answer(200);
        assert_eq!(held.response.answer().await.status, 200);
    }
    expect_at_rest(&fleet).await;
}

#[tokio::test]
async fn a_client_cannot_choose_an_endpoint() {
    let fleet = start(2, Behaviour::OK, &discovering("round_robin")).await;
    let forged = address(&fleet.upstreams[0]);
    let mut served = BTreeSet::new();
    // The first are left to Envoy and the later ones picked: none follows the
    // client. That all 40 go to one of two by chance has probability 2^-39.
    for _ in 0..40 {
        let text = format!(
            "GET / HTTP/1.1\r\nhost: models\r\n{HEADER}: {forged}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(fleet.gateway.address(), &text).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        served.insert(answer.contains("x-served-by: a\r\n"));
    }
    assert_eq!(served.len(), 2);
    for upstream in &fleet.upstreams {
        for headers in upstream.seen() {
            let list = headers.get(HEADER).map(|list| list.to_str().unwrap());
            assert!(
                list.is_none_or(|list| list.starts_with(&address(upstream))),
                "{list:?}"
            );
        }
    }
}

#[tokio::test]
async fn endpoints_may_have_ipv6_addresses() {
    let mut upstreams = Vec::new();
    for name in ["a", "b"] {
        upstreams.push(Upstream::start_at(name, "::1".parse().unwrap(), Behaviour::OK).await);
    }
    let servers = upstreams.iter().map(|it| (it.name.clone(), it.address));
    let config = discovering("round_robin");
    let mut topology = Topology::new(servers, paceline(&config));
    topology.endpoints = true;
    // Never in a container: networks of containers have no IPv6 unless asked for.
    let gateway = Gateway::start(&topology).await.unwrap();
    let mut connection = Connection::open(gateway.address()).await;
    let all: BTreeSet<_> = upstreams.iter().map(address).collect();
    assert!(all.iter().all(|it| it.starts_with("[::1]:")), "{all:?}");
    eventually("both to be picked", SOON, async || {
        let answer = connection.request(request("GET", "/", &[])).await;
        assert_eq!(answer.status, 200);
        let stats = gateway.stats().await.unwrap();
        let picks = stats.by_label("paceline_picks_total", "upstream");
        let picked: BTreeSet<_> = picks
            .into_iter()
            .filter(|it| it.1 > 0)
            .map(|it| it.0)
            .collect();
        if picked == all {
            Ok(())
        } else {
            Err(format!("{picked:?}"))
        }
    })
    .await;
}
