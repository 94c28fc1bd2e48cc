//! Envoy's configuration as Istio makes it from the manifests.
//!
//! What is modelled, after Istio's source (pilot/pkg/networking/core, pilot/pkg/model/extensions.go, pkg/wasm): the names of
//! clusters in gateways, sidecars and waypoints; routes, catch-alls last, with
//! Istio's own retries and no timeout; a Gateway with a `bind` as a listener of its own,
//! any other as the main one; plugins by extension discovery, named
//! `<namespace>.<name>`, without `vm_id`, their module as a file that the agent
//! has downloaded, their configuration through a protobuf `Struct` into a
//! `StringValue`. Pods are servers of the test. Fields that are not modelled
//! fail the test.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::documents::Document;
use crate::patch;

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const CONNECTION_MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Where a proxy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Gateway,
    Sidecar,
    Waypoint,
}

/// The addresses of a Deployment's pods, by its name.
pub(crate) type Pods = BTreeMap<String, Vec<SocketAddr>>;

/// What Envoy gets.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) connection_manager: Value,
    /// Those of Gateways with an address of their own, each with that.
    pub(crate) bound: Vec<(SocketAddr, Value)>,
    pub(crate) clusters: Vec<Value>,
    /// What extension discovery serves.
    pub(crate) extensions: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VirtualService {
    hosts: Vec<String>,
    gateways: Vec<String>,
    http: Vec<HttpRoute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HttpRoute {
    #[serde(default)]
    name: String,
    #[serde(default)]
    r#match: Vec<RouteMatch>,
    #[serde(default)]
    route: Vec<RouteDestination>,
    direct_response: Option<DirectResponse>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DirectResponse {
    status: u16,
    body: ResponseBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseBody {
    string: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    #[serde(rename = "selector")]
    _selector: Value,
    servers: [GatewayServer; 1],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayServer {
    port: GatewayPort,
    bind: Option<IpAddr>,
    hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatewayPort {
    number: u16,
    #[serde(rename = "name")]
    _name: String,
    protocol: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteMatch {
    headers: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteDestination {
    destination: Destination,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    host: String,
    port: Port,
    #[serde(default)]
    subset: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    number: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DestinationRule {
    host: String,
    traffic_policy: Value,
    subsets: Vec<Subset>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subset {
    name: String,
    labels: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Plugin {
    url: String,
    #[serde(rename = "imagePullPolicy")]
    _image_pull_policy: Value,
    plugin_name: String,
    fail_strategy: String,
    plugin_config: Value,
    #[serde(rename = "selector", default)]
    _selector: Value,
    #[serde(rename = "targetRefs", default)]
    _target_refs: Value,
    #[serde(rename = "match", default)]
    matches: Vec<TrafficSelector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficSelector {
    mode: String,
    #[serde(rename = "ports")]
    _ports: Value,
}

/// The configuration of a proxy from these manifests, with the module where the
/// agent would have put it.
pub(crate) fn assemble(
    role: Role,
    documents: &[Document],
    pods: &Pods,
    module: &Path,
) -> Assembled {
    let of_kind = |kind: &'static str| {
        documents
            .iter()
            .filter(move |document| document.kind() == kind)
    };
    let mut clusters = Vec::new();
    for rule in of_kind("DestinationRule") {
        clusters.extend(clusters_of(role, &rule.spec(), documents, pods));
    }
    let bound_gateways: Vec<(&str, SocketAddr)> = of_kind("Gateway").filter_map(bound).collect();
    let hosts = |port: u16, is_reached_by: &dyn Fn(&str) -> bool| -> Vec<Value> {
        let services = of_kind("VirtualService").map(Document::spec::<VirtualService>);
        let reached = services.filter(|service| {
            service
                .gateways
                .iter()
                .any(|gateway| is_reached_by(gateway))
        });
        reached
            .flat_map(|service| virtual_hosts(role, port, &service))
            .collect()
    };
    let main_hosts = match role {
        Role::Gateway => hosts(80, &|gateway| {
            let is_bound = bound_gateways.iter().any(|(name, _)| *name == gateway);
            gateway != "mesh" && !is_bound
        }),
        Role::Sidecar | Role::Waypoint => hosts(8000, &|gateway| gateway == "mesh"),
    };
    assert!(!main_hosts.is_empty(), "no VirtualService for a {role:?}");

    let mut extensions = Vec::new();
    let mut filters = Vec::new();
    for document in documents {
        let mut wasm = document.value["spec"].clone();
        match document.kind() {
            "WasmPlugin" => {}
            "TrafficExtension" => wasm = wasm["wasm"].clone(),
            _ => continue,
        }
        let plugin: Plugin = serde_json::from_value(wasm)
            .unwrap_or_else(|error| panic!("{}: {error}", document.file));
        let for_clients = plugin
            .matches
            .iter()
            .all(|traffic| traffic.mode == "CLIENT");
        assert!(
            for_clients,
            "{}: stands before the workload itself",
            document.file
        );
        assert!(
            role != Role::Sidecar || !plugin.matches.is_empty(),
            "{}: stands everywhere",
            document.file
        );
        let (filter, extension) = plugin_filter(&document.full_name(), &plugin, module);
        filters.push(filter);
        extensions.push(extension);
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let manager = |port: u16, hosts: Vec<Value>| {
        json!({
            "@type": CONNECTION_MANAGER,
            "stat_prefix": "istio",
            "normalize_path": true,
            "http_filters": filters,
            "route_config": { "name": format!("http.{port}"), "virtual_hosts": hosts, "ignore_port_in_host_matching": true },
        })
    };
    let mut connection_manager = manager(80, main_hosts);
    let bound = bound_gateways.iter().map(|(name, address)| {
        let port = address.port();
        (
            *address,
            manager(port, hosts(port, &|gateway| gateway == *name)),
        )
    });
    let bound = bound.collect::<Vec<_>>();
    for filter in of_kind("EnvoyFilter") {
        assert!(bound.is_empty(), "{}: for one listener only", filter.file);
        patch::apply(
            filter,
            &mut connection_manager,
            &mut clusters,
            &mut extensions,
        );
    }
    for extension in &mut extensions {
        give_file(extension, module);
    }
    Assembled {
        connection_manager,
        bound,
        clusters,
        extensions,
    }
}

/// A Gateway with an address of its own.
fn bound(document: &Document) -> Option<(&str, SocketAddr)> {
    let Gateway {
        servers: [server], ..
    } = document.spec();
    assert_eq!(server.port.protocol, "HTTP", "{}", document.file);
    let address = (server.bind?, server.port.number).into();
    assert_eq!(server.hosts, ["*"], "{}", document.file);
    Some((document.value["metadata"]["name"].as_str()?, address))
}

/// The name that Istio gives a cluster.
pub(crate) fn cluster_name(role: Role, port: u16, subset: &str, host: &str) -> String {
    match (role, subset) {
        (Role::Waypoint, "") => format!("inbound-vip|{port}|http|{host}"),
        (Role::Waypoint, subset) => format!("inbound-vip|{port}|http/{subset}|{host}"),
        _ => format!("outbound|{port}|{subset}|{host}"),
    }
}

/// The service's cluster, and one for each subset.
fn clusters_of(
    role: Role,
    rule: &DestinationRule,
    documents: &[Document],
    pods: &Pods,
) -> Vec<Value> {
    let service = documents
        .iter()
        .find(|document| {
            let (name, namespace) = (
                &document.value["metadata"]["name"],
                &document.value["metadata"]["namespace"],
            );
            let host = format!(
                "{}.{}.svc.cluster.local",
                name.as_str().unwrap(),
                namespace.as_str().unwrap_or_default()
            );
            document.kind() == "Service" && host == rule.host
        })
        .expect("the Service of the DestinationRule");
    let spec = &service.value["spec"];
    let port = u16::try_from(spec["ports"][0]["port"].as_u64().unwrap()).unwrap();
    assert_eq!(
        rule.traffic_policy,
        json!({ "loadBalancer": { "simple": "LEAST_REQUEST" } })
    );

    let addresses = |wanted: &Map<String, Value>| -> Vec<SocketAddr> {
        let deployments = documents
            .iter()
            .filter(|document| document.kind() == "Deployment");
        let chosen = deployments.filter(|deployment| {
            let labels = &deployment.value["spec"]["template"]["metadata"]["labels"];
            wanted.iter().all(|(name, value)| labels[name] == *value)
        });
        chosen
            .flat_map(|deployment| {
                let pods = &pods[deployment.value["metadata"]["name"].as_str().unwrap()];
                assert_eq!(deployment.value["spec"]["replicas"], pods.len());
                pods.clone()
            })
            .collect()
    };
    let selector = spec["selector"].as_object().unwrap();
    let mut parts = vec![(String::new(), selector.clone())];
    for subset in &rule.subsets {
        let labels = selector.clone().into_iter().chain(subset.labels.clone());
        parts.push((subset.name.clone(), labels.collect()));
    }
    parts
        .into_iter()
        .map(|(subset, labels)| {
            let addresses = addresses(&labels);
            assert!(!addresses.is_empty(), "no pod has {labels:?}");
            cluster(&cluster_name(role, port, &subset, &rule.host), &addresses)
        })
        .collect()
}

fn cluster(name: &str, addresses: &[SocketAddr]) -> Value {
    let no_limit = u32::MAX;
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| {
            let socket = json!({ "address": address.ip(), "port_value": address.port() });
            json!({ "endpoint": { "address": { "socket_address": socket } } })
        })
        .collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {},
        "circuit_breakers": { "thresholds": [{
            "max_connections": no_limit, "max_pending_requests": no_limit,
            "max_requests": no_limit, "max_retries": no_limit,
        }] },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    })
}

/// One for each host, named with the port that its clients come to.
fn virtual_hosts(role: Role, port: u16, service: &VirtualService) -> Vec<Value> {
    let translated = service.http.iter().flat_map(|route| {
        if let Some(answer) = &route.direct_response {
            assert!(route.route.is_empty() && route.r#match.is_empty());
            return vec![json!({
                "match": { "prefix": "/", "headers": [] },
                "direct_response": {
                    "status": answer.status, "body": { "inline_string": answer.body.string },
                },
            })];
        }
        let [destination] = route.route.as_slice() else {
            panic!("{}: not one destination", route.name);
        };
        let to = &destination.destination;
        let cluster = cluster_name(role, to.port.number, &to.subset, &to.host);
        let matches: Vec<Vec<Value>> = match route.r#match.as_slice() {
            [] => vec![Vec::new()],
            some => some.iter().map(|one| one.headers.iter().map(header_match).collect()).collect(),
        };
        let routes = matches.into_iter().map(|headers| {
            json!({
                "name": route.name,
                "match": { "prefix": "/", "headers": headers },
                "route": { "cluster": cluster, "timeout": "0s", "retry_policy": {
                    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                    "num_retries": 2,
                    "host_selection_retry_max_attempts": 5,
                    "retry_host_predicate": [{
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" },
                    }],
                } },
            })
        });
        routes.collect()
    });
    let is_catch_all = |route: &Value| route["match"]["headers"] == json!([]);
    let (last, mut routes): (Vec<_>, Vec<_>) = translated.partition(is_catch_all);
    routes.extend(last);
    let host =
        |host| json!({ "name": format!("{host}:{port}"), "domains": [host], "routes": routes });
    service.hosts.iter().map(host).collect()
}

fn header_match((name, condition): (&String, &Value)) -> Value {
    match condition.as_object().unwrap().iter().next() {
        None => json!({ "name": name, "present_match": true }),
        Some((kind, text)) if kind == "exact" => {
            json!({ "name": name, "string_match": { "exact": text } })
        }
        Some(other) => panic!("{name}: {other:?} is beyond this translation"),
    }
}

/// The filter in the listener, and what extension discovery has under its name.
fn plugin_filter(full_name: &str, plugin: &Plugin, module: &Path) -> (Value, Value) {
    assert!(plugin.url.starts_with("oci://"));
    let resource = format!("extensions.istio.io/trafficextension/{full_name}");
    let policy = match plugin.fail_strategy.as_str() {
        "FAIL_CLOSE" => "FAIL_CLOSED",
        other => other,
    };
    let filter = json!({
        "name": resource,
        "config_discovery": {
            "config_source": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
            "type_urls": [WASM, "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"],
        },
    });
    let extension = json!({
        "name": resource,
        "typed_config": { "@type": WASM, "config": {
            "name": full_name,
            "root_id": plugin.plugin_name,
            "failure_policy": policy,
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": plugin_configuration(&plugin.plugin_config),
            },
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": module } },
            },
        } },
    });
    (filter, extension)
}

/// What Istio's agent does with a module that is to be downloaded.
fn give_file(extension: &mut Value, module: &Path) {
    let code = &mut extension["typed_config"]["config"]["vm_config"]["code"];
    if code.get("remote").is_some() {
        assert!(
            code["remote"]["http_uri"]["uri"]
                .as_str()
                .unwrap()
                .starts_with("oci://")
        );
        *code = json!({ "local": { "filename": module } });
    }
}

/// `pluginConfig` after its way through a protobuf `Struct`: numbers are
/// doubles, and the order of keys is lost (here it is reversed).
pub(crate) fn plugin_configuration(config: &Value) -> String {
    fn text(value: &Value) -> String {
        match value {
            Value::Number(number) => format!("{:?}", number.as_f64().unwrap()),
            Value::Array(items) => {
                format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(","))
            }
            Value::Object(fields) => {
                let field = |(key, value)| format!("{}:{}", json!(key), text(value));
                format!(
                    "{{{}}}",
                    fields.iter().rev().map(field).collect::<Vec<_>>().join(",")
                )
            }
            other => other.to_string(),
        }
    }
    text(config)
}
