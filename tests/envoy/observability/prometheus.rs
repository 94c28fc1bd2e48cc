//! A Prometheus of the test's own, and what it answers.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lab::gateway::Admin;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{SOON, eventually};

/// `prometheus` or `promtool`: from the directory in `PACELINE_PROMETHEUS`, or where
/// `make prometheus` puts them.
pub(super) fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("PACELINE_PROMETHEUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/prometheus"),
        PathBuf::from,
    );
    let program = directory.join(name);
    assert!(
        program.is_file(),
        "no {}: run `make prometheus`, or name its directory in PACELINE_PROMETHEUS",
        program.display()
    );
    program
}

/// A running Prometheus. Dropping it ends it.
pub(super) struct Prometheus {
    process: Child,
    api: Admin,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that looks twice a second at these, with these rules.
    pub(super) async fn start(targets: &[String], rules: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({
            "global": { "scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms" },
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "envoy",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{ "targets": targets }],
            }],
        });
        let config_file = directory.path().join("prometheus.yml");
        fs::write(&config_file, config.to_string()).unwrap();
        let log = directory.path().join("log");
        let process = Command::new(program("prometheus"))
            .arg("--config.file")
            .arg(config_file)
            .arg("--storage.tsdb.path")
            .arg(directory.path().join("data"))
            .args(["--web.listen-address", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut this = Self {
            process,
            api: Admin::new(([127, 0, 0, 1], 0).into()),
            _directory: directory,
        };
        let address: SocketAddr = eventually("Prometheus to listen", SOON, async || {
            let log = fs::read_to_string(&log).unwrap();
            let address = log.lines().find_map(|line| {
                line.contains("\"Listening on\"")
                    .then(|| line.rsplit("address=").next()?.parse().ok())?
            });
            address.ok_or(log)
        })
        .await;
        this.api = Admin::new(address);
        this
    }

    /// The `data` of an answer of its API.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let text = self.api.get(path).await.map_err(|it| it.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|it| it.to_string())?;
        Ok(answer["data"].take())
    }

    /// How many series an expression gives now that are numbers.
    pub(super) async fn count(&self, expression: &str) -> Result<usize, String> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let data = self.get(&path).await?;
        let series = data["result"].as_array().ok_or(data.to_string())?;
        let numbers = series.iter().filter(|series| series["value"][1] != "NaN");
        Ok(numbers.count())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Where it has ended by itself, it said so.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As a query's value in a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
