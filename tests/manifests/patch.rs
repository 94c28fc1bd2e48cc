//! What an EnvoyFilter does to Envoy's configuration.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::documents::Document;

/// Those members of a route's action of which Envoy takes one.
const DESTINATIONS: [&str; 3] = ["cluster", "cluster_header", "weighted_clusters"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "workloadSelector")]
    _workload_selector: Value,
    config_patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Patch {
    apply_to: String,
    r#match: Match,
    patch: Change,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Match {
    context: String,
    #[serde(default)]
    listener: Value,
    #[serde(default)]
    route_configuration: Value,
    #[serde(default)]
    cluster: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    operation: String,
    value: Value,
}

/// Applies the patches of a gateway, in order. `connection_manager` is the
/// typed configuration of the only one.
pub(crate) fn apply(
    filter: &Document,
    connection_manager: &mut Value,
    clusters: &mut Vec<Value>,
    extensions: &mut Vec<Value>,
) {
    for patch in filter.spec::<Spec>().config_patches {
        assert_eq!(patch.r#match.context, "GATEWAY");
        let value = patch.patch.value;
        match (patch.apply_to.as_str(), patch.patch.operation.as_str()) {
            ("CLUSTER", "ADD") => clusters.push(value),
            ("CLUSTER", "MERGE") => {
                let name = &patch.r#match.cluster["name"];
                let mut named = clusters
                    .iter_mut()
                    .filter(|cluster| cluster["name"] == *name);
                let cluster = named
                    .next()
                    .unwrap_or_else(|| panic!("{}: no cluster {name}", filter.file));
                merge(cluster, &value);
            }
            ("EXTENSION_CONFIG", "ADD") => extensions.push(value),
            ("HTTP_FILTER", "INSERT_BEFORE") => {
                let named = &patch.r#match.listener["filterChain"]["filter"];
                assert_eq!(
                    named["name"],
                    "envoy.filters.network.http_connection_manager"
                );
                let filters = connection_manager["http_filters"].as_array_mut().unwrap();
                let before = filters
                    .iter()
                    .position(|filter| filter["name"] == named["subFilter"]["name"]);
                filters.insert(before.expect("the filter to insert before"), value);
            }
            ("HTTP_ROUTE", "MERGE") => {
                let name = &patch.r#match.route_configuration["vhost"]["route"]["name"];
                let hosts = connection_manager["route_config"]["virtual_hosts"].as_array_mut();
                let routes = hosts
                    .unwrap()
                    .iter_mut()
                    .flat_map(|host| host["routes"].as_array_mut().unwrap());
                let mut named: Vec<_> = routes.filter(|route| route["name"] == *name).collect();
                assert!(!named.is_empty(), "{}: no route {name}", filter.file);
                for route in &mut named {
                    merge(route, &value);
                }
            }
            ("VIRTUAL_HOST", "MERGE") => {
                let name = &patch.r#match.route_configuration["vhost"]["name"];
                let hosts = connection_manager["route_config"]["virtual_hosts"].as_array_mut();
                let mut named = hosts
                    .unwrap()
                    .iter_mut()
                    .filter(|host| host["name"] == *name);
                let host = named
                    .next()
                    .unwrap_or_else(|| panic!("{}: no virtual host {name}", filter.file));
                merge(host, &value);
            }
            ("NETWORK_FILTER", "MERGE") => merge(connection_manager, &value["typed_config"]),
            other => panic!("{}: {other:?} is beyond this translation", filter.file),
        }
    }
}

/// As protobuf merges messages: fields replace, messages merge, lists grow, and
/// of members that exclude each other the last one stays.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            if let Some(set) = DESTINATIONS.iter().find(|key| from.contains_key(**key)) {
                drop_other_destinations(into, set);
            }
            for (key, value) in from {
                merge(into.entry(key).or_insert(json!(null)), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

fn drop_other_destinations(action: &mut Map<String, Value>, but: &str) {
    action.retain(|key, _| key == but || !DESTINATIONS.contains(&key.as_str()));
}
