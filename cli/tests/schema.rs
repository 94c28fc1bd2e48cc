//! The JSON Schema of the configuration says what the parser does, in both
//! directions, as far as a schema can.
//!
//! A key that the parser gets must get into `docs/configuration.schema.json`: below
//! `definitions` where it belongs, and for keys of pools at the top as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use boon::{Compiler, SchemaIndex, Schemas};
use paceline::config::Config;
use serde_json::{Value, json};

/// Valid configurations beyond those in the documentation: what has several forms.
const VALID: [&str; 23] = [
    r##"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "/!\"$>@~", "port": 65535 } }"##,
    r#"{ "upstreams": [ { "cluster": "a b|c", "weight": 8.0, "accepts": { "max_size": 10 } } ], "policy": "random" }"#,
    r#"{ "cluster": "a", "endpoints": [ "10.0.0.1:1", { "address": "[fd00::1]:65535", "weight": 0 } ] }"#,
    r#"{ "cluster": "a", "endpoints": { "max_in_flight": "auto" }, "max_in_flight": 9 }"#,
    r#"{ "upstreams": [ { "cluster": "a", "max_in_flight": 3 } ], "max_in_flight": "auto" }"#,
    r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "b" } ], "reserve": { "max_size": 0, "share": 0.9 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": { "header": "X-Steps" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": { "json_pointer": "" }, "request_body": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": "content_length", "latency": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": "torchserve" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h?a=b", "json_pointer": "", "equals": null } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "preset": "kserve", "model": "a/b", "interval": "5m" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": "off", "slow_start": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": { "latency_factor": 0, "consecutive_failures": 100 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": { "latency_factor": 1.5, "max_ejection_time": "1h" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "mode": "observe", "access_log": true }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "mode": { "balance_percent": 99.9 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "round_robin" }, "lease": "0.5m" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "random" }, "lease": "300s" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "weighted_round_robin" } }"#,
    r#"{ "pools": [ { "name": "a", "match": { "model": { "exact": "m" }, "headers": {} }, "cluster": "a" } ], "model": "body" }"#,
    r#"{ "pools": [ { "name": "a", "match": {}, "cluster": "a" } ], "endpoint_header": "X-E" }"#,
    r#"{ "pools": [ { "name": "a", "match": { "host": "[::1]", "headers": { "A": "" } }, "upstreams": [ { "cluster": "a" } ] } ] }"#,
];

/// Configurations that both refuse.
const INVALID: [&str; 70] = [
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": "/paceline" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "paceline" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "/?x" } }"#,
    r##"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "/#x" } }"##,
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "/a b" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "status": { "path": "/", "port": 0 } }"#,
    "[]",
    "7",
    "{}",
    r#"{ "upstreams": [] }"#,
    r#"{ "upstreams": {} }"#,
    r#"{ "upstreams": [ "a" ] }"#,
    r#"{ "upstreams": [ {} ] }"#,
    r#"{ "upstreams": [ { "cluster": "" } ] }"#,
    r#"{ "upstreams": [ { "cluster": " a" } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a;b" } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "weight": -1 } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "weight": 1001 } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "weight": 1.5 } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "weight": "1" } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "wieght": 1 } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "accepts": {} } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a", "accepts": { "min_size": -1 } } ] }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "cluster": "b" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "endpoints": [ "10.0.0.1:1" ] }"#,
    r#"{ "cluster": "a", "endpoints": [ "gpu-a:1" ] }"#,
    r#"{ "cluster": "a", "endpoints": [] }"#,
    r#"{ "cluster": "a", "endpoints": {} }"#,
    r#"{ "cluster": "a", "endpoints": { "max_in_flight": 8, "weight": 2 } }"#,
    r#"{ "upstreams": [ { "cluster": "a", "max_in_flight": "automatic" } ] }"#,
    r#"{ "cluster": "a", "reserve": { "max_size": 1 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": "on" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": { "latency_factor": 1 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "outlier_detection": { "max_ejection_percent": 0 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "slow_start": { "aggression": 0 } }"#,
    r#"{ "pools": [ { "name": "a", "upstreams": [ { "cluster": "a" } ] } ], "slow_start": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "mode": "watch" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "mode": { "balance_percent": 100 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "mode": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": "best" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "choice_count": 2 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "random", "choice_count": 2 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "least_request", "choice_count": 1 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "latency_percentile", "q": 1 } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "policy": { "name": "shortest_expected_delay", "basis": "size" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "lease": 10 }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "lease": "10" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "lease": "10 s" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "explain": "yes" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "explain": null }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "route_header": "Host" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "route_header": "x-envoy-a" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "route_header": "a b" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": "bytes" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": { "json_pointer": "a" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "request_size": { "header": "a", "json_pointer": "/a" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "latency": { "signal": "last_byte" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": "vlm" }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": {} }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "health" } }"#,
    r##"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h#a" } }"##,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h", "expected_statuses": [ 503 ] } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h", "json_pointer": "/a" } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h", "json_pointer": "/a", "equals": [] } }"#,
    r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "path": "/h", "healthy_threshold": 0 } }"#,
    r#"{ "pools": [ { "upstreams": [ { "cluster": "a" } ] } ] }"#,
    r#"{ "pools": [ { "name": "a", "upstreams": [ { "cluster": "a" } ] } ], "policy": "random" }"#,
    r#"{ "pools": [ { "name": "a", "match": { "path_prefix": "v1" }, "upstreams": [ { "cluster": "a" } ] } ] }"#,
    r#"{ "pools": [ { "name": "a", "match": { "headers": { "host": "a" } }, "upstreams": [ { "cluster": "a" } ] } ] }"#,
];

/// Configurations that the parser refuses and the schema does not, with the reason:
/// what a schema cannot say, or not in a way that helps in an editor.
const ONLY_PARSER: [(&str, &str); 11] = [
    (
        "ranges of durations",
        r#"{ "upstreams": [ { "cluster": "a" } ], "lease": "1h" }"#,
    ),
    (
        "presets that ask for no model",
        r#"{ "upstreams": [ { "cluster": "a" } ], "health_check": { "preset": "vllm", "model": "a" } }"#,
    ),
    (
        "equal names",
        r#"{ "upstreams": [ { "cluster": "a" }, { "cluster": "a" } ] }"#,
    ),
    (
        "pools that are never reached",
        r#"{ "pools": [ { "name": "a", "cluster": "a" }, { "name": "b", "cluster": "b" } ] }"#,
    ),
    (
        "one value that bounds another",
        r#"{ "upstreams": [ { "cluster": "a", "accepts": { "min_size": 2, "max_size": 1 } } ] }"#,
    ),
    (
        "keys that nothing heeds",
        r#"{ "upstreams": [ { "cluster": "a" } ], "model": "body" }"#,
    ),
    (
        "sizes that no policy heeds",
        r#"{ "upstreams": [ { "cluster": "a" } ], "policy": "random", "request_size": "openai" }"#,
    ),
    (
        "weights that the policy ignores",
        r#"{ "upstreams": [ { "cluster": "a", "weight": 2 }, { "cluster": "b" } ], "policy": "random" }"#,
    ),
    (
        "IP addresses by their parts",
        r#"{ "cluster": "a", "endpoints": [ "256.0.0.1:1" ] }"#,
    ),
    (
        "hosts by their parts",
        r#"{ "pools": [ { "name": "a", "match": { "host": "a..b" }, "cluster": "a" } ] }"#,
    ),
    (
        "one header for two uses",
        r#"{ "cluster": "a", "endpoint_header": "x", "route_header": "x" }"#,
    ),
];

const EXTRA: &str = "zz_no_such_key";

struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
    json: Value,
}

impl Schema {
    /// What `paceline schema` prints.
    fn printed() -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
            .arg("schema")
            .output()
            .unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("schema.json", json.clone()).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self {
            schemas,
            index,
            json,
        }
    }

    fn problem(&self, config: &Value) -> Option<String> {
        let outcome = self.schemas.validate(config, self.index);
        outcome.err().map(|error| format!("{error:#}"))
    }

    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node["$ref"].as_str() {
            Some(path) => self.resolve(self.json.pointer(path.trim_start_matches('#')).unwrap()),
            None => node,
        }
    }

    /// The parts of a schema that say what a value may be, itself included.
    fn parts<'a>(&'a self, node: &'a Value, value: &Value) -> Vec<&'a Value> {
        let node = self.resolve(node);
        let mut parts = vec![node];
        for key in ["allOf", "anyOf"] {
            for part in node[key].as_array().into_iter().flatten() {
                let inner = self.parts(part, value);
                let fits = |part: &&Value| {
                    let constants = part["properties"].as_object().into_iter().flatten();
                    let mut constants =
                        constants.filter_map(|(key, it)| Some((key, it.get("const")?)));
                    constants.all(|(key, constant)| value.get(key).is_none_or(|it| it == constant))
                };
                parts.extend(inner.into_iter().filter(fits));
            }
        }
        parts
    }

    /// For each object in a configuration, the keys that the schema knows there.
    fn keys(
        &self,
        node: &Value,
        value: &Value,
        place: &str,
        found: &mut BTreeMap<String, BTreeSet<String>>,
    ) {
        let parts = self.parts(node, value);
        match value {
            Value::Object(entries) => {
                let mut keys = BTreeSet::new();
                let mut is_open = false;
                for part in &parts {
                    keys.extend(
                        part["properties"]
                            .as_object()
                            .into_iter()
                            .flatten()
                            .map(|(key, _)| key.clone()),
                    );
                    is_open |= part["additionalProperties"].is_object();
                }
                if !is_open {
                    found.insert(place.to_owned(), keys);
                }
                for (key, value) in entries {
                    let inner = parts.iter().find_map(|part| part["properties"].get(key));
                    let open = || {
                        parts
                            .iter()
                            .map(|part| &part["additionalProperties"])
                            .find(|it| it.is_object())
                    };
                    if let Some(inner) = inner.or_else(open) {
                        self.keys(inner, value, &format!("{place}/{key}"), found);
                    }
                }
            }
            Value::Array(items) => {
                let inner = parts
                    .iter()
                    .map(|part| &part["items"])
                    .find(|it| it.is_object());
                for (index, item) in items.iter().enumerate() {
                    if let Some(inner) = inner {
                        self.keys(inner, item, &format!("{place}/{index}"), found);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The keys that the parser names where it finds one that it does not know.
fn parsed_keys(config: &Value, place: &str) -> BTreeSet<String> {
    let mut config = config.clone();
    config.pointer_mut(place).unwrap()[EXTRA] = json!(1);
    let error = Config::parse(Some(config.to_string().as_bytes())).unwrap_err();
    let lines = error.lines();
    let told = lines
        .iter()
        .find_map(|line| line.split_once(&format!("{EXTRA}: unknown key; ")));
    let told = told.unwrap_or_else(|| panic!("{place}: {lines:?}")).1;
    let (_, keys) = told.split_once("allowed: ").unwrap();
    keys.split(", ").map(str::to_owned).collect()
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The examples of the documentation that are meant to be right, and those above.
fn examples() -> Vec<Value> {
    let page = fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let blocks = page
        .split("\n```json\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap());
    let mut examples: Vec<Value> = blocks
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert!(examples.len() > 5, "the page has examples");
    for file in [
        "envoy.yaml",
        "endpoints.yaml",
        "models.yaml",
        "compose/envoy.yaml",
    ] {
        const CONFIG: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                              /http_filters/0/typed_config/config/configuration/value";
        let text = fs::read_to_string(repository().join("envoy").join(file)).unwrap();
        let envoy: Value = serde_saphyr::from_str(&text).unwrap();
        let config = envoy.pointer(CONFIG).unwrap().as_str().unwrap();
        examples.push(serde_json::from_str(config).unwrap());
    }
    examples.extend(VALID.iter().map(|text| serde_json::from_str(text).unwrap()));
    examples
}

fn is_parsed(config: &Value) -> Result<(), String> {
    let parsed = Config::parse(Some(config.to_string().as_bytes()));
    parsed.map(drop).map_err(|error| error.to_string())
}

#[test]
fn what_the_parser_accepts_the_schema_accepts() {
    let schema = Schema::printed();
    for config in examples() {
        assert_eq!(is_parsed(&config), Ok(()), "{config}");
        assert_eq!(schema.problem(&config), None, "{config}");
    }
}

#[test]
fn what_the_schema_refuses_the_parser_refuses() {
    let schema = Schema::printed();
    for text in INVALID {
        let config: Value = serde_json::from_str(text).unwrap();
        assert!(is_parsed(&config).is_err(), "the parser accepts {text}");
        assert!(
            schema.problem(&config).is_some(),
            "the schema accepts {text}"
        );
    }
    for (why, text) in ONLY_PARSER {
        let config: Value = serde_json::from_str(text).unwrap();
        assert!(is_parsed(&config).is_err(), "the parser accepts {text}");
        assert_eq!(
            schema.problem(&config),
            None,
            "it can say {why}: move this to INVALID"
        );
    }
}

#[test]
fn both_know_the_same_keys() {
    let schema = Schema::printed();
    let mut seen = BTreeSet::new();
    for config in examples() {
        let mut places = BTreeMap::new();
        schema.keys(&schema.json, &config, "", &mut places);
        for (place, keys) in places {
            let parsed = parsed_keys(&config, &place);
            assert_eq!(
                keys, parsed,
                "at {place:?} of {config}: left the schema's, right the parser's"
            );
            seen.insert(keys);
        }
    }
    // The examples show every object that the schema knows.
    let definitions = schema.json["definitions"].as_object().unwrap();
    for (name, definition) in definitions {
        if let Some(properties) = definition["properties"].as_object() {
            let keys: BTreeSet<String> = properties.keys().cloned().collect();
            assert!(seen.contains(&keys), "no example has the object {name}");
        }
    }
}

#[test]
fn keys_of_pools_may_be_at_the_top() {
    let schema = Schema::printed();
    let top = schema.json["properties"].as_object().unwrap();
    for (key, value) in schema.json["definitions"]["pool"]["properties"]
        .as_object()
        .unwrap()
    {
        if key != "name" && key != "match" {
            assert_eq!(top.get(key), Some(value), "{key}");
        }
    }
}
