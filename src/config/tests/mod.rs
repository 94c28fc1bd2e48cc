//! The configuration as a whole: what is accepted, what is refused and in which
//! words, and that no input whatever does anything else.

mod contradictions;
mod pages;
mod pools;
mod properties;
mod syntax;

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
