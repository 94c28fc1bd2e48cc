//! What there is to probe: each upstream of each pool that has a check.

use crate::config::{Config, HealthCheck};
use crate::map::Map;
use crate::pool::{MemberIndex, Topology, identity};
use crate::random::mix;

/// An upstream that is asked in one way, whichever pools ask so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    /// A hash of the upstream's names and of the check.
    pub(super) identity: u64,
    /// The upstream's identity.
    pub(super) upstream: u64,
    /// The cluster to ask.
    pub(super) cluster: String,
    /// The endpoint of the cluster to ask, `ip:port`, if it is one.
    pub(super) endpoint: Option<String>,
    /// The `host` of the request.
    pub(super) host: String,
    /// The pool whose check it is, by its number in the configuration: the first of
    /// those that ask so.
    pub(super) pool: usize,
    /// The members that it stands for.
    pub(super) members: Vec<MemberIndex>,
}

/// The health checks of a configuration, by pool.
#[derive(Clone, Debug)]
pub(super) struct Checks(Vec<Option<HealthCheck>>);

impl Checks {
    /// Those of `config`; `None` where there are none.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let checks = config.pools.iter().map(|pool| pool.health_check.clone());
        let checks: Vec<_> = checks.collect();
        checks.iter().any(Option::is_some).then_some(Checks(checks))
    }

    /// The check of the pool with this number.
    pub(super) fn of_pool(&self, pool: usize) -> Option<&HealthCheck> {
        self.0.get(pool)?.as_ref()
    }
}

/// All targets of a topology, each once.
#[inline(never)]
pub(super) fn targets(checks: &Checks, topology: &Topology) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut places: Map<u64, usize> = Map::default();
    for (number, pool) in topology.pools.iter().enumerate() {
        let Some(check) = checks.of_pool(number) else {
            continue;
        };
        for member in pool.member_indexes() {
            let Some(upstream) = topology.upstream_of(member) else {
                continue;
            };
            let identity = mix(identity_of(check) ^ upstream.identity);
            let place = *places.entry(identity).or_insert(targets.len());
            if let Some(target) = targets.get_mut(place) {
                target.members.push(member);
                continue;
            }
            let host = check.host.as_deref();
            let host = host.unwrap_or_else(|| host_of(&upstream.cluster));
            targets.push(Target {
                identity,
                upstream: upstream.identity,
                cluster: [&*upstream.cluster, &check.cluster_suffix].concat(),
                endpoint: upstream.endpoint.clone(),
                host: host.to_owned(),
                pool: number,
                members: vec![member],
            });
        }
    }
    targets
}

/// What tells the checks of a configuration from those of another, whatever endpoints
/// are discovered.
pub(super) fn identity_of_all(config: &Config) -> u64 {
    let mut all = 0;
    for pool in &config.pools {
        let Some(check) = &pool.health_check else {
            continue;
        };
        let mut names: Vec<&str> = pool.upstreams.iter().map(|it| &*it.cluster).collect();
        if let Some(endpoints) = &pool.endpoints {
            names.push(&endpoints.cluster);
            let fixed = endpoints.fixed.iter().flatten();
            names.extend(fixed.map(|endpoint| &*endpoint.address));
        }
        all = mix(all ^ identity_of(check)) ^ identity(&names);
    }
    all
}

/// What tells a check apart from others.
fn identity_of(check: &HealthCheck) -> u64 {
    let names = identity(&check.names());
    let numbers = check.numbers();
    numbers
        .iter()
        .fold(names, |hash, number| mix(hash ^ number))
}

/// The host in the name of a cluster. Istio's are
/// `outbound|8000|v1|models.example.com`; others are names like a host's.
fn host_of(cluster: &str) -> &str {
    cluster.rsplit('|').next().unwrap_or(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets_of(json: &str) -> Vec<Target> {
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        targets(&Checks::of(&config).unwrap(), &Topology::new(&config))
    }

    #[test]
    fn pools_that_ask_an_upstream_alike_ask_it_once() {
        let targets = targets_of(
            r#"{"pools": [
                {"name": "small", "match": {"path_prefix": "/s"}, "health_check": "vllm",
                    "upstreams": [{"cluster": "a"}, {"cluster": "b"}]},
                {"name": "other", "match": {"path_prefix": "/o"}, "health_check": "torchserve",
                    "upstreams": [{"cluster": "b"}]},
                {"name": "none", "match": {"path_prefix": "/n"}, "upstreams": [{"cluster": "b"}]},
                {"name": "large", "health_check": "tgi", "upstreams": [{"cluster": "b"}]}]}"#,
        );
        let shown: Vec<_> = targets
            .iter()
            .map(|it| {
                let members: Vec<usize> = it.members.iter().map(|member| member.0).collect();
                (it.cluster.as_str(), it.pool, members)
            })
            .collect();
        assert_eq!(
            shown,
            [("a", 0, vec![0]), ("b", 0, vec![1, 4]), ("b", 1, vec![2])]
        );
        assert_eq!(targets[1].upstream, targets[2].upstream);
        assert_ne!(targets[1].identity, targets[2].identity);
    }

    #[test]
    fn an_upstream_is_asked_at_its_own_cluster_under_its_own_host() {
        let targets = targets_of(
            r#"{"pools": [
                {"name": "servers", "match": {"path_prefix": "/s"},
                    "health_check": {"preset": "vllm", "cluster_suffix": "-servers"},
                    "upstreams": [{"cluster": "gpu-a"}, {"cluster": "outbound|80|v1|llm.ns.svc"}]},
                {"name": "endpoints", "cluster": "gpus", "endpoints": ["10.0.0.1:80"],
                    "health_check": {"preset": "vllm", "host": "models"}}]}"#,
        );
        let shown: Vec<_> = targets
            .iter()
            .map(|it| (&*it.cluster, &*it.host, it.endpoint.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("gpu-a-servers", "gpu-a", None),
                ("outbound|80|v1|llm.ns.svc-servers", "llm.ns.svc", None),
                ("gpus", "models", Some("10.0.0.1:80")),
            ]
        );
    }

    #[test]
    fn checks_are_told_apart_by_what_is_asked_and_who_is() {
        let all = [
            r#"{"upstreams": [{"cluster": "a"}], "health_check": "vllm"}"#,
            r#"{"upstreams": [{"cluster": "b"}], "health_check": "vllm"}"#,
            r#"{"upstreams": [{"cluster": "a"}], "health_check": "torchserve"}"#,
            r#"{"cluster": "a", "health_check": "vllm", "endpoints": ["10.0.0.1:80"]}"#,
            r#"{"cluster": "a", "health_check": "vllm", "endpoints": ["10.0.0.2:80"]}"#,
        ]
        .map(|json| identity_of_all(&Config::parse(Some(json.as_bytes())).unwrap()));
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
        let slower = r#"{"upstreams": [{"cluster": "a", "weight": 3}], "health_check": "vllm"}"#;
        let slower = Config::parse(Some(slower.as_bytes())).unwrap();
        assert_eq!(
            identity_of_all(&slower),
            all[0],
            "weights are no part of it"
        );
    }
}
