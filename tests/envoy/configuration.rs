//! What Envoy does with the filter's configuration, before and at its start.

use lab::gateway::{Balancing, Gateway, GatewayError, Topology, filter_module};
use serde_json::json;

use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::place::place;
use crate::support::upstream::Behaviour;
use crate::support::written::{refusal, shipped};

/// A topology that nothing is sent to.
fn unused(balancing: Balancing) -> Topology {
    Topology::new(
        [
            ("a", ([127, 0, 0, 1], 1).into()),
            ("b", ([127, 0, 0, 1], 2).into()),
        ],
        balancing,
    )
}

fn written(config: &str) -> Topology {
    let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
    unused(Balancing::Filter {
        module,
        config: config.to_owned(),
    })
}

/// Configurations with a mistake, and what is said against each: the place, the
/// value and what is allowed.
const MISTAKES: [(&str, &[&str]); 8] = [
    ("", &["upstreams: missing", "give the clusters to balance"]),
    (
        "{}",
        &["upstreams: missing", "give the clusters to balance"],
    ),
    (
        r#"{ "upstreams": [] }"#,
        &["upstreams: ", "at least one upstream"],
    ),
    (
        r#"{ "upstreams": [ { "cluster": "a" } "#,
        &["not valid JSON"],
    ),
    (
        r#"{ "upstreams": [ { "cluster": "a", "wieght": 2 } ] }"#,
        &["upstreams[0].wieght: unknown key", "weight"],
    ),
    (
        r#"{ "upstreams": [ { "cluster": "a", "weight": 1001 } ] }"#,
        &[
            "upstreams[0].weight: 1001 is not allowed",
            "a whole number from 0 to 1000",
        ],
    ),
    (
        r#"{ "upstreams": [ { "cluster": "a" } ], "policy": "fastest" }"#,
        &[
            "policy: \"fastest\" is not a policy",
            "shortest_expected_delay",
        ],
    ),
    (
        r#"{ "upstreams": [ { "cluster": "a" } ], "lease": "1ms" }"#,
        &[
            "lease: \"1ms\" is not allowed",
            "a duration from \"1s\" to \"5m\"",
        ],
    ),
];

fn expect_said(error: &GatewayError, config: &str, said: &[&str]) {
    let text = error.to_string();
    for part in said {
        assert!(
            text.contains(part),
            "{config}: expected {part:?} in:\n{text}"
        );
    }
}

#[test]
fn mistakes_are_refused_by_validation() {
    for (config, said) in MISTAKES {
        let error = Gateway::validate(place(), &written(config)).unwrap_err();
        assert!(matches!(error, GatewayError::Refused { .. }), "{error}");
        expect_said(&error, config, said);
    }
}

#[test]
fn each_problem_has_a_line_of_its_own_in_the_log() {
    let config = r#"{ "upstreams": [ { "cluster": "a", "wieght": 2 }, {} ], "lease": "10" }"#;
    let error = Gateway::validate(place(), &written(config)).unwrap_err();
    let text = error.to_string();
    let prefix = "paceline: the configuration is refused: ";
    let said: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once(prefix))
        .map(|(_, said)| said.split(':').next().unwrap())
        .collect();
    let expected = ["lease", "upstreams[0].wieght", "upstreams[1].cluster"];
    assert_eq!(said, expected, "{text}");
}

/// What is written as YAML under `configuration`, and not as text, is another
/// protobuf message, which Envoy hands on as it is.
#[test]
fn a_struct_is_refused_with_the_type_that_is_needed() {
    let text = shipped("envoy.yaml", &[]);
    let (before, value) = text.split_once("google.protobuf.StringValue\n").unwrap();
    let (_, after) = value
        .split_once("- name: envoy.filters.http.router")
        .unwrap();
    let indent = " ".repeat(26);
    // Short and long, so that lengths take one byte and two.
    for clusters in [1, 40] {
        let list = (0..clusters)
            .map(|number| format!("{{ cluster: gpu-{number} }}"))
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "{before}google.protobuf.Struct\n{indent}value:\n{indent}  upstreams: [{list}]\n\
             {indent}  policy: random\n                  \
             - name: envoy.filters.http.router{after}"
        );
        let said = refusal(&text).expect("refused");
        assert!(
            said.contains("paceline: the configuration is refused: a google.protobuf.Struct")
                && said.contains("type.googleapis.com/google.protobuf.StringValue"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn envoy_does_not_start_with_a_mistake() {
    for (config, said) in [MISTAKES[1], MISTAKES[5]] {
        let error = Gateway::start_in(place(), &written(config))
            .await
            .unwrap_err();
        assert!(matches!(error, GatewayError::Ended { .. }), "{error}");
        expect_said(&error, config, said);
    }
}

#[test]
fn every_policy_is_accepted_by_validation() {
    for policy in [
        "round_robin",
        "weighted_round_robin",
        "random",
        "least_request",
        "least_response_time",
        "latency_percentile",
        "peak_ewma",
        "shortest_expected_delay",
    ] {
        Gateway::validate(place(), &unused(paceline(&one_pool(2, policy)))).unwrap();
    }
}

#[tokio::test]
async fn an_explained_decision_is_in_the_response() {
    let config = json!({ "explain": true, "pools": [{
        "name": "v1",
        "match": { "path_prefix": "/infer" },
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "policy": "least_request",
    }]});
    let fleet = Fleet::start(2, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;

    let answer = connection.get().await;
    let (picked, other) = match answer.served_by() {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    };
    assert_eq!(
        answer.header("x-paceline-decision"),
        format!(
            "upstream={picked}; policy=least_request; score=1; runner_up={other} (1); reason=policy"
        )
    );

    let elsewhere = crate::support::client::request("GET", "/elsewhere", &[]);
    let answer = connection.request(elsewhere).await;
    assert_eq!(
        answer.header("x-paceline-decision"),
        "pass_through; reason=no_pool"
    );
}

#[tokio::test]
async fn decisions_are_not_told_unless_asked_for() {
    let fleet = Fleet::start(1, Behaviour::OK, &one_pool(1, "random")).await;
    let answer = fleet.get_in_turn(1).await.remove(0);
    assert!(!answer.headers.contains_key("x-paceline-decision"));
}
