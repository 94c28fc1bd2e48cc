//! The filter's configuration: one JSON object, read strictly.
//!
//! What cannot mean what its author meant is refused, with the place, the value
//! and what is allowed; all problems of a configuration are told at once. What
//! is left out has a default that serves. The reference for users is
//! `docs/configuration.md`.

mod duration;
mod error;
mod json;
mod latency;
mod matcher;
mod model;
mod names;
mod policy;
mod pool;
mod reader;
mod request_body;
mod request_size;
mod size_limits;
mod suggestion;

use core::str;
use core::time::Duration;

pub use error::{ConfigError, Problems};
pub use latency::{LatencyConfig, LatencySignal};
pub use matcher::{HeaderMatch, HostMatch, Match, ModelMatch, RequestView, ValueMatch};
pub use model::ModelSource;
pub use names::endpoint_address;
pub use policy::PolicyConfig;
pub use pool::{Endpoint, Endpoints, Pool, Upstream};
pub use request_body::BodyLimits;
pub use request_size::{JsonPointer, SizeSource};
pub use size_limits::{Accepts, Reserve};

use json::Json;
use reader::{Node, Object, Path};

const DEFAULT_ROUTE_HEADER: &str = "x-upstream-cluster";
const DEFAULT_ENDPOINT_HEADER: &str = "x-gateway-destination-endpoint";
const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const MIN_LEASE: Duration = Duration::from_secs(1);
const MAX_LEASE: Duration = Duration::from_secs(5 * 60);

/// The keys of the root object beside those of its only pool.
const KEYS: [&str; 7] = [
    "pools",
    "model",
    "request_body",
    "route_header",
    "endpoint_header",
    "lease",
    "explain",
];

/// A valid configuration: every rule of `docs/configuration.md` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The request header that names the chosen cluster: a lower-case header
    /// token that has no other meaning in HTTP. Default `x-upstream-cluster`.
    pub route_header: String,
    /// The request header that lists the chosen endpoints, for pools that
    /// balance those of a cluster. Default `x-gateway-destination-endpoint`.
    pub endpoint_header: String,
    /// Whether responses tell the decision in `x-paceline-decision`.
    pub explain: bool,
    /// How long the counts of a worker that stopped renewing them still count:
    /// 1 second to 5 minutes, default 10 seconds.
    pub lease: Duration,
    /// Where requests name their model, for pools that match on it.
    pub model: ModelSource,
    /// How long, and for how much, requests wait for their bodies.
    pub request_body: BodyLimits,
    /// At least one, with unique names. A request belongs to the first whose
    /// [`Match`] fits, and every pool can be reached.
    pub pools: Vec<Pool>,
}

impl Config {
    /// Reads what Envoy hands to the plugin. An absent or empty configuration
    /// stands for `{}`, which is refused for want of upstreams.
    ///
    /// # Errors
    /// When the bytes are not UTF-8, not JSON, or break a rule; the error tells
    /// every rule that is broken, with the place, the value and what is allowed.
    pub fn parse(bytes: Option<&[u8]>) -> Result<Self, ConfigError> {
        let json = parse_json(bytes.unwrap_or_default())?;
        let mut problems = Problems::default();
        let config = read(Node::root(&json), &mut problems);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid(problems)),
        }
    }

    /// Whether any request has to wait for its body.
    #[must_use]
    pub fn reads_bodies(&self) -> bool {
        let for_model = self.model == ModelSource::Body && self.matches_models();
        let for_size = |pool: &Pool| pool.heeds_size() && pool.request_size.needs_body();
        for_model || self.pools.iter().any(for_size)
    }

    fn matches_models(&self) -> bool {
        self.pools.iter().any(|pool| pool.matcher.model.is_some())
    }
}

fn parse_json(bytes: &[u8]) -> Result<Json, ConfigError> {
    let text = str::from_utf8(bytes).map_err(|error| ConfigError::Encoding {
        offset: error.valid_up_to(),
    })?;
    if text.trim_ascii().is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    // Through bytes, as the bodies of requests are read: one parser less.
    serde_json::from_slice(bytes).map_err(ConfigError::Syntax)
}

/// Gives no configuration, or one that counts only if no problem was found:
/// where a value is refused, a default stands in for it.
fn read(node: Node<'_>, problems: &mut Problems) -> Option<Config> {
    reader::refuse_repeated_keys(node, problems);
    let object = node.object("an object with upstreams or pools", problems)?;
    let keys = [pool::CHOICE_KEYS, KEYS].concat();
    object.allow_only(&keys, problems);

    let route_header = object
        .get("route_header")
        .and_then(|node| node.text_that(names::is_route_header, names::ROUTE_HEADER, problems))
        .unwrap_or(DEFAULT_ROUTE_HEADER)
        .to_ascii_lowercase();
    let endpoint_header = object
        .get("endpoint_header")
        .and_then(|node| node.text_that(names::is_route_header, names::ROUTE_HEADER, problems))
        .unwrap_or(DEFAULT_ENDPOINT_HEADER)
        .to_ascii_lowercase();
    if let Some(node) = object.get("endpoint_header")
        && endpoint_header == route_header
    {
        let message = "is the route_header too; give each its own".to_owned();
        problems.add(&node.path, message);
    }
    let lease = object
        .get("lease")
        .and_then(|node| node.duration(MIN_LEASE..=MAX_LEASE, problems))
        .unwrap_or(DEFAULT_LEASE);
    let explain = object
        .get("explain")
        .and_then(|node| node.boolean(problems))
        .unwrap_or(false);
    let model = object
        .get("model")
        .and_then(|node| model::read(node, problems))
        .unwrap_or_default();
    let request_body = object
        .get("request_body")
        .and_then(|node| request_body::read(node, problems))
        .unwrap_or_default();
    let pools = read_pools(&object, problems);

    let config = Config {
        route_header,
        endpoint_header,
        explain,
        lease,
        model,
        request_body,
        pools,
    };
    // Pools with problems are left out, and may have been the ones that ask.
    if problems.is_empty() {
        refuse_unused(&config, &object, problems);
    }
    Some(config)
}

/// Refuses keys that nothing would heed.
fn refuse_unused(config: &Config, object: &Object<'_>, problems: &mut Problems) {
    let unused = [
        (
            "model",
            config.matches_models(),
            "no pool matches on a model; give a pool match.model, or leave this out",
        ),
        (
            "request_body",
            config.reads_bodies(),
            "no request's body is read; give a pool a request_size or a match.model that \
             needs it, or leave this out",
        ),
    ];
    for (key, used, message) in unused {
        if let Some(node) = object.get(key)
            && !used
        {
            problems.add(&node.path, message.to_owned());
        }
    }
}

/// The pools, or the one that top-level `upstreams` and its companions stand for.
fn read_pools(object: &Object<'_>, problems: &mut Problems) -> Vec<Pool> {
    let Some(pools) = object.get("pools") else {
        return pool::read_shorthand(object, problems).into_iter().collect();
    };
    for key in pool::CHOICE_KEYS {
        if object.get(key).is_some() {
            let message = "cannot stand beside pools; move it into a pool".to_owned();
            problems.add(&Path::Key(&object.path, key), message);
        }
    }
    pool::read_pools(pools, problems)
}

#[cfg(test)]
mod tests;
