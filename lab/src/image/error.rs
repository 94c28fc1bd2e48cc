//! What can go wrong with images.

use std::path::{Path, PathBuf};

/// A file or directory could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = .path.display())]
pub struct ImageError {
    path: PathBuf,
    source: std::io::Error,
}

impl ImageError {
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}
