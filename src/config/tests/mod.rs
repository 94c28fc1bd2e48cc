//! The configuration as a whole: what is accepted, what is refused and in which
//! words, and that no input whatever does anything else.

mod contradictions;
mod pages;
mod properties;

use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Some(text.as_bytes())).map_err(|error| error.to_string())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err()
}

fn upstream(cluster: &str, weight: u32) -> Upstream {
    Upstream {
        cluster: cluster.to_owned(),
        weight,
        accepts: Accepts::ALL,
        max_in_flight: MaxInFlight::Unlimited,
        placement: None,
    }
}

#[test]
fn the_smallest_configuration_is_one_pool_with_all_defaults() {
    let config = parse(r#"{"upstreams": [{"cluster": "gpu-a"}, {"cluster": "gpu-b"}]}"#);
    let expected = Config {
        route_header: "x-upstream-cluster".to_owned(),
        endpoint_header: "x-gateway-destination-endpoint".to_owned(),
        explain: false,
        access_log: false,
        include_attempt_count_in_response: false,
        status: None,
        lease: Duration::from_secs(10),
        model: ModelSource::Body,
        request_body: BodyLimits::default(),
        devices: Vec::new(),
        pools: vec![Pool {
            name: "default".to_owned(),
            matcher: Match::default(),
            upstreams: vec![upstream("gpu-a", 1), upstream("gpu-b", 1)],
            endpoints: None,
            mode: Mode::default(),
            policy: PolicyConfig::default(),
            request_size: SizeSource::default(),
            reserve: None,
            health_check: None,
            max_in_flight: MaxInFlight::Unlimited,
            admission: Admission::default(),
            outlier_detection: Some(OutlierDetection::default()),
            slow_start: None,
            latency: LatencyConfig::default(),
        }],
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn a_full_configuration_is_read() {
    let config = parse(
        r#"{
            "route_header": "X-Route",
            "explain": true,
            "access_log": true,
            "include_attempt_count_in_response": true,
            "status": {"path": "/paceline", "port": 15902},
            "lease": "1m",
            "model": {"header": "X-Model"},
            "request_body": {"max_bytes": 4096, "timeout": "250ms"},
            "pools": [
                {
                    "name": "chat",
                    "match": {"path_prefix": "/v1/chat", "model": ["a", "b"]},
                    "policy": {"name": "least_request", "choice_count": 2},
                    "upstreams": [{"cluster": "a", "weight": 1000}, {"cluster": "b"}]
                },
                {
                    "name": "sized",
                    "match": {"path_prefix": "/v2"},
                    "request_size": {"json_pointer": "/steps"},
                    "upstreams": [{"cluster": "b"}]
                },
                {
                    "name": "rest",
                    "policy": "random",
                    "mode": {"balance_percent": 5},
                    "latency": {"signal": "first_byte", "window": "10s"},
                    "outlier_detection": "off",
                    "slow_start": {"window": "1m"},
                    "upstreams": [{"cluster": "b", "weight": 3}]
                }
            ]
        }"#,
    );
    let expected = Config {
        route_header: "x-route".to_owned(),
        endpoint_header: "x-gateway-destination-endpoint".to_owned(),
        explain: true,
        access_log: true,
        include_attempt_count_in_response: true,
        status: Some(Status {
            path: "/paceline".to_owned(),
            port: Some(15_902),
        }),
        lease: Duration::from_secs(60),
        model: ModelSource::Header("x-model".to_owned()),
        request_body: BodyLimits {
            max_bytes: 4096,
            timeout: Duration::from_millis(250),
        },
        devices: Vec::new(),
        pools: vec![
            Pool {
                name: "chat".to_owned(),
                matcher: Match {
                    path_prefix: Some("/v1/chat".to_owned()),
                    model: Some(ModelMatch::AnyOf(vec!["a".to_owned(), "b".to_owned()])),
                    ..Match::default()
                },
                upstreams: vec![upstream("a", 1000), upstream("b", 1)],
                endpoints: None,
                mode: Mode::default(),
                policy: PolicyConfig::LeastRequest {
                    choice_count: Some(2),
                    active_request_bias: 1.0,
                },
                request_size: SizeSource::ContentLength,
                reserve: None,
                health_check: None,
                max_in_flight: MaxInFlight::Unlimited,
                admission: Admission::default(),
                outlier_detection: Some(OutlierDetection::default()),
                slow_start: None,
                latency: LatencyConfig::default(),
            },
            Pool {
                name: "sized".to_owned(),
                matcher: Match {
                    path_prefix: Some("/v2".to_owned()),
                    ..Match::default()
                },
                upstreams: vec![upstream("b", 1)],
                endpoints: None,
                mode: Mode::default(),
                policy: PolicyConfig::default(),
                request_size: SizeSource::JsonPointer(JsonPointer::parse("/steps").unwrap()),
                reserve: None,
                health_check: None,
                max_in_flight: MaxInFlight::Unlimited,
                admission: Admission::default(),
                outlier_detection: Some(OutlierDetection::default()),
                slow_start: None,
                latency: LatencyConfig::default(),
            },
            Pool {
                name: "rest".to_owned(),
                matcher: Match::default(),
                upstreams: vec![upstream("b", 3)],
                endpoints: None,
                mode: Mode::BalancePercent(5.0),
                policy: PolicyConfig::Random,
                request_size: SizeSource::ContentLength,
                reserve: None,
                health_check: None,
                max_in_flight: MaxInFlight::Unlimited,
                admission: Admission::default(),
                outlier_detection: None,
                slow_start: Some(SlowStart {
                    window: Duration::from_secs(60),
                    ..SlowStart::default()
                }),
                latency: LatencyConfig {
                    signal: LatencySignal::FirstByte,
                    window: Duration::from_secs(10),
                },
            },
        ],
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn what_nothing_would_heed_is_refused() {
    let upstreams = r#""upstreams": [{"cluster": "a"}]"#;
    assert_eq!(
        refused(&format!(r#"{{{upstreams}, "model": "body"}}"#)),
        "model: no pool matches on a model; give a pool match.model, or leave this out"
    );
    let no_body = "request_body: no request's body is read; give a pool a request_size or a \
                   match.model that needs it, or leave this out";
    for pools in [
        upstreams.to_owned(),
        format!(r#"{upstreams}, "request_size": {{"header": "x-steps"}}"#),
        format!(
            r#""model": {{"header": "x-model"}},
               "pools": [{{"name": "a", "match": {{"model": "m"}}, {upstreams}}}]"#
        ),
    ] {
        let said = refused(&format!(r#"{{"request_body": {{}}, {pools}}}"#));
        assert_eq!(said, no_body, "{pools}");
    }
    for pools in [
        format!(r#"{upstreams}, "request_size": "openai""#),
        format!(r#""pools": [{{"name": "a", "match": {{"model": "m"}}, {upstreams}}}]"#),
    ] {
        let config = parse(&format!(r#"{{"request_body": {{}}, {pools}}}"#));
        assert!(config.unwrap().reads_bodies(), "{pools}");
    }
    assert_eq!(
        refused(&format!(
            r#"{{{upstreams}, "policy": "random", "request_size": "openai"}}"#
        )),
        "request_size: random does not look at sizes as it is configured; \
         leave this out or choose another policy"
    );
    let requests = r#""policy": {"name": "shortest_expected_delay", "basis": "requests"}"#;
    let said = refused(&format!(
        r#"{{{upstreams}, {requests}, "request_size": "openai"}}"#
    ));
    assert!(
        said.starts_with("request_size: shortest_expected_delay"),
        "{said}"
    );
}

#[test]
fn limits_of_bodies_keep_to_their_ranges() {
    let config = |limits: &str| {
        format!(
            r#"{{"upstreams": [{{"cluster": "a"}}], "request_size": "openai",
                "request_body": {limits}}}"#
        )
    };
    let defaults = parse(&config("{}")).unwrap().request_body;
    assert_eq!(
        (defaults.max_bytes, defaults.timeout),
        (1_000_000, Duration::from_secs(5))
    );
    for (limits, said) in [
        (
            r#"{"max_bytes": 1023}"#,
            "request_body.max_bytes: 1023 is not allowed; \
             give a whole number from 1024 to 67108864",
        ),
        (
            r#"{"timeout": "99ms"}"#,
            "request_body.timeout: \"99ms\" is not allowed; \
             give a duration from \"100ms\" to \"5m\", such as \"1.5s\"",
        ),
        (
            r#"{"limit": 1}"#,
            "request_body.limit: unknown key; allowed: max_bytes, timeout",
        ),
        (
            "1000",
            "request_body: 1000 is not allowed; give an object with max_bytes or timeout",
        ),
    ] {
        assert_eq!(refused(&config(limits)), said);
    }
}

#[test]
fn a_source_of_models_is_the_body_or_a_header() {
    let config = |source: &str| {
        format!(
            r#"{{"model": {source}, "pools": [{{"name": "a", "match": {{"model": "m"}},
                "upstreams": [{{"cluster": "a"}}]}}]}}"#
        )
    };
    assert_eq!(parse(&config("\"body\"")).unwrap().model, ModelSource::Body);
    let allowed = "\"body\", or {\"header\": ...} with the header that names the model";
    for source in ["\"header\"", "1"] {
        assert_eq!(
            refused(&config(source)),
            format!("model: {source} is not allowed; give {allowed}")
        );
    }
    assert_eq!(
        refused(&config("{}")),
        "model.header: missing; give the name of a header, such as \"x-model\""
    );
}

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
fn weights_have_a_range() {
    for weight in ["1001", "0.5", "1.5", "-1", "\"2\"", "null"] {
        let text = format!(
            r#"{{"pools": [
                {{"name": "a", "match": {{"host": "a"}}, "upstreams": [{{"cluster": "a"}}]}},
                {{"name": "b", "upstreams": [{{"cluster": "b", "weight": {weight}}}]}}
            ]}}"#
        );
        assert_eq!(
            refused(&text),
            format!(
                "pools[1].upstreams[0].weight: {weight} is not allowed; \
                 give a whole number from 0 to 1000"
            )
        );
    }
}

#[test]
fn leases_have_a_range() {
    for lease in ["\"999ms\"", "\"301s\"", "\"10\"", "10"] {
        let text = format!(r#"{{"upstreams": [{{"cluster": "a"}}], "lease": {lease}}}"#);
        assert_eq!(
            refused(&text),
            format!(
                "lease: {lease} is not allowed; \
                 give a duration from \"1s\" to \"5m\", such as \"1.5s\""
            )
        );
    }
}

#[test]
fn the_state_is_told_at_a_path_without_a_query() {
    let with =
        |status: &str| format!(r#"{{"upstreams": [{{"cluster": "a"}}], "status": {status}}}"#);
    let told = parse(&with(r#"{"path": "/"}"#)).unwrap().status;
    assert_eq!(
        told,
        Some(Status {
            path: "/".to_owned(),
            port: None
        })
    );
    for (status, expected) in [
        (
            "{}",
            "status.path: missing; give a path without a query, such as \"/paceline\"",
        ),
        (
            r#"{"path": "/a?b"}"#,
            "status.path: \"/a?b\" is not allowed; give a path without a query, such as \"/paceline\"",
        ),
        (
            r#"{"path": "/", "port": 65536}"#,
            "status.port: 65536 is not allowed; give a whole number from 1 to 65535",
        ),
    ] {
        assert_eq!(refused(&with(status)), expected);
    }
}

#[test]
fn the_route_header_means_nothing_else() {
    for header in ["", "host", ":path", "Content-Length", "x y", "x-\\u00fc"] {
        let text = format!(r#"{{"upstreams": [{{"cluster": "a"}}], "route_header": "{header}"}}"#);
        let said = refused(&text);
        assert!(said.starts_with("route_header: \""), "{said}");
        assert!(
            said.ends_with(
                "is not allowed; give the name of a request header that means nothing else, \
                 such as \"x-upstream-cluster\""
            ),
            "{said}"
        );
    }
}

#[test]
fn clusters_are_names_that_a_header_can_carry() {
    for cluster in ["", " a", "a\\n", "\\u0000", "gpu-\\u00e4", "a;b"] {
        let said = refused(&format!(r#"{{"upstreams": [{{"cluster": "{cluster}"}}]}}"#));
        assert!(said.starts_with("upstreams[0].cluster: \""), "{said}");
        assert!(said.ends_with(
            "is not allowed; give a name of 1 to 512 visible ASCII characters, \
             without a semicolon and without a space at either end"
        ));
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
fn the_shorthand_does_not_mix_with_pools() {
    let text = r#"{
        "upstreams": [{"cluster": "a"}],
        "policy": "random",
        "pools": [{"name": "a", "upstreams": [{"cluster": "a"}]}]
    }"#;
    assert_eq!(
        refused(text),
        "2 problems:\n  \
         upstreams: cannot stand beside pools; move it into a pool\n  \
         policy: cannot stand beside pools; move it into a pool"
    );
}

#[test]
fn pools_and_upstreams_stand_once() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": "a"}, "upstreams": [{"cluster": "x"}, {"cluster": "x"}]},
        {"name": "b", "match": {"host": "b"}, "upstreams": [{"cluster": "x"}]},
        {"name": "a", "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "2 problems:\n  \
         pools[0].upstreams[1].cluster: \"x\" is already upstream 0 of this pool; \
         name a cluster once, its weight gives its share\n  \
         pools[2].name: \"a\" is already the name of pools[0]; give every pool its own"
    );
}

#[test]
fn a_pool_may_be_the_endpoints_of_one_cluster() {
    let config = parse(
        r#"{"pools": [
            {"name": "a", "match": {"host": "a"}, "cluster": "gpus"},
            {"name": "b", "cluster": "gpus", "endpoints": [
                "10.0.0.1:8000", {"address": "[FD00::0:1]:8000", "weight": 3}
            ]}
        ], "endpoint_header": "X-Endpoint"}"#,
    )
    .unwrap();
    assert_eq!(config.endpoint_header, "x-endpoint");
    let endpoint = |address: &str, weight| Endpoint {
        address: address.to_owned(),
        weight,
        max_in_flight: MaxInFlight::Unlimited,
    };
    let listed = vec![endpoint("10.0.0.1:8000", 1), endpoint("[fd00::1]:8000", 3)];
    for (pool, fixed) in config.pools.iter().zip([None, Some(listed)]) {
        assert_eq!(pool.upstreams, []);
        let endpoints = Endpoints {
            cluster: "gpus".to_owned(),
            fixed,
            each: MaxInFlight::Unlimited,
        };
        assert_eq!(pool.endpoints, Some(endpoints));
    }
}

#[test]
fn upstreams_and_a_cluster_do_not_mix() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": "a"}, "cluster": "x", "upstreams": [{"cluster": "y"}]},
        {"name": "b", "match": {"host": "b"}, "endpoints": ["10.0.0.1:80"]},
        {"name": "c", "cluster": "x", "endpoints": ["gpu:80", "10.0.0.1:80", "10.0.0.1:80"]}
    ], "cluster": "x", "endpoint_header": "x-upstream-cluster"}"#;
    assert_eq!(
        refused(text),
        "6 problems:\n  \
         endpoint_header: is the route_header too; give each its own\n  \
         cluster: cannot stand beside pools; move it into a pool\n  \
         pools[0].upstreams: cannot stand beside cluster; \
         name several clusters here, or one and its endpoints there\n  \
         pools[1].endpoints: needs cluster beside it, the cluster whose endpoints these are\n  \
         pools[2].endpoints[0]: \"gpu:80\" is not allowed; \
         give an IP address and a port, such as \"10.0.0.1:8000\" or \"[fd00::1]:8000\"\n  \
         pools[2].endpoints[2]: \"10.0.0.1:80\" is already endpoint 1 of this pool; \
         name an address once, its weight gives its share"
    );
}

#[test]
fn a_pool_behind_a_catch_all_is_refused() {
    let text = r#"{"pools": [
        {"name": "all", "match": {}, "upstreams": [{"cluster": "x"}]},
        {"name": "chat", "match": {"host": "a"}, "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[1]: pool \"chat\" can never be reached: \
         pools[0], \"all\", matches every request; put the narrower match first"
    );
}

#[test]
fn a_pool_behind_a_wider_one_is_refused() {
    let text = r#"{"pools": [
        {"name": "v1", "match": {"path_prefix": "/v1"}, "upstreams": [{"cluster": "x"}]},
        {"name": "chat", "match": {"path_prefix": "/v1/chat"}, "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[1]: pool \"chat\" can never be reached: \
         pools[0], \"v1\", matches every request that this pool matches; \
         put the narrower match first"
    );
}

#[test]
fn what_is_reached_is_judged_only_when_all_matches_are_read() {
    let text = r#"{"pools": [
        {"name": "a", "match": {"host": 1}, "upstreams": [{"cluster": "x"}]},
        {"name": "b", "upstreams": [{"cluster": "x"}]}
    ]}"#;
    assert_eq!(
        refused(text),
        "pools[0].match.host: 1 is not allowed; \
         give a host name or \"*.\" and a domain, without a port"
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

/// Every block of `docs/configuration.md` in ```` ```json ```` is a valid
/// configuration; fragments and refused ones are fenced as `jsonc`.
#[test]
fn documented_configurations_are_valid() {
    let page = include_str!("../../../docs/configuration.md");
    let examples: Vec<_> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        if let Err(said) = parse(example) {
            panic!("{said}\nin\n{example}");
        }
    }
}

/// Every refusal that the page quotes is what the configuration above it gets.
#[test]
fn documented_errors_are_the_real_ones() {
    let page = include_str!("../../../docs/configuration.md");
    let mut shown = 0;
    for rest in page.split("```jsonc refused\n").skip(1) {
        let mut fences = rest.split("```");
        let config = fences.next().unwrap();
        let message = fences.nth(1).unwrap().strip_prefix("text\n").unwrap();
        assert_eq!(refused(config), message.trim_end());
        shown += 1;
    }
    assert!(shown >= 2, "{shown} errors");
}

#[test]
fn limits_hold_only_where_every_request_is_balanced() {
    let config = |mode: &str| {
        let json = format!(
            r#"{{"mode": {mode}, "max_in_flight": 9, "admission": {{"queue": {{"max_wait": "5s"}}}},
                "devices": [{{"name": "gpu", "memory": 100}}],
                "upstreams": [
                    {{"cluster": "a", "max_in_flight": 1}},
                    {{"cluster": "b", "device": "gpu", "memory": {{"base": 1}}}}
                ]}}"#
        );
        parse(&json).unwrap().pools.remove(0)
    };
    assert!(config(r#""balance""#).has_limits());
    for mode in [r#""observe""#, r#"{"balance_percent": 50}"#] {
        let pool = config(mode);
        assert!(!pool.has_limits(), "{mode}");
        assert_eq!(pool.admission, Admission::default());
    }
}
