//! What a gateway stands in front of, and how it balances.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The name of the cluster whose endpoints the servers are.
pub const ENDPOINTS_CLUSTER: &str = "gpus";

/// A server, as an Envoy cluster of its own and an aggregate that begins with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The aggregate's name, which is the one to be picked.
    pub name: String,
    /// Where the server listens.
    pub address: SocketAddr,
}

/// Who chooses the server of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balancing {
    /// Envoy's `ROUND_ROBIN`.
    RoundRobin,
    /// Envoy's `RANDOM`.
    Random,
    /// Envoy's `LEAST_REQUEST` by sampling: the least busy of so many random
    /// servers, at least 2. Envoy's default is 2.
    LeastRequest {
        /// How many servers are looked at.
        choice_count: u32,
    },
    /// Envoy's `LEAST_REQUEST` over all servers.
    LeastRequestFullScan,
    /// A filter in a WebAssembly module that names the cluster; requests that it
    /// passes through take the shipped fallback route.
    Filter {
        /// The module. See [`filter_module`](super::filter_module) for Paceline.
        module: PathBuf,
        /// The filter's configuration, as its users write it.
        config: String,
    },
}

/// All that is put into the shipped configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The servers. Each becomes an upstream as the shipped configuration has
    /// it; the fallback cluster holds all of them.
    pub upstreams: Vec<Upstream>,
    /// Who chooses among them.
    pub balancing: Balancing,
    /// Envoy's worker threads (`--concurrency`), at least 1.
    pub workers: u32,
    /// Whether Envoy shows a request's body to a filter that has stopped the
    /// request at its headers, as the shipped file has it.
    pub shows_bodies: bool,
    /// Time that a request may take in all, or as long as it needs.
    pub request_timeout: Option<Duration>,
    /// Whether Envoy tries again elsewhere, as the shipped configuration says.
    pub retries: bool,
    /// Whether the servers are the endpoints of one cluster, [`ENDPOINTS_CLUSTER`],
    /// as in the shipped `envoy/endpoints.yaml`. Envoy then watches their list,
    /// see [`Gateway::set_endpoints`](super::Gateway::set_endpoints).
    pub endpoints: bool,
    /// Whether Envoy reads the listener from a file that it watches, as
    /// [`Gateway::reconfigure`](super::Gateway::reconfigure) needs.
    pub reloadable: bool,
    /// How long connections keep an old configuration after a new one came.
    pub drain_time: Duration,
}

impl Topology {
    /// One worker, no time limit, the shipped retries, a fixed listener.
    #[must_use]
    pub fn new<N: Into<String>>(
        upstreams: impl IntoIterator<Item = (N, SocketAddr)>,
        balancing: Balancing,
    ) -> Self {
        Self {
            upstreams: upstreams
                .into_iter()
                .map(|(name, address)| Upstream {
                    name: name.into(),
                    address,
                })
                .collect(),
            balancing,
            workers: 1,
            shows_bodies: true,
            request_timeout: None,
            retries: true,
            endpoints: false,
            reloadable: false,
            drain_time: Duration::from_secs(600),
        }
    }
}
