//! Files of Envoy's configuration, as documents.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::Failure;
use crate::files;

/// A file of Envoy's, which may have several documents.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) documents: Vec<Value>,
}

/// Reads a file of Envoy's.
pub(super) fn read(path: &Path) -> Result<Source, Failure> {
    let documents = documents(path, &files::read(path)?)?;
    Ok(Source {
        path: path.to_owned(),
        documents,
    })
}

/// The documents in a text of YAML or JSON.
pub(super) fn documents(path: &Path, text: &str) -> Result<Vec<Value>, Failure> {
    serde_saphyr::from_multiple(text)
        .map_err(|error| Failure::refused(format!("{}: {error}", path.display())))
}

/// What an array or an object holds.
pub(super) fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(entries) => Box::new(entries.values()),
        _ => Box::new(std::iter::empty()),
    }
}
