//! The filter's configuration: one JSON object, read strictly.
//!
//! What cannot mean what its author meant is refused, with the place, the value
//! and what is allowed; all problems of a configuration are told at once. What
//! is left out has a default that serves. The reference for users is
//! `docs/configuration.md`.

mod admission;
mod capacity;
mod duration;
mod error;
mod health_check;
mod json;
mod latency;
mod matcher;
mod membership;
mod mode;
mod model;
mod names;
mod outlier_detection;
mod policy;
mod pool;
mod reader;
mod request_body;
mod request_size;
mod routing_headers;
mod shared;
mod size_limits;
mod slow_start;
mod status;
mod suggestion;

use core::str;
use core::time::Duration;

pub use admission::{
    Admission, Deadline, DeadlineMode, Fairness, MAX_CLASSES, Priority, QueueLimits,
};
pub use capacity::{Device, MaxInFlight, Memory, Placement};
pub use error::{ConfigError, Problems};
pub use health_check::{BodyCheck, HealthCheck};
pub use latency::{LatencyConfig, LatencySignal};
pub use matcher::{HeaderMatch, HostMatch, Match, ModelMatch, RequestView, ValueMatch};
pub use mode::Mode;
pub use model::ModelSource;
pub use names::endpoint_address;
pub use outlier_detection::OutlierDetection;
pub use policy::PolicyConfig;
pub use pool::{Endpoint, Endpoints, Pool, Upstream};
pub use request_body::BodyLimits;
pub use request_size::{JsonPointer, SizeSource};
pub use size_limits::{Accepts, Reserve};
pub use slow_start::SlowStart;
pub use status::Status;

use json::Json;
use reader::{Node, Object, Path};

const DEFAULT_LEASE: Duration = Duration::from_secs(10);
const MIN_LEASE: Duration = Duration::from_secs(1);
const MAX_LEASE: Duration = Duration::from_secs(5 * 60);

/// The keys of the root object beside those of its only pool.
const KEYS: [&str; 11] = [
    "pools",
    "devices",
    "model",
    "request_body",
    "route_header",
    "endpoint_header",
    "lease",
    "explain",
    "access_log",
    "include_attempt_count_in_response",
    "status",
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
    /// Whether the proxy's access log can tell the decision, from its filter state
    /// `wasm.paceline`. Default `false`: it costs a host call for each request.
    pub access_log: bool,
    /// Whether the proxy adds `x-envoy-attempt-count` to responses, as the setting
    /// of this name says in its own configuration: a header is cheaper to read than
    /// a property. Default `false`: a server could then make it up.
    pub include_attempt_count_in_response: bool,
    /// Where the filter tells its state; `None` is nowhere.
    pub status: Option<Status>,
    /// How long the counts of a worker that stopped renewing them still count:
    /// 1 second to 5 minutes, default 10 seconds.
    pub lease: Duration,
    /// Where requests name their model, for pools that match on it.
    pub model: ModelSource,
    /// How long, and for how much, requests wait for their bodies.
    pub request_body: BodyLimits,
    /// What upstreams share the memory of; with unique names, and each of them has an
    /// upstream.
    pub devices: Vec<Device>,
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
    if is_protobuf_struct(bytes) {
        return Err(ConfigError::Struct);
    }
    let text = str::from_utf8(bytes).map_err(|error| ConfigError::Encoding {
        offset: error.valid_up_to(),
    })?;
    if text.trim_ascii().is_empty() {
        return Ok(Json::Object(Vec::new()));
    }
    // Through bytes, as the bodies of requests are read: one parser less.
    serde_json::from_slice(bytes).map_err(ConfigError::Syntax)
}

/// Whether the bytes are a serialized `google.protobuf.Struct`, which is what
/// Envoy hands on of one. JSON cannot look like that: it has no byte 0x12.
fn is_protobuf_struct(bytes: &[u8]) -> bool {
    const ENTRY: u8 = 0x0a;
    const KEY: u8 = 0x0a;
    const VALUE: u8 = 0x12;
    let Some((&ENTRY, rest)) = bytes.split_first() else {
        return false;
    };
    // The entry's length has seven bits a byte, and the last is below 0x80.
    let length = rest.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let Some([KEY, key, rest @ ..]) = rest.get(length..) else {
        return false;
    };
    rest.get(usize::from(*key)) == Some(&VALUE)
}

/// Gives no configuration, or one that counts only if no problem was found:
/// where a value is refused, a default stands in for it.
fn read(node: Node<'_>, problems: &mut Problems) -> Option<Config> {
    reader::refuse_repeated_keys(node, problems);
    let object = node.object("an object with upstreams or pools", problems)?;
    let keys = [pool::CHOICE_KEYS.as_slice(), &KEYS].concat();
    object.allow_only(&keys, problems);

    let [route_header, endpoint_header] = routing_headers::read(&object, problems);
    let lease = object
        .duration("lease", MIN_LEASE..=MAX_LEASE, problems)
        .unwrap_or(DEFAULT_LEASE);
    let explain = object.boolean("explain", problems).unwrap_or(false);
    let access_log = object.boolean("access_log", problems).unwrap_or(false);
    let include_attempt_count_in_response = object
        .boolean("include_attempt_count_in_response", problems)
        .unwrap_or(false);
    let status = object
        .get("status")
        .and_then(|node| status::read(node, problems));
    let model = object
        .get("model")
        .and_then(|node| model::read(node, problems))
        .unwrap_or_default();
    let request_body = object
        .get("request_body")
        .and_then(|node| request_body::read(node, problems))
        .unwrap_or_default();
    let devices = object
        .get("devices")
        .map(|node| capacity::read_devices(node, problems))
        .unwrap_or_default();
    let pools = read_pools(&object, problems);

    let mut config = Config {
        route_header,
        endpoint_header,
        explain,
        access_log,
        include_attempt_count_in_response,
        status,
        lease,
        model,
        request_body,
        devices,
        pools,
    };
    // Pools with problems are left out, and may have been the ones that ask.
    if problems.is_empty() {
        refuse_unused(&config, &object, problems);
        routing_headers::refuse_shared(&config, &object, problems);
        shared::refuse_contradictions(&config.pools, &config.devices, &object, problems);
    }
    config.pools.iter_mut().for_each(Pool::lift_limits);
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
        (
            "endpoint_header",
            config.pools.iter().any(|pool| pool.endpoints.is_some()),
            "no pool balances the endpoints of a cluster; give a pool cluster, or leave this out",
        ),
    ];
    for (key, used, message) in unused {
        if let Some(node) = object.get(key)
            && !used
        {
            problems.add(&node.path, &message);
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
            problems.add(
                &Path::Key(&object.path, key),
                &"cannot stand beside pools; move it into a pool",
            );
        }
    }
    pool::read_pools(pools, problems)
}

#[cfg(test)]
mod tests;
