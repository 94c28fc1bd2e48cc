//! Who balances, and with what configuration.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::gateway::{Balancing, GatewayError, Topology, Upstream, filter_module};

/// Who balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// Paceline on the shipped configuration.
    Paceline,
    /// Envoy's `LEAST_REQUEST` with its outlier detection and its health checks.
    Guarded,
    /// Envoy's `LEAST_REQUEST` alone.
    Plain,
}

/// Features of the balancing that are not always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Envoy tries again, as the shipped configurations do.
    pub retries: bool,
    /// Paceline has a `health_check`. (Envoy's health checks come with its outlier detection, unless `bare`.)
    pub probes: bool,
    /// Envoy's outlier detection comes without its health checks.
    pub bare: bool,
    /// The window of `slow_start`, Paceline's and Envoy's.
    pub slow_start: Option<Duration>,
}

impl Setup {
    /// The shipped configuration, without probes and slow start.
    pub const SHIPPED: Self = Self {
        retries: true,
        probes: false,
        bare: false,
        slow_start: None,
    };
}

/// The one cluster of Envoy's own balancing.
const CLUSTER: &str = "/static_resources/clusters/0";
const POLICY: &str = "load_balancing_policy/policies/0/typed_extension_config/typed_config";
/// `ready` in hexadecimal, as Envoy's health checks want it.
const READY: &str = "7265616479";

impl Contender {
    /// What the table calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paceline => "Paceline",
            Self::Guarded => "`LEAST_REQUEST` with Envoy's detection",
            Self::Plain => "plain `LEAST_REQUEST`",
        }
    }

    /// An Envoy in front of the first `members` of the servers. Where one `joins` later, it is told without a restart: Paceline by its own
    /// configuration, Envoy by its list of endpoints.
    pub(super) fn topology(
        self,
        servers: &[Upstream],
        members: usize,
        setup: Setup,
        joins: bool,
    ) -> Result<Topology, GatewayError> {
        let names = |upstreams: &[Upstream]| -> Vec<_> {
            let pair = |it: &Upstream| (it.name.clone(), it.address);
            upstreams.iter().map(pair).collect()
        };
        let members = servers.get(..members).unwrap_or(servers);
        let mut topology = match self {
            Self::Paceline => Topology {
                reloadable: joins,
                ..Topology::new(names(servers), filter(members, setup)?)
            },
            Self::Guarded | Self::Plain => Topology {
                endpoints: joins,
                ..Topology::new(names(members), Balancing::LeastRequest { choice_count: 2 })
            },
        };
        topology.workers = 2;
        topology.retries = setup.retries;
        if self == Self::Guarded {
            topology.amendments = guards(setup);
        }
        Ok(topology)
    }
}

/// The shipped configuration of the filter, with what the scenario adds to it.
fn filter(members: &[Upstream], setup: Setup) -> Result<Balancing, GatewayError> {
    let upstreams: Vec<_> = members
        .iter()
        .map(|it| json!({ "cluster": it.name }))
        .collect();
    let mut config = Map::from_iter([
        ("upstreams".to_owned(), json!(upstreams)),
        ("include_attempt_count_in_response".to_owned(), json!(true)),
    ]);
    if setup.probes {
        let probes = json!({
            "path": "/health",
            "json_pointer": "/status",
            "equals": "ready",
            "cluster_suffix": "-servers",
        });
        config.insert("health_check".to_owned(), probes);
    }
    if let Some(window) = setup.slow_start {
        let window = json!({ "window": format!("{}s", window.as_secs()) });
        config.insert("slow_start".to_owned(), window);
    }
    Ok(Balancing::Filter {
        module: filter_module()?,
        config: Value::Object(config).to_string(),
    })
}

/// What Envoy has of its own, with Paceline's thresholds and times where both have one.
fn guards(setup: Setup) -> Vec<(String, Value)> {
    let mut guards = vec![(
        format!("{CLUSTER}/outlier_detection"),
        json!({
            "consecutive_5xx": 5,
            "interval": "1s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 50,
        }),
    )];
    if !setup.bare {
        guards.push((
            format!("{CLUSTER}/health_checks"),
            json!([{
                "interval": "1s",
                "no_traffic_interval": "1s",
                "timeout": "0.5s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 2,
                "http_health_check": { "path": "/health", "receive": [{ "text": READY }] },
            }]),
        ));
    }
    if let Some(window) = setup.slow_start {
        guards.push((
            format!("{CLUSTER}/{POLICY}/slow_start_config"),
            json!({
                "slow_start_window": format!("{}s", window.as_secs()),
                "min_weight_percent": { "value": 10 },
            }),
        ));
    }
    guards
}
