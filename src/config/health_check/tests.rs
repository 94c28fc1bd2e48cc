use super::*;

fn check(json: &str) -> Result<HealthCheck, String> {
    let json: Json = serde_json::from_str(json).unwrap();
    let mut problems = Problems::default();
    match read(Node::root(&json), &mut problems) {
        Some(check) if problems.is_empty() => Ok(check),
        _ => Err(problems.to_string()),
    }
}

fn refused(json: &str) -> String {
    check(json).unwrap_err()
}

#[test]
fn a_path_is_enough_and_defaults_are_the_documented_ones() {
    let expected = HealthCheck {
        path: "/health".to_owned(),
        host: None,
        cluster_suffix: String::new(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        healthy_threshold: 1,
        unhealthy_threshold: 2,
        expected_statuses: vec![200],
        body: None,
    };
    assert_eq!(check(r#"{"path": "/health"}"#), Ok(expected));
}

#[test]
fn every_key_is_read() {
    let all = r#"{"path": "/ready?full=1", "host": "models.example.com:80",
        "cluster_suffix": "-servers", "interval": "2s", "timeout": "100ms",
        "healthy_threshold": 3, "unhealthy_threshold": 4, "expected_statuses": [200, 204],
        "json_pointer": "/status", "equals": "ready"}"#;
    let all = check(all).unwrap();
    assert_eq!(all.path, "/ready?full=1");
    assert_eq!(all.host.as_deref(), Some("models.example.com:80"));
    assert_eq!(all.cluster_suffix, "-servers");
    assert_eq!(all.interval, Duration::from_secs(2));
    assert_eq!(all.timeout, Duration::from_millis(100));
    assert_eq!((all.healthy_threshold, all.unhealthy_threshold), (3, 4));
    assert_eq!(all.expected_statuses, [200, 204]);
    assert!(all.body.unwrap().holds(br#"{"status": "ready"}"#));
}

#[test]
fn presets_know_the_paths() {
    for (json, path) in [
        (r#""vllm""#, "/health"),
        (r#""sglang""#, "/health"),
        (r#""tgi""#, "/health"),
        (r#""torchserve""#, "/ping"),
        (r#""triton""#, "/v2/health/ready"),
        (r#""kserve""#, "/v2/health/ready"),
        (
            r#"{"preset": "triton", "model": "bert"}"#,
            "/v2/models/bert/ready",
        ),
        (
            r#"{"preset": "kserve", "model": "org/Llama 3"}"#,
            "/v2/models/org%2FLlama%203/ready",
        ),
        (r#"{"preset": "vllm", "path": "/ping"}"#, "/ping"),
    ] {
        assert_eq!(check(json).unwrap().path, path, "{json}");
    }
    let slower = check(r#"{"preset": "vllm", "interval": "5s"}"#).unwrap();
    assert_eq!(slower.interval, Duration::from_secs(5));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (json, said) in [
        (
            r#""vlm""#,
            "configuration: \"vlm\" is not a preset; did you mean vllm? \
             allowed: vllm, sglang, tgi, triton, kserve, torchserve",
        ),
        (
            "7",
            "configuration: 7 is not allowed; give the name of a preset, such as \"vllm\", or an object with path or preset",
        ),
        (
            "{}",
            "configuration: an empty object is not allowed; give the name of a preset, such as \"vllm\", or an object with path or preset",
        ),
        (
            r#"{"preset": 1}"#,
            "preset: 1 is not allowed; give \"vllm\", \"sglang\", \"tgi\", \"triton\", \"kserve\" or \"torchserve\"",
        ),
        (
            r#"{"path": "health"}"#,
            "path: \"health\" is not allowed; give a path that begins with \"/\", such as \"/health\": \
             visible ASCII characters without \"#\", 1024 at most",
        ),
        (
            r#"{"path": "/h", "model": "bert"}"#,
            "model: has no effect; only the presets triton and kserve ask for a model",
        ),
        (
            r#"{"preset": "vllm", "model": "bert"}"#,
            "model: has no effect; only the presets triton and kserve ask for a model",
        ),
        (
            r#"{"path": "/h", "intervall": "1s"}"#,
            "intervall: unknown key; did you mean interval? allowed: preset, model, path, host, \
             cluster_suffix, interval, timeout, healthy_threshold, unhealthy_threshold, \
             expected_statuses, json_pointer, equals",
        ),
        (
            r#"{"path": "/h", "interval": "100ms"}"#,
            "interval: \"100ms\" is not allowed; give a duration from \"250ms\" to \"5m\", such as \"1.5s\"",
        ),
        (
            r#"{"path": "/h", "timeout": "0s"}"#,
            "timeout: \"0s\" is not allowed; give a duration from \"10ms\" to \"1m\", such as \"1.5s\"",
        ),
        (
            r#"{"path": "/h", "healthy_threshold": 0}"#,
            "healthy_threshold: 0 is not allowed; give a whole number from 1 to 100",
        ),
        (
            r#"{"path": "/h", "expected_statuses": [200, 503]}"#,
            "expected_statuses[1]: 503 is not allowed; give a whole number from 200 to 499",
        ),
        (
            r#"{"path": "/h", "expected_statuses": []}"#,
            "expected_statuses: an empty array is not allowed; give an array of statuses, such as [200, 204]",
        ),
        (
            r#"{"path": "/h", "json_pointer": "/status"}"#,
            "json_pointer: needs equals beside it, the value there",
        ),
        (
            r#"{"path": "/h", "equals": "ready"}"#,
            "equals: needs json_pointer beside it, the place of the value",
        ),
        (
            r#"{"path": "/h", "json_pointer": "/a", "equals": [1]}"#,
            "equals: an array is not allowed; give a string, a number, true, false or null",
        ),
        (
            r#"{"path": "/h", "host": "a b"}"#,
            "host: \"a b\" is not allowed; give a host, such as \"models.example.com\"",
        ),
        (
            r#"{"path": "/h", "cluster_suffix": ""}"#,
            "cluster_suffix: \"\" is not allowed; give what follows the upstream's name in the \
             name of the cluster to ask, such as \"-servers\"",
        ),
    ] {
        assert_eq!(refused(json), said, "{json}");
    }
    let many = format!(r#"{{"path": "/h", "expected_statuses": {:?}}}"#, [200; 33]);
    assert_eq!(
        refused(&many),
        "expected_statuses: 33 are too many; give 32 at most"
    );
}

fn holds(pointer: &str, equals: &str, body: &str) -> bool {
    let json = format!(r#"{{"path": "/h", "json_pointer": "{pointer}", "equals": {equals}}}"#);
    check(&json).unwrap().body.unwrap().holds(body.as_bytes())
}

#[test]
fn a_body_says_what_it_must_at_its_place_or_it_does_not() {
    assert!(holds("", "true", "true"));
    assert!(holds("/a/1/b", "2", r#"{"a": [0, {"b": 2.0}]}"#));
    assert!(holds("/a", "null", r#"{"a": null}"#));
    assert!(holds("/a", "1", r#"{"a": 0, "a": 1}"#));
    for body in [
        "",
        "loading",
        "{",
        r#"{"a": 1} {}"#,
        "[]",
        r#"{"b": "ready"}"#,
        r#"{"a": "Ready"}"#,
        r#"{"a": ["ready"]}"#,
    ] {
        assert!(!holds("/a", "\"ready\"", body), "{body}");
    }
    assert!(!holds("/0/-1", "1", "[[1]]"));
    // Deeper than any health check's answer, and no stack is lost.
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    assert!(!holds("/a", "1", &deep));
}

#[test]
fn checks_that_differ_have_other_names_or_numbers() {
    let all = [
        r#"{"path": "/h"}"#,
        r#"{"path": "/i"}"#,
        r#"{"path": "/h", "host": "a"}"#,
        r#"{"path": "/h", "cluster_suffix": "a"}"#,
        r#"{"path": "/h", "interval": "2s"}"#,
        r#"{"path": "/h", "timeout": "2s"}"#,
        r#"{"path": "/h", "healthy_threshold": 2}"#,
        r#"{"path": "/h", "unhealthy_threshold": 1}"#,
        r#"{"path": "/h", "expected_statuses": [204]}"#,
        r#"{"path": "/h", "json_pointer": "/a", "equals": 1}"#,
        r#"{"path": "/h", "json_pointer": "/a", "equals": "1"}"#,
    ]
    .map(|json| check(json).unwrap());
    let shown = |check: &HealthCheck| {
        let names = check.names().join("\0");
        (names, check.numbers())
    };
    for (place, one) in all.iter().enumerate() {
        let others = &all[..place];
        assert!(
            others.iter().all(|other| shown(other) != shown(one)),
            "{one:?}"
        );
    }
}
