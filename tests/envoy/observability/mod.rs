//! What operators look at: the shipped dashboard, rules and alerts, on what a real
//! Prometheus scrapes from real Envoys.

mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::gateway::ENDPOINTS_CLUSTER;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::request;
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::{Behaviour, Health};
use crate::support::{SOON, eventually};
use prometheus::{Prometheus, program};

fn shipped(file: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    directory.join("envoy/compose").join(file)
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(shipped("dashboard.json")).unwrap()).unwrap()
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(shipped(file)).unwrap()).unwrap()
}

fn rules() -> Vec<Value> {
    yaml("rules.yml")["groups"][0]["rules"]
        .as_array()
        .unwrap()
        .clone()
}

/// The expressions of the dashboard, as Grafana sends them for all pools.
fn queries() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets
        .map(|target| {
            target["expr"]
                .as_str()
                .unwrap()
                .replace("$pool", ".*")
                .replace("$__rate_interval", "20s")
                .replace("$__range", "1m")
        })
        .collect()
}

/// The metrics in the first column of the table that documents them.
fn documented_metrics() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(page).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `paceline_"));
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').filter(|it| it.starts_with("paceline_")))
        .map(str::to_owned)
        .collect()
}

const FAILING: &[(&str, &str)] = &[("x-pool", "failing")];

/// Pools in which all that is measured happens; `failing` are the upstreams of one of
/// them.
fn everything(failing: &[&str]) -> Value {
    let failing: Vec<_> = failing.iter().map(|it| json!({ "cluster": it })).collect();
    let pool = |name: &str| json!({ "headers": { "x-pool": name } });
    json!({
        "model": { "header": "x-model" },
        "devices": [{ "name": "gpu-0", "memory": 1000 }],
        "pools": [
            {
                "name": "checked",
                "match": pool("checked"),
                "request_size": { "header": "x-size" },
                "health_check": {
                    "path": "/health", "interval": "250ms", "timeout": "200ms", "cluster_suffix": "-servers",
                },
                "slow_start": { "window": "1s" },
                "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
            },
            {
                "name": "failing",
                "match": pool("failing"),
                "outlier_detection": { "base_ejection_time": "1m" },
                "upstreams": failing,
            },
            {
                "name": "capped",
                "match": pool("capped"),
                "max_in_flight": 2,
                "admission": {
                    "queue": { "max_requests": 2 },
                    "priority": { "header": "x-class", "classes": ["high", "low"], "default": "low" },
                    "deadline": { "header": "x-deadline" },
                },
                "upstreams": [
                    { "cluster": "e", "max_in_flight": 1 },
                    { "cluster": "f", "max_in_flight": 1, "device": "gpu-0", "memory": { "base": 100 } },
                ],
            },
            {
                "name": "streaming",
                "match": pool("streaming"),
                "latency": { "signal": "first_byte" },
                "upstreams": [{ "cluster": "g" }],
            },
            {
                "name": "shared",
                "match": pool("shared"),
                "mode": { "balance_percent": 50 },
                "upstreams": [{ "cluster": "d" }, { "cluster": "i" }],
            },
            { "name": "named", "match": { "model": "llama" }, "upstreams": [{ "cluster": "d" }] },
        ],
    })
}

/// A fleet with a server that is not ready and a pool of which more is ejected than may
/// be: half of it was, and then it has become smaller.
async fn one_with_everything() -> Fleet {
    let behaviour = Behaviour::after(Duration::from_millis(5));
    let config = paceline(&everything(&["c", "d", "h", "i"]));
    let mut fleet = Fleet::start_with(9, behaviour, config, |topology| {
        topology.retries = true;
        topology.reloadable = true;
    })
    .await;
    fleet.upstreams[1].set_health(Health::UNAVAILABLE);
    for capped in &fleet.upstreams[4..6] {
        capped.set(Behaviour::after(Duration::from_millis(40)));
    }
    for failing in [2, 7] {
        fleet.upstreams[failing].set(Behaviour::failing(503));
    }
    eventually("two to be ejected", SOON, async || {
        burst(&fleet, 12, FAILING).await;
        let stats = fleet.gateway.stats().await.unwrap();
        let ejected = stats.by_label("paceline_ejected", "upstream");
        let out = |name: &str| ejected.get(name) == Some(&1);
        (out("c") && out("h"))
            .then_some(())
            .ok_or(format!("{ejected:?}"))
    })
    .await;
    fleet.topology.balancing = paceline(&everything(&["c", "d", "h"]));
    fleet.gateway.reconfigure(&fleet.topology).await.unwrap();
    fleet
}

/// So many requests with these headers, at the same time.
async fn burst(fleet: &Fleet, count: usize, headers: &[(&str, &str)]) {
    let mut under_way = Vec::new();
    for _ in 0..count {
        let mut connection = fleet.connect().await;
        let pending = connection.start(request("GET", "/infer", headers));
        under_way.push((connection, pending));
    }
    for (_connection, pending) in under_way {
        pending.answer().await;
    }
}

/// An answer in several parts.
async fn stream(fleet: &mut Fleet) {
    fleet.upstreams[6].set(Behaviour::Hold);
    let mut connection = fleet.connect().await;
    let streaming = request("GET", "/infer", &[("x-pool", "streaming")]);
    let response = connection.start(streaming);
    let mut body = fleet.arrival().await.begin_answer();
    for part in ["one", "two", "three"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
        body.send_data(part.into()).await.unwrap();
    }
    drop(body);
    response.answer().await;
    // Envoy's own balancing may choose this one as well.
    fleet.upstreams[6].set(Behaviour::OK);
}

/// Something of everything.
async fn load(fleet: &mut Fleet) {
    burst(fleet, 4, &[("x-pool", "checked")]).await;
    burst(fleet, 12, FAILING).await;
    burst(fleet, 8, &[("x-pool", "capped"), ("x-deadline", "soon")]).await;
    burst(fleet, 12, &[("x-pool", "shared")]).await;
    burst(fleet, 1, &[]).await;
    stream(fleet).await;
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_the_rules_gives_what_envoy_measures() {
    let mut fleet = one_with_everything().await;
    let discovering = Fleet::start_with(
        2,
        Behaviour::OK,
        paceline(&json!({ "cluster": ENDPOINTS_CLUSTER })),
        |it| it.endpoints = true,
    )
    .await;
    let targets = [&fleet, &discovering].map(|it| it.gateway.admin_url().replace("http://", ""));
    let prometheus = Prometheus::start(&targets, &shipped("rules.yml")).await;

    let mut missing: BTreeSet<String> = queries().into_iter().collect();
    assert!(missing.len() > 20, "{missing:?}");
    assert!(missing.iter().all(|it| !it.contains('$')), "{missing:?}");
    let recorded = rules();
    let recorded = recorded.iter().filter_map(|it| it["record"].as_str());
    missing.extend(recorded.map(str::to_owned));
    let deadline = Instant::now() + 4 * SOON;
    while !missing.is_empty() {
        assert!(
            Instant::now() < deadline,
            "these give nothing: {missing:#?}"
        );
        load(&mut fleet).await;
        discovering.load(2, 10).await;
        for query in missing.clone() {
            let series = prometheus.count(&query).await;
            if series.unwrap_or_else(|error| panic!("{query}: {error}")) > 0 {
                missing.remove(&query);
            }
        }
        // The server that was not ready is, once that was seen, and warms up.
        if !missing
            .iter()
            .any(|it| it.contains("paceline_probes_total"))
        {
            fleet.upstreams[1].set_health(Health::READY);
        }
    }

    let pools = prometheus.get("/api/v1/label/pool/values?match[]=paceline_picks_total");
    let pools = pools.await.unwrap();
    assert_eq!(
        pools,
        json!([
            "capped",
            "checked",
            "default",
            "failing",
            "named",
            "shared",
            "streaming"
        ]),
        "what the dashboard's variable offers"
    );
    eventually("the rules to be evaluated", SOON, async || {
        let answer = prometheus.get("/api/v1/rules").await?;
        let rules = answer["groups"][0]["rules"].as_array();
        let well = |rule: &Value| rule["health"] == "ok";
        match rules.is_some_and(|rules| !rules.is_empty() && rules.iter().all(well)) {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    })
    .await;
}

#[test]
fn the_dashboard_shows_every_metric() {
    let documented = documented_metrics();
    assert!(documented.len() > 25, "{documented:?}");
    let queries = queries().join(" ");
    let words = queries.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let shown: BTreeSet<_> = words
        .filter(|word| word.starts_with("paceline_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect();
    assert_eq!(shown, documented);
}

#[test]
fn every_alert_is_tested_where_it_fires_and_where_it_does_not() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new(program("promtool"));
        let said = command.args(arguments).current_dir(shipped("")).output();
        let said = said.unwrap();
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(said.status.success(), "promtool {arguments:?}: {text}");
    };
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["test", "rules", "rules.test.yml"]);

    let tests = yaml("rules.test.yml");
    let tests = tests["tests"].as_array().unwrap().iter();
    let cases = tests.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten());
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        let expected = case["exp_alerts"].as_array();
        let fires = expected.is_some_and(|alerts| !alerts.is_empty());
        let names = if fires { &mut firing } else { &mut quiet };
        names.insert(case["alertname"].as_str().unwrap().to_owned());
    }
    let rules = rules();
    let alerts = rules.iter().filter_map(|rule| rule["alert"].as_str());
    let alerts: BTreeSet<_> = alerts.map(str::to_owned).collect();
    assert_eq!(firing, alerts, "fire");
    assert_eq!(quiet, alerts, "do not fire");
}
