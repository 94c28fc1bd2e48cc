//! The files of one gateway, and where Envoy sees them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::bootstrap::{self, Bootstrap, ENDPOINTS_FILE, LISTENERS_FILE, Rendered, Sockets};
use super::container;
use super::error::GatewayError;
use super::place::Place;
use super::topology::{Balancing, Topology, Upstream};

const CONFIG_FILE: &str = "envoy.json";
const MODULE_FILE: &str = "filter.wasm";

/// A directory of its own. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Files {
    directory: tempfile::TempDir,
    contained: bool,
}

impl Files {
    pub(super) fn new(place: Place<'_>) -> Result<Self, GatewayError> {
        let contained = matches!(place, Place::Container(_));
        let mut builder = tempfile::Builder::new();
        builder.prefix("paceline-envoy-");
        #[cfg(unix)]
        if contained {
            // Envoy's images run it as a user of their own.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o755));
        }
        let directory = builder
            .tempdir()
            .map_err(|source| GatewayError::file(&std::env::temp_dir(), source))?;
        Ok(Self {
            directory,
            contained,
        })
    }

    /// The directory on this machine.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory's own name, which no other gateway of this moment has.
    pub(super) fn name(&self) -> String {
        let name = self.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The configuration's path, as Envoy sees it.
    pub(super) fn config(&self) -> PathBuf {
        self.seen().join(CONFIG_FILE)
    }

    /// Writes all that Envoy starts with.
    pub(super) fn write(&self, topology: &Topology) -> Result<(), GatewayError> {
        let rendered = self.render(topology)?;
        if let Some(listeners) = &rendered.listeners {
            self.write_file(LISTENERS_FILE, listeners)?;
        }
        if let Some(endpoints) = &rendered.endpoints {
            self.write_file(ENDPOINTS_FILE, endpoints)?;
        }
        self.write_file(CONFIG_FILE, rendered.to_json(self.seen())?)
    }

    /// Replaces the file of the listeners, which Envoy watches; `false` if that
    /// would change nothing.
    pub(super) fn replace_listeners(&self, topology: &Topology) -> Result<bool, GatewayError> {
        let listeners = self
            .render(topology)?
            .listeners
            .ok_or(GatewayError::NotReloadable)?;
        let path = self.path().join(LISTENERS_FILE);
        if fs::read_to_string(&path).is_ok_and(|current| current == listeners) {
            return Ok(false);
        }
        self.replace(LISTENERS_FILE, &listeners)?;
        Ok(true)
    }

    /// Replaces the file of the endpoints, which Envoy watches.
    pub(super) fn replace_endpoints(&self, servers: &[Upstream]) -> Result<(), GatewayError> {
        self.replace(ENDPOINTS_FILE, &bootstrap::endpoints(servers)?)
    }

    /// Moves a new file over a watched one, which is what Envoy notices.
    fn replace(&self, name: &str, content: &str) -> Result<(), GatewayError> {
        let staged = format!("{name}.staged");
        self.write_file(&staged, content)?;
        let path = self.path().join(name);
        fs::rename(self.path().join(staged), &path)
            .map_err(|source| GatewayError::file(&path, source))
    }

    fn render(&self, topology: &Topology) -> Result<Rendered, GatewayError> {
        if !self.contained {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let sockets = Sockets {
                listener: any,
                admin: any,
            };
            return Bootstrap::shipped(topology)?.render(topology, sockets);
        }
        let mut topology = topology.clone();
        if let Balancing::Filter { module, .. } = &mut topology.balancing {
            // A copy: the user in the container may not read the original.
            let code = fs::read(&*module).map_err(|source| GatewayError::file(module, source))?;
            self.write_file(MODULE_FILE, code)?;
            *module = self.seen().join(MODULE_FILE);
        }
        let any = Ipv4Addr::UNSPECIFIED;
        let sockets = Sockets {
            listener: (any, container::LISTENER_PORT).into(),
            admin: (any, container::ADMIN_PORT).into(),
        };
        Bootstrap::shipped(&topology)?.render(&topology, sockets)
    }

    fn seen(&self) -> &Path {
        if self.contained {
            Path::new(container::DIRECTORY)
        } else {
            self.path()
        }
    }

    fn write_file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), GatewayError> {
        let path = self.path().join(name);
        fs::write(&path, content).map_err(|source| GatewayError::file(&path, source))
    }
}
