//! The scenarios that need no file.

use std::path::Path;

use super::scenario::{Scenario, ScenarioError};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../scenarios/", $name, ".json")))),*]
    };
}

/// Names and JSON.
const SHIPPED: [(&str, &str); 65] = shipped![
    "llm-5-10-5",
    "llm-5-10-5-gateways",
    "unequal8",
    "unequal8-gateways",
    "equal8",
    "equal8-gateways",
    "upstreams-4",
    "upstreams-200",
    "upstreams-1000",
    "slots-equal",
    "slots-unequal",
    "code-completion",
    "long-context",
    "slow-down",
    "fail-fast",
    "flaky",
    "refuse-fast",
    "wrong-requests",
    "crash",
    "join",
    "rolling-restart",
    "worker-restart",
    "fast-requests",
    "stale-reports",
    "lost-ends",
    "abandon",
    "held-slots-equal",
    "held-slots-unequal",
    "held-two-tenants",
    "held-priorities",
    "held-head-of-line",
    "held-overload",
    "devices",
    "size-slots-equal",
    "size-slots-unequal",
    "size-slots-0.8",
    "size-slots-0.29",
    "size-heavy-tail",
    "size-two-models",
    "size-misleads-llm",
    "size-changes",
    "first-plain-unequal8",
    "first-one-unequal8",
    "first-three-unequal8",
    "first-tenth-unequal8",
    "first-third-unequal8",
    "first-huge-unequal8",
    "first-failing-unequal8",
    "first-plain-equal8",
    "first-one-equal8",
    "first-three-equal8",
    "first-tenth-equal8",
    "first-third-equal8",
    "first-huge-equal8",
    "first-failing-equal8",
    "first-plain-slots8",
    "first-one-slots8",
    "first-three-slots8",
    "first-tenth-slots8",
    "first-third-slots8",
    "first-huge-slots8",
    "first-failing-slots8",
    "cheap-requests",
    "cheap-requests-slots",
    "hang",
];

/// What may go wrong with servers, against the defences of Envoy.
const FAULTS: [(&str, &str); 8] = shipped![
    "fault-slow-two-equal",
    "fault-unauthorized",
    "fault-reset",
    "fault-cold-hangs",
    "fault-cold-unavailable",
    "fault-cold-says",
    "fault-restart",
    "fault-full",
];

/// Learned caps against the right ones and none.
const LEARNED: [(&str, &str); 12] = shipped![
    "learned-slots-1",
    "learned-slots-1-unequal",
    "learned-slots-1-overload",
    "learned-slots-4",
    "learned-slots-4-unequal",
    "learned-slots-4-overload",
    "learned-slots-16",
    "learned-slots-16-unequal",
    "learned-slots-16-overload",
    "learned-batching",
    "learned-batching-unequal",
    "learned-batching-overload",
];

/// Published experiments, as far as their description goes.
const PUBLISHED: [(&str, &str); 2] = shipped!["linkerd-2016", "tower-latency-mix"];

fn all() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let own = SHIPPED.iter().chain(&FAULTS).chain(&LEARNED);
    own.chain(&PUBLISHED)
}

impl Scenario {
    /// The names of the scenarios that need no file.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        all().map(|(name, _)| *name)
    }

    /// Those of them whose tables show how far the filter is from the best bound.
    pub fn compared_with_bounds() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().chain(&PUBLISHED).map(|(name, _)| *name)
    }

    /// The shipped scenario of that name, or else the one in that file. Files that it names are found from its directory.
    ///
    /// # Errors
    /// If it is neither, or the file is no scenario: names the place, the value and what is allowed.
    pub fn load(name_or_path: &str) -> Result<Self, ScenarioError> {
        if let Some((name, json)) = all().find(|(name, _)| *name == name_or_path) {
            return Self::from_json(name, json, Path::new("."));
        }
        let path = Path::new(name_or_path);
        let json = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
            path: path.to_owned(),
            source,
            shipped: Self::shipped().collect::<Vec<_>>().join(", "),
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::from_json(&name, &json, path.parent().unwrap_or(Path::new(".")))
    }
}
