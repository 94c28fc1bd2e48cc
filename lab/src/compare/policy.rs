use std::fmt;
use std::str::FromStr;

use paceline::config::{Config, Pool};
use serde_json::{Value, json};

use crate::gateway::{Balancing, GatewayError, filter_module};

/// A policy that can be compared: one of Envoy's own, `envoy:NAME`, or one of Paceline's, `paceline:NAME` or, with
/// parameters, `paceline:{...}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Envoy(Balancing),
    /// As in the filter's configuration under `policy`.
    Paceline(Value),
}

const ENVOY: &str = "envoy:";
const PACELINE: &str = "paceline:";

/// Envoy's policies, by the names that Paceline has for the same.
fn of_envoy(name: &str) -> Option<Balancing> {
    match name {
        "round_robin" => Some(Balancing::RoundRobin),
        "least_request" => Some(Balancing::LeastRequest { choice_count: 2 }),
        "least_request_full_scan" => Some(Balancing::LeastRequestFullScan),
        "random" => Some(Balancing::Random),
        _ => None,
    }
}

impl Policy {
    /// What the policies are compared with unless told otherwise: Envoy's two best known, and Paceline's default.
    pub const DEFAULTS: [&str; 3] = [
        "envoy:round_robin",
        "envoy:least_request",
        "paceline:shortest_expected_delay",
    ];

    /// Its name, as [`FromStr`] reads it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who balances under this policy over the clusters. Those of Paceline's policies that heed sizes read them from the
    /// `size_header`, if there is one; the filter refuses to be told of sizes that nothing looks at.
    ///
    /// # Errors
    /// If the filter that it needs has not been built.
    pub fn balancing<'a>(
        &self,
        clusters: impl IntoIterator<Item = &'a str>,
        size_header: Option<&str>,
    ) -> Result<Balancing, GatewayError> {
        match &self.kind {
            Kind::Envoy(balancing) => Ok(balancing.clone()),
            Kind::Paceline(policy) => Ok(Balancing::Filter {
                module: filter_module()?,
                config: filter_config(policy, clusters, size_header),
            }),
        }
    }
}

fn filter_config<'a>(
    policy: &Value,
    clusters: impl IntoIterator<Item = &'a str>,
    size_header: Option<&str>,
) -> String {
    let upstreams: Vec<_> = clusters
        .into_iter()
        .map(|cluster| json!({ "cluster": cluster }))
        .collect();
    let plain = json!({ "policy": policy, "upstreams": upstreams });
    let config = match size_header.filter(|_| heeds_size(&plain)) {
        Some(header) => {
            json!({ "policy": policy, "upstreams": upstreams, "request_size": { "header": header } })
        }
        None => plain,
    };
    config.to_string()
}

fn heeds_size(config: &Value) -> bool {
    Config::parse(Some(config.to_string().as_bytes()))
        .is_ok_and(|config| config.pools.iter().any(Pool::heeds_size))
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let kind = if let Some(policy) = name.strip_prefix(ENVOY) {
            of_envoy(policy).map(Kind::Envoy).ok_or_else(|| {
                format!(
                    "Envoy's policy {policy:?} cannot be compared: allowed are round_robin, least_request, least_request_full_scan and random"
                )
            })?
        } else if let Some(policy) = name.strip_prefix(PACELINE) {
            let policy = if policy.starts_with('{') {
                serde_json::from_str(policy).map_err(|error| format!("{policy}: {error}"))?
            } else {
                Value::String(policy.to_owned())
            };
            Config::parse(Some(filter_config(&policy, ["a"], None).as_bytes()))
                .map_err(|error| error.to_string())?;
            Kind::Paceline(policy)
        } else {
            return Err(format!(
                "{name:?} names nobody's policy: allowed are envoy:NAME and paceline:NAME"
            ));
        };
        Ok(Self {
            name: name.to_owned(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_an_owner_and_a_name() {
        for name in Policy::DEFAULTS {
            assert_eq!(name.parse::<Policy>().unwrap().name(), name);
        }
        let full_scan: Policy = "envoy:least_request_full_scan".parse().unwrap();
        assert_eq!(
            full_scan.balancing(["a"], None).unwrap(),
            Balancing::LeastRequestFullScan
        );
        let error = "least_request".parse::<Policy>().unwrap_err();
        assert!(error.contains("envoy:NAME and paceline:NAME"), "{error}");
        let error = "envoy:maglev".parse::<Policy>().unwrap_err();
        assert!(
            error.contains("maglev") && error.contains("round_robin"),
            "{error}"
        );
        let error = "paceline:fastest".parse::<Policy>().unwrap_err();
        assert!(
            error.contains("fastest") && error.contains("shortest_expected_delay"),
            "{error}"
        );
    }

    #[test]
    fn the_filter_is_configured_as_its_users_would() {
        assert_eq!(
            filter_config(&"least_request".into(), ["a", "b"], None),
            r#"{"policy":"least_request","upstreams":[{"cluster":"a"},{"cluster":"b"}]}"#
        );
    }

    #[test]
    fn sizes_are_told_to_those_who_heed_them() {
        let counting = json!({ "name": "shortest_expected_delay", "basis": "requests" });
        for (policy, heeds) in [(json!("shortest_expected_delay"), true), (counting, false)] {
            let config = filter_config(&policy, ["a"], Some("x-request-size"));
            assert_eq!(config.contains("x-request-size"), heeds, "{config}");
            Config::parse(Some(config.as_bytes())).unwrap();
        }
    }
}
