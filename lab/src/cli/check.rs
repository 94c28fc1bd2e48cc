//! `lab check`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use paceline::config::Config;

/// Check configurations of the filter, as the filter itself would.
///
/// Reads a configuration as JSON, or from *.yaml Kubernetes manifests with plugins of Istio in them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut refused = 0;
    for file in &args.files {
        for (place, text) in configurations(file)? {
            match Config::parse(Some(text.as_bytes())) {
                Ok(config) => println!("{place}: accepted, {}", summary(&config)),
                Err(error) => {
                    println!("{place}: refused: {error}");
                    refused += 1;
                }
            }
        }
    }
    if refused > 0 {
        bail!("{refused} refused");
    }
    Ok(())
}

fn summary(config: &Config) -> String {
    let upstreams: usize = config.pools.iter().map(|pool| pool.upstreams.len()).sum();
    let pools = config.pools.len();
    let plural = |count| if count == 1 { "" } else { "s" };
    format!(
        "{pools} pool{}, {upstreams} upstream{}",
        plural(pools),
        plural(upstreams)
    )
}

/// The configurations in a file, each with what to call it.
fn configurations(file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| name.clone())?;
    let is_yaml = file
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml");
    if !is_yaml {
        return Ok(vec![(name, text)]);
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| name.clone())?;
    let found: Vec<_> = documents
        .iter()
        .flat_map(|document| in_manifest(&name, document))
        .collect();
    if found.is_empty() {
        bail!("{name}: no WasmPlugin, TrafficExtension or EnvoyFilter that configures a filter");
    }
    Ok(found)
}

fn in_manifest(file: &str, document: &Value) -> Vec<(String, String)> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or_default();
    let place = format!("{file}: {kind} {}", text("/metadata/name").unwrap_or("?"));
    let plugin = match kind {
        "WasmPlugin" => document.pointer("/spec/pluginConfig"),
        "TrafficExtension" => document.pointer("/spec/wasm/pluginConfig"),
        "EnvoyFilter" => {
            let patches = document.pointer("/spec/configPatches");
            return patches
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|patch| {
                    patch.pointer("/patch/value/typed_config/config/configuration/value")
                })
                .filter_map(Value::as_str)
                .map(|value| (place.clone(), value.to_owned()))
                .collect();
        }
        _ => return Vec::new(),
    };
    vec![(place, plugin.map_or(String::new(), Value::to_string))]
}
