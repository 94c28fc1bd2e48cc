//! Servers, an Envoy on written files, and the command.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use lab::gateway::{envoy_binary, filter_module};
use lab::model::Fleet;
use lab::serve::{FleetServer, Options};
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a machine that is busy with something else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Emulated servers, each with a model.
pub(crate) struct Servers {
    fleet: FleetServer,
}

impl Servers {
    /// Servers by their names and models.
    pub(crate) fn start(servers: &[(&str, &str)]) -> Self {
        let one = |(name, model): &(&str, &str)| {
            format!(r#"{{ "name": "{name}", "kind": "slots", "model": "{model}" }}"#)
        };
        let servers: Vec<_> = servers.iter().map(one).collect();
        let json = format!(r#"{{ "servers": [{}] }}"#, servers.join(", "));
        let fleet = Fleet::from_json(&json).unwrap();
        Self {
            fleet: FleetServer::start(&fleet, &Options::default()).unwrap(),
        }
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let mut all = self.fleet.endpoints().iter();
        all.find(|it| it.name == name).unwrap().address
    }

    /// The server as `NAME=URL`.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{name}=http://{}", self.address(name))
    }

    /// How many requests a server has answered with a generation.
    pub(crate) fn answered(&self, name: &str) -> u64 {
        self.fleet.status(name).unwrap().counters.done
    }
}

/// The command, which finds Envoy and the filter where the tests do.
pub(crate) fn paceline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline"));
    command
        .args(arguments)
        .env(
            "PACELINE_ENVOY",
            envoy_binary().unwrap_or_else(|error| panic!("{error}")),
        )
        .env("PACELINE_WASM", module());
    command
}

/// Runs the command to its end, which must be a success; gives what it says.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = paceline(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

pub(crate) fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

pub(crate) fn module() -> PathBuf {
    let module = filter_module().unwrap_or_else(|error| panic!("{error}"));
    module.canonicalize().unwrap()
}

/// A free port of this test's own: below those that the system gives to whoever asks for
/// any, so that nothing else of these tests takes it.
pub(crate) fn free_port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 8_000) as u16;
    let first = first + 16 * ASKED.fetch_add(1, Ordering::Relaxed);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..32_000).find(is_free).unwrap()
}

/// Waits for a condition.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An Envoy on a file. Dropping it ends it.
pub(crate) struct Envoy {
    child: Child,
    pub(crate) admin: SocketAddr,
    directory: TempDir,
}

impl Envoy {
    /// Starts Envoy, and waits until it is ready.
    pub(crate) fn start(config: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let admin_file = directory.path().join("admin-address");
        let child = Command::new(envoy_binary().unwrap_or_else(|error| panic!("{error}")))
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(&admin_file)
            .args([
                "--use-dynamic-base-id",
                "--concurrency",
                "2",
                "--log-level",
                "warning",
            ])
            // Connections of before a change are closed soon.
            .args(["--drain-time-s", "2", "--drain-strategy", "immediate"])
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut this = Self {
            child,
            admin: ([127, 0, 0, 1], 1).into(),
            directory,
        };
        this.admin = eventually("an admin address", || {
            assert!(this.child.try_wait().unwrap().is_none(), "{}", this.log());
            fs::read_to_string(&admin_file).ok()?.trim().parse().ok()
        });
        eventually("Envoy to be ready", || {
            assert!(this.child.try_wait().unwrap().is_none(), "{}", this.log());
            get(&format!("http://{}/ready", this.admin)).filter(|(status, _)| *status == 200)
        });
        this
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        let url = format!("http://{}/listeners?format=json", self.admin);
        let (_, answer) = get(&url).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let listeners = answer["listener_statuses"].as_array().unwrap();
        let ingress = listeners.iter().find(|it| it["name"] != "status").unwrap();
        let socket = &ingress["local_address"]["socket_address"];
        format!("http://127.0.0.1:{}", socket["port_value"])
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

/// Status and body; nothing where nobody answers.
pub(crate) fn get(url: &str) -> Option<(u16, String)> {
    let mut answer = agent().get(url).call().ok()?;
    let body = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), body))
}

/// Reads lines of a child's standard output up to one that contains `last`.
pub(crate) fn lines_until(child: &mut Child, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let output = BufReader::new(child.stdout.take().unwrap());
    for line in output.lines() {
        let line = line.unwrap();
        let is_last = line.contains(last);
        lines.push(line);
        if is_last {
            return lines;
        }
    }
    panic!("no {last:?} in {lines:#?}");
}
