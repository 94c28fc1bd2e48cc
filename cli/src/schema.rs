//! The JSON Schema of the filter's configuration.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// The schema as it is shipped.
pub(crate) const TEXT: &str = include_str!("../../docs/configuration.schema.json");

/// The keys that say how a pool chooses: they stand in pools, or beside `upstreams`
/// for the only one.
pub(crate) fn pool_keys() -> &'static BTreeSet<String> {
    static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let schema: Value = serde_json::from_str(TEXT).unwrap_or_default();
        let keys = schema
            .pointer("/definitions/pool/properties")
            .and_then(Value::as_object);
        let own = ["name", "match"];
        let keys = keys.into_iter().flat_map(|keys| keys.keys());
        keys.filter(|key| !own.contains(&key.as_str()))
            .cloned()
            .collect()
    });
    &KEYS
}

/// Print the JSON Schema of the filter's configuration.
///
/// Editors complete and check JSON with it: save it, and name it in "$schema" settings of the editor.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(TEXT.as_bytes())
        .map_err(|error| Failure::new(Exit::NoOutput, format_args!("standard output: {error}")))
}
