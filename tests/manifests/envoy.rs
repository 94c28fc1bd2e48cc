//! A real Envoy on an assembled configuration, its extensions from a file in
//! place of Istio's agent.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::gateway::envoy_binary;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::istio::Assembled;

const DEADLINE: Duration = Duration::from_secs(30);

/// A running Envoy. Dropping it ends the process.
pub(crate) struct Envoy {
    process: Child,
    admin: String,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Envoy {
    /// Starts Envoy with one worker, and waits until it serves.
    pub(crate) fn start(assembled: &Assembled) -> Self {
        Self::start_with(assembled, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(assembled: &Assembled, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut envoy = Self::spawn(assembled, directory, arguments);
        let deadline = Instant::now() + DEADLINE;
        let admin_file = envoy.directory.path().join("admin");
        envoy.admin = envoy.wait_for(deadline, || {
            fs::read_to_string(&admin_file)
                .ok()
                .filter(|text| !text.is_empty())
        });
        envoy.address = envoy.wait_for(deadline, || {
            envoy.ask("/ready").filter(|text| text.trim() == "LIVE")?;
            let listeners: Value =
                serde_json::from_str(&envoy.ask("/listeners?format=json")?).ok()?;
            let mut statuses = listeners["listener_statuses"].as_array()?.iter();
            let main = statuses.find(|listener| listener["name"] == "gateway")?;
            let socket = main.pointer("/local_address/socket_address")?;
            format!("{}:{}", socket["address"].as_str()?, socket["port_value"])
                .parse()
                .ok()
        });
        envoy
    }

    fn spawn(assembled: &Assembled, directory: TempDir, arguments: &[&str]) -> Self {
        let config = write(assembled, directory.path());
        let log = File::create(directory.path().join("log")).unwrap();
        let process = Command::new(envoy_binary().unwrap_or_else(|error| panic!("{error}")))
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(directory.path().join("admin"))
            .args(["--concurrency", "1", "--use-dynamic-base-id"])
            .args([
                "--log-level",
                "warning",
                "--component-log-level",
                "wasm:info",
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            process,
            admin: String::new(),
            address: ([0, 0, 0, 0], 0).into(),
            directory,
        }
    }

    fn wait_for<T>(&self, deadline: Instant, probe: impl Fn() -> Option<T>) -> T {
        loop {
            if let Some(value) = probe() {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "Envoy is not ready:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The body of what the admin interface answers; nothing if it does not.
    fn ask(&self, path: &str) -> Option<String> {
        let response = ureq::get(format!("http://{}{path}", self.admin)).call();
        response.ok()?.body_mut().read_to_string().ok()
    }

    /// The statistics as Prometheus would scrape them.
    pub(crate) fn prometheus(&self) -> String {
        self.ask("/stats/prometheus").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The sum of all counters and gauges whose names hold all of these.
    pub(crate) fn stat(&self, parts: &[&str]) -> u64 {
        let stats = self.ask("/stats").unwrap();
        let lines = stats.lines().filter_map(|line| line.rsplit_once(": "));
        lines
            .filter(|(name, _)| parts.iter().all(|part| name.contains(part)))
            .filter_map(|(_, value)| value.parse::<u64>().ok())
            .sum()
    }

    /// Waits until [`Envoy::stat`] satisfies `holds`.
    pub(crate) fn expect_stat(&self, parts: &[&str], holds: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self.stat(parts)) {
            assert!(
                Instant::now() < deadline,
                "{parts:?}: {}\n{}",
                self.stat(parts),
                self.ask("/stats?filter=paceline").unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until Envoy has no connection to any of these servers.
    pub(crate) fn expect_no_connections(&self, servers: &[SocketAddr]) {
        let none = |line: &str| {
            let is_theirs =
                |server: &SocketAddr| line.contains(&format!("::{server}::cx_active::"));
            !servers.iter().any(is_theirs) || line.ends_with("::0")
        };
        let deadline = Instant::now() + DEADLINE;
        self.wait_for(deadline, || {
            let clusters = self.ask("/clusters")?;
            clusters.lines().all(none).then_some(())
        });
    }

    /// Serves these extensions from now on, as the agent does when a plugin
    /// changes.
    pub(crate) fn serve_extensions(&self, extensions: &[Value]) {
        write_extensions(extensions, self.directory.path());
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lets Envoy check the configuration, with the extensions in place: a static
/// check does not fetch any.
pub(crate) fn validate(assembled: &Assembled) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let mut inlined = assembled.connection_manager.clone();
    for filter in inlined["http_filters"].as_array_mut().unwrap() {
        let name = filter["name"].clone();
        if let Some(extension) = assembled
            .extensions
            .iter()
            .find(|extension| extension["name"] == name)
        {
            *filter = extension.clone();
        }
    }
    let fixed = Assembled {
        connection_manager: inlined,
        bound: Vec::new(),
        clusters: assembled.clusters.clone(),
        extensions: Vec::new(),
    };
    let output = Command::new(envoy_binary().unwrap())
        .args([
            "--mode",
            "validate",
            "--use-dynamic-base-id",
            "--log-level",
            "warning",
            "--config-path",
        ])
        .arg(write(&fixed, directory.path()))
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Writes the bootstrap and the extensions; returns the bootstrap's path.
fn write(assembled: &Assembled, directory: &Path) -> PathBuf {
    let extensions = write_extensions(&assembled.extensions, directory);
    let any = ([127, 0, 0, 1], 0).into();
    let mut listeners = vec![listener(
        "gateway",
        any,
        &assembled.connection_manager,
        &extensions,
    )];
    for (address, manager) in &assembled.bound {
        let name = format!("{}_{}", address.ip(), address.port());
        listeners.push(listener(&name, *address, manager, &extensions));
    }
    let bootstrap = json!({
        // Envoy insists on a name for itself where anything is dynamic.
        "node": { "id": "gateway", "cluster": "gateway" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": {
            "clusters": assembled.clusters,
            "listeners": listeners,
        },
    });
    let path = directory.join("bootstrap.json");
    fs::write(&path, bootstrap.to_string()).unwrap();
    path
}

/// A listener whose extensions come from a file.
fn listener(name: &str, address: SocketAddr, manager: &Value, extensions: &Path) -> Value {
    let mut manager = manager.clone();
    for filter in manager["http_filters"].as_array_mut().unwrap() {
        if let Some(source) = filter.pointer_mut("/config_discovery/config_source") {
            let fields = source.as_object_mut().unwrap();
            fields
                .remove("ads")
                .expect("discovery through Istio's agent");
            fields.insert(
                "path_config_source".to_owned(),
                json!({ "path": extensions }),
            );
        }
    }
    let socket = json!({ "address": address.ip(), "port_value": address.port() });
    json!({
        "name": name,
        "address": { "socket_address": socket },
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }] }],
    })
}

fn write_extensions(extensions: &[Value], directory: &Path) -> PathBuf {
    let resources: Vec<_> = extensions
        .iter()
        .map(|extension| {
            let mut resource = extension.clone();
            resource["@type"] =
                json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
            resource
        })
        .collect();
    let (path, staged) = (directory.join("extensions.json"), directory.join("staged"));
    fs::write(&staged, json!({ "resources": resources }).to_string()).unwrap();
    // Envoy watches for files that are moved into place.
    fs::rename(staged, &path).unwrap();
    path
}
