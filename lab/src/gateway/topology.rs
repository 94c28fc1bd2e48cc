//! What a gateway stands in front of, and how it balances.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A server, as one Envoy cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The cluster's name.
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
    /// The servers. Each becomes a cluster of its name; the fallback cluster
    /// holds all of them.
    pub upstreams: Vec<Upstream>,
    /// Who chooses among them.
    pub balancing: Balancing,
    /// Envoy's worker threads (`--concurrency`), at least 1.
    pub workers: u32,
    /// Time that a request may take in all, or as long as it needs.
    pub request_timeout: Option<Duration>,
    /// How often Envoy tries again after a refused connection, a reset or a 5xx.
    pub retries: u32,
    /// Whether Envoy reads the listener from a file that it watches, as
    /// [`Gateway::reconfigure`](super::Gateway::reconfigure) needs.
    pub reloadable: bool,
    /// How long connections keep an old configuration after a new one came.
    pub drain_time: Duration,
}

impl Topology {
    /// One worker, no time limit, no retries, a fixed listener.
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
            request_timeout: None,
            retries: 0,
            reloadable: false,
            drain_time: Duration::from_secs(600),
        }
    }
}
