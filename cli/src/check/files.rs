//! Which of the files belong together: a bootstrap and what it names by path are
//! one Envoy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::envoy::Envoy;
use super::istio::Mesh;
use super::source::{self, Source};
use super::{Plugin, kubernetes};
use crate::failure::Failure;
use crate::files;

/// What the files hold.
pub(super) struct Given {
    /// Configurations by themselves, and those of Kubernetes manifests.
    pub(super) plugins: Vec<Plugin>,
    pub(super) envoys: Vec<Envoy>,
    /// Istio's routes and subsets.
    pub(super) mesh: Mesh,
}

/// Reads the files, and those that they name.
pub(super) fn sort(paths: &[PathBuf]) -> Result<Given, Failure> {
    let mut plugins = Vec::new();
    let mut mesh = Mesh::default();
    let (mut bootstraps, mut resources) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.display().to_string();
        let text = files::read(path)?;
        let Some(documents) = documents(path, &text)? else {
            plugins.push(Plugin {
                place: name,
                configuration: Ok(text),
                shows_bodies: None,
                manager: None,
                port: None,
                warnings: Vec::new(),
            });
            continue;
        };
        let source = Source {
            path: path.clone(),
            documents,
        };
        if source.documents.iter().any(is_bootstrap) {
            bootstraps.push(source);
        } else if source.documents.iter().any(is_resources) {
            resources.push(source);
        } else {
            let found = source.documents.iter();
            let found: Vec<_> = found
                .flat_map(|document| kubernetes::plugins(&name, document))
                .collect();
            let mut taken = false;
            for document in &source.documents {
                taken |= mesh.take(document);
            }
            if found.is_empty() && !taken {
                return Err(Failure::refused(format!(
                    "{name}: no WasmPlugin, TrafficExtension or EnvoyFilter that configures a \
                     filter, and nothing of Envoy's own"
                )));
            }
            plugins.extend(found);
        }
    }

    let mut envoys = Vec::new();
    let mut taken = BTreeSet::new();
    for bootstrap in bootstraps {
        let envoy = Envoy::of_bootstrap(bootstrap, &resources)?;
        taken.extend(envoy.paths());
        envoys.push(envoy);
    }
    resources.retain(|source| !taken.contains(&source.path));
    if !resources.is_empty() {
        envoys.push(Envoy::of_resources(resources, &[])?);
    }
    for envoy in &envoys {
        if envoy.plugins().is_empty() {
            return Err(Failure::refused(format!(
                "{}: no Wasm filter that looks like Paceline",
                envoy.name
            )));
        }
    }
    Ok(Given {
        plugins,
        envoys,
        mesh,
    })
}

/// What is in a file of YAML, or in one of JSON that is Envoy's; nothing where it
/// is a configuration of the filter.
fn documents(path: &Path, text: &str) -> Result<Option<Vec<Value>>, Failure> {
    let extension = path.extension().unwrap_or_default();
    let is_yaml = match path == Path::new(files::STDIN) {
        true => !text.trim_start().starts_with('{'),
        false => extension == "yaml" || extension == "yml",
    };
    if is_yaml {
        return source::documents(path, text).map(Some);
    }
    let value: Option<Value> = serde_json::from_str(text).ok();
    let envoys = value.filter(|value| is_bootstrap(value) || is_resources(value));
    Ok(envoys.map(|value| vec![value]))
}

fn is_bootstrap(document: &Value) -> bool {
    ["static_resources", "dynamic_resources"]
        .iter()
        .any(|key| document.get(key).is_some())
}

fn is_resources(document: &Value) -> bool {
    document.get("resources").is_some_and(Value::is_array)
}
