//! Istio's routes and subsets, against what the filter picks among.

use std::collections::BTreeSet;

use paceline::config::{Config, Mode};
use serde_json::Value;

use super::Finding;
use super::source::children;

/// The VirtualServices and DestinationRules that are given.
#[derive(Default)]
pub(super) struct Mesh {
    routes: Vec<Route>,
    /// Subsets as host and name.
    subsets: BTreeSet<(String, String)>,
    /// Hosts with a DestinationRule.
    ruled: BTreeSet<String>,
}

/// A route by a header.
struct Route {
    service: String,
    /// The header and the value that it must have; `None` for any.
    conditions: Vec<(String, Option<String>)>,
    /// Host and subset.
    destinations: Vec<(String, Option<String>)>,
}

impl Mesh {
    /// Takes in a document; `false` if it is of another kind.
    pub(super) fn take(&mut self, document: &Value) -> bool {
        let text = |value: &Value, pointer: &str| {
            value
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        match document.get("kind").and_then(Value::as_str) {
            Some("VirtualService") => {
                let service = text(document, "/metadata/name").unwrap_or_default();
                for route in document
                    .pointer("/spec/http")
                    .into_iter()
                    .flat_map(children)
                {
                    let mut conditions = Vec::new();
                    for condition in route.get("match").into_iter().flat_map(children) {
                        let headers = condition.get("headers").and_then(Value::as_object);
                        for (name, value) in headers.into_iter().flatten() {
                            conditions.push((name.clone(), text(value, "/exact")));
                        }
                    }
                    let destinations = route.get("route").into_iter().flat_map(children);
                    let destinations = destinations.map(|it| {
                        let host = text(it, "/destination/host").unwrap_or_default();
                        (host, text(it, "/destination/subset"))
                    });
                    self.routes.push(Route {
                        service: service.clone(),
                        conditions,
                        destinations: destinations.collect(),
                    });
                }
                true
            }
            Some("DestinationRule") => {
                let host = text(document, "/spec/host").unwrap_or_default();
                for subset in document
                    .pointer("/spec/subsets")
                    .into_iter()
                    .flat_map(children)
                {
                    let name = text(subset, "/name").unwrap_or_default();
                    self.subsets.insert((host.clone(), name));
                }
                self.ruled.insert(host);
                true
            }
            _ => false,
        }
    }

    /// Subsets that no DestinationRule has.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for route in &self.routes {
            for (host, subset) in &route.destinations {
                let Some(subset) = subset else { continue };
                let key = (host.clone(), subset.clone());
                if self.ruled.contains(host) && !self.subsets.contains(&key) {
                    findings.push(Finding::Refused(format!(
                        "VirtualService {}: {host} has no subset {subset:?} in its DestinationRule",
                        route.service
                    )));
                }
            }
        }
        findings
    }

    /// What does not fit these routes.
    pub(super) fn compare(&self, config: &Config) -> Vec<Finding> {
        let mut findings = self.unrouted(config);
        let observed = config.pools.iter().filter(|pool| {
            !self.routes.is_empty() && pool.mode == Mode::Observe && !pool.upstreams.is_empty()
        });
        findings.extend(observed.map(|pool| {
            Finding::Warning(format!(
                "pool {:?} observes, and Istio does not say to which subset a pod belongs: nothing is learned \
                 from pods that no pick has reached; give {{\"balance_percent\": 1}}, or balance pods \
                 (`paceline istio --endpoints`)",
                pool.name
            ))
        }));
        findings
    }

    /// Upstreams that no route serves, where there are routes to compare with.
    fn unrouted(&self, config: &Config) -> Vec<Finding> {
        let header = &config.route_header;
        let conditions = || self.routes.iter().flat_map(|route| &route.conditions);
        let values: Vec<_> = conditions()
            .filter(|(name, _)| name.eq_ignore_ascii_case(header))
            .map(|(_, value)| value.as_deref())
            .collect();
        // A route for any value goes where an EnvoyFilter says.
        if self.routes.is_empty() || values.contains(&None) {
            return Vec::new();
        }
        let upstreams = config.pools.iter().flat_map(|pool| {
            pool.upstreams
                .iter()
                .map(move |upstream| (&pool.name, &upstream.cluster))
        });
        upstreams
            .filter(|(_, cluster)| !values.contains(&Some(cluster.as_str())))
            .map(|(pool, cluster)| {
                Finding::Refused(format!(
                    "pool {pool:?}: no VirtualService has a route for {header}: {cluster}, so its requests take the \
                     fallback route; there are routes for {}",
                    values.iter().flatten().copied().collect::<Vec<_>>().join(", ")
                ))
            })
            .collect()
    }
}
