//! Plugins in Kubernetes manifests.

use serde_json::Value;

use super::Plugin;
use super::envoy::shows_bodies;

/// The plugins of a manifest; none where it is of another kind.
pub(super) fn plugins(file: &str, document: &Value) -> Vec<Plugin> {
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
                    let config = patch.pointer("/patch/value/typed_config/config")?;
                    let value = config.pointer("/configuration/value")?.as_str()?;
                    Some(Plugin {
                        place: place.clone(),
                        configuration: Ok(value.to_owned()),
                        shows_bodies: Some(shows_bodies(config)),
                        manager: None,
                        port: None,
                        warnings: Vec::new(),
                    })
                })
                .collect();
        }
        _ => return Vec::new(),
    };
    // Istio makes JSON of it.
    let configuration = Ok(plugin.map_or(String::new(), Value::to_string));
    vec![Plugin {
        place,
        configuration,
        // Istio has no way to say it.
        shows_bodies: Some(false),
        manager: None,
        port: None,
        warnings: Vec::new(),
    }]
}
