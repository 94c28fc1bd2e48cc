//! Strict reading of JSON whose errors say where.

use serde::de::DeserializeOwned;

/// JSON that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct JsonError {
    /// The place, as in `servers[2].speed`; `top level` for the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// Reads a whole document.
///
/// # Errors
/// Names the place, and what is wrong or missing there.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let known = !path.is_empty() && path != "." && path != "?";
        JsonError {
            path: if known { path } else { top_level() },
            message: error.inner().to_string(),
        }
    })?;
    deserializer.end().map_err(|error| JsonError {
        path: top_level(),
        message: error.to_string(),
    })?;
    Ok(value)
}

fn top_level() -> String {
    "top level".to_owned()
}
