//! The filter's configuration: one JSON object, read strictly.
//!
//! What cannot mean what its author meant is refused, with the place, the value
//! and what is allowed; all problems of a configuration are told at once. What
//! is left out has a default that serves. The reference for users is
//! `docs/configuration.md`.

mod matcher;
mod policy;

use core::time::Duration;

pub use matcher::{HeaderMatch, HostMatch, Match, RequestView, ValueMatch};
pub use policy::PolicyConfig;

/// A valid configuration: every rule of `docs/configuration.md` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The request header that names the chosen cluster: a lower-case header
    /// token that has no other meaning in HTTP. Default `x-upstream-cluster`.
    pub route_header: String,
    /// Whether responses tell the decision in `x-paceline-decision`.
    pub explain: bool,
    /// How long the counts of a worker that stopped renewing them still count:
    /// 1 second to 5 minutes, default 10 seconds.
    pub lease: Duration,
    /// At least one, with unique names. A request belongs to the first whose
    /// [`Match`] fits, and every pool can be reached.
    pub pools: Vec<Pool>,
}

/// The upstreams that can serve the same requests, and how to choose among them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique in the configuration; can stand in a header and in a metric's name.
    pub name: String,
    /// Which requests belong to the pool.
    pub matcher: Match,
    /// At least one, each cluster once. Other pools may name the same clusters.
    pub upstreams: Vec<Upstream>,
    /// How one of `upstreams` is picked.
    pub policy: PolicyConfig,
}

/// One routing target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The Envoy cluster, as the route header will name it.
    pub cluster: String,
    /// The share of the load relative to its pool's other upstreams: 1 to 1000,
    /// default 1.
    pub weight: u32,
}
