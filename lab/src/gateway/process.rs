//! The Envoy process: started, watched, ended.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::{GatewayError, POLL_INTERVAL, START_DEADLINE, Topology, envoy_binary};

/// Lines of the log that an error shows.
const LOG_TAIL: usize = 30;

/// What has gone wrong, and all that filters say.
const LOG_LEVELS: [&str; 4] = [
    "--log-level",
    "warning",
    "--component-log-level",
    "wasm:info",
];

/// A child process that does not outlive its owner.
#[derive(Debug)]
pub(super) struct EnvoyProcess {
    child: Child,
    log: PathBuf,
    admin_address: PathBuf,
}

impl EnvoyProcess {
    /// Starts Envoy with the configuration at `config`; its files go to
    /// `directory`.
    pub(super) fn spawn(
        config: &Path,
        topology: &Topology,
        directory: &Path,
    ) -> Result<Self, GatewayError> {
        let binary = envoy_binary()?;
        let log = directory.join("envoy.log");
        let admin_address = directory.join("admin-address");
        let output = File::create(&log).map_err(|source| GatewayError::file(&log, source))?;
        let child = Command::new(&binary)
            .arg("--config-path")
            .arg(config)
            .arg("--concurrency")
            .arg(topology.workers.to_string())
            // Several Envoys of one machine otherwise share memory by number.
            .arg("--use-dynamic-base-id")
            .arg("--admin-address-path")
            .arg(&admin_address)
            .arg("--drain-time-s")
            .arg(topology.drain_time.as_secs().max(1).to_string())
            .args(["--drain-strategy", "immediate"])
            .args(LOG_LEVELS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Not --log-path: that file is written with a delay.
            .stderr(output)
            .spawn()
            .map_err(|source| GatewayError::file(&binary, source))?;
        Ok(Self {
            child,
            log,
            admin_address,
        })
    }

    /// Waits for Envoy to say where its admin interface is.
    pub(super) async fn admin_address(
        &mut self,
        deadline: Instant,
    ) -> Result<SocketAddr, GatewayError> {
        loop {
            let written = fs::read_to_string(&self.admin_address).unwrap_or_default();
            if let Ok(address) = written.trim().parse() {
                return Ok(address);
            }
            self.check_alive(deadline)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Fails if Envoy has ended or the deadline has passed.
    pub(super) fn check_alive(&mut self, deadline: Instant) -> Result<(), GatewayError> {
        let status = self
            .child
            .try_wait()
            .map_err(|source| GatewayError::file(&self.log, source))?;
        if let Some(status) = status {
            return Err(GatewayError::Ended {
                status,
                log: self.log_tail(),
            });
        }
        if Instant::now() >= deadline {
            return Err(GatewayError::NotReady {
                waited: START_DEADLINE,
                log: self.log_tail(),
            });
        }
        Ok(())
    }

    /// The same error, with the end of the log where it says nothing itself.
    pub(super) fn with_log(&self, error: GatewayError) -> GatewayError {
        match error {
            GatewayError::Admin { path, problem } => GatewayError::Admin {
                path,
                problem: format!("{problem}\n{}", self.log_tail()),
            },
            other => other,
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn log(&self) -> Result<String, GatewayError> {
        fs::read_to_string(&self.log).map_err(|source| GatewayError::file(&self.log, source))
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log().unwrap_or_else(|error| error.to_string()))
    }

    /// Sums over the threads what the kernel has them down for, in nanoseconds.
    pub(super) fn cpu_time(&self) -> Result<Duration, GatewayError> {
        let threads = PathBuf::from(format!("/proc/{}/task", self.id()));
        let entries =
            fs::read_dir(&threads).map_err(|source| GatewayError::file(&threads, source))?;
        let mut total = Duration::ZERO;
        for entry in entries {
            let path = entry
                .map_err(|source| GatewayError::file(&threads, source))?
                .path()
                .join("schedstat");
            let text =
                fs::read_to_string(&path).map_err(|source| GatewayError::file(&path, source))?;
            let nanoseconds = text
                .split_whitespace()
                .next()
                .and_then(|field| field.parse().ok());
            total += Duration::from_nanos(nanoseconds.ok_or_else(|| {
                GatewayError::file(&path, std::io::ErrorKind::InvalidData.into())
            })?);
        }
        Ok(total)
    }
}

impl Drop for EnvoyProcess {
    fn drop(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets Envoy check a configuration; its own words if it refuses.
pub(super) fn validate(config: &Path) -> Result<(), GatewayError> {
    let binary = envoy_binary()?;
    let output = Command::new(&binary)
        .args(["--mode", "validate", "--use-dynamic-base-id"])
        .args(LOG_LEVELS)
        .arg("--config-path")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| GatewayError::file(&binary, source))?;
    if output.status.success() {
        return Ok(());
    }
    Err(GatewayError::Refused {
        log: tail(&String::from_utf8_lossy(&output.stderr)),
    })
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(LOG_TAIL)..)
        .unwrap_or_default()
        .join("\n")
}
