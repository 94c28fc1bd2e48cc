//! The configuration for docker-compose says the same as the one to copy, but
//! for its servers and its second listener.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

const LISTENER: &str = "/static_resources/listeners/0";
const FILTER_CONFIG: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                             /http_filters/0/typed_config/config/configuration/value";

fn shipped(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("envoy")
        .join(file);
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn cluster<'a>(config: &'a Value, name: &str) -> &'a Value {
    let clusters = config["static_resources"]["clusters"].as_array().unwrap();
    clusters
        .iter()
        .find(|cluster| cluster["name"] == name)
        .unwrap_or_else(|| panic!("no cluster {name}"))
}

#[test]
fn the_configuration_for_compose_is_the_one_to_copy() {
    let (copied, mut compose) = (shipped("envoy.yaml"), shipped("compose/envoy.yaml"));
    assert_eq!(compose["stats_config"], copied["stats_config"]);

    let filter = compose.pointer_mut(FILTER_CONFIG).unwrap().take();
    let filter: Value = serde_json::from_str(filter.as_str().unwrap()).unwrap();
    *compose.pointer_mut(FILTER_CONFIG).unwrap() = copied.pointer(FILTER_CONFIG).unwrap().clone();
    assert_eq!(compose.pointer(LISTENER), copied.pointer(LISTENER));

    let upstreams: Vec<&str> = filter["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|upstream| upstream["cluster"].as_str().unwrap())
        .collect();
    let servers = |cluster: &str| format!("{cluster}-servers");
    let mut all = Vec::new();
    for (number, name) in upstreams.iter().enumerate() {
        // The aggregate: its own servers, and those of the two that follow it.
        let mut expected = cluster(&copied, "gpu-a").clone();
        let tries = upstreams.iter().cycle().skip(number).take(3);
        expected["name"] = json!(name);
        expected["cluster_type"]["typed_config"]["clusters"] =
            tries.map(|name| servers(name)).collect();
        assert_eq!(cluster(&compose, name), &expected);

        // Its own servers: what the file to copy has, but found by their name.
        let own = cluster(&compose, &servers(name));
        let copied = cluster(&copied, "gpu-a-servers");
        for (key, value) in copied.as_object().unwrap() {
            if !["name", "type", "load_assignment"].contains(&key.as_str()) {
                assert_eq!(&own[key], value, "{name}: {key}");
            }
        }
        let address = json!({ "socket_address": { "address": name, "port_value": 8000 } });
        let host = json!({ "endpoint": { "address": address } });
        let own = &own["load_assignment"]["endpoints"][0]["lb_endpoints"];
        assert_eq!(own, &json!([host]));
        all.push(host);
    }
    let fallback = &cluster(&compose, "all-gpus")["load_assignment"]["endpoints"][0];
    assert_eq!(fallback["lb_endpoints"], json!(all));

    // Each of them is a service.
    let services = shipped("docker-compose.yaml")["services"].clone();
    for name in upstreams {
        let command = services[name]["command"].as_array().unwrap();
        assert!(command.contains(&json!(name)), "{name} serves {command:?}");
    }
}
