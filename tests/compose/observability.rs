//! Prometheus, its rules, and the names that they and the dashboard use.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lab::docker::docker;
use lab::gateway::Admin;
use serde_json::Value;

use crate::support::load::Load;
use crate::support::stack::{SERVERS, Stack};
use crate::support::{SOON, eventually};

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("envoy/compose")
        .join(file);
    fs::read_to_string(path).unwrap()
}

/// The metrics of Paceline and of Envoy that a text names, without what
/// histograms add to them.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| word.starts_with("paceline_") || word.starts_with("envoy_"))
        .map(|word| {
            let suffixes = ["_bucket", "_count", "_sum"];
            let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

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

    let scraped = stack.admin().get("/stats/prometheus").await.unwrap();
    let there = metrics(&scraped);
    for file in ["rules.yml", "dashboard.json"] {
        let named = metrics(&shipped(file));
        assert!(named.len() >= 4, "{file}: {named:?}");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(
            missing.is_empty(),
            "{file} names {missing:?}, which Envoy does not show"
        );
    }
}
