//! One Envoy: its bootstrap, the files that this names, and the filters in them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::clusters::Clusters;
use super::source::{self, Source, children};
use super::{Finding, Plugin};
use crate::failure::{Exit, Failure};

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING_VALUE: &str = "google.protobuf.StringValue";

/// An Envoy's configuration, as far as it is in files.
pub(super) struct Envoy {
    /// The file that it starts with.
    pub(super) name: String,
    pub(super) clusters: Clusters,
    sources: Vec<Source>,
}

impl Envoy {
    /// With the files that a bootstrap names; `given` ones are preferred to what
    /// lies elsewhere.
    pub(super) fn of_bootstrap(bootstrap: Source, given: &[Source]) -> Result<Self, Failure> {
        Self::of_resources(vec![bootstrap], given)
    }

    /// With the files that these name.
    pub(super) fn of_resources(first: Vec<Source>, given: &[Source]) -> Result<Self, Failure> {
        let name = first.iter().map(|source| source.path.display().to_string());
        let name = name.collect::<Vec<_>>().join(", ");
        let mut sources: Vec<Source> = Vec::new();
        let mut waiting = VecDeque::from(first);
        while let Some(source) = waiting.pop_front() {
            for named in named_paths(&source) {
                let next = find(&source.path, &named, given)?;
                let is_known = |known: &Source| known.path == next.path;
                if !(sources.iter().chain(&waiting).any(is_known) || is_known(&source)) {
                    waiting.push_back(next);
                }
            }
            sources.push(source);
        }
        Ok(Self {
            clusters: Clusters::of(&sources),
            name,
            sources,
        })
    }

    /// The files.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.sources.iter().map(|source| source.path.clone())
    }

    /// What concerns no filter in particular.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.clusters.findings()
    }

    /// The filters that are, or look like, Paceline.
    pub(super) fn plugins(&self) -> Vec<Plugin> {
        let mut found = Vec::new();
        for source in &self.sources {
            let file = source.path.display().to_string();
            for document in &source.documents {
                let within = Within {
                    place: file.clone(),
                    filter: "",
                    manager: None,
                    port: None,
                };
                walk(document, &within, &mut found);
            }
        }
        let plugins = found.into_iter().map(|(filter, mut plugin)| {
            if plugin.manager.is_none() {
                plugin.manager = self.discoverer(filter).cloned();
            }
            plugin
        });
        plugins.collect()
    }

    /// The connection manager that gets the filter of this name by ECDS.
    fn discoverer(&self, filter: &str) -> Option<&Value> {
        fn search<'a>(value: &'a Value, filter: &str) -> Option<&'a Value> {
            let filters = value.get("http_filters").into_iter().flat_map(children);
            let is_it = |it: &Value| {
                it.get("config_discovery").is_some()
                    && it.get("name").is_some_and(|name| name == filter)
            };
            if filters.into_iter().any(is_it) {
                return Some(value);
            }
            children(value).find_map(|child| search(child, filter))
        }
        let documents = self.sources.iter().flat_map(|source| &source.documents);
        documents
            .into_iter()
            .find_map(|document| search(document, filter))
    }
}

/// The file that `named` means: one of that name that is given, or that lies beside
/// the one that names it, before one at an absolute path. So the files of another
/// machine can be checked, or new ones before they replace the old.
fn find(by: &Path, named: &str, given: &[Source]) -> Result<Source, Failure> {
    let named = Path::new(named);
    let file_name = named.file_name();
    let is_named = |source: &&Source| file_name.is_some() && source.path.file_name() == file_name;
    if let Some(source) = given.iter().find(is_named) {
        return Ok(source.clone());
    }
    let directory = by.parent().unwrap_or(Path::new(""));
    let beside = directory.join(Path::new(file_name.unwrap_or_default()));
    let paths = match named.is_absolute() {
        true => [beside, named.to_owned()],
        false => [directory.join(named), beside],
    };
    if let Some(path) = paths.iter().find(|path| path.is_file()) {
        return source::read(path);
    }
    let why = format_args!(
        "{}: names {}, which is neither there nor beside it; give that file, too",
        by.display(),
        named.display()
    );
    Err(Failure::new(Exit::NoInput, why))
}

/// The paths of other files of configuration in a file.
fn named_paths(source: &Source) -> Vec<String> {
    fn collect(value: &Value, paths: &mut Vec<String>) {
        let path = value.pointer("/path_config_source/path");
        if let Some(path) = path.and_then(Value::as_str) {
            paths.push(path.to_owned());
        }
        for child in children(value) {
            collect(child, paths);
        }
    }
    let mut paths = Vec::new();
    for document in &source.documents {
        collect(document, &mut paths);
    }
    paths
}

/// What a value is in.
struct Within<'a> {
    /// The names on the way.
    place: String,
    /// The name of the filter.
    filter: &'a str,
    /// The nearest connection manager.
    manager: Option<&'a Value>,
    /// The listener's port.
    port: Option<u64>,
}

/// Collects the filters below `value`, with their names.
fn walk<'a>(value: &'a Value, within: &Within<'a>, found: &mut Vec<(&'a str, Plugin)>) {
    let name = value.get("name").and_then(Value::as_str);
    let mut here = Within {
        place: within.place.clone(),
        filter: within.filter,
        manager: match value.get("http_filters") {
            Some(_) => Some(value),
            None => within.manager,
        },
        port: within.port,
    };
    match name {
        Some(name) if value.get("filter_chains").is_some() => {
            here.place = format!("{}: listener {name}", within.place);
            here.port = value
                .pointer("/address/socket_address/port_value")
                .and_then(Value::as_u64);
        }
        Some(name) if value.get("typed_config").is_some_and(is_wasm) => {
            here.place = format!("{}: filter {name}", within.place);
            here.filter = name;
        }
        _ => {}
    }
    if is_wasm(value) {
        // A TypedStruct has the message one level down.
        let message = value.get("value").unwrap_or(value);
        let config = message.get("config").unwrap_or(&Value::Null);
        let configuration = configuration(config);
        if looks_like_paceline(config, &configuration) {
            let plugin = Plugin {
                place: here.place,
                configuration,
                shows_bodies: Some(shows_bodies(config)),
                manager: here.manager.cloned(),
                port: here.port,
                warnings: warnings(config),
            };
            found.push((here.filter, plugin));
        }
        return;
    }
    for child in children(value) {
        walk(child, &here, found);
    }
}

/// Whether the proxy shows bodies to a filter that stops at the headers.
pub(super) fn shows_bodies(config: &Value) -> bool {
    config.get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true))
}

/// What Envoy would do with the filter that its user hardly wants.
fn warnings(config: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let policy = config.get("failure_policy").and_then(Value::as_str);
    if matches!(policy, None | Some("UNSPECIFIED" | "FAIL_CLOSED")) {
        said.push(
            "failure_policy: FAIL_RELOAD is not set: after a trap a worker would refuse every request until Envoy restarts"
                .to_owned(),
        );
    }
    let id = config.pointer("/vm_config/vm_id").and_then(Value::as_str);
    if id.is_none_or(str::is_empty) {
        said.push(
            "vm_config.vm_id: is not set, so all modules without one share their memory".to_owned(),
        );
    }
    said
}

fn is_wasm(value: &Value) -> bool {
    ["@type", "type_url"]
        .iter()
        .filter_map(|key| value.get(key)?.as_str())
        .any(|kind| kind.ends_with(WASM))
}

/// The text that the filter would get.
fn configuration(config: &Value) -> Result<String, String> {
    let Some(any) = config.get("configuration") else {
        return Ok(String::new());
    };
    let kind = any.get("@type").and_then(Value::as_str).unwrap_or_default();
    if !kind.ends_with(STRING_VALUE) {
        return Err(format!(
            "configuration: the type is {kind:?}; the filter can read only \
             \"type.googleapis.com/{STRING_VALUE}\", with JSON as its value"
        ));
    }
    match any.get("value") {
        Some(Value::String(text)) => Ok(text.clone()),
        None => Ok(String::new()),
        Some(_) => Err(
            "configuration.value: is no string; write the JSON as text, such as behind `value: |`"
                .to_owned(),
        ),
    }
}

/// Whether a Wasm filter is Paceline, by one of its names or by its keys.
fn looks_like_paceline(config: &Value, configuration: &Result<String, String>) -> bool {
    const NAMES: [&str; 4] = [
        "/name",
        "/root_id",
        "/vm_config/vm_id",
        "/vm_config/code/local/filename",
    ];
    let named = NAMES
        .iter()
        .filter_map(|pointer| config.pointer(pointer)?.as_str())
        .any(|name| name.contains("paceline"));
    named
        || configuration.as_ref().is_ok_and(|text| {
            let json: Value = serde_json::from_str(text).unwrap_or_default();
            ["upstreams", "pools"]
                .iter()
                .any(|key| json.get(key).is_some())
        })
}
