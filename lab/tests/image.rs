//! The images: through a real registry, and opened as Istio's agent opens them.
//!
//! The registry and the client are Debian's `docker-registry` and `skopeo`;
//! `make image-tools` installs them. Where they are missing the tests fail and
//! say so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test says so by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::read::GzDecoder;
use lab::gateway::filter_module;
use lab::image::{TAG, Written, write};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// A registry on a port of its own. Dropping it ends it.
struct Registry {
    process: Child,
    address: String,
    _storage: TempDir,
}

impl Registry {
    fn start() -> Self {
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: 127.0.0.1:0 }}\n",
            storage.path().join("data").display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| missing("docker-registry", &error));
        // It says where it listens, and ends the stream if it ends itself.
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .find_map(|line| {
                let line = line.unwrap();
                let rest = line.split_once("listening on ")?.1;
                Some(rest.split(['"', ',']).next().unwrap().to_owned())
            })
            .expect("the registry ended before it listened");
        // Keeps the pipe from filling up.
        std::thread::spawn(move || log.for_each(drop));
        Self {
            process,
            address,
            _storage: storage,
        }
    }

    fn reference(&self, tag: &str) -> String {
        format!("docker://{}/paceline:{tag}", self.address)
    }

    /// Pushes `source` under this tag, and reads back what a client would get.
    fn round_trip(&self, source: &str, tag: &str, options: &[&str]) -> Pulled {
        let to = self.reference(tag);
        let mut push = vec!["copy", "--quiet", "--dest-tls-verify=false"];
        push.extend(options);
        push.extend([source, to.as_str()]);
        skopeo(&push);
        let directory = tempfile::tempdir().unwrap();
        let local = format!("dir:{}", directory.path().display());
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", &to, &local]);
        Pulled::read(directory.path())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| missing("skopeo", &error));
    assert!(
        output.status.success(),
        "skopeo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn missing(tool: &str, error: &std::io::Error) -> ! {
    panic!("{tool}: {error}. Run `make image-tools`, or install the package {tool}.")
}

/// A manifest and its blobs by digest.
struct Pulled {
    manifest: Value,
    digest: String,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Pulled {
    /// What skopeo leaves in a directory: `manifest.json`, and blobs named by
    /// their digests.
    fn read(directory: &Path) -> Self {
        let manifest = fs::read(directory.join("manifest.json")).unwrap();
        let blobs = fs::read_dir(directory).unwrap().map(|entry| {
            let content = fs::read(entry.unwrap().path()).unwrap();
            (digest(&content), content)
        });
        Self {
            digest: digest(&manifest),
            manifest: serde_json::from_slice(&manifest).unwrap(),
            blobs: blobs.collect(),
        }
    }

    fn layers(&self) -> Vec<(&str, &[u8])> {
        let layers = self.manifest["layers"].as_array().unwrap();
        let blob = |layer: &Value| self.blobs[layer["digest"].as_str().unwrap()].as_slice();
        layers
            .iter()
            .map(|layer| (layer["mediaType"].as_str().unwrap(), blob(layer)))
            .collect()
    }

    /// The module, by the rules of Istio's fetcher (`pkg/wasm/imagefetcher.go`):
    /// with Docker's manifest the last layer, which must have Docker's type;
    /// otherwise the last layer if it has OCI's type; otherwise, of exactly two
    /// layers, the one with the type of a module.
    fn module_as_istio_finds_it(&self) -> Vec<u8> {
        let layers = self.layers();
        let (last_type, last) = *layers.last().expect("a layer");
        if self.manifest["mediaType"] == DOCKER_MANIFEST {
            assert_eq!(last_type, DOCKER_LAYER);
            return plugin_in(last);
        }
        if last_type == OCI_LAYER {
            return plugin_in(last);
        }
        assert_eq!(layers.len(), 2, "an artifact has two layers");
        let module = layers.iter().find(|(media, _)| *media == WASM_LAYER);
        module.expect("a layer of a module's type").1.to_vec()
    }
}

/// The first file of a compressed archive whose base name is `plugin.wasm`.
fn plugin_in(layer: &[u8]) -> Vec<u8> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().file_name().unwrap() == "plugin.wasm" {
            let mut module = Vec::new();
            entry.read_to_end(&mut module).unwrap();
            return module;
        }
    }
    panic!("no plugin.wasm in the layer");
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn module() -> Vec<u8> {
    fs::read(filter_module().unwrap_or_else(|error| panic!("{error}"))).unwrap()
}

fn written(directory: &TempDir) -> Written {
    write(&module(), directory.path()).unwrap()
}

#[test]
fn istio_finds_the_module_in_every_form_that_a_registry_gives_back() {
    let (registry, directory) = (Registry::start(), tempfile::tempdir().unwrap());
    let written = written(&directory);
    let layout = |path: &Path| format!("oci:{}:{TAG}", path.display());
    let image = layout(&written.image.path);
    let artifact = layout(&written.artifact.path);
    let docker = format!("docker-archive:{}", written.docker_archive.display());

    let pulled = registry.round_trip(&image, "oci", &[]);
    assert_eq!(pulled.digest, written.image.digest, "the digest printed");
    assert_eq!(pulled.module_as_istio_finds_it(), module());

    let pulled = registry.round_trip(&image, "docker", &["--format", "v2s2"]);
    assert_eq!(pulled.manifest["mediaType"], DOCKER_MANIFEST);
    assert_eq!(pulled.module_as_istio_finds_it(), module());

    let pulled = registry.round_trip(&docker, "archive", &[]);
    assert_eq!(pulled.manifest["mediaType"], DOCKER_MANIFEST);
    assert_eq!(pulled.module_as_istio_finds_it(), module());

    let pulled = registry.round_trip(&artifact, "artifact", &[]);
    assert_eq!(pulled.digest, written.artifact.digest, "the digest printed");
    assert_eq!(pulled.module_as_istio_finds_it(), module());
    assert_eq!(digest(&module()), written.module_digest);
}

/// Every file below `directory`, by its path in there.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            rest.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let name = path.strip_prefix(directory).unwrap().to_owned();
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

#[test]
fn the_same_module_gives_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(&one);
    // Over what another version left.
    write(b"another module", other.path()).unwrap();
    written(&other);
    assert_eq!(tree(one.path()), tree(other.path()));
    assert_eq!(tree(one.path()).len(), 11);
}

#[test]
fn a_layer_names_no_time_and_no_owner() {
    let directory = tempfile::tempdir().unwrap();
    let layout = written(&directory).image.path;
    let layer = tree(&layout)
        .into_values()
        .find(|content| content.starts_with(&[0x1f, 0x8b]))
        .expect("a compressed layer");
    assert_eq!(&layer[3..10], [0, 0, 0, 0, 0, 2, 255], "no name, no time");
    let mut archive = tar::Archive::new(GzDecoder::new(layer.as_slice()));
    let headers: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().header().clone())
        .collect();
    let [header] = headers.as_slice() else {
        panic!("{} files", headers.len());
    };
    assert_eq!(header.mtime().unwrap(), 0);
    assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
    assert_eq!(header.username().unwrap().unwrap_or_default(), "");
    assert_eq!(header.mode().unwrap(), 0o644);
}

/// Panic messages name source files; those of dependencies lie in the home of
/// whoever built it, unless the build says otherwise.
#[test]
fn the_module_names_no_directory_of_the_machine_that_built_it() {
    let module = module();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap().join(".cargo"),
        PathBuf::from,
    );
    for place in [checkout, &cargo] {
        let place = place.to_str().unwrap();
        let found = module
            .windows(place.len())
            .any(|part| part == place.as_bytes());
        assert!(!found, "{place} in the module: build it with `make build`");
    }
}
