//! Envoy's configuration, made from the shipped file.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::topology::ENDPOINTS_CLUSTER;
use super::{Balancing, GatewayError, Topology, Upstream};

/// The files that users copy: for a cluster for each server, and for one whose
/// endpoints the servers are.
const SHIPPED: &str = include_str!("../../../envoy/envoy.yaml");
const SHIPPED_ENDPOINTS: &str = include_str!("../../../envoy/endpoints.yaml");

/// Where the endpoints are read from, in the gateway's directory.
pub(super) const ENDPOINTS_FILE: &str = "endpoints.json";

/// Where a reloadable listener is read from, in the gateway's directory.
pub(super) const LISTENERS_FILE: &str = "listeners.json";

const LISTENERS: &str = "/static_resources/listeners";
const LISTENER_PORT: &str = "/static_resources/listeners/0/address/socket_address";
const ADMIN_PORT: &str = "/admin/address/socket_address";
const CLUSTERS: &str = "/static_resources/clusters";
const HTTP_FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
const VIRTUAL_HOST: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                            /route_config/virtual_hosts/0";
const ROUTES: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                      /route_config/virtual_hosts/0/routes";
const FILTER_NAME: &str = "paceline";
const PLUGIN: &str = "/typed_config/config";
const SHOWS_BODIES: &str = "allow_on_headers_stop_iteration";
const FILTER_MODULE: &str = "/typed_config/config/vm_config/code/local/filename";
const FILTER_CONFIG: &str = "/typed_config/config/configuration/value";
const ENDPOINTS_SOURCE: &str =
    "/static_resources/clusters/0/eds_cluster_config/eds_config/path_config_source";
const AGGREGATED: &str = "/cluster_type/typed_config/clusters";
/// How many other upstreams stand by for the retries of one, as the shipped file
/// recommends.
const OTHERS: usize = 2;
const SERVERS: &str = "/load_assignment/endpoints/0/lb_endpoints";

/// Envoy's bootstrap as JSON, which Envoy reads as well as YAML.
#[derive(Debug, Clone)]
pub(super) struct Bootstrap {
    value: Value,
}

/// A bootstrap with everything filled in.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    value: Value,
    /// The file of the listeners, if they are to be read from one.
    pub(super) listeners: Option<String>,
    /// The file of the endpoints, if they are to be read from one.
    pub(super) endpoints: Option<String>,
}

/// Where Envoy is to listen; port 0 lets the system choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sockets {
    /// For clients.
    pub(super) listener: SocketAddr,
    /// For the admin interface.
    pub(super) admin: SocketAddr,
}

impl Bootstrap {
    /// The shipped configuration for such a topology.
    pub(super) fn shipped(topology: &Topology) -> Result<Self, GatewayError> {
        let text = match topology.endpoints {
            true => SHIPPED_ENDPOINTS,
            false => SHIPPED,
        };
        Ok(Self {
            value: serde_saphyr::from_str(text)?,
        })
    }

    /// The configuration for a topology.
    pub(super) fn render(
        mut self,
        topology: &Topology,
        sockets: Sockets,
    ) -> Result<Rendered, GatewayError> {
        if topology.upstreams.is_empty() {
            return Err(GatewayError::NoUpstreams);
        }
        *self.at(ADMIN_PORT)? = socket_address(sockets.admin);
        *self.at(LISTENER_PORT)? = socket_address(sockets.listener);
        self.set_filter(topology)?;
        self.set_routes(topology)?;
        let endpoints = if topology.endpoints {
            self.watch_endpoints(&topology.balancing)?;
            Some(endpoints(&topology.upstreams)?)
        } else {
            self.set_clusters(topology)?;
            None
        };
        let listeners = if topology.reloadable {
            Some(self.take_listeners()?)
        } else {
            None
        };
        Ok(Rendered {
            value: self.value,
            listeners,
            endpoints,
        })
    }

    fn set_filter(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        let filters = self.list(HTTP_FILTERS)?;
        let position = filters
            .iter()
            .position(|filter| filter.get("name").is_some_and(|name| name == FILTER_NAME))
            .ok_or_else(|| GatewayError::template(HTTP_FILTERS, "no filter `paceline`"))?;
        let Balancing::Filter { module, config } = &topology.balancing else {
            filters.remove(position);
            return Ok(());
        };
        let place = format!("{HTTP_FILTERS}/{position}");
        if !topology.shows_bodies {
            set(
                self.at(&format!("{place}{PLUGIN}"))?,
                SHOWS_BODIES,
                json!(false),
            );
        }
        *self.at(&format!("{place}{FILTER_MODULE}"))? = json!(module);
        *self.at(&format!("{place}{FILTER_CONFIG}"))? = json!(config);
        Ok(())
    }

    /// Envoy's own balancing is the fallback route alone.
    fn set_routes(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        let host = self.at(VIRTUAL_HOST)?.as_object_mut();
        let policy = host.and_then(|host| match topology.retries {
            true => host.get("retry_policy").cloned(),
            false => host.remove("retry_policy"),
        });
        if policy.is_none() {
            return Err(GatewayError::template(VIRTUAL_HOST, "no retry_policy"));
        }
        let routes = self.list(ROUTES)?;
        if !matches!(topology.balancing, Balancing::Filter { .. }) {
            routes.retain(|route| route.pointer("/route/cluster_header").is_none());
        }
        for action in routes.iter_mut().filter_map(|route| route.get_mut("route")) {
            if let Some(timeout) = topology.request_timeout {
                set(action, "timeout", json!(seconds(timeout)));
            }
        }
        Ok(())
    }

    fn set_clusters(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        let fallback_name = self
            .list(ROUTES)?
            .iter()
            .find_map(|route| route.pointer("/route/cluster").cloned())
            .ok_or_else(|| GatewayError::template(ROUTES, "no route to a fixed cluster"))?;
        let clusters = self.list(CLUSTERS)?;
        let (mut fallback, mut aggregate, mut single) = (None, None, None);
        for cluster in std::mem::take(clusters) {
            let kind = if cluster.get("name") == Some(&fallback_name) {
                &mut fallback
            } else if cluster.pointer(AGGREGATED).is_some() {
                &mut aggregate
            } else {
                &mut single
            };
            kind.get_or_insert(cluster);
        }
        let missing = |what: &'static str| GatewayError::template(CLUSTERS, what);
        let mut fallback = fallback.ok_or_else(|| missing("no cluster for the fallback route"))?;
        let aggregate = aggregate.ok_or_else(|| missing("no aggregate cluster"))?;
        let single = single.ok_or_else(|| missing("no cluster of one server"))?;

        set_servers(&mut fallback, &topology.upstreams)?;
        set_policy(&mut fallback, &topology.balancing);
        if let Balancing::Filter { .. } = topology.balancing {
            let servers = |upstream: &Upstream| format!("{}-servers", upstream.name);
            for (number, upstream) in topology.upstreams.iter().enumerate() {
                let others = topology.upstreams.iter().cycle().skip(number + 1);
                let others = others.take(OTHERS.min(topology.upstreams.len() - 1));
                let ring: Vec<_> = [upstream].into_iter().chain(others).map(servers).collect();
                let mut cluster = aggregate.clone();
                set(&mut cluster, "name", json!(upstream.name));
                *cluster
                    .pointer_mut(AGGREGATED)
                    .ok_or_else(|| missing("an aggregate of nothing"))? = json!(ring);
                clusters.push(cluster);
                let mut cluster = single.clone();
                set(&mut cluster, "name", json!(servers(upstream)));
                set_servers(&mut cluster, std::slice::from_ref(upstream))?;
                clusters.push(cluster);
            }
        }
        clusters.push(fallback);
        Ok(())
    }

    /// Lets the one cluster read its endpoints from a watched file.
    fn watch_endpoints(&mut self, balancing: &Balancing) -> Result<(), GatewayError> {
        let cluster = self.list(CLUSTERS)?.first_mut();
        let cluster = cluster.ok_or_else(|| GatewayError::template(CLUSTERS, "no cluster"))?;
        if cluster
            .get("name")
            .is_none_or(|name| name != ENDPOINTS_CLUSTER)
        {
            return Err(GatewayError::template(CLUSTERS, "not the cluster `gpus`"));
        }
        if let Some(fields) = cluster.as_object_mut() {
            fields.remove("load_assignment");
            fields.remove("dns_refresh_rate");
        }
        set(cluster, "type", json!("EDS"));
        // The path is completed when the directory is known.
        let source = json!({ "resource_api_version": "V3", "path_config_source": {} });
        set(
            cluster,
            "eds_cluster_config",
            json!({ "eds_config": source }),
        );
        set_policy(cluster, balancing);
        Ok(())
    }

    /// Moves the listeners out, into what Envoy reads from a watched file.
    fn take_listeners(&mut self) -> Result<String, GatewayError> {
        let mut resources = std::mem::take(self.list(LISTENERS)?);
        for listener in &mut resources {
            set(
                listener,
                "@type",
                json!("type.googleapis.com/envoy.config.listener.v3.Listener"),
            );
        }
        to_text(&json!({ "resources": resources }))
    }

    fn at(&mut self, pointer: &str) -> Result<&mut Value, GatewayError> {
        self.value
            .pointer_mut(pointer)
            .ok_or_else(|| GatewayError::template(pointer, "is missing"))
    }

    fn list(&mut self, pointer: &str) -> Result<&mut Vec<Value>, GatewayError> {
        self.at(pointer)?
            .as_array_mut()
            .ok_or_else(|| GatewayError::template(pointer, "is not a list"))
    }
}

impl Rendered {
    /// The bootstrap's text. `directory` is where the file of the listeners
    /// lies, if there is one.
    pub(super) fn to_json(&self, directory: &Path) -> Result<String, GatewayError> {
        let mut value = self.value.clone();
        if self.listeners.is_some() || self.endpoints.is_some() {
            // Envoy insists on a name for itself where anything is dynamic.
            set(
                &mut value,
                "node",
                json!({ "id": "gateway", "cluster": "gateway" }),
            );
        }
        if self.endpoints.is_some()
            && let Some(source) = value.pointer_mut(ENDPOINTS_SOURCE)
        {
            set(source, "path", json!(directory.join(ENDPOINTS_FILE)));
        }
        if self.listeners.is_some() {
            let source = json!({
                "resource_api_version": "V3",
                "path_config_source": { "path": directory.join(LISTENERS_FILE) },
            });
            set(
                &mut value,
                "dynamic_resources",
                json!({ "lds_config": source }),
            );
        }
        to_text(&value)
    }
}

fn set_servers(cluster: &mut Value, upstreams: &[Upstream]) -> Result<(), GatewayError> {
    let name = cluster.get("name").cloned().unwrap_or_default();
    let assigned = cluster
        .pointer_mut("/load_assignment/cluster_name")
        .ok_or_else(|| GatewayError::template(CLUSTERS, "a cluster without a load_assignment"))?;
    *assigned = name;
    let servers = cluster
        .pointer_mut(SERVERS)
        .ok_or_else(|| GatewayError::template(CLUSTERS, "a cluster without servers"))?;
    *servers = upstreams.iter().map(server).collect();
    Ok(())
}

fn server(upstream: &Upstream) -> Value {
    let address = socket_address(upstream.address);
    json!({ "endpoint": { "address": { "socket_address": address } } })
}

/// What Envoy reads from a watched file of endpoints.
pub(super) fn endpoints(upstreams: &[Upstream]) -> Result<String, GatewayError> {
    let servers: Vec<_> = upstreams.iter().map(server).collect();
    to_text(&json!({ "resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": ENDPOINTS_CLUSTER,
        "endpoints": [{ "lb_endpoints": servers }],
    }]}))
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "address": address.ip(), "port_value": address.port() })
}

fn set_policy(cluster: &mut Value, balancing: &Balancing) {
    let policy = match balancing {
        Balancing::Filter { .. } => return,
        Balancing::RoundRobin => envoy_policy("round_robin", "RoundRobin", json!({})),
        Balancing::Random => envoy_policy("random", "Random", json!({})),
        Balancing::LeastRequest { choice_count } => envoy_policy(
            "least_request",
            "LeastRequest",
            json!({ "choice_count": choice_count }),
        ),
        Balancing::LeastRequestFullScan => envoy_policy(
            "least_request",
            "LeastRequest",
            json!({ "selection_method": "FULL_SCAN" }),
        ),
    };
    if let Some(cluster) = cluster.as_object_mut() {
        cluster.remove("lb_policy");
    }
    set(
        cluster,
        "load_balancing_policy",
        json!({ "policies": [policy] }),
    );
}

fn envoy_policy(extension: &str, message: &str, mut config: Value) -> Value {
    let name = format!("envoy.load_balancing_policies.{extension}");
    let type_url = format!(
        "type.googleapis.com/envoy.extensions.load_balancing_policies.{extension}.v3.{message}"
    );
    set(&mut config, "@type", json!(type_url));
    json!({ "typed_extension_config": { "name": name, "typed_config": config } })
}

/// Sets a field of a JSON object.
fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// A duration as protobuf's JSON form has it.
fn seconds(duration: Duration) -> String {
    format!("{}.{:09}s", duration.as_secs(), duration.subsec_nanos())
}

fn to_text(value: &Value) -> Result<String, GatewayError> {
    serde_json::to_string_pretty(value).map_err(|error| GatewayError::File {
        path: "envoy.json".into(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(balancing: Balancing) -> Topology {
        let address = |port| ([127, 0, 0, 1], port).into();
        Topology::new(
            [
                ("one", address(1)),
                ("two", address(2)),
                ("three", address(3)),
            ],
            balancing,
        )
    }

    fn filter() -> Balancing {
        Balancing::Filter {
            module: "/built/filter.wasm".into(),
            config: "{}".to_owned(),
        }
    }

    fn sockets() -> Sockets {
        Sockets {
            listener: ([127, 0, 0, 1], 0).into(),
            admin: ([127, 0, 0, 1], 0).into(),
        }
    }

    fn fill(topology: &Topology) -> Result<Rendered, GatewayError> {
        Bootstrap::shipped(topology)?.render(topology, sockets())
    }

    fn render(topology: &Topology) -> Value {
        let rendered = fill(topology).unwrap();
        serde_json::from_str(&rendered.to_json(Path::new("/run")).unwrap()).unwrap()
    }

    fn names(value: &Value, pointer: &str) -> Vec<String> {
        let list = value.pointer(pointer).unwrap().as_array().unwrap();
        list.iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn each_upstream_has_the_next_two_for_its_retries() {
        let value = render(&topology(filter()));
        let names = names(&value, CLUSTERS);
        let upstreams =
            ["one", "two", "three"].map(|name| [name.into(), format!("{name}-servers")]);
        assert_eq!(names[..6], upstreams.concat());
        assert_eq!(names[6..], ["all-gpus"]);
        let at = |cluster: usize, rest: &str| {
            let pointer = format!("{CLUSTERS}/{cluster}{rest}");
            value.pointer(&pointer).unwrap().clone()
        };
        let servers = |cluster| at(cluster, SERVERS).as_array().unwrap().len();
        assert_eq!(
            at(2, AGGREGATED),
            json!(["two-servers", "three-servers", "one-servers"])
        );
        assert_eq!(
            [servers(1), servers(3), servers(5), servers(6)],
            [1, 1, 1, 3]
        );
    }

    #[test]
    fn the_filter_stays_where_the_file_has_it() {
        let value = render(&topology(filter()));
        assert_eq!(
            names(&value, HTTP_FILTERS),
            ["paceline", "envoy.filters.http.router"]
        );
        assert_eq!(names(&value, ROUTES), ["picked", "fallback"]);
        let module = value
            .pointer(&format!("{HTTP_FILTERS}/0{FILTER_MODULE}"))
            .unwrap();
        assert_eq!(module, "/built/filter.wasm");
    }

    #[test]
    fn envoys_own_balancing_is_the_fallback_route_alone() {
        let value = render(&topology(Balancing::LeastRequestFullScan));
        assert_eq!(names(&value, HTTP_FILTERS), ["envoy.filters.http.router"]);
        assert_eq!(names(&value, ROUTES), ["fallback"]);
        assert_eq!(names(&value, CLUSTERS), ["all-gpus"]);
        let fallback = value.pointer(&format!("{CLUSTERS}/0")).unwrap();
        assert_eq!(fallback.get("lb_policy"), None);
        assert!(
            fallback["load_balancing_policy"]
                .to_string()
                .contains("FULL_SCAN")
        );
    }

    #[test]
    fn a_reloadable_listener_moves_to_its_own_file() {
        let mut topology = topology(filter());
        topology.reloadable = true;
        let rendered = fill(&topology).unwrap();
        let listeners: Value = serde_json::from_str(&rendered.listeners.clone().unwrap()).unwrap();
        assert_eq!(names(&listeners, "/resources"), ["ingress"]);
        let text = rendered.to_json(Path::new("/run")).unwrap();
        assert!(text.contains("/run/listeners.json"), "{text}");
        assert!(!text.contains("\"ingress\""), "{text}");
    }

    #[test]
    fn endpoints_are_read_from_their_own_file() {
        let mut topology = topology(filter());
        topology.endpoints = true;
        let value = render(&topology);
        assert_eq!(names(&value, CLUSTERS), [ENDPOINTS_CLUSTER]);
        assert_eq!(
            value.pointer(ENDPOINTS_SOURCE).unwrap()["path"],
            "/run/endpoints.json"
        );
        let file = fill(&topology).unwrap().endpoints.unwrap();
        assert_eq!(file.matches("port_value").count(), 3, "{file}");
    }

    #[test]
    fn limits_of_a_request_apply_to_both_routes() {
        let mut topology = topology(filter());
        topology.request_timeout = Some(Duration::from_millis(1500));
        let value = render(&topology);
        for route in value.pointer(ROUTES).unwrap().as_array().unwrap() {
            assert_eq!(route["route"]["timeout"], "1.500000000s");
        }
    }

    #[test]
    fn whoever_balances_the_retries_are_the_shipped_ones() {
        let policy = |balancing, retries| {
            let mut topology = topology(balancing);
            topology.retries = retries;
            let host = render(&topology).pointer(VIRTUAL_HOST).unwrap().clone();
            host.get("retry_policy").cloned()
        };
        let shipped = policy(filter(), true).unwrap();
        assert_eq!(policy(Balancing::RoundRobin, true), Some(shipped));
        assert_eq!(policy(filter(), false), None);
    }

    #[test]
    fn a_gateway_without_servers_is_refused() {
        let empty = Topology::new(Vec::<(String, _)>::new(), filter());
        let error = fill(&empty).unwrap_err();
        assert!(matches!(error, GatewayError::NoUpstreams));
    }
}
