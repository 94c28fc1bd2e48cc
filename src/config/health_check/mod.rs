//! How a pool's upstreams are asked whether they are ready.

mod body;
mod preset;

use core::ops::RangeInclusive;
use core::time::Duration;

use super::error::Problems;
use super::json::Json;
use super::names;
use super::reader::{Node, Object, Path};

pub use body::BodyCheck;
use preset::Preset;

const KEYS: [&str; 12] = [
    "preset",
    "model",
    "path",
    "host",
    "cluster_suffix",
    "interval",
    "timeout",
    "healthy_threshold",
    "unhealthy_threshold",
    "expected_statuses",
    "json_pointer",
    "equals",
];

const ALLOWED: &str = "the name of a preset, such as \"vllm\", or an object with path or preset";
const PATH: &str = "a path that begins with \"/\", such as \"/health\": visible ASCII characters \
     without \"#\", 1024 at most";
const SUFFIX: &str = "what follows the upstream's name in the name of the cluster to ask, \
     such as \"-servers\"";

/// The most characters of a path.
const MAX_PATH: usize = 1024;

/// Workers look for what is due some four times a second.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(300);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const THRESHOLDS: RangeInclusive<u32> = 1..=100;
/// Envoy itself answers with 503 and 504 for a server that it cannot reach.
const STATUSES: RangeInclusive<u32> = 200..=499;
const MAX_STATUSES: usize = 32;

/// How a pool's upstreams are asked whether they are ready.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// The path of the request, with its query if there is one.
    pub path: String,
    /// The `host` of the request; by default that of the upstream.
    pub host: Option<String>,
    /// What follows the name of an upstream's cluster in the name of the cluster that
    /// is asked; by default nothing.
    pub cluster_suffix: String,
    /// The time from one request to an upstream to the next: 250 ms to 5 minutes,
    /// default 1 second.
    pub interval: Duration,
    /// After so long without an answer the upstream is not ready: 10 ms to 1 minute,
    /// default 500 ms.
    pub timeout: Duration,
    /// So many good answers in a row make an upstream ready that was not: 1 to 100,
    /// default 1. For one that was never asked before, one is enough.
    pub healthy_threshold: u32,
    /// So many bad answers in a row make an upstream not ready that was: 1 to 100,
    /// default 2.
    pub unhealthy_threshold: u32,
    /// The statuses of a good answer, each 200 to 499; default 200 alone.
    pub expected_statuses: Vec<u16>,
    /// What the body of a good answer says; by default anything.
    pub body: Option<BodyCheck>,
}

impl HealthCheck {
    /// The usual check of this path.
    fn of(path: String) -> Self {
        HealthCheck {
            path,
            host: None,
            cluster_suffix: String::new(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            healthy_threshold: 1,
            unhealthy_threshold: 2,
            expected_statuses: vec![200],
            body: None,
        }
    }

    /// With [`HealthCheck::numbers`] what tells it apart from other checks.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let host = self.host.as_deref().unwrap_or_default();
        let mut names = vec![self.path.as_str(), host, self.cluster_suffix.as_str()];
        if let Some(body) = &self.body {
            body.extend_names(&mut names);
        }
        names
    }

    /// With [`HealthCheck::names`] what tells it apart from other checks.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers = vec![
            self.interval.as_micros() as u64,
            self.timeout.as_micros() as u64,
            self.healthy_threshold.into(),
            self.unhealthy_threshold.into(),
        ];
        numbers.extend(self.expected_statuses.iter().map(|it| u64::from(*it)));
        numbers
    }
}

/// Reads `health_check` of a pool.
#[inline(never)]
pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<HealthCheck> {
    if let Json::String(name) = node.json {
        let preset = preset::read(&node, name, problems)?;
        return Some(HealthCheck::of(preset.path(None)));
    }
    let object = node.object(ALLOWED, problems)?;
    object.allow_only(&KEYS, problems);
    let path = read_path(&node, &object, problems);
    let mut check = HealthCheck::of(path.unwrap_or_default());
    if let Some(host) = object.get("host") {
        let host = host.text_that(is_host, "a host, such as \"models.example.com\"", problems);
        check.host = host.map(str::to_owned);
    }
    if let Some(suffix) = object.get("cluster_suffix") {
        let suffix = suffix.text_that(names::is_name, SUFFIX, problems);
        check.cluster_suffix = suffix.unwrap_or_default().to_owned();
    }
    for (key, range, time) in [
        ("interval", INTERVALS, &mut check.interval),
        ("timeout", TIMEOUTS, &mut check.timeout),
    ] {
        let given = object.duration(key, range, problems);
        *time = given.unwrap_or(*time);
    }
    for (key, threshold) in [
        ("healthy_threshold", &mut check.healthy_threshold),
        ("unhealthy_threshold", &mut check.unhealthy_threshold),
    ] {
        let given = object.whole(key, THRESHOLDS, problems);
        *threshold = given.unwrap_or(*threshold);
    }
    if let Some(statuses) = object.get("expected_statuses") {
        check.expected_statuses = read_statuses(statuses, problems);
    }
    check.body = body::read(&object, problems);
    Some(check)
}

/// The path, or the one of the preset.
fn read_path(node: &Node<'_>, object: &Object<'_>, problems: &mut Problems) -> Option<String> {
    let preset = match object.get("preset") {
        Some(preset) => {
            let name = preset.text(preset::NAMES_ALLOWED, problems)?;
            Some(preset::read(&preset, name, problems)?)
        }
        None => None,
    };
    let model = read_model(object, preset, problems);
    match (object.get("path"), preset) {
        (Some(path), _) => path.text_that(is_path, PATH, problems).map(str::to_owned),
        (None, Some(preset)) => Some(preset.path(model)),
        (None, None) => {
            node.refuse(&ALLOWED, problems);
            None
        }
    }
}

fn read_model<'a>(
    object: &Object<'a>,
    preset: Option<Preset>,
    problems: &mut Problems,
) -> Option<&'a str> {
    let (_, json) = object.entries.iter().find(|(key, _)| key == "model")?;
    let path = Path::Key(&object.path, "model");
    if preset.is_none_or(|preset| !preset.takes_model()) {
        problems.add(
            &path,
            &"has no effect; only the presets triton and kserve ask for a model",
        );
        return None;
    }
    let node = Node { json, path };
    match json {
        Json::String(name) if names::is_name(name) => Some(name),
        _ => {
            node.refuse(&names::NAME, problems);
            None
        }
    }
}

fn read_statuses(node: Node<'_>, problems: &mut Problems) -> Vec<u16> {
    let items = node.items("an array of statuses, such as [200, 204]", problems);
    let items = items.unwrap_or_default();
    if items.len() > MAX_STATUSES {
        problems.add(
            &node.path,
            &format_args!("{} are too many; give {MAX_STATUSES} at most", items.len()),
        );
        return Vec::new();
    }
    let statuses = items.iter().enumerate().filter_map(|(index, json)| {
        let path = Path::Index(&node.path, index);
        Node { json, path }.whole(STATUSES, problems)
    });
    statuses.map(|status| status as u16).collect()
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_PATH
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// Whether the text can be a `host` header: a name or an address, and perhaps a port.
fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    (1..=255).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
