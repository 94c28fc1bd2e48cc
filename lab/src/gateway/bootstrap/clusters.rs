//! The servers, as clusters or as the endpoints of one.

use serde_json::{Value, json};

use super::{Bootstrap, CLUSTERS, ROUTES, set, socket_address, to_text};
use crate::gateway::topology::ENDPOINTS_CLUSTER;
use crate::gateway::{Balancing, GatewayError, Topology, Upstream};

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
