//! A server that is not ready gets no request, and a pool never suffers from asking.

use lab::gateway::{Gateway, Topology};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::load::Load;
use crate::support::place::place;
use crate::support::upstream::{Behaviour, Health, Upstream};
use crate::support::{SOON, eventually};

/// One pool of so many upstreams that are asked often.
pub(crate) fn checked(count: usize, policy: &str) -> Value {
    let mut config = one_pool(count, policy);
    config["health_check"] = json!({
        "path": "/health",
        "interval": "250ms",
        "timeout": "200ms",
        "cluster_suffix": "-servers",
        "json_pointer": "/status",
        "equals": "ready",
    });
    config
}

/// So many servers behind two workers of a gateway that can be reconfigured.
async fn fleet(count: usize, config: &Value, retries: bool) -> Fleet {
    Fleet::start_with(count, Behaviour::OK, paceline(config), |topology| {
        topology.workers = 2;
        topology.reloadable = true;
        topology.retries = retries;
    })
    .await
}

impl Fleet {
    /// Waits until the gauges say that exactly these are ready.
    pub(crate) async fn expect_ready(&self, ready: &[&str]) {
        let expected: BTreeMap<String, u64> = self
            .upstreams
            .iter()
            .map(|it| (it.name.clone(), u64::from(ready.contains(&&*it.name))))
            .collect();
        eventually(&format!("{ready:?} to be ready"), SOON, async || {
            let stats = self.gateway.stats().await.unwrap();
            let mut shown = stats.by_label("paceline_ready", "upstream");
            for upstream in &self.upstreams {
                shown.entry(upstream.name.clone()).or_default();
            }
            shown.retain(|name, ready| *ready > 0 || expected.contains_key(name));
            (shown == expected)
                .then_some(())
                .ok_or(format!("{shown:?}"))
        })
        .await;
    }

    /// Waits until the servers have been asked so often more, and the gauges had time
    /// to follow.
    pub(crate) async fn expect_probes(&self, outcome: &str, upstream: &str) {
        let labels = [("upstream", upstream), ("outcome", outcome)];
        let before = self.counter("paceline_probes_total", &labels).await;
        eventually(&format!("{outcome} of {upstream}"), SOON, async || {
            let now = self.counter("paceline_probes_total", &labels).await;
            (now >= before + 2).then_some(()).ok_or(format!("{now}"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_that_loads_joins_under_load_when_it_has_loaded() {
    for loading in [Health::Hangs, Health::UNAVAILABLE, Health::LOADING] {
        let mut fleet = fleet(3, &checked(2, "least_request"), false).await;
        fleet.upstreams[2].set_health(loading.clone());
        // It takes requests and answers none.
        fleet.upstreams[2].set(Behaviour::Hold);
        fleet.expect_ready(&["a", "b"]).await;
        let load = Load::start(&fleet, 4);
        load.goes_on(50).await;

        fleet.topology.balancing = paceline(&checked(3, "least_request"));
        fleet.gateway.reconfigure(&fleet.topology).await.unwrap();
        load.goes_on(50).await;
        eventually("the new one to be asked", SOON, async || {
            let asked = fleet.upstreams[2].probes().len();
            (asked >= 3).then_some(()).ok_or(format!("{asked}"))
        })
        .await;
        load.goes_on(50).await;
        assert_eq!(fleet.upstreams[2].count(), 0, "while it loads: {loading:?}");

        fleet.upstreams[2].set(Behaviour::OK);
        fleet.upstreams[2].set_health(Health::READY);
        eventually("requests to the new one", SOON, async || {
            let count = fleet.upstreams[2].count();
            (count >= 20).then_some(()).ok_or(format!("{count}"))
        })
        .await;
        let statuses = load.stop().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[tokio::test]
async fn each_is_asked_at_its_own_server_under_its_own_name() {
    let fleet = fleet(3, &checked(3, "least_request"), false).await;
    fleet.expect_ready(&["a", "b", "c"]).await;
    for upstream in &fleet.upstreams {
        let probes = upstream.probes();
        assert!(probes.iter().all(|it| it["host"] == upstream.name.as_str()));
        assert_eq!(probes[0]["user-agent"], "paceline-health-check");
    }
    // One worker asks: not three threads in three intervals.
    fleet.expect_probes("success", "a").await;
    let stats = fleet.gateway.stats().await.unwrap();
    let counted = stats.sum("paceline_probes_total", &[("upstream", "a")]);
    let seen = fleet.upstreams[0].probes().len() as u64;
    assert!(seen <= counted + 2, "{seen} asked, {counted} counted");
}

/// With Envoy's own health checks an aggregate skips a server that is down: the next
/// one answers in its place. That is no answer of the one that was asked.
#[tokio::test]
async fn the_answer_of_the_next_server_does_not_count() {
    let fleet = Fleet::start_with(
        3,
        Behaviour::OK,
        paceline(&checked(3, "round_robin")),
        |topology| {
            topology.workers = 2;
            topology.health_checks = true;
        },
    )
    .await;
    fleet.expect_ready(&["a", "b", "c"]).await;
    fleet.upstreams[0].stop();
    fleet.expect_ready(&["b", "c"]).await;
    // Both together do no harm.
    let statuses = fleet.load(4, 25).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let labels = [("upstream", "a"), ("outcome", "success")];
    assert!(fleet.counter("paceline_probes_total", &labels).await > 0);
    fleet.expect_probes("unreachable", "a").await;
}

#[tokio::test]
async fn where_none_is_ready_all_are_used() {
    let fleet = fleet(2, &checked(2, "least_request"), false).await;
    for upstream in &fleet.upstreams {
        upstream.set_health(Health::UNAVAILABLE);
    }
    fleet.expect_ready(&[]).await;
    fleet.expect_probes("status", "b").await;
    let statuses = fleet.load(2, 20).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(fleet.counts().iter().all(|count| *count > 0));
    let passed = fleet.counter("paceline_pass_through_total", &[]).await;
    assert_eq!(passed, 0);
}

/// Clusters that Envoy does not have, or that have no server: it says so at once.
#[tokio::test]
async fn clusters_that_cannot_be_asked_hurt_nobody() {
    for (cluster, outcome) in [
        (Value::Null, "no_cluster"),
        (
            json!({ "name": "b-probes", "type": "STATIC", "connect_timeout": "1s" }),
            "unreachable",
        ),
    ] {
        let mut config = checked(2, "least_request");
        config["health_check"]["cluster_suffix"] = json!("-probes");
        let fleet = Fleet::start_with(2, Behaviour::OK, paceline(&config), |topology| {
            topology.workers = 2;
            if cluster.is_object() {
                let place = "/static_resources/clusters/-".to_owned();
                topology.amendments.push((place, cluster));
            }
        })
        .await;
        fleet.expect_probes(outcome, "b").await;
        fleet.expect_ready(&[]).await;
        let statuses = fleet.load(2, 20).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

/// Two servers as the endpoints of one cluster; upstreams are named by their addresses.
/// The filter also lists `others`, and probes go to the cluster with this suffix.
async fn endpoints(others: &[&str], suffix: Option<&str>) -> Fleet {
    let mut upstreams = [
        Upstream::start("a", Behaviour::OK).await,
        Upstream::start("b", Behaviour::OK).await,
    ];
    let servers = upstreams.each_ref().map(|it| (it.name.clone(), it.address));
    for upstream in &mut upstreams {
        upstream.name = upstream.address.to_string();
    }
    let listed = upstreams.iter().map(|it| it.name.as_str());
    let listed: Vec<&str> = listed.chain(others.iter().copied()).collect();
    let mut config = checked(0, "least_request");
    let fields = config.as_object_mut().unwrap();
    fields.remove("upstreams");
    fields.insert("cluster".to_owned(), json!("gpus"));
    fields.insert("endpoints".to_owned(), json!(listed));
    let check = fields["health_check"].as_object_mut().unwrap();
    match suffix {
        Some(suffix) => check.insert("cluster_suffix".to_owned(), json!(suffix)),
        None => check.remove("cluster_suffix"),
    };
    let mut topology = Topology::new(servers, paceline(&config));
    topology.workers = 2;
    topology.endpoints = true;
    topology.retries = false;
    if let Some(suffix) = suffix {
        // As docs/health.md recommends.
        let cluster = json!({
            "name": format!("gpus{suffix}"),
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "1s",
            "original_dst_lb_config": {
                "use_http_header": true,
                "http_header_name": "x-gateway-destination-endpoint",
            },
        });
        let place = "/static_resources/clusters/-".to_owned();
        topology.amendments.push((place, cluster));
    }
    let gateway = Gateway::start_in(place(), &topology).await.unwrap();
    Fleet {
        upstreams: upstreams.into(),
        gateway,
        topology,
    }
}

#[tokio::test]
async fn endpoints_are_asked_one_by_one() {
    let fleet = endpoints(&[], None).await;
    let [a, b] = [0, 1].map(|place: usize| fleet.upstreams[place].name.clone());
    fleet.upstreams[1].set_health(Health::LOADING);
    fleet.expect_ready(&[&a]).await;
    fleet.expect_probes("body", &b).await;
    let before = fleet.counts()[1];
    let statuses = fleet.load(2, 20).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(fleet.counts()[1], before);
    fleet.upstreams[1].set_health(Health::READY);
    fleet.expect_ready(&[&a, &b]).await;
}

/// For an address that it does not know, `override_host` lets another endpoint answer.
#[tokio::test]
async fn an_endpoint_that_is_not_there_is_not_ready_at_a_cluster_that_goes_by_the_address() {
    let gone = "127.0.0.1:1";
    let fleet = endpoints(&[gone], Some("-by-address")).await;
    let [a, b] = [0, 1].map(|place: usize| fleet.upstreams[place].name.clone());
    fleet.expect_probes("unreachable", gone).await;
    fleet.expect_ready(&[&a, &b]).await;
    let labels = [("upstream", gone), ("outcome", "success")];
    assert_eq!(fleet.counter("paceline_probes_total", &labels).await, 0);
    let statuses = fleet.load(2, 20).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let picks = [("upstream", gone)];
    assert_eq!(fleet.counter("paceline_picks_total", &picks).await, 0);
}

/// Restarts all servers, one after the other, under load. No client sees an error.
async fn restart_all(config: &Value, has_probes: bool) {
    let mut fleet = fleet(3, config, true).await;
    if has_probes {
        fleet.expect_ready(&["a", "b", "c"]).await;
    }
    let load = Load::start(&fleet, 4);
    for place in 0..3 {
        load.goes_on(30).await;
        let name = fleet.upstreams[place].name.clone();
        let address = fleet.upstreams[place].address;
        let others: Vec<&str> = ["a", "b", "c"]
            .into_iter()
            .filter(|it| *it != name)
            .collect();
        if has_probes {
            // It says that it goes before it does.
            fleet.upstreams[place].set_health(Health::UNAVAILABLE);
            fleet.expect_ready(&others).await;
        }
        fleet.upstreams[place].stop();
        load.goes_on(30).await;
        // It is up at once, and loads: what reaches it waits for ever, or fails.
        let loading = if has_probes {
            Behaviour::Hold
        } else {
            Behaviour::failing(503)
        };
        let started = Upstream::start_on(&name, address, loading).await;
        started.set_health(Health::LOADING);
        fleet.upstreams[place] = started;
        load.goes_on(30).await;
        if has_probes {
            fleet.expect_probes("body", &name).await;
            assert_eq!(fleet.upstreams[place].count(), 0, "while it loads");
        }
        fleet.upstreams[place].set(Behaviour::OK);
        fleet.upstreams[place].set_health(Health::READY);
        if has_probes {
            fleet.expect_ready(&["a", "b", "c"]).await;
        }
        eventually("requests to the new one", SOON, async || {
            let count = fleet.upstreams[place].count();
            (count > 0).then_some(()).ok_or(format!("{count}"))
        })
        .await;
    }
    let statuses = load.stop().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn a_rolling_restart_with_probes_costs_no_error() {
    restart_all(&checked(3, "least_request"), true).await;
}

#[tokio::test]
async fn a_rolling_restart_without_probes_costs_no_error() {
    restart_all(&one_pool(3, "least_request"), false).await;
}
