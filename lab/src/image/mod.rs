//! The filter as a container image, in the two forms that Istio fetches.
//!
//! Istio's agent takes from a registry either an image whose last layer holds a
//! file `plugin.wasm`, with Docker's or with OCI's media types, or an artifact
//! of two layers of which one is the module itself. Both are described in the
//! Wasm Image Specification (solo-io/wasm, `spec/`): the first is its variant
//! *compat*, the second its variant *oci*.
//!
//! The same module gives the same bytes everywhere: times are zero, owners are
//! numbers, files are in a fixed order, and nothing is read from the machine.

mod archive;
mod error;
mod layout;

use std::path::{Path, PathBuf};

use serde_json::json;

pub use self::error::ImageError;
pub use self::layout::{Layout, TAG};

use self::layout::{Blob, Image};

/// The file that Istio's agent looks for in the last layer.
const MODULE: &str = "plugin.wasm";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";

/// What was written, and under which digests a registry will have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// OCI layout of the image with `plugin.wasm` in its last layer.
    pub image: Layout,
    /// OCI layout of the artifact.
    pub artifact: Layout,
    /// The image once more, as `docker load` takes it.
    pub docker_archive: PathBuf,
    /// SHA-256 of the module: `sha256` of a manifest that fetches the bare file.
    pub module_digest: String,
}

/// Writes both forms of `module` into `directory`, which is made if need be.
///
/// # Errors
///
/// [`ImageError`] naming what could not be written.
pub fn write(module: &[u8], directory: &Path) -> Result<Written, ImageError> {
    let tar = archive::tar(&[(MODULE, module)]).map_err(ImageError::at(MODULE.as_ref()))?;
    let image = scratch_image(&tar)?;
    let docker_archive = directory.join("paceline.docker.tar");
    let written = Written {
        image: image.write(directory.join("image"))?,
        artifact: artifact(module).write(directory.join("artifact"))?,
        module_digest: layout::digest(module),
        docker_archive,
    };
    image.write_docker_archive(&tar, &written.docker_archive)?;
    Ok(written)
}

/// What `FROM scratch` and `COPY plugin.wasm /plugin.wasm` would make.
fn scratch_image(tar: &[u8]) -> Result<Image, ImageError> {
    let layer = archive::gzip(tar).map_err(ImageError::at(MODULE.as_ref()))?;
    // The platform is what a build on most machines would say; nothing runs it.
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layout::digest(tar)] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "COPY plugin.wasm /plugin.wasm" }],
    });
    Ok(Image {
        config: Blob::json(CONFIG, &config),
        layers: vec![Blob::new(LAYER, layer)],
        // The specification asks for it in the variant with OCI's media types.
        annotations: vec![("module.wasm.image/variant", "compat")],
    })
}

/// The module as it is, next to what it says of itself.
fn artifact(module: &[u8]) -> Image {
    let runtime = json!({ "type": "envoy_proxy", "config": { "rootIds": ["paceline"] } });
    let runtime = Blob::json(WASM_CONFIG, &runtime);
    Image {
        config: runtime.clone(),
        layers: vec![
            runtime.titled("runtime-config.json"),
            Blob::new(WASM_LAYER, module.to_vec()).titled(MODULE),
        ],
        annotations: Vec::new(),
    }
}
