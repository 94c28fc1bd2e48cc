//! Prometheus beside Envoy, and its rules. What they and the dashboard show, tests/envoy
//! proves.

use std::collections::BTreeSet;

use lab::docker::docker;
use lab::gateway::Admin;
use serde_json::Value;

use crate::support::load::Load;
use crate::support::stack::{SERVERS, Stack};
use crate::support::{SOON, eventually};

/// What Prometheus answers on its API, which speaks the same HTTP as any.
async fn api(stack: &Stack, path: &str) -> Result<Value, String> {
    let prometheus = Admin::new(stack.published("prometheus", 9090));
    let text = prometheus
        .get(path)
        .await
        .map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(answer["data"].clone())
}

#[tokio::test]
async fn prometheus_scrapes_envoy_and_knows_the_rules() {
    let stack = Stack::start_with(&["--profile", "observability"]).await;
    Load::start(&stack, 60).expect_no_errors().await;

    eventually("the picks of every upstream", 2 * SOON, async || {
        let answer = api(&stack, "/api/v1/query?query=paceline_picks_total").await?;
        let series = answer["result"].as_array().cloned().unwrap_or_default();
        let upstreams: BTreeSet<_> = series
            .iter()
            .filter_map(|series| series["metric"]["upstream"].as_str())
            .collect();
        if upstreams == BTreeSet::from(SERVERS) {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;

    let prometheus = stack.container("prometheus");
    let check = ["promtool", "check", "rules", "/etc/prometheus/rules.yml"];
    let said = docker(&[&["exec", prometheus.as_str()][..], &check].concat()).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");

    let rules = eventually("the rules to be evaluated", 2 * SOON, async || {
        let answer = api(&stack, "/api/v1/rules").await?;
        let rules = answer["groups"][0]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        match !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok") {
            true => Ok(rules),
            false => Err(answer.to_string()),
        }
    })
    .await;
    let firing = rules.iter().filter(|rule| rule["state"] == "firing");
    assert_eq!(firing.count(), 0, "nothing is wrong: {rules:#?}");
}
