//! The clusters of an Envoy, against what the filter picks among.

use std::collections::{BTreeMap, BTreeSet};

use paceline::config::{Config, Mode, Pool};
use serde_json::Value;

use super::Finding;
use super::source::{Source, children};

const OVERRIDE_HOST: &str = "envoy.load_balancing_policies.override_host";

/// What is known of an Envoy's clusters.
pub(super) struct Clusters {
    by_name: BTreeMap<String, Cluster>,
    /// Those that routes name.
    routed: BTreeSet<String>,
    /// Why there may be others.
    incomplete: Option<String>,
}

#[derive(Debug, Default)]
struct Cluster {
    /// Of an aggregate, the clusters in their order.
    aggregates: Vec<String>,
    /// Whether it goes by the endpoints that a header names.
    follows_endpoints: bool,
    /// Whether it lists an endpoint whose metadata names no upstream.
    has_strangers: bool,
}

impl Clusters {
    /// Those that are in files.
    pub(super) fn of(sources: &[Source]) -> Self {
        let documents = || sources.iter().flat_map(|source| &source.documents);
        let mut by_name = BTreeMap::new();
        for document in documents() {
            let fixed = document.pointer("/static_resources/clusters");
            let fixed = fixed.and_then(Value::as_array).into_iter().flatten();
            let resources = document.get("resources").and_then(Value::as_array);
            let dynamic = resources.into_iter().flatten().filter(|it| is_cluster(it));
            for cluster in fixed.chain(dynamic) {
                let name = cluster.get("name").and_then(Value::as_str);
                by_name.insert(name.unwrap_or_default().to_owned(), Cluster::read(cluster));
            }
        }
        let source = documents().find_map(|it| it.pointer("/dynamic_resources/cds_config"));
        let is_file = |source: &Value| source.get("path_config_source").is_some();
        let incomplete = if source.is_some_and(|source| !is_file(source)) {
            Some("clusters come from a control plane".to_owned())
        } else if by_name.is_empty() {
            Some("no clusters in these files".to_owned())
        } else {
            None
        };
        let mut routed = BTreeSet::new();
        documents().for_each(|document| find_routed(document, &mut routed));
        Self {
            by_name,
            routed,
            incomplete,
        }
    }

    /// What concerns no filter in particular.
    pub(super) fn findings(&self) -> Vec<Finding> {
        if let Some(why) = &self.incomplete {
            return vec![Finding::Warning(format!(
                "{why}: upstreams cannot be compared with them"
            ))];
        }
        let missing = |(name, cluster): (&String, &Cluster)| {
            let parts = cluster.aggregates.iter();
            let missing = parts.filter(|part| !self.by_name.contains_key(*part));
            missing
                .map(|part| {
                    let said = format!("cluster {name:?} names {part:?}, which is no cluster");
                    Finding::Warning(said)
                })
                .collect::<Vec<_>>()
        };
        self.by_name.iter().flat_map(missing).collect()
    }

    /// What is wrong with a valid configuration, `json` as it was written, in
    /// front of these clusters.
    pub(super) fn compare(&self, config: &Config, json: &Value) -> Vec<Finding> {
        if self.incomplete.is_some() {
            return Vec::new();
        }
        let mut findings = Vec::new();
        for (index, pool) in config.pools.iter().enumerate() {
            let place = match json.get("pools") {
                Some(_) => format!("pools[{index}]."),
                None => String::new(),
            };
            if let Some(endpoints) = &pool.endpoints {
                let place = format!("{place}cluster");
                match self.by_name.get(&endpoints.cluster) {
                    None => findings.push(self.unknown(&place, &endpoints.cluster)),
                    Some(cluster) if !cluster.follows_endpoints => {
                        let said = format!(
                            "{place}: cluster {:?} has not the load balancing policy {OVERRIDE_HOST}, \
                             so Envoy chooses its endpoints, and not the filter",
                            endpoints.cluster
                        );
                        findings.push(Finding::Warning(said));
                    }
                    Some(_) => {}
                }
            }
            for (index, upstream) in pool.upstreams.iter().enumerate() {
                if !self.by_name.contains_key(&upstream.cluster) {
                    let place = format!("{place}upstreams[{index}].cluster");
                    findings.push(self.unknown(&place, &upstream.cluster));
                }
            }
        }
        findings.extend(self.crossings(&config.pools));
        findings.extend(self.strangers(&config.pools));
        findings.extend(config.pools.iter().flat_map(|pool| self.probes(pool)));
        findings
    }

    /// Upstreams whose probes go nowhere, or may be answered by another's server.
    fn probes(&self, pool: &Pool) -> Vec<Finding> {
        let Some(check) = &pool.health_check else {
            return Vec::new();
        };
        let endpoints = pool.endpoints.iter().map(|it| &it.cluster);
        let names = pool.upstreams.iter().map(|it| &it.cluster);
        let findings = names.chain(endpoints).filter_map(|name| {
            let asked = format!("{name}{}", check.cluster_suffix);
            // That the upstream's own cluster is missing is said already.
            if !check.cluster_suffix.is_empty() && !self.by_name.contains_key(&asked) {
                return Some(format!(
                    "pool {:?}: health_check asks {name:?} at the cluster {asked:?}, which is no \
                     cluster: it will never be ready",
                    pool.name
                ));
            }
            let parts = self.parts(&asked);
            (parts.len() > 1).then(|| {
                format!(
                    "pool {:?}: health_check asks {name:?} at the cluster {asked:?}, which goes on to \
                     {}: where Envoy finds {:?} unhealthy, the next one answers in its place; give \
                     health_check a cluster_suffix",
                    pool.name,
                    parts.get(1..).unwrap_or_default().join(", "),
                    parts.first().map_or("", String::as_str),
                )
            })
        });
        findings.map(Finding::Warning).collect()
    }

    /// Where Envoy sends requests that the filter only watches, and does not say whose
    /// servers it has. With a share to balance, the filter learns their addresses.
    fn strangers(&self, pools: &[Pool]) -> Vec<Finding> {
        let is_upstream = |name: &String| {
            let mut upstreams = pools.iter().flat_map(|pool| &pool.upstreams);
            upstreams.any(|upstream| upstream.cluster == *name)
        };
        let is_stranger = |name: &&String| {
            let cluster = self.by_name.get(name.as_str());
            cluster.is_some_and(|cluster| cluster.has_strangers) && !is_upstream(name)
        };
        let observed = pools
            .iter()
            .find(|pool| pool.mode == Mode::Observe && !pool.upstreams.is_empty());
        let Some(observed) = observed else {
            return Vec::new();
        };
        let strangers = self.routed.iter().filter(is_stranger);
        strangers
            .map(|name| {
                Finding::Warning(format!(
                    "pool {:?} observes, and routes go to the cluster {name:?}, whose endpoints do not \
                     say which upstream they belong to: nothing is learned from what they serve; \
                     give each the metadata {{ filter_metadata: {{ paceline: {{ upstream: NAME }} }} }}",
                    observed.name
                ))
            })
            .collect()
    }

    fn unknown(&self, place: &str, name: &str) -> Finding {
        let all: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        Finding::Refused(format!(
            "{place}: {name:?} is no cluster of this Envoy, which has {}",
            all.join(", ")
        ))
    }

    /// Aggregates that go on to servers of another pool: a retry would reach a
    /// server that cannot answer.
    fn crossings(&self, pools: &[Pool]) -> Vec<Finding> {
        // Whose servers a cluster has: those of the upstreams that begin with it.
        let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for pool in pools {
            for upstream in &pool.upstreams {
                let first = self.parts(&upstream.cluster).first().map(String::as_str);
                let own = [Some(upstream.cluster.as_str()), first];
                for cluster in own.into_iter().flatten() {
                    owners.entry(cluster).or_default().insert(&pool.name);
                }
            }
        }
        let mut findings = Vec::new();
        for pool in pools {
            for upstream in &pool.upstreams {
                for part in self.parts(&upstream.cluster).iter().skip(1) {
                    let Some(owners) = owners.get(part.as_str()) else {
                        continue;
                    };
                    if owners.contains(pool.name.as_str()) {
                        continue;
                    }
                    let owners: Vec<&str> = owners.iter().copied().collect();
                    findings.push(Finding::Warning(format!(
                        "pool {:?}: cluster {:?} goes on to {part:?}, which serves pool {:?}: a retry \
                         would leave the pool",
                        pool.name,
                        upstream.cluster,
                        owners.join(", ")
                    )));
                }
            }
        }
        findings
    }

    fn parts(&self, cluster: &str) -> &[String] {
        match self.by_name.get(cluster) {
            Some(cluster) => &cluster.aggregates,
            None => &[],
        }
    }
}

impl Cluster {
    fn read(cluster: &Value) -> Self {
        let parts = cluster.pointer("/cluster_type/typed_config/clusters");
        let parts = parts.and_then(Value::as_array).into_iter().flatten();
        let policies = cluster.pointer("/load_balancing_policy/policies");
        let policy = policies.into_iter().flat_map(children);
        let mut names = policy.filter_map(|it| it.pointer("/typed_extension_config/name"));
        let localities = cluster.pointer("/load_assignment/endpoints");
        let endpoints = localities.into_iter().flat_map(children);
        let mut endpoints =
            endpoints.flat_map(|it| it.get("lb_endpoints").into_iter().flat_map(children));
        let upstream = "/metadata/filter_metadata/paceline/upstream";
        Self {
            has_strangers: endpoints.any(|endpoint| endpoint.pointer(upstream).is_none()),
            aggregates: parts.filter_map(Value::as_str).map(str::to_owned).collect(),
            follows_endpoints: names.any(|name| name == OVERRIDE_HOST),
        }
    }
}

/// Collects the clusters that routes anywhere in a document name.
fn find_routed(value: &Value, routed: &mut BTreeSet<String>) {
    if let Some(route) = value.get("route") {
        let weighted = route.pointer("/weighted_clusters/clusters");
        let weighted = weighted.into_iter().flat_map(children);
        let names = weighted.filter_map(|it| it.get("name"));
        let names = names.chain(route.get("cluster")).filter_map(Value::as_str);
        routed.extend(names.map(str::to_owned));
    }
    children(value).for_each(|child| find_routed(child, routed));
}

fn is_cluster(resource: &Value) -> bool {
    let kind = resource.get("@type").and_then(Value::as_str);
    kind.is_some_and(|kind| kind.ends_with("envoy.config.cluster.v3.Cluster"))
}
