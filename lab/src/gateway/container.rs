//! Gateways in containers: the same Envoy arguments, behind `docker run`.
//!
//! All gateways of a [`Network`] share one bridge network that was made for
//! them. Servers under test that run outside of containers listen at the host's
//! address in that network, so traffic stays in it. Nothing is published:
//! clients connect to a container's own address. This takes an engine on the
//! same Linux machine, and one that is not rootless.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::error::GatewayError;
use crate::docker::{DOCKER, Reaper, docker};

/// What to run in it.
pub(super) const ENVOY: &str = "envoy";

/// The image whose `envoy` runs, unless `ENVOY_IMAGE` names another.
const ENVOY_IMAGE: &str = "envoyproxy/envoy:v1.40-latest";

/// On everything that a network and its gateways leave with the engine, with the
/// network's name as its value.
const LABEL: &str = "paceline.network";

/// Where a gateway's directory is mounted.
pub(super) const DIRECTORY: &str = "/etc/paceline";

/// Ports inside of a container are its own.
pub(super) const LISTENER_PORT: u16 = 10000;
pub(super) const ADMIN_PORT: u16 = 9901;

/// A bridge network for gateways in containers. It is removed, with all
/// containers in it, when this value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Network {
    name: String,
    image: String,
    host: IpAddr,
    _reaper: Reaper,
}

impl Network {
    /// Makes a network.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Docker`] if there is no client or no engine answers.
    pub fn create() -> Result<Self, GatewayError> {
        let name = unique_name();
        let label = format!("{LABEL}={name}");
        let reaper =
            Reaper::start(&label).map_err(|source| GatewayError::file(Path::new("sh"), source))?;
        docker(&["network", "create", "--label", &label, &name])?;
        let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
        let host = docker(&["network", "inspect", "--format", format, &name])?;
        let address = host
            .parse()
            .map_err(|_| GatewayError::NoHostAddress { told: host })?;
        Ok(Self {
            name,
            image: std::env::var("ENVOY_IMAGE").unwrap_or_else(|_| ENVOY_IMAGE.to_owned()),
            host: address,
            _reaper: reaper,
        })
    }

    /// The address at which servers on this machine must listen to be reached
    /// from the network.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.host
    }

    /// A command that runs a container of the image which sees `directory`, and
    /// stays attached to it. What to run in it is still to be added.
    pub(super) fn run(&self, container: &str, directory: &Path) -> Command {
        let mut command = Command::new(DOCKER);
        command
            .args(["run", "--rm", "--name", container])
            .args(["--label", &format!("{LABEL}={}", self.name)])
            .args(["--network", &self.name])
            .arg("--volume")
            .arg(format!("{}:{DIRECTORY}:ro", directory.display()))
            .arg(&self.image);
        command
    }
}

/// A container by its name.
#[derive(Debug)]
pub(super) struct Container {
    name: String,
    running: Option<Running>,
}

/// What the engine tells of a container once it runs.
#[derive(Debug, Clone, Copy)]
struct Running {
    address: Ipv4Addr,
    /// As this machine numbers it.
    process_id: u32,
}

impl Container {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            running: None,
        }
    }

    /// Where its admin interface is, once it runs.
    pub(super) fn admin_address(&mut self) -> Option<SocketAddr> {
        const FORMAT: &str =
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{.State.Pid}}";
        // Fails for as long as the client has not created it.
        let told = docker(&["container", "inspect", "--format", FORMAT, &self.name]).ok()?;
        let (address, process_id) = told.split_once(' ')?;
        let running = Running {
            address: address.parse().ok()?,
            process_id: process_id.parse().ok().filter(|id| *id > 0)?,
        };
        self.running = Some(running);
        Some((running.address, ADMIN_PORT).into())
    }

    /// Where clients connect, once it runs.
    pub(super) fn listener_address(&self) -> Option<SocketAddr> {
        Some((self.running?.address, LISTENER_PORT).into())
    }

    /// The id of its first process, once it runs.
    pub(super) fn process_id(&self) -> Option<u32> {
        Some(self.running?.process_id)
    }

    /// Ends and removes it.
    pub(super) fn remove(&self) {
        // Fails if it has ended by itself, and then it is gone already. One that
        // the client was only about to start is left to the network's end.
        let _ = docker(&["rm", "--force", &self.name]);
    }
}

/// A name that no other network has: this process, how many it made before,
/// and the time, because process ids come again.
fn unique_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_millis();
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    format!("paceline-{}-{made}-{now}", std::process::id())
}
