//! The scenarios that need no file.

use std::path::Path;

use super::scenario::{Scenario, ScenarioError};

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../scenarios/", $name, ".json")))),*]
    };
}

/// Names and JSON.
const SHIPPED: [(&str, &str); 31] = shipped![
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
    "crash",
    "join",
    "rolling-restart",
    "worker-restart",
    "stale-reports",
    "lost-ends",
    "abandon",
    "size-slots-equal",
    "size-slots-unequal",
    "size-slots-0.8",
    "size-slots-0.29",
    "size-heavy-tail",
    "size-two-models",
    "size-misleads-llm",
    "size-changes",
];

/// Published experiments, as far as their description goes.
const PUBLISHED: [(&str, &str); 2] = shipped!["linkerd-2016", "tower-latency-mix"];

impl Scenario {
    /// The names of the scenarios that need no file.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().chain(&PUBLISHED).map(|(name, _)| *name)
    }

    /// The shipped scenario of that name, or else the one in that file. Files that it names are found from its directory.
    ///
    /// # Errors
    /// If it is neither, or the file is no scenario: names the place, the value and what is allowed.
    pub fn load(name_or_path: &str) -> Result<Self, ScenarioError> {
        let mut all = SHIPPED.iter().chain(&PUBLISHED);
        if let Some((name, json)) = all.find(|(name, _)| *name == name_or_path) {
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
