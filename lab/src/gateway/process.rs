//! The Envoy process, on this machine or in a container: started, watched, ended.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::container::{self, Container};
use super::error::GatewayError;
use super::files::Files;
use super::locate::envoy_binary;
use super::place::Place;
use super::topology::Topology;

/// How long Envoy may take to start or to take over a new configuration: it
/// needs under a second on an idle machine, and tests share theirs.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);

/// Time between two looks at a condition that is being waited for.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Lines of the log that an error shows.
const LOG_TAIL: usize = 30;

/// What has gone wrong, and all that filters say.
const LOG_LEVELS: [&str; 4] = [
    "--log-level",
    "warning",
    "--component-log-level",
    "wasm:info",
];

/// A child process that does not outlive its owner: Envoy, or the client that is
/// attached to its container and ends with it.
#[derive(Debug)]
pub(super) struct EnvoyProcess {
    child: Child,
    log: PathBuf,
    whereabouts: Whereabouts,
}

/// How the running Envoy is found.
#[derive(Debug)]
enum Whereabouts {
    /// It writes the address of its admin interface to this file.
    File(PathBuf),
    /// The engine knows.
    Container(Container),
}

impl EnvoyProcess {
    /// Starts Envoy with the configuration in `files`, where its other files go
    /// too.
    pub(super) fn spawn(
        place: Place<'_>,
        topology: &Topology,
        files: &Files,
    ) -> Result<Self, GatewayError> {
        let log = files.path().join("envoy.log");
        let output = File::create(&log).map_err(|source| GatewayError::file(&log, source))?;
        let mut command = command(place, files)?;
        let whereabouts = match place {
            Place::Process => {
                let admin_address = files.path().join("admin-address");
                command.arg("--admin-address-path").arg(&admin_address);
                Whereabouts::File(admin_address)
            }
            Place::Container(_) => Whereabouts::Container(Container::new(files.name())),
        };
        let child = command
            .arg("--concurrency")
            .arg(topology.workers.to_string())
            .arg("--drain-time-s")
            .arg(topology.drain_time.as_secs().max(1).to_string())
            .args(["--drain-strategy", "immediate"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Not --log-path: that file is written with a delay.
            .stderr(output)
            .spawn()
            .map_err(|source| program_error(&command, source))?;
        Ok(Self {
            child,
            log,
            whereabouts,
        })
    }

    /// Waits for Envoy's admin interface to have an address.
    pub(super) async fn admin_address(
        &mut self,
        deadline: Instant,
    ) -> Result<SocketAddr, GatewayError> {
        loop {
            let address = match &mut self.whereabouts {
                Whereabouts::File(path) => {
                    let written = fs::read_to_string(path).unwrap_or_default();
                    written.trim().parse().ok()
                }
                Whereabouts::Container(container) => container.admin_address(),
            };
            if let Some(address) = address {
                return Ok(address);
            }
            self.check_alive(deadline)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Where clients connect, if that was decided before Envoy started.
    pub(super) fn listener_address(&self) -> Option<SocketAddr> {
        match &self.whereabouts {
            Whereabouts::File(_) => None,
            Whereabouts::Container(container) => container.listener_address(),
        }
    }

    /// Fails if Envoy has ended.
    pub(super) fn check_running(&mut self) -> Result<(), GatewayError> {
        let status = self
            .child
            .try_wait()
            .map_err(|source| GatewayError::file(&self.log, source))?;
        match status {
            Some(status) => Err(GatewayError::Ended {
                status,
                log: self.log_tail(),
            }),
            None => Ok(()),
        }
    }

    /// Fails if Envoy has ended or the deadline has passed.
    pub(super) fn check_alive(&mut self, deadline: Instant) -> Result<(), GatewayError> {
        self.check_running()?;
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
        match &self.whereabouts {
            Whereabouts::File(_) => None,
            Whereabouts::Container(container) => container.process_id(),
        }
        .unwrap_or_else(|| self.child.id())
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
        if let Whereabouts::Container(container) = &self.whereabouts {
            container.remove();
        }
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets Envoy check the configuration in `files`; its own words if it refuses.
pub(super) fn validate(place: Place<'_>, files: &Files) -> Result<(), GatewayError> {
    let mut command = command(place, files)?;
    let output = command
        .args(["--mode", "validate"])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| program_error(&command, source))?;
    if output.status.success() {
        return Ok(());
    }
    Err(GatewayError::Refused {
        log: tail(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// Envoy on the configuration in `files`, with what is the same in every use.
fn command(place: Place<'_>, files: &Files) -> Result<Command, GatewayError> {
    let mut command = match place {
        Place::Process => Command::new(envoy_binary()?),
        Place::Container(network) => {
            let mut command = network.run(&files.name(), files.path());
            command.arg(container::ENVOY);
            command
        }
    };
    command
        .arg("--config-path")
        .arg(files.config())
        // Several Envoys of one machine otherwise share memory by number.
        .arg("--use-dynamic-base-id")
        .args(LOG_LEVELS);
    Ok(command)
}

fn program_error(command: &Command, source: std::io::Error) -> GatewayError {
    GatewayError::file(Path::new(command.get_program()), source)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines
        .get(lines.len().saturating_sub(LOG_TAIL)..)
        .unwrap_or_default()
        .join("\n")
}
