//! The filter's configuration: one JSON object, read strictly.
//!
//! What cannot mean what its author meant is refused, with the place, the value
//! and what is allowed; all problems of a configuration are told at once. What
//! is left out has a default that serves. The reference for users is
//! `docs/configuration.md`.

mod duration;
mod error;
mod json;
mod matcher;
mod names;
mod policy;
mod pool;
mod reader;
mod suggestion;

use core::str;
use core::time::Duration;

pub use error::{ConfigError, Problems};
pub use matcher::{HeaderMatch, HostMatch, Match, RequestView, ValueMatch};
pub use policy::PolicyConfig;
pub use pool::{Pool, Upstream};

use json::Json;
use reader::{Node, Object, Path};

const DEFAULT_ROUTE_HEADER: &str = "x-upstream-cluster";
const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const MIN_LEASE: Duration = Duration::from_secs(1);
const MAX_LEASE: Duration = Duration::from_secs(5 * 60);

/// The keys of the root object.
const KEYS: [&str; 6] = [
    "upstreams",
    "policy",
    "pools",
    "route_header",
    "lease",
    "explain",
];

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
}

fn parse_json(bytes: &[u8]) -> Result<Json, ConfigError> {
    let text = str::from_utf8(bytes).map_err(|error| ConfigError::Encoding {
        offset: error.valid_up_to(),
    })?;
    if text.trim_ascii().is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    serde_json::from_str(text).map_err(ConfigError::Syntax)
}

/// Gives no configuration, or one that counts only if no problem was found:
/// where a value is refused, a default stands in for it.
fn read(node: Node<'_>, problems: &mut Problems) -> Option<Config> {
    reader::refuse_repeated_keys(node, problems);
    let object = node.object("an object with upstreams or pools", problems)?;
    object.allow_only(&KEYS, problems);

    let route_header = object
        .get("route_header")
        .and_then(|node| node.text_that(names::is_route_header, names::ROUTE_HEADER, problems))
        .unwrap_or(DEFAULT_ROUTE_HEADER)
        .to_ascii_lowercase();
    let lease = object
        .get("lease")
        .and_then(|node| node.duration(MIN_LEASE..=MAX_LEASE, problems))
        .unwrap_or(DEFAULT_LEASE);
    let explain = object
        .get("explain")
        .and_then(|node| node.boolean(problems))
        .unwrap_or(false);
    let pools = read_pools(&object, problems);

    Some(Config {
        route_header,
        explain,
        lease,
        pools,
    })
}

/// The pools, or the one that top-level `upstreams` and `policy` stand for.
fn read_pools(object: &Object<'_>, problems: &mut Problems) -> Vec<Pool> {
    let Some(pools) = object.get("pools") else {
        return pool::read_shorthand(object, problems).into_iter().collect();
    };
    for key in ["upstreams", "policy"] {
        if object.get(key).is_some() {
            let message = "cannot stand beside pools; move it into a pool".to_owned();
            problems.add(&Path::Key(&object.path, key), message);
        }
    }
    pool::read_pools(pools, problems)
}

#[cfg(test)]
mod tests;
