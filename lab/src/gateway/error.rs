//! What can go wrong with a gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::docker::DockerError;

/// Why Envoy could not be started, asked or reconfigured.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The Envoy binary is not where it should be.
    #[error("no Envoy at {path}: run `make setup`, or name a binary in PACELINE_ENVOY", path = .path.display())]
    EnvoyMissing {
        /// Where it was looked for.
        path: PathBuf,
    },

    /// The filter has not been built.
    #[error("no filter at {path}: run `make build`, or name a module in PACELINE_WASM", path = .path.display())]
    ModuleMissing {
        /// Where it was looked for.
        path: PathBuf,
    },

    /// The shipped configuration lacks a part that the harness fills in.
    #[error("envoy/envoy.yaml: {place}: {problem}")]
    Template {
        /// JSON pointer into the file.
        place: String,
        /// What is missing there.
        problem: &'static str,
    },

    /// The shipped configuration is not YAML.
    #[error("envoy/envoy.yaml: {0}")]
    TemplateSyntax(#[from] serde_saphyr::Error),

    /// A [`Topology`](super::Topology) without servers.
    #[error("topology: upstreams: [], but a gateway needs at least one")]
    NoUpstreams,

    /// Envoy does not accept the configuration.
    #[error("Envoy refuses the configuration:\n{log}")]
    Refused {
        /// The end of Envoy's log, which says why.
        log: String,
    },

    /// Envoy ended by itself.
    #[error("Envoy ended with {status}:\n{log}")]
    Ended {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its log.
        log: String,
    },

    /// Envoy did not become ready, or did not take over a configuration.
    #[error("Envoy was not ready after {waited:?}:\n{log}")]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },

    /// [`Gateway::reconfigure`](super::Gateway::reconfigure) needs a listener
    /// that Envoy reads from a watched file.
    #[error("the gateway's listener is fixed: start it with `reloadable: true`")]
    NotReloadable,

    /// The admin interface did not answer as it should.
    #[error("Envoy's admin interface: {path}: {problem}")]
    Admin {
        /// What was asked for.
        path: String,
        /// What came instead.
        problem: String,
    },

    /// The container engine, or its client, did not do what it should.
    #[error(transparent)]
    Docker(#[from] DockerError),

    /// The engine gives this machine no address in the network.
    #[error(
        "docker network inspect: {told:?} is no address; a gateway in a container needs an engine on this machine that is not rootless"
    )]
    NoHostAddress {
        /// What it said.
        told: String,
    },

    /// A file or process could not be used.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl GatewayError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn admin(path: &str, problem: impl std::fmt::Display) -> Self {
        Self::Admin {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(super) fn template(place: &str, problem: &'static str) -> Self {
        Self::Template {
            place: place.to_owned(),
            problem,
        }
    }
}
