use std::time::Duration;

use super::{NAMES, PolicyConfig, read};
use crate::config::error::Problems;
use crate::config::json::Json;
use crate::config::reader::Node;
use crate::estimate::Basis;

/// The policy that `json` gives, or what is said against it.
fn policy(json: &str) -> Result<PolicyConfig, String> {
    let json: Json = serde_json::from_str(json).unwrap();
    let mut problems = Problems::default();
    match read(Node::root(&json), &mut problems) {
        Some(policy) if problems.is_empty() => Ok(policy),
        _ => Err(problems.to_string()),
    }
}

#[test]
fn every_name_gives_its_policy_with_or_without_an_object() {
    for name in NAMES {
        let by_name = policy(&format!("\"{name}\"")).unwrap();
        let by_object = policy(&format!("{{\"name\": \"{name}\"}}")).unwrap();
        assert_eq!(by_name, by_object);
        assert_eq!(by_name.name(), name);
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let ten_seconds = Duration::from_secs(10);
    assert_eq!(
        policy("\"shortest_expected_delay\""),
        Ok(PolicyConfig::ShortestExpectedDelay {
            externality: 0.2,
            exploration: 0.01,
            basis: None
        })
    );
    assert_eq!(
        policy("\"shortest_expected_delay\""),
        Ok(PolicyConfig::default())
    );
    assert_eq!(
        policy("\"least_request\""),
        Ok(PolicyConfig::LeastRequest {
            choice_count: None,
            active_request_bias: 1.0
        })
    );
    assert_eq!(
        policy("\"least_response_time\""),
        Ok(PolicyConfig::LeastResponseTime {
            decay_time: ten_seconds
        })
    );
    assert_eq!(
        policy("\"latency_percentile\""),
        Ok(PolicyConfig::LatencyPercentile {
            q: 0.99,
            min_samples: 50,
            exploration: 0.01
        })
    );
    assert_eq!(
        policy("\"peak_ewma\""),
        Ok(PolicyConfig::PeakEwma {
            decay_time: ten_seconds,
            default_rtt: Duration::from_millis(30),
            choice_count: 2
        })
    );
}

#[test]
fn parameters_are_read() {
    assert_eq!(
        policy(
            r#"{"name": "shortest_expected_delay", "externality": 1, "exploration": 0, "basis": "work"}"#
        ),
        Ok(PolicyConfig::ShortestExpectedDelay {
            externality: 1.0,
            exploration: 0.0,
            basis: Some(Basis::Work)
        })
    );
    assert_eq!(
        policy(r#"{"active_request_bias": 0.5, "choice_count": 2.0, "name": "least_request"}"#),
        Ok(PolicyConfig::LeastRequest {
            choice_count: Some(2),
            active_request_bias: 0.5
        })
    );
    assert_eq!(
        policy(r#"{"name": "least_response_time", "decay_time": "1m"}"#),
        Ok(PolicyConfig::LeastResponseTime {
            decay_time: Duration::from_secs(60)
        })
    );
    assert_eq!(
        policy(r#"{"name": "latency_percentile", "q": 0.9, "min_samples": 5, "exploration": 0}"#),
        Ok(PolicyConfig::LatencyPercentile {
            q: 0.9,
            min_samples: 5,
            exploration: 0.0
        })
    );
    assert_eq!(
        policy(
            r#"{"name": "peak_ewma", "decay_time": "1s", "default_rtt": "2s", "choice_count": 3}"#
        ),
        Ok(PolicyConfig::PeakEwma {
            decay_time: Duration::from_secs(1),
            default_rtt: Duration::from_secs(2),
            choice_count: 3
        })
    );
}

#[test]
fn parameters_out_of_range_are_refused() {
    for (json, said) in [
        (
            r#"{"name": "least_request", "choice_count": 1}"#,
            "choice_count: 1 is not allowed; give a whole number from 2 to 100",
        ),
        (
            r#"{"name": "least_request", "active_request_bias": 10.5}"#,
            "active_request_bias: 10.5 is not allowed; give a number from 0.0 to 10.0",
        ),
        (
            r#"{"name": "least_response_time", "decay_time": "2h"}"#,
            "decay_time: \"2h\" is not allowed; \
             give a duration from \"100ms\" to \"1h\", such as \"1.5s\"",
        ),
        (
            r#"{"name": "peak_ewma", "default_rtt": "99us"}"#,
            "default_rtt: \"99us\" is not allowed; \
             give a duration from \"100us\" to \"10m\", such as \"1.5s\"",
        ),
        (
            r#"{"name": "latency_percentile", "q": 99}"#,
            "q: 99 is not allowed; give a number from 0.5 to 0.999",
        ),
        (
            r#"{"name": "latency_percentile", "min_samples": 0}"#,
            "min_samples: 0 is not allowed; give a whole number from 1 to 100000",
        ),
        (
            r#"{"name": "shortest_expected_delay", "externality": 1.5}"#,
            "externality: 1.5 is not allowed; give a number from 0.0 to 1.0",
        ),
        (
            r#"{"name": "shortest_expected_delay", "basis": "bytes"}"#,
            "basis: \"bytes\" is not allowed; give \"learned\", \"requests\" or \"work\"",
        ),
        (
            r#"{"name": "shortest_expected_delay", "exploration": 0.21}"#,
            "exploration: 0.21 is not allowed; give a number from 0.0 to 0.2",
        ),
    ] {
        assert_eq!(policy(json).unwrap_err(), said);
    }
}

#[test]
fn a_policy_takes_no_other_policys_parameters() {
    for name in ["round_robin", "weighted_round_robin", "random"] {
        assert_eq!(
            policy(&format!("{{\"name\": \"{name}\", \"choice_count\": 2}}")),
            Err("choice_count: unknown key; allowed: name".to_owned())
        );
    }
    assert_eq!(
        policy(r#"{"name": "least_response_time", "default_rtt": "1s"}"#),
        Err("default_rtt: unknown key; allowed: name, decay_time".to_owned())
    );
    assert_eq!(
        policy(r#"{"name": "shortest_expected_delay", "decay_time": "1s"}"#),
        Err("decay_time: unknown key; allowed: name, externality, exploration, basis".to_owned())
    );
}

#[test]
fn other_names_are_refused() {
    let all = NAMES.join(", ");
    assert_eq!(
        policy("\"LEAST_REQUESTS\""),
        Err(format!(
            "configuration: \"LEAST_REQUESTS\" is not a policy; \
             did you mean least_request? allowed: {all}"
        ))
    );
    assert_eq!(
        policy(r#"{"name": "fastest"}"#),
        Err(format!("name: \"fastest\" is not a policy; allowed: {all}"))
    );
}

#[test]
fn other_types_are_refused() {
    assert_eq!(
        policy("7").unwrap_err(),
        "configuration: 7 is not allowed; give the name of a policy, or an object with name"
    );
    assert_eq!(
        policy("{}").unwrap_err(),
        "name: missing; give the name of a policy"
    );
    assert_eq!(
        policy(r#"{"name": ["random"]}"#).unwrap_err(),
        "name: an array is not allowed; give the name of a policy"
    );
}
