//! The YAML documents that users apply.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file's name and one of the documents in it.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) value: Value,
}

impl Document {
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap()
    }

    /// `metadata.namespace`, a dot and `metadata.name`.
    pub(crate) fn full_name(&self) -> String {
        let metadata = &self.value["metadata"];
        let part = |key: &str| metadata[key].as_str().unwrap();
        format!("{}.{}", part("namespace"), part("name"))
    }

    /// `spec`, as what the translation understands of it; anything else fails.
    pub(crate) fn spec<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.value["spec"].clone())
            .unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("istio")
}

/// The documents of one file.
pub(crate) fn read(file: &str) -> Vec<Document> {
    let text = fs::read_to_string(directory().join(file)).unwrap();
    let values: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    values
        .into_iter()
        .map(|value| Document {
            file: file.to_owned(),
            value,
        })
        .collect()
}

/// The documents of these files, in order.
pub(crate) fn read_all(files: &[&str]) -> Vec<Document> {
    files.iter().flat_map(|file| read(file)).collect()
}

/// The names of all YAML files, sorted.
pub(crate) fn files() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    names
}
