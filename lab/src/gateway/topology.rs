//! What a gateway stands in front of, and how it balances.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

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

/// The upstreams that serve one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelServers {
    /// What requests say in the header `x-model`.
    pub model: String,
    /// The names of its upstreams.
    pub upstreams: Vec<String>,
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
    /// The client, which names the cluster in the header `x-upstream-cluster` as
    /// the filter would: the shipped clusters and routes without a filter. A
    /// request without the header takes the shipped fallback route.
    Client,
    /// A filter in a WebAssembly module that names the cluster; requests that it
    /// passes through take the shipped fallback route.
    Filter {
        /// The module. See [`filter_module`](super::filter_module) for Paceline.
        module: PathBuf,
        /// The filter's configuration, as its users write it.
        config: String,
    },
}

impl Balancing {
    /// Whether requests name their cluster in a header, so that each server has
    /// clusters of its own.
    pub(super) fn is_by_header(&self) -> bool {
        matches!(self, Self::Client | Self::Filter { .. })
    }
}

/// All that is put into the shipped configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The servers. Each becomes an upstream as the shipped configuration has
    /// it; the fallback cluster holds all of them.
    pub upstreams: Vec<Upstream>,
    /// Which of them serve which model. Requests of such a model go to its servers alone, whoever chooses, and so do their retries;
    /// empty if all serve all.
    pub models: Vec<ModelServers>,
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
    /// Whether Envoy checks the servers' health by connecting to them, ten times a
    /// second.
    pub health_checks: bool,
    /// Whether each server says in its metadata which upstream it belongs to, as
    /// in the shipped file.
    pub names_upstreams: bool,
    /// A server that the filter knows nothing of: a cluster by this name, and a
    /// route before all others to it from paths that begin with it.
    pub other: Option<Upstream>,
    /// Whether Envoy reads the listener from a file that it watches, as
    /// [`Gateway::reconfigure`](super::Gateway::reconfigure) needs.
    pub reloadable: bool,
    /// How long connections keep an old configuration after a new one came.
    pub drain_time: Duration,
    /// Whether the filter tells its state on a listener of its own, as in the shipped
    /// file.
    pub status: bool,
    /// Changes to the finished configuration: a place (RFC 6901), and
    /// what is added there as JSON Patch (RFC 6902) adds it. `null` removes what
    /// is there.
    pub amendments: Vec<(String, Value)>,
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
            models: Vec::new(),
            balancing,
            workers: 1,
            shows_bodies: true,
            request_timeout: None,
            retries: true,
            endpoints: false,
            health_checks: false,
            names_upstreams: true,
            other: None,
            reloadable: false,
            drain_time: Duration::from_secs(600),
            status: false,
            amendments: Vec::new(),
        }
    }
}
