//! OCI layouts and Docker's archives of one image.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive;
use super::error::ImageError;

/// The version that images are tagged with.
pub const TAG: &str = env!("CARGO_PKG_VERSION");

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The names that `docker load` gives the image.
const DOCKER_NAME: &str = "paceline";

/// An OCI layout with one manifest, tagged [`TAG`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The directory.
    pub path: PathBuf,
    /// The manifest's digest, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// Some bytes with a media type.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    title: Option<&'static str>,
}

impl Blob {
    pub(super) fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media_type,
            bytes,
            title: None,
        }
    }

    pub(super) fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    /// With the name under which tools that unpack artifacts save it.
    pub(super) fn titled(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    fn descriptor(&self) -> Value {
        let mut descriptor = json!({
            "mediaType": self.media_type,
            "digest": digest(&self.bytes),
            "size": self.bytes.len(),
        });
        if let (Some(title), Some(fields)) = (self.title, descriptor.as_object_mut()) {
            fields.insert(
                "annotations".to_owned(),
                json!({ "org.opencontainers.image.title": title }),
            );
        }
        descriptor
    }
}

/// An image or artifact.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
    /// Besides those that every manifest has.
    pub(super) annotations: Vec<(&'static str, &'static str)>,
}

impl Image {
    fn manifest(&self) -> Blob {
        let mut annotations = json!({
            "org.opencontainers.image.title": "paceline",
            "org.opencontainers.image.description": env!("CARGO_PKG_DESCRIPTION"),
            "org.opencontainers.image.version": TAG,
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        });
        if let Some(fields) = annotations.as_object_mut() {
            let own = self.annotations.iter();
            fields.extend(own.map(|(name, value)| ((*name).to_owned(), json!(value))));
        }
        let layers: Vec<Value> = self.layers.iter().map(Blob::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.descriptor(),
            "layers": layers,
            "annotations": annotations,
        });
        Blob::json(MANIFEST, &manifest)
    }

    /// Writes an OCI layout. Whatever was there before is replaced.
    pub(super) fn write(&self, path: PathBuf) -> Result<Layout, ImageError> {
        let blobs = path.join("blobs/sha256");
        if path.exists() {
            fs::remove_dir_all(&path).map_err(ImageError::at(&path))?;
        }
        fs::create_dir_all(&blobs).map_err(ImageError::at(&blobs))?;

        let manifest = self.manifest();
        for blob in self.layers.iter().chain([&self.config, &manifest]) {
            write_file(&blobs.join(hex(&blob.bytes)), &blob.bytes)?;
        }
        let mut tagged = manifest.descriptor();
        if let Some(fields) = tagged.as_object_mut() {
            let name = json!({ "org.opencontainers.image.ref.name": TAG });
            fields.insert("annotations".to_owned(), name);
        }
        let index = json!({ "schemaVersion": 2, "manifests": [tagged] });
        write_file(&path.join("index.json"), index.to_string().as_bytes())?;
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        write_file(&path.join("oci-layout"), version.to_string().as_bytes())?;
        Ok(Layout {
            path,
            digest: digest(&manifest.bytes),
        })
    }

    /// Writes the image of one layer, `tar` before its compression, as `docker
    /// save` would.
    pub(super) fn write_docker_archive(&self, tar: &[u8], path: &Path) -> Result<(), ImageError> {
        let config = format!("{}.json", hex(&self.config.bytes));
        let layer = format!("{}.tar", hex(tar));
        let manifest = json!([{
            "Config": config,
            "RepoTags": [format!("{DOCKER_NAME}:{TAG}")],
            "Layers": [layer],
        }]);
        let manifest = manifest.to_string();
        let files: [(&str, &[u8]); 3] = [
            (&layer, tar),
            (&config, &self.config.bytes),
            ("manifest.json", manifest.as_bytes()),
        ];
        let archive = archive::tar(&files).map_err(ImageError::at(path))?;
        write_file(path, &archive)
    }
}

/// The SHA-256 digest as registries write it.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    fs::write(path, bytes).map_err(ImageError::at(path))
}
