//! What a configuration may be at all, and how all that is wrong with it is told.

use serde_json::json;

use super::refused;
use crate::config::{Config, KEYS};

#[test]
fn an_absent_configuration_lacks_upstreams() {
    let said = "upstreams: missing; give the clusters to balance, \
                such as [{\"cluster\": \"gpu-a\"}], or give pools";
    let absent: [Option<&[u8]>; 4] = [None, Some(b""), Some(b" \n"), Some(b"{}")];
    for bytes in absent {
        assert_eq!(Config::parse(bytes).unwrap_err().to_string(), said);
    }
}

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    assert_eq!(
        Config::parse(Some(b"{\"a\": \"\xff\"}"))
            .unwrap_err()
            .to_string(),
        "not UTF-8 at byte 7"
    );
    assert_eq!(
        refused("{\n  \"upstreams\": [,]\n}"),
        "not valid JSON: expected value at line 2 column 17"
    );
    assert_eq!(
        refused("{} x"),
        "not valid JSON: trailing characters at line 1 column 4"
    );
    assert_eq!(
        refused(r#"{"lease": 1e999}"#),
        "not valid JSON: number out of range at line 1 column 15"
    );
    for text in [
        "{",
        "upstreams:",
        "{'a': 1}",
        "{\"a\": NaN}",
        "\u{feff}{}",
        "{\"a\": 1,}",
    ] {
        let said = refused(text);
        assert!(said.starts_with("not valid JSON: "), "{text}: {said}");
        assert!(said.contains(" at line 1 column "), "{text}: {said}");
    }
}

#[test]
fn deep_nesting_is_refused_before_it_costs_a_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [127, 128, 100_000] {
            let text = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            let said = refused(&text);
            assert_eq!(said.contains("recursion limit exceeded"), depth > 127);
        }
    }
}

#[test]
fn other_values_than_an_object_are_refused() {
    for (text, shown) in [
        ("null", "null"),
        ("[]", "an empty array"),
        ("\"a\"", "\"a\""),
        ("1", "1"),
        ("false", "false"),
    ] {
        assert_eq!(
            refused(text),
            format!(
                "configuration: {shown} is not allowed; \
                 give an object with upstreams or pools"
            )
        );
    }
}

#[test]
fn null_is_no_way_to_leave_something_out() {
    for key in KEYS {
        let said = refused(&format!("{{\"{key}\": null}}"));
        assert!(
            said.contains(&format!("{key}: null is not allowed; give ")),
            "{said}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    let text = r#"{
        "upstream": [],
        "pools": [{
            "name": "a",
            "matches": {},
            "match": {"paths": 1},
            "upstreams": [{"cluster": "a", "Weight": 2}]
        }]
    }"#;
    assert_eq!(
        refused(text),
        "4 problems:\n  \
         upstream: unknown key; did you mean upstreams? \
         allowed: upstreams, cluster, endpoints, policy, request_size, reserve, latency, \
         health_check, outlier_detection, slow_start, max_in_flight, admission, mode, pools, devices, model, \
         request_body, route_header, endpoint_header, lease, explain, access_log, \
         include_attempt_count_in_response, status\n  \
         pools[0].matches: unknown key; did you mean match? \
         allowed: name, match, upstreams, cluster, endpoints, policy, request_size, reserve, \
         latency, health_check, outlier_detection, slow_start, max_in_flight, admission, mode\n  \
         pools[0].match.paths: unknown key; allowed: path_prefix, host, headers, model\n  \
         pools[0].upstreams[0].Weight: unknown key; did you mean weight? \
         allowed: cluster, weight, accepts, max_in_flight, device, memory"
    );
}

#[test]
fn repeated_keys_are_refused_at_any_depth() {
    let text = r#"{
        "upstreams": [{"cluster": "a", "weight": 1, "weight": 2}],
        "explain": true,
        "explain": true
    }"#;
    assert_eq!(
        refused(text),
        "2 problems:\n  \
         upstreams[0].weight: repeated key; give it once\n  \
         explain: repeated key; give it once"
    );
}

#[test]
fn nothing_may_be_empty() {
    assert_eq!(
        refused(r#"{"upstreams": []}"#),
        "upstreams: an empty array is not allowed; \
         give an array of at least one upstream, such as [{\"cluster\": \"gpu-a\"}]"
    );
    assert_eq!(
        refused(r#"{"pools": []}"#),
        "pools: an empty array is not allowed; give an array of at least one pool"
    );
    assert_eq!(
        refused(r#"{"pools": [{"name": "a", "upstreams": []}]}"#),
        "pools[0].upstreams: an empty array is not allowed; \
         give an array of at least one upstream, such as [{\"cluster\": \"gpu-a\"}]"
    );
}

#[test]
fn what_must_be_given_is_asked_for() {
    assert_eq!(
        refused(r#"{"upstreams": [{"weight": 2}, "gpu-a"]}"#),
        "2 problems:\n  \
         upstreams[0].cluster: missing; give the name of an Envoy cluster\n  \
         upstreams[1]: \"gpu-a\" is not allowed; give an object such as {\"cluster\": \"gpu-a\"}"
    );
    assert_eq!(
        refused(r#"{"pools": [{}]}"#),
        "2 problems:\n  \
         pools[0].name: missing; give a name of 1 to 512 visible ASCII characters, \
         without a semicolon and without a space at either end\n  \
         pools[0].upstreams: missing; \
         give an array of at least one upstream, such as [{\"cluster\": \"gpu-a\"}]"
    );
}

#[test]
fn many_problems_are_told_up_to_a_bound() {
    let upstreams: Vec<_> = (0..30).map(|_| json!({"cluster": ""})).collect();
    let said = refused(&json!({"upstreams": upstreams}).to_string());
    assert!(said.starts_with("30 problems:\n  upstreams[0].cluster: "));
    assert!(said.ends_with("\n  and 10 more"));
    assert_eq!(said.lines().count(), 22);
}

#[test]
fn long_values_are_shortened() {
    let text = json!({"upstreams": [{"cluster": "é".repeat(10_000)}]}).to_string();
    let key = json!({"k".repeat(10_000): 1}).to_string();
    assert!(refused(&text).len() < 500);
    assert!(refused(&key).len() < 500);
}
