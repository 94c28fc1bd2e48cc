//! Settings that cannot both be meant, or that nothing would heed.

use serde_json::{Value, json};

use super::{parse, refused};
use crate::config::membership::{MAX_IN_ALL, MAX_IN_POOL};
use crate::config::{Config, ConfigError};

fn said(config: &Value) -> String {
    refused(&config.to_string())
}

#[test]
fn the_route_header_is_not_the_default_endpoint_header() {
    let header = "x-gateway-destination-endpoint";
    let endpoints = json!({ "cluster": "gpus", "route_header": header });
    assert_eq!(
        said(&endpoints),
        "route_header: \"x-gateway-destination-endpoint\" is the endpoint_header too, by default; \
         give each its own"
    );
    // Without endpoints it is a name like any other.
    let clusters = json!({ "upstreams": [{ "cluster": "a" }], "route_header": header });
    assert!(parse(&clusters.to_string()).is_ok());
    let renamed = json!({ "cluster": "gpus", "route_header": header, "endpoint_header": "x-e" });
    assert!(parse(&renamed.to_string()).is_ok());
}

#[test]
fn routing_headers_mean_nothing_to_envoy_or_to_servers() {
    for name in [
        "x-envoy-upstream-rq-timeout-ms",
        "X-Envoy-Retry-On",
        "user-agent",
        "grpc-timeout",
        "x-forwarded-client-cert",
        "x-api-key",
    ] {
        for key in ["route_header", "endpoint_header"] {
            let said = said(&json!({ "cluster": "gpus", key: name }));
            assert_eq!(
                said,
                format!(
                    "{key}: \"{name}\" is not allowed; give the name of a request header that \
                     means nothing else, such as \"x-upstream-cluster\""
                )
            );
        }
    }
}

#[test]
fn what_is_read_is_not_overwritten() {
    let upstreams = json!([{ "cluster": "a" }]);
    let overwritten = |key: &str, name: &str| {
        format!(
            "\"{name}\" is the {key}, which the filter overwrites; read another header, \
             or give {key} another name"
        )
    };
    let matched = json!({ "route_header": "X-Tenant", "pools": [
        { "name": "a", "match": { "headers": { "x-tenant": "gold" } }, "upstreams": upstreams },
        { "name": "b", "upstreams": upstreams },
    ]});
    let message = overwritten("route_header", "x-tenant");
    assert_eq!(
        said(&matched),
        format!("pools[0].match.headers.x-tenant: {message}")
    );

    let by_default = json!({ "pools": [
        { "name": "a", "match": { "headers": { "x-upstream-cluster": { "present": true } } },
          "upstreams": upstreams },
        { "name": "b", "cluster": "gpus",
          "request_size": { "header": "x-gateway-destination-endpoint" } },
    ]});
    let messages = [
        (
            "match.headers.x-upstream-cluster",
            "route_header",
            "x-upstream-cluster",
        ),
        (
            "request_size.header",
            "endpoint_header",
            "x-gateway-destination-endpoint",
        ),
    ]
    .iter()
    .enumerate()
    .map(|(pool, (place, key, name))| {
        format!("\n  pools[{pool}].{place}: {}", overwritten(key, name))
    })
    .collect::<String>();
    assert_eq!(said(&by_default), format!("2 problems:{messages}"));

    let size =
        json!({ "upstreams": upstreams, "request_size": { "header": "x-upstream-cluster" } });
    assert!(said(&size).starts_with("request_size.header: \"x-upstream-cluster\" is"));
    let model = json!({ "model": { "header": "x-upstream-cluster" }, "pools": [
        { "name": "a", "match": { "model": "m" }, "upstreams": upstreams },
    ]});
    assert!(said(&model).starts_with("model.header: \"x-upstream-cluster\" is"));
    let admission = json!({ "max_in_flight": 9, "upstreams": upstreams, "admission": {
        "priority": { "header": "X-Upstream-Cluster", "classes": ["a", "b"], "default": "a" },
        "fairness": { "header": "x-upstream-cluster" },
        "deadline": { "header": "x-upstream-cluster" },
    }});
    let message = overwritten("route_header", "x-upstream-cluster");
    let messages = ["priority", "fairness", "deadline"]
        .map(|key| format!("\n  admission.{key}.header: {message}"));
    assert_eq!(
        said(&admission),
        format!("3 problems:{}", messages.concat())
    );
}

#[test]
fn an_endpoint_header_needs_endpoints() {
    let config = json!({ "upstreams": [{ "cluster": "a" }], "endpoint_header": "x-e" });
    assert_eq!(
        said(&config),
        "endpoint_header: no pool balances the endpoints of a cluster; give a pool cluster, \
         or leave this out"
    );
    assert!(parse(r#"{ "cluster": "gpus", "endpoint_header": "x-e" }"#).is_ok());
}

#[test]
fn weights_that_differ_need_a_policy_that_heeds_them() {
    let config = |policy: &str, weights: [u32; 3]| {
        let upstreams: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(weights)
            .map(|(cluster, weight)| json!({ "cluster": cluster, "weight": weight }))
            .collect();
        json!({ "policy": policy, "upstreams": upstreams })
    };
    for policy in ["round_robin", "random"] {
        assert_eq!(
            said(&config(policy, [1, 3, 1])),
            format!(
                "upstreams[1].weight: 3 has no effect, because {policy} ignores weights; \
                 leave it out or choose another policy, such as weighted_round_robin"
            )
        );
        // The same share of each is what these policies give.
        assert!(parse(&config(policy, [3, 3, 3]).to_string()).is_ok());
    }
    for policy in [
        "weighted_round_robin",
        "least_request",
        "least_response_time",
        "latency_percentile",
        "peak_ewma",
        "shortest_expected_delay",
    ] {
        assert!(
            parse(&config(policy, [1, 3, 1]).to_string()).is_ok(),
            "{policy}"
        );
    }
    let endpoints = json!({ "pools": [{ "name": "p", "policy": "random", "cluster": "gpus",
        "endpoints": ["10.0.0.1:80", { "address": "10.0.0.2:80", "weight": 2 }] }]});
    let said = said(&endpoints);
    assert!(
        said.starts_with("pools[0].endpoints[1].weight: 2 has no effect"),
        "{said}"
    );
}

#[test]
fn pools_have_bounds() {
    let upstreams = |pool: usize, count: usize| -> Vec<Value> {
        let cluster = |number| json!({ "cluster": format!("c{pool}-{number}") });
        (0..count).map(cluster).collect()
    };
    let full = json!({ "upstreams": upstreams(0, MAX_IN_POOL) });
    assert!(parse(&full.to_string()).is_ok());
    assert_eq!(
        said(&json!({ "upstreams": upstreams(0, MAX_IN_POOL + 1) })),
        "upstreams: 1025 are too many; give a pool at most 1024"
    );
    let addresses: Vec<_> = (0..=MAX_IN_POOL)
        .map(|number| format!("10.0.{}.{}:80", number / 256, number % 256))
        .collect();
    assert_eq!(
        said(&json!({ "cluster": "gpus", "endpoints": addresses })),
        "endpoints: 1025 are too many; give a pool at most 1024"
    );
    let pools = |counts: &[usize]| {
        let pool = |(index, count): (usize, &usize)| {
            json!({ "name": format!("{index}"), "match": { "path_prefix": format!("/{index}") },
                    "upstreams": upstreams(index, *count) })
        };
        json!({ "pools": counts.iter().enumerate().map(pool).collect::<Vec<_>>() })
    };
    let fitting = [MAX_IN_POOL; MAX_IN_ALL / MAX_IN_POOL];
    assert!(parse(&pools(&fitting).to_string()).is_ok());
    let over = [fitting.as_slice(), &[1]].concat();
    assert_eq!(
        said(&pools(&over)),
        "pools: 4097 upstreams in all are too many; give all pools together at most 4096"
    );
}

/// What Envoy hands on of a `Struct` with these entries.
fn protobuf_struct(entries: &[(&str, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value_len) in entries {
        let mut entry = vec![0x0a, key.len() as u8];
        entry.extend(key.bytes());
        // A value that is a string of so many bytes.
        let mut value = vec![0x1a];
        varint(&mut value, *value_len);
        value.extend(std::iter::repeat_n(b'x', *value_len));
        entry.push(0x12);
        varint(&mut entry, value.len());
        entry.extend(value);
        bytes.push(0x0a);
        varint(&mut bytes, entry.len());
        bytes.extend(entry);
    }
    bytes
}

fn varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[test]
fn a_struct_is_recognised_and_the_right_type_is_named() {
    for entries in [
        &[("upstreams", 7)][..],
        &[("upstreams", 200), ("policy", 6)],
        &[("upstreams", 70_000)],
        &[("", 1)],
    ] {
        let error = Config::parse(Some(&protobuf_struct(entries))).unwrap_err();
        assert!(matches!(error, ConfigError::Struct), "{error}");
        let said = error.to_string();
        assert!(said.starts_with("a google.protobuf.Struct"), "{said}");
        assert!(said.contains("google.protobuf.StringValue"), "{said}");
    }
}

#[test]
fn json_behind_an_empty_line_is_no_struct() {
    for text in [
        "\n{\n  \"upstreams\": [{\"cluster\": \"a\"}]\n}\n",
        "\n\n{}",
        "\n",
        "\n{",
    ] {
        let error = Config::parse(Some(text.as_bytes())).err();
        assert!(!matches!(error, Some(ConfigError::Struct)), "{text:?}");
    }
}

#[test]
fn what_orders_waiting_requests_needs_something_to_wait_for() {
    let admission = json!({
        "queue": {},
        "priority": { "header": "x-p", "classes": ["a", "b"], "default": "a" },
        "fairness": { "header": "x-t" },
        "deadline": { "default": "9s" },
    });
    let config = |further: Value, upstream: Value| {
        let mut config = json!({ "upstreams": [upstream, { "cluster": "b" }] });
        config["admission"] = admission.clone();
        let root = config.as_object_mut().unwrap();
        root.extend(further.as_object().unwrap().clone());
        config
    };
    let plain = json!({ "cluster": "a" });
    let messages = ["fairness", "priority", "queue"].map(|key| {
        format!(
            "\n  admission.{key}: no request of this pool ever waits; give the pool or an \
             upstream max_in_flight, or leave this out"
        )
    });
    // In the order of the text, which serde_json's features decide here.
    let problems = said(&config(json!({}), plain.clone()));
    assert!(problems.starts_with("3 problems:"), "{problems}");
    for message in messages {
        assert!(problems.contains(&message), "{problems}");
    }
    let capped = json!({ "cluster": "a", "max_in_flight": 8 });
    let device = json!({ "cluster": "a", "device": "gpu", "memory": { "base": 1 } });
    let devices = json!({ "devices": [{ "name": "gpu", "memory": 9 }] });
    for config in [
        config(json!({ "max_in_flight": 9 }), plain),
        config(json!({}), capped),
        config(devices, device),
    ] {
        assert_eq!(parse(&config.to_string()).err(), None);
    }
    let endpoints = json!({ "cluster": "gpus", "admission": { "queue": {} },
        "endpoints": [{ "address": "10.0.0.1:80", "max_in_flight": 1 }] });
    assert!(parse(&endpoints.to_string()).is_ok());
    let only = json!({ "upstreams": [{ "cluster": "a" }], "admission": { "deadline": {} } });
    assert!(parse(&only.to_string()).is_ok());
}
