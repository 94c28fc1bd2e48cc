//! An Envoy on configuration files as users have them, on this machine.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};

use lab::gateway::{Admin, Stats, envoy_binary, filter_module};
use tempfile::TempDir;

use super::{SOON, eventually};

/// The places in the shipped files that a test changes.
const MODULE: &str = "/etc/envoy/paceline.wasm";
const DIRECTORY: &str = "/etc/envoy/";
const LISTENER: &str = "address: 0.0.0.0, port_value: 10000";
const ADMIN: &str = "address: 127.0.0.1, port_value: 9901";
const STATUS: &str = "address: 127.0.0.1, port_value: 9902";
const ANY: &str = "address: 127.0.0.1, port_value: 0";

/// A running Envoy. Dropping it ends it.
pub(crate) struct Written {
    child: Child,
    admin: Admin,
    directory: TempDir,
}

impl Written {
    /// Starts Envoy with two workers on these files, the first of which is its
    /// bootstrap, and waits until it is ready.
    pub(crate) async fn start(files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), here(text, &directory)).unwrap();
        }
        let admin_file = directory.path().join("admin-address");
        let child = envoy(&directory.path().join(files[0].0))
            .args(["--concurrency", "2", "--drain-time-s", "1"])
            .args(["--file-flush-interval-msec", "50"])
            .args(["--log-level", "warning", "--admin-address-path"])
            .arg(&admin_file)
            .stdout(File::create(directory.path().join("output")).unwrap())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut this = Self {
            child,
            admin: Admin::new(([127, 0, 0, 1], 1).into()),
            directory,
        };
        let address = eventually("an admin address", SOON, async || {
            let text = fs::read_to_string(&admin_file).unwrap_or_default();
            text.trim().parse().map_err(|_| this.log())
        })
        .await;
        this.admin = Admin::new(address);
        eventually("Envoy to be ready", SOON, async || {
            let ready = this.admin.is_ready().await;
            ready.then_some(()).ok_or_else(|| this.log())
        })
        .await;
        this
    }

    /// Where clients connect, once there is a listener.
    pub(crate) async fn listener(&self) -> SocketAddr {
        eventually("a listener", SOON, async || {
            let found = self.admin.listener_address("ingress").await;
            found.map_err(|error| format!("{error}\n{}", self.log()))
        })
        .await
    }

    /// Moves a new file over an old one, and waits until Envoy has taken it in:
    /// until the counter `name` has grown `by`.
    pub(crate) async fn replace(&self, file: &str, text: &str, name: &str, by: u64) {
        let before = self.stats().await.total(name);
        let path = self.directory.path().join(file);
        let staged = path.with_extension("new");
        fs::write(&staged, here(text, &self.directory)).unwrap();
        fs::rename(&staged, &path).unwrap();
        eventually(name, SOON, async || {
            let now = self.stats().await.total(name);
            (now >= before + by).then_some(()).ok_or_else(|| self.log())
        })
        .await;
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.admin.stats().await.unwrap()
    }

    /// What it has written to its standard output: the access log.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shipped file's text, with the servers of its clusters at these addresses, in
/// the order of the ports in it.
pub(crate) fn shipped(file: &str, servers: &[SocketAddr]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy");
    let mut text = fs::read_to_string(path.join(file)).unwrap();
    for (number, server) in servers.iter().enumerate() {
        let written = format!("address: 127.0.0.1, port_value: {} ", 8001 + number);
        let here = format!("address: {}, port_value: {} ", server.ip(), server.port());
        text = text.replace(&written, &here);
    }
    text
}

/// What Envoy has against a bootstrap; nothing where it accepts it.
pub(crate) fn refusal(text: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("envoy.yaml");
    fs::write(&path, here(text, &directory)).unwrap();
    let output = envoy(&path).args(["--mode", "validate"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (!output.status.success()).then_some(said)
}

fn here(text: &str, directory: &TempDir) -> String {
    let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
    text.replace(MODULE, module.to_str().unwrap())
        .replace(DIRECTORY, &format!("{}/", directory.path().display()))
        .replace(LISTENER, ANY)
        .replace(ADMIN, ANY)
        .replace(STATUS, ANY)
}

fn envoy(config: &Path) -> Command {
    let mut command = Command::new(envoy_binary().unwrap_or_else(|error| panic!("{error}")));
    command
        .arg("--config-path")
        .arg(config)
        .arg("--use-dynamic-base-id");
    command
}
