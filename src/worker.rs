//! One worker's part of a configured filter: what all its requests share.

use std::time::Duration;

use crate::config::Config;
use crate::decision::Balancer;
use crate::host::{Host, HostError};
use crate::metrics::Metrics;
use crate::state::SCHEMA_VERSION;
use crate::time::Timestamp;

/// The configuration, the balancer and the metrics of one worker.
pub struct Worker {
    /// What was configured.
    pub config: Config,
    /// Where requests go.
    pub balancer: Balancer,
    /// What is counted.
    pub metrics: Metrics,
    latest: Timestamp,
}

impl Worker {
    /// How often [`Worker::tick`] wants to be called: several times within the
    /// shortest lease, and often enough for a gauge that people watch.
    pub const TICK: Duration = Duration::from_millis(250);

    /// A worker for `config`. It takes no part in the shared state before its
    /// first request: a configuration is also loaded where none will ever come,
    /// in the proxy's main thread and in a trial run.
    ///
    /// # Errors
    /// The clock or the plugin's name cannot be read. At a time of its own
    /// making a worker would take the others for dead, and their places in the
    /// shared state; under another name it would share nothing with them.
    pub fn new(config: Config, host: &mut impl Host) -> Result<Self, HostError> {
        let latest = host.now()?;
        // Without randomness, hardly two workers read the same nanosecond.
        let seed = host.random().unwrap_or(latest.as_nanos());
        let balancer = Balancer::new(&config, record_key(host)?, seed);
        let metrics = Metrics::new(balancer.topology(), host);
        Ok(Worker {
            config,
            balancer,
            metrics,
            latest,
        })
    }

    /// The present. It never goes back, and where the clock fails it stands
    /// still.
    pub fn now(&mut self, host: &mut impl Host) -> Timestamp {
        if let Ok(now) = host.now() {
            self.latest = self.latest.max(now);
        }
        self.latest
    }

    /// Keeps this worker's counts alive and the gauges true.
    pub fn tick(&mut self, host: &mut impl Host) {
        let now = self.now(host);
        match self.balancer.renew(host, now) {
            Ok(in_flight) => {
                for (upstream, requests) in in_flight.into_iter().enumerate() {
                    self.metrics.in_flight(host, upstream, requests);
                }
            }
            Err(error) => self.metrics.state_failed(host, error),
        }
    }

    /// Takes leave of the other workers.
    pub fn end(&mut self, host: &mut impl Host) {
        if let Err(error) = self.balancer.leave(host) {
            self.metrics.state_failed(host, error);
        }
    }
}

/// Where the workers of this plugin share their record. Plugins may share one
/// key space (Istio gives none of them its own), so the key says whose it is.
fn record_key(host: &mut impl Host) -> Result<String, HostError> {
    let name = host.property(&["plugin_name"])?.unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    Ok(format!("paceline/{SCHEMA_VERSION}/{name}"))
}
