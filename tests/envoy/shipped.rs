//! The other shipped configurations say the same as the one to copy, but for
//! what they are there to show.

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
        let mut named = host;
        named["metadata"] = json!({ "filter_metadata": { "paceline": { "upstream": name } } });
        assert_eq!(own, &json!([named]));
        all.push(named);
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

const CONNECTION_MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
const EARLY: &str = "early_header_mutation_extensions";

/// Removes what differs on purpose: the type that a file of resources names, and
/// what strips the routing header, which must be there.
fn plain(mut resource: Value) -> Value {
    resource.as_object_mut().unwrap().remove("@type");
    if let Some(manager) = resource.pointer_mut(CONNECTION_MANAGER) {
        manager.as_object_mut().unwrap().remove(EARLY);
    }
    resource
}

#[test]
fn the_files_of_a_dynamic_envoy_say_the_same_as_the_one_to_copy() {
    let (copied, bootstrap) = (shipped("envoy.yaml"), shipped("dynamic.yaml"));
    for part in ["admin", "stats_config"] {
        assert_eq!(bootstrap[part], copied[part]);
    }
    for (file, source, part) in [
        ("lds.yaml", "lds_config", "listeners"),
        ("cds.yaml", "cds_config", "clusters"),
    ] {
        let path = &bootstrap["dynamic_resources"][source]["path_config_source"]["path"];
        assert_eq!(path, &json!(format!("/etc/envoy/{file}")));
        let resources = shipped(file)["resources"].as_array().unwrap().clone();
        let copied = copied["static_resources"][part].as_array().unwrap();
        let resources: Vec<_> = resources.into_iter().map(plain).collect();
        let copied: Vec<_> = copied.iter().cloned().map(plain).collect();
        assert_eq!(resources, copied, "{file}");
    }
}

#[test]
fn no_client_chooses_a_cluster_while_the_filter_is_not_there() {
    let dynamic = shipped("lds.yaml")["resources"][0].clone();
    let models = shipped("models.yaml").pointer(LISTENER).unwrap().clone();
    for listener in [dynamic, models] {
        let early = &listener.pointer(CONNECTION_MANAGER).unwrap()[EARLY];
        let removed = &early[0]["typed_config"]["mutations"][0]["remove"];
        assert_eq!(removed, "x-upstream-cluster");
    }
}
