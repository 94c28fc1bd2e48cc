//! Where the Envoy binary and the built filter lie.

use std::env;
use std::path::{Path, PathBuf};

use super::error::GatewayError;

const ENVOY: &str = ".venv/envoy";
const MODULE: &str = "wasm32-wasip1/release/paceline.wasm";

/// The Envoy binary: `PACELINE_ENVOY`, or the one that `make setup` puts into
/// the checkout around the current directory.
///
/// # Errors
///
/// [`GatewayError::EnvoyMissing`] if there is none.
pub fn envoy_binary() -> Result<PathBuf, GatewayError> {
    let path = match env::var_os("PACELINE_ENVOY") {
        Some(path) => PathBuf::from(path),
        None => first_existing(&current_directory(), ENVOY).unwrap_or_else(|| ENVOY.into()),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(GatewayError::EnvoyMissing { path })
    }
}

/// The built filter: `PACELINE_WASM`, or the one in the target directory that
/// this program was built into, or the one in the checkout around the current
/// directory.
///
/// # Errors
///
/// [`GatewayError::ModuleMissing`] if there is none.
pub fn filter_module() -> Result<PathBuf, GatewayError> {
    let in_checkout = Path::new("target").join(MODULE);
    let path = match env::var_os("PACELINE_WASM") {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()
            .ok()
            .and_then(|program| first_existing(&program, MODULE))
            .or_else(|| first_existing(&current_directory(), &in_checkout))
            .unwrap_or(in_checkout),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(GatewayError::ModuleMissing { path })
    }
}

fn current_directory() -> PathBuf {
    env::current_dir().unwrap_or_default()
}

/// `relative` in the first of `start` and its parents that has it.
fn first_existing(start: &Path, relative: impl AsRef<Path>) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|parent| parent.join(&relative))
        .find(|path| path.exists())
}
