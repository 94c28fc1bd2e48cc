//! One worker's part of a configured filter: what all its requests share.

use std::cell::RefCell;
use std::rc::Weak;
use std::time::Duration;

use crate::config::Config;
use crate::decision::{Balancer, Finished, Reservation};
use crate::discovery::Discovery;
use crate::exchange::Exchange;
use crate::host::{Host, HostError};
use crate::metrics::Metrics;
use crate::pool::MemberIndex;
use crate::random::Rng;
use crate::state::SCHEMA_VERSION;
use crate::time::Timestamp;
use crate::waiting::Waiting;

/// The configuration, the balancer and the metrics of one worker.
pub struct Worker {
    /// What was configured.
    pub config: Config,
    /// Where requests go.
    pub balancer: Balancer,
    /// What is counted.
    pub metrics: Metrics,
    /// Which requests wait for their bodies.
    pub waiting: Waiting,
    /// Ticks are asked for at the short period.
    is_urgent: bool,
    renewed_at: Timestamp,
    /// Which endpoints there are, for pools that do not list theirs.
    pub discovery: Discovery,
    /// Whether any pool balances the endpoints of a cluster.
    pub balances_endpoints: bool,
    rng: Rng,
    latest: Timestamp,
}

impl Worker {
    /// How often [`Worker::tick`] wants to be called: several times within the
    /// shortest lease, and often enough for a gauge that people watch.
    pub const TICK: Duration = Duration::from_millis(250);

    /// How often while requests wait of which it is not known that their bodies
    /// will be shown.
    const URGENT_TICK: Duration = Duration::from_millis(10);

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
        let key = record_key(host)?;
        let mut discovery = Discovery::new(&config, &key);
        discovery.read(host);
        let mut balancer = Balancer::new(&config, key, seed);
        if !discovery.is_idle() {
            balancer.set_endpoints(&config, |cluster| discovery.endpoints(cluster));
        }
        let metrics = Metrics::new(balancer.topology(), host);
        let waiting = match config.reads_bodies() {
            true => Waiting::new(host),
            false => Waiting::default(),
        };
        Ok(Worker {
            balances_endpoints: config.pools.iter().any(|pool| pool.endpoints.is_some()),
            config,
            balancer,
            metrics,
            discovery,
            rng: Rng::new(seed.rotate_left(32)),
            waiting,
            is_urgent: false,
            renewed_at: latest,
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

    /// Looks after requests that wait, keeps this worker's counts alive and the
    /// gauges true.
    pub fn tick(&mut self, host: &mut impl Host) {
        let now = self.now(host);
        if !self.waiting.is_urgent() || now.since(self.renewed_at) >= Self::TICK {
            self.renew(host, now);
        }
        self.waiting.resume_stuck(host);
        self.let_due_go(host, now);
        if self.is_urgent && !self.waiting.is_urgent() {
            self.is_urgent = false;
            self.ask_for_ticks(host);
        }
    }

    /// Asks to be called from time to time.
    pub fn ask_for_ticks(&self, host: &mut impl Host) {
        let period = if self.is_urgent {
            Self::URGENT_TICK
        } else {
            Self::TICK
        };
        if let Err(error) = host.tick_every(period.as_millis() as u32) {
            // Requests renew the lease, too; only an idle worker would lose it.
            log::warn!("paceline: no ticks: {error}");
        }
    }

    /// The request that `host` is at waits for its body from now on.
    pub(crate) fn park(
        &mut self,
        context: u32,
        exchange: Weak<RefCell<Exchange>>,
        host: &mut impl Host,
    ) {
        let now = self.latest;
        self.waiting.park(context, exchange, host, now);
        if !self.is_urgent && self.waiting.is_urgent() {
            self.is_urgent = true;
            self.ask_for_ticks(host);
        }
    }

    /// Whether the request has waited longer for its body than it may.
    pub(crate) fn is_overdue(&mut self, context: u32, host: &mut impl Host) -> bool {
        let now = self.now(host);
        let timeout = self.config.request_body.timeout;
        self.waiting.is_overdue(context, timeout, now)
    }

    /// Lets the requests go on that have waited enough.
    fn let_due_go(&mut self, host: &mut impl Host, now: Timestamp) {
        let timeout = self.config.request_body.timeout;
        for due in self.waiting.take_due(host, timeout, now) {
            if host.attend(due.context).is_err() {
                self.waiting.put_back(due);
            } else if let Some(exchange) = due.exchange()
                && let Ok(mut exchange) = exchange.try_borrow_mut()
            {
                exchange.give_up(self, host, due.reason);
            }
        }
    }

    fn renew(&mut self, host: &mut impl Host, now: Timestamp) {
        self.renewed_at = now;
        // First, because a write of another key makes the next write of the
        // record one that must read: better this one than a request's.
        self.exchange_latencies(host, now);
        for (pool, basis) in self.balancer.changed_bases() {
            self.metrics.basis(host, pool, basis);
        }
        if self.discovery.tick(host, now) {
            self.follow_discovery(host);
        }
        match self.balancer.renew(host, now) {
            Ok(in_flight) => {
                for (upstream, requests) in in_flight.into_iter().enumerate() {
                    self.metrics.in_flight(host, upstream, requests);
                }
            }
            Err(error) => self.metrics.state_failed(host, error),
        }
    }

    /// Shares measured latencies and shows them.
    fn exchange_latencies(&mut self, host: &mut impl Host, now: Timestamp) {
        let mut changed = Vec::new();
        let exchanged = self
            .balancer
            .exchange_latencies(host, now, |member, measured| {
                changed.push((member, *measured));
            });
        for (member, measured) in changed {
            self.metrics.measured(host, member, &measured);
        }
        if let Err(error) = exchanged {
            self.metrics.state_failed(host, error);
        }
    }

    /// Gives a reservation back, see [`Balancer::release`]. Returns the number of
    /// its member.
    pub fn release(
        &mut self,
        host: &mut impl Host,
        reservation: Reservation,
        finished: &Finished,
        now: Timestamp,
    ) -> Option<MemberIndex> {
        let topology = self.balancer.topology();
        let member = topology.find_member(reservation.member);
        let upstream = topology.find_upstream(reservation.upstream);
        let released = self.balancer.release(host, reservation, finished, now);
        self.metrics.released(host, upstream?, released);
        member
    }

    /// Cluster and address of the endpoint where a request is counted.
    #[must_use]
    pub fn endpoint_of(&self, reservation: &Reservation) -> Option<(String, String)> {
        let topology = self.balancer.topology();
        let index = topology.find_upstream(reservation.upstream)?;
        let upstream = topology.upstreams.get(index)?;
        Some((upstream.cluster.clone(), upstream.endpoint.clone()?))
    }

    /// Whether the next request to the cluster goes where the proxy sends it.
    pub fn explores(&mut self, cluster: &str, now: Timestamp) -> bool {
        self.discovery.explores(cluster, now, &mut self.rng)
    }

    /// The endpoint answers, though it was not picked.
    pub fn found(&mut self, host: &mut impl Host, pool: usize, address: &str, now: Timestamp) {
        if let Some(cluster) = self.balancer.cluster_of(pool)
            && self.discovery.found(&cluster, address, now)
        {
            self.tell_discovery(host);
        }
    }

    /// The endpoint could not be reached, or said that it cannot serve.
    pub fn failed(&mut self, host: &mut impl Host, cluster: &str, address: &str) {
        if self.discovery.failed(cluster, address) {
            self.tell_discovery(host);
        }
    }

    /// The proxy does not know the endpoint.
    pub fn absent(&mut self, host: &mut impl Host, cluster: &str, address: &str) {
        if self.discovery.absent(cluster, address) {
            self.tell_discovery(host);
        }
    }

    /// A request that was picked for another is counted here now.
    pub fn adopted(&mut self, host: &mut impl Host, reservation: &Reservation, in_flight: u64) {
        let topology = self.balancer.topology();
        let member = topology.find_member(reservation.member);
        let upstream = topology.find_upstream(reservation.upstream);
        if let (Some(member), Some(upstream)) = (member, upstream) {
            self.metrics.adopted(host, member);
            self.metrics.in_flight(host, upstream, in_flight);
        }
    }

    /// An endpoint has come or gone, as this worker is the first to see.
    fn tell_discovery(&mut self, host: &mut impl Host) {
        self.discovery.tell(host, self.latest);
        self.follow_discovery(host);
    }

    fn follow_discovery(&mut self, host: &mut impl Host) {
        let discovery = &self.discovery;
        let endpoints = |cluster: &str| discovery.endpoints(cluster);
        self.balancer.set_endpoints(&self.config, endpoints);
        self.metrics.set_topology(self.balancer.topology(), host);
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
