//! A real Envoy in front of the servers under test.
//!
//! [`Gateway::start`] runs the Envoy binary that `make setup` installs, on the
//! shipped `envoy/envoy.yaml`: what is measured and tested here is the file that
//! users copy, with addresses, ports, the module's path, the filter's
//! configuration and the list of clusters put in. Every port is chosen by the
//! system, and Envoy ends when the [`Gateway`] is dropped.

mod admin;
mod bootstrap;
mod container;
mod error;
mod files;
mod locate;
mod place;
mod process;
mod stats;
mod topology;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

pub use self::admin::Admin;
pub use self::container::Network;
pub use self::error::GatewayError;
pub use self::locate::{envoy_binary, filter_module};
pub use self::place::Place;
pub use self::stats::{Sample, Stats};
pub use self::topology::{Balancing, ENDPOINTS_CLUSTER, ModelServers, Topology, Upstream};

use self::files::Files;
use self::process::{EnvoyProcess, POLL_INTERVAL, START_DEADLINE};

/// The name of the listener for clients in the shipped files.
const INGRESS: &str = "ingress";

/// What it took until an Envoy accepted requests.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// From its start until `/ready` answered `LIVE`, to within the 10 ms between two looks.
    pub elapsed: Duration,
    /// The processor time that its threads used until then.
    pub cpu: Duration,
}

/// A running Envoy. Dropping it ends it and removes its directory.
#[derive(Debug)]
pub struct Gateway {
    process: EnvoyProcess,
    admin: Admin,
    listener: SocketAddr,
    url: String,
    admin_url: String,
    workers: u32,
    reloadable: bool,
    endpoints: bool,
    start: Start,
    /// Last, so that Envoy is gone before its files are.
    files: Files,
}

impl Gateway {
    /// Starts an Envoy process and waits until it accepts requests.
    ///
    /// # Errors
    ///
    /// A missing binary or module, named with the make target that provides it;
    /// and an Envoy that refuses its configuration, ends, or is not ready within
    /// 30 s, with the end of its log.
    pub async fn start(topology: &Topology) -> Result<Self, GatewayError> {
        Self::start_in(Place::Process, topology).await
    }

    /// The same in another place.
    ///
    /// # Errors
    ///
    /// Those of [`Gateway::start`].
    pub async fn start_in(place: Place<'_>, topology: &Topology) -> Result<Self, GatewayError> {
        check_module(topology)?;
        let files = Files::new(place)?;
        files.write(topology)?;

        let begin = Instant::now();
        let mut process = EnvoyProcess::spawn(place, topology, &files)?;
        let deadline = begin + START_DEADLINE;
        let admin = Admin::new(process.admin_address(deadline).await?);
        while !admin.is_ready().await {
            process.check_alive(deadline)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let start = Start {
            elapsed: begin.elapsed(),
            cpu: process.cpu_time().unwrap_or_default(),
        };
        let listener = match process.listener_address() {
            Some(address) => address,
            None => match admin.listener_address(INGRESS).await {
                Ok(address) => address,
                Err(error) => return Err(process.with_log(error)),
            },
        };
        Ok(Self {
            url: format!("http://{listener}"),
            admin_url: format!("http://{}", admin.address()),
            process,
            admin,
            listener,
            workers: topology.workers,
            reloadable: topology.reloadable,
            endpoints: topology.endpoints,
            start,
            files,
        })
    }

    /// Lets Envoy check the configuration, the filter's included, without
    /// serving.
    ///
    /// # Errors
    ///
    /// What Envoy has against the configuration, and the errors of
    /// [`Gateway::start`] for missing files.
    pub fn validate(place: Place<'_>, topology: &Topology) -> Result<(), GatewayError> {
        check_module(topology)?;
        let files = Files::new(place)?;
        files.write(&Topology {
            reloadable: false,
            ..topology.clone()
        })?;
        process::validate(place, &files)
    }

    /// Replaces the listener, as a control plane would: Envoy watches the file
    /// that is written here. Returns once every worker has taken it over;
    /// requests on connections made before stay with the old configuration
    /// until it has drained.
    ///
    /// # Errors
    ///
    /// [`GatewayError::NotReloadable`] unless started with
    /// [`Topology::reloadable`], and [`GatewayError::Refused`] with Envoy's
    /// reason where it keeps the old configuration.
    pub async fn reconfigure(&mut self, topology: &Topology) -> Result<(), GatewayError> {
        if !self.reloadable {
            return Err(GatewayError::NotReloadable);
        }
        let before = self.stats().await?;
        let logged = self.logs()?.len();
        if !self.files.replace_listeners(topology)? {
            return Ok(());
        }

        let grown = |now: &Stats, name: &str| now.total(name).saturating_sub(before.total(name));
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let now = self.stats().await?;
            if grown(&now, "listener_manager.lds.update_rejected") > 0 {
                // From a container, the reason comes a little later than the count.
                while self.logs()?.len() == logged && self.process.check_alive(deadline).is_ok() {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                return Err(GatewayError::Refused {
                    log: self.process.log_tail(),
                });
            }
            // Applied by the main thread first, then by each worker.
            if grown(&now, "listener_manager.lds.update_success") > 0
                && grown(&now, "listener_manager.listener_create_success")
                    >= u64::from(self.workers)
            {
                return Ok(());
            }
            self.process.check_alive(deadline)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Replaces the endpoints of the cluster, as a control plane would. Returns
    /// once Envoy has taken them over.
    ///
    /// # Errors
    ///
    /// [`GatewayError::NotReloadable`] unless started with
    /// [`Topology::endpoints`].
    pub async fn set_endpoints(&mut self, servers: &[Upstream]) -> Result<(), GatewayError> {
        const UPDATES: &str = "cluster.gpus.update_success";
        if !self.endpoints {
            return Err(GatewayError::NotReloadable);
        }
        let before = self.stats().await?.total(UPDATES);
        self.files.replace_endpoints(servers)?;
        let deadline = Instant::now() + START_DEADLINE;
        while self.stats().await?.total(UPDATES) == before {
            self.process.check_alive(deadline)?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits for Envoy to end, which it should not do by itself.
    pub async fn ended(&mut self) -> GatewayError {
        loop {
            if let Err(error) = self.process.check_running() {
                return error;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Where clients connect, as `http://address:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listener
    }

    /// Where the filter tells its state, as [`Topology::status`] asks.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] if it does that nowhere.
    pub async fn status_address(&self) -> Result<SocketAddr, GatewayError> {
        self.admin.listener_address("status").await
    }

    /// Envoy's admin interface, as `http://address:port`.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Envoy's counters and gauges of this moment.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] if the admin interface does not answer with them.
    pub async fn stats(&self) -> Result<Stats, GatewayError> {
        self.admin.stats().await
    }

    /// The statistics as Prometheus would scrape them.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] if the admin interface does not answer.
    pub async fn stats_prometheus(&self) -> Result<String, GatewayError> {
        self.admin.get("/stats/prometheus").await
    }

    /// What Envoy and the filter have logged until now.
    ///
    /// # Errors
    ///
    /// [`GatewayError::File`] if the log cannot be read.
    pub fn logs(&self) -> Result<String, GatewayError> {
        self.process.log()
    }

    /// What it took until Envoy accepted requests.
    #[must_use]
    pub fn start_cost(&self) -> Start {
        self.start
    }

    /// Processor time that Envoy's threads have used until now.
    ///
    /// # Errors
    ///
    /// [`GatewayError::File`] if the process is gone, or the kernel keeps no
    /// schedule statistics.
    pub fn cpu_time(&self) -> Result<Duration, GatewayError> {
        self.process.cpu_time()
    }

    /// Envoy's process id, on this machine.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

/// Envoy says "Invalid path" of a module that is missing; this says what to run.
fn check_module(topology: &Topology) -> Result<(), GatewayError> {
    match &topology.balancing {
        Balancing::Filter { module, .. } if !module.is_file() => Err(GatewayError::ModuleMissing {
            path: module.clone(),
        }),
        _ => Ok(()),
    }
}
