//! The servers, as clusters or as the endpoints of one.

use serde_json::{Value, json};

use super::{Bootstrap, CLUSTERS, ROUTES, set, socket_address, to_text};
use crate::gateway::error::GatewayError;
use crate::gateway::topology::{Balancing, ENDPOINTS_CLUSTER, ModelServers, Topology, Upstream};

pub(super) const AGGREGATED: &str = "/cluster_type/typed_config/clusters";
/// How many other upstreams stand by for the retries of one, as the shipped file
/// recommends.
const OTHERS: usize = 2;
pub(super) const SERVERS: &str = "/load_assignment/endpoints/0/lb_endpoints";

impl Bootstrap {
    pub(super) fn set_clusters(&mut self, topology: &Topology) -> Result<(), GatewayError> {
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
        if topology.names_upstreams {
            let servers = fallback.pointer_mut(SERVERS).and_then(Value::as_array_mut);
            for (server, upstream) in servers.into_iter().flatten().zip(&topology.upstreams) {
                set(server, "metadata", named(&upstream.name));
            }
        }
        set_policy(&mut fallback, &topology.balancing);
        if topology.balancing.is_by_header() {
            let servers = |upstream: &Upstream| format!("{}-servers", upstream.name);
            for (number, upstream) in topology.upstreams.iter().enumerate() {
                let after = topology.upstreams.iter().cycle().skip(number + 1);
                let others = after
                    .take(topology.upstreams.len() - 1)
                    .filter(|other| topology.serve_alike(upstream, other))
                    .take(OTHERS);
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
                if topology.names_upstreams {
                    let server = cluster.pointer_mut(SERVERS).and_then(|it| it.get_mut(0));
                    let server = server.ok_or_else(|| missing("a cluster without servers"))?;
                    set(server, "metadata", named(&upstream.name));
                }
                if topology.health_checks {
                    set(&mut cluster, "health_checks", json!([health_check()]));
                }
                clusters.push(cluster);
            }
        }
        for model in &topology.models {
            let mut cluster = fallback.clone();
            set(&mut cluster, "name", json!(model.model));
            set_servers(&mut cluster, &topology.upstreams_of(model))?;
            clusters.push(cluster);
        }
        clusters.push(fallback);
        self.add_model_routes(&topology.models)
    }

    /// Before the fallback route, one for each model to its servers.
    fn add_model_routes(&mut self, models: &[ModelServers]) -> Result<(), GatewayError> {
        let routes = self.list(ROUTES)?;
        let fixed = |route: &Value| route.pointer("/route/cluster").is_some();
        let fallback = routes.iter().position(fixed);
        let missing = || GatewayError::template(ROUTES, "no route to a fixed cluster");
        let fallback = fallback.ok_or_else(missing)?;
        for ModelServers { model, .. } in models {
            let mut route = routes.get(fallback).cloned().unwrap_or_default();
            let header = json!({ "name": "x-model", "string_match": { "exact": model } });
            set(&mut route, "name", json!(model));
            set(
                &mut route,
                "match",
                json!({ "prefix": "/", "headers": [header] }),
            );
            let action = route.get_mut("route").ok_or_else(missing)?;
            set(action, "cluster", json!(model));
            routes.insert(fallback, route);
        }
        Ok(())
    }

    /// A route and a cluster that the filter knows nothing of.
    pub(super) fn add_other(&mut self, other: &Upstream) -> Result<(), GatewayError> {
        let name = &other.name;
        self.list(ROUTES)?.insert(
            0,
            json!({
                "name": name,
                "match": { "prefix": format!("/{name}") },
                "route": { "cluster": name },
            }),
        );
        self.list(CLUSTERS)?.push(json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{ "lb_endpoints": [server(other)] }],
            },
        }));
        Ok(())
    }

    /// Lets the one cluster read its endpoints from a watched file.
    pub(super) fn watch_endpoints(&mut self, balancing: &Balancing) -> Result<(), GatewayError> {
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
}

impl Topology {
    fn upstreams_of(&self, model: &ModelServers) -> Vec<Upstream> {
        let upstreams = self.upstreams.iter();
        let of_model = upstreams.filter(|it| model.upstreams.contains(&it.name));
        of_model.cloned().collect()
    }

    /// Whether two upstreams serve the same models.
    fn serve_alike(&self, one: &Upstream, other: &Upstream) -> bool {
        let mut models = self.models.iter();
        models.all(|it| it.upstreams.contains(&one.name) == it.upstreams.contains(&other.name))
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

/// What a server's metadata say of the upstream that it belongs to.
pub(super) fn named(upstream: &str) -> Value {
    json!({ "filter_metadata": { "paceline": { "upstream": upstream } } })
}

fn health_check() -> Value {
    json!({
        "timeout": "1s",
        "interval": "0.1s",
        "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "tcp_health_check": {},
    })
}

/// What Envoy reads from a watched file of endpoints.
pub(in crate::gateway) fn endpoints(upstreams: &[Upstream]) -> Result<String, GatewayError> {
    let servers: Vec<_> = upstreams.iter().map(server).collect();
    to_text(&json!({ "resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": ENDPOINTS_CLUSTER,
        "endpoints": [{ "lb_endpoints": servers }],
    }]}))
}

fn set_policy(cluster: &mut Value, balancing: &Balancing) {
    let policy = match balancing {
        Balancing::Client | Balancing::Filter { .. } => return,
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
