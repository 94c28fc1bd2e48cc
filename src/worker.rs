//! One worker's part of a configured filter: what all its requests share.

use std::time::Duration;

use crate::config::{Config, Mode};
use crate::decision::{Balancer, Finished, Reservation};
use crate::discovery::Discovery;
use crate::health::Prober;
use crate::host::{CallId, Host, HostError, attributes};
use crate::metrics::{Group, Metrics};
use crate::pool::{PoolIndex, UpstreamIndex};
use crate::random::Rng;
use crate::recent::Recent;
use crate::serving::Serving;
use crate::state::{FORMAT, StateError};
use crate::time::Timestamp;
use crate::waiting::{Due, Waiting};
use crate::wake::Wake;
use held::Held;
pub use held::Refusal;
pub(crate) use held::ToHold;

/// At most so many requests are looked at on a tick to see where the proxy has sent them.
const WATCHED_PER_TICK: usize = 256;

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
    /// Which requests wait for room, by pool.
    held: Vec<Held>,
    /// Those that waited and are to be answered.
    refusals: Vec<Refusal>,
    wake: Wake,
    /// Requests of which it is not known yet where the proxy has sent them, by their
    /// contexts.
    watched: Vec<u32>,
    /// Ticks are asked for at the short period.
    is_urgent: bool,
    renewed_at: Timestamp,
    /// When somebody last looked at the status through this worker.
    looked_at: Option<Timestamp>,
    /// What was decided lately, while somebody watches.
    pub recent: Recent,
    /// Which endpoints there are, for pools that do not list theirs.
    pub discovery: Discovery,
    /// Who really serves the requests.
    pub serving: Serving,
    /// Asks upstreams whether they are ready, if any pool wants that.
    prober: Option<Prober>,
    /// Whether any pool balances the endpoints of a cluster.
    pub balances_endpoints: bool,
    rng: Rng,
    latest: Timestamp,
}

impl Worker {
    /// How often [`Worker::tick`] wants to be called: several times within the
    /// shortest lease, and often enough for a gauge that people watch.
    pub const TICK: Duration = Duration::from_millis(250);

    /// How often while requests wait for room, or for bodies of which it is not known
    /// that they will be shown.
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
        let plugin = plugin_name(host)?;
        let key = format!("paceline/{FORMAT}/{plugin}");
        let mut discovery = Discovery::new(&config, &key);
        discovery.read(host);
        let mut balancer = Balancer::new(&config, key.clone(), seed);
        if !discovery.is_idle() {
            balancer.set_endpoints(&config, |cluster| discovery.endpoints(cluster));
        }
        let metrics = Metrics::new(balancer.topology(), &plugin, host, latest);
        let mut rng = Rng::new(seed.rotate_left(32));
        let wake = Wake::new(balancer.topology(), &key);
        let held = config.pools.iter().map(Held::new).collect();
        Ok(Worker {
            prober: Prober::new(&config, balancer.topology(), &key, rng.next_u64()),
            balances_endpoints: config.pools.iter().any(|pool| pool.endpoints.is_some()),
            config,
            balancer,
            metrics,
            discovery,
            serving: Serving::default(),
            rng,
            waiting: Waiting::default(),
            held,
            refusals: Vec::new(),
            wake,
            watched: Vec::new(),
            recent: Recent::new(&key),
            is_urgent: false,
            renewed_at: latest,
            looked_at: None,
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

    /// The present as it was last seen.
    pub(crate) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Keeps this worker's counts alive and the gauges true. Returns the requests
    /// that have waited enough; each is to be given up, with `host` at its stream.
    #[must_use = "a request that is due waits until it is given up"]
    pub fn tick(&mut self, host: &mut impl Host) -> Vec<Due> {
        let now = self.now(host);
        // What it finds out is shown below.
        if let Some(prober) = &mut self.prober {
            let ticked = prober.tick(host, now);
            self.count_probes(host, ticked);
        }
        let is_due = !self.needs_urgent_ticks() || now.since(self.renewed_at) >= Self::TICK;
        if is_due && !self.sleeps(now) {
            self.renew(host, now);
        }
        self.waiting.resume_stuck(host);
        let timeout = self.config.request_body.timeout;
        self.waiting.due(host, timeout, now)
    }

    /// Asks to be called less often again, where nothing is urgent any more: to be
    /// called when all that was due has been given up.
    pub fn rest(&mut self, host: &mut impl Host) {
        if self.is_urgent && !self.needs_urgent_ticks() {
            self.is_urgent = false;
            self.ask_for_ticks(host);
        }
    }

    fn needs_urgent_ticks(&self) -> bool {
        self.waiting.is_urgent()
            || !self.watched.is_empty()
            || !self.refusals.is_empty()
            || self.held.iter().any(|it| !it.is_empty())
    }

    fn ask_for_urgent_ticks(&mut self, host: &mut impl Host) {
        if !self.is_urgent && self.needs_urgent_ticks() {
            self.is_urgent = true;
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
    pub(crate) fn park(&mut self, context: u32, host: &mut impl Host) {
        let now = self.latest;
        self.waiting.park(context, host, now);
        self.ask_for_urgent_ticks(host);
    }

    /// The group that the next request of `pool` is in; `None` where Paceline decides
    /// about all of them.
    pub(crate) fn group(&mut self, pool: PoolIndex) -> Option<Group> {
        let mode = self.config.pools.get(pool.0)?.mode;
        if mode == Mode::Balance {
            return None;
        }
        Some(match self.rng.unit() * 100.0 < mode.percent() {
            true => Group::Balanced,
            false => Group::Observed,
        })
    }

    /// It will show where the proxy sends the request of this context, which took the
    /// proxy's own route.
    pub fn watch(&mut self, context: u32, host: &mut impl Host) {
        self.watched.push(context);
        self.ask_for_urgent_ticks(host);
    }

    /// Some of the requests of which it may show now where the proxy has sent them. Those
    /// of which it does not are to be given to [`Worker::watch`] again.
    #[must_use = "what is forgotten is counted nowhere before its answer"]
    pub fn take_watched(&mut self) -> Vec<u32> {
        let some = self.watched.len().min(WATCHED_PER_TICK);
        self.watched.drain(..some).collect()
    }

    /// Whether the request has waited longer for its body than it may.
    pub(crate) fn is_overdue(&mut self, context: u32, host: &mut impl Host) -> bool {
        let now = self.now(host);
        let timeout = self.config.request_body.timeout;
        self.waiting.is_overdue(context, timeout, now)
    }

    #[inline(never)]
    fn renew(&mut self, host: &mut impl Host, now: Timestamp) {
        self.renewed_at = now;
        self.exchange_latencies(host, now);
        for (pool, basis) in self.balancer.changed_bases() {
            self.metrics.basis(host, pool, basis);
        }
        self.watch_health(host, now);
        self.notice_busy_endpoints(now);
        if self.discovery.tick(host, now) {
            self.follow_discovery(host);
        }
        self.show_readiness(host, now);
        match self.balancer.renew(host, now) {
            Ok(in_flight) => {
                let topology = self.balancer.topology();
                for (upstream, requests) in in_flight.into_iter().enumerate() {
                    if let Some(upstream) = topology.upstream_handle(UpstreamIndex(upstream)) {
                        self.metrics.in_flight(host, upstream, requests);
                    }
                }
            }
            Err(error) => self.metrics.state_failed(host, error),
        }
        self.show_limits(host);
        self.renew_waiters(host, now);
        let lane = self.balancer.lanes().number();
        if let Err(error) = self.recent.show(host, lane, now) {
            self.metrics.state_failed(host, error.into());
        }
        let (retries, error) = self.balancer.take_troubles();
        self.metrics.retried(host, retries);
        if let Some(error) = error {
            self.metrics.state_failed(host, error);
        }
    }

    /// A request that this worker sent has ended, and `host` is at its answer; without
    /// headers there is none.
    pub fn call_ended(
        &mut self,
        host: &mut impl Host,
        call: CallId,
        has_headers: bool,
        body_size: usize,
    ) {
        let now = self.now(host);
        if let Some(prober) = &mut self.prober {
            let heard = prober.hear(host, call, has_headers, body_size, now);
            self.count_probes(host, heard);
        }
    }

    /// Counts the probes that have ended.
    #[inline(never)]
    fn count_probes(&mut self, host: &mut impl Host, acted: Result<(), StateError>) {
        let ended = self.prober.as_mut().map(Prober::take_ended);
        let topology = self.balancer.topology();
        for probed in ended.unwrap_or_default() {
            if let Some(member) = topology.member_handle(probed.member) {
                self.metrics.probed(host, member, probed.verdict);
            }
        }
        if let Err(error) = acted {
            self.metrics.state_failed(host, error);
        }
        let ready = self.prober.as_mut().map(Prober::take_ready);
        self.balancer.restart(&ready.unwrap_or_default());
    }

    /// Looks for upstreams that hang, and shows who is ejected and who warms up.
    fn watch_health(&mut self, host: &mut impl Host, now: Timestamp) {
        self.balancer.watch(host, now);
        for (member, event) in self.balancer.take_events() {
            self.metrics.stands(host, member, event);
        }
        let topology = self.balancer.topology();
        for (member, condition) in self.balancer.conditions(now) {
            if let Some(member) = topology.member_handle(member) {
                self.metrics.condition(host, member, condition);
            }
        }
    }

    /// Shows which members are ready.
    fn show_readiness(&mut self, host: &mut impl Host, now: Timestamp) {
        let topology = std::rc::Rc::clone(self.balancer.topology());
        let Some((view, read)) = self.balancer.read_health(host, now) else {
            return;
        };
        for (number, pool) in topology.pools.iter().enumerate() {
            if !view.checks(PoolIndex(number)) {
                continue;
            }
            for member in pool.member_indexes() {
                if let Some(handle) = topology.member_handle(member) {
                    self.metrics.ready(host, handle, view.of(member).is_ready);
                }
            }
        }
        if let Err(error) = read {
            self.metrics.state_failed(host, error);
        }
    }

    /// What works for minutes on what it was sent is not silent.
    fn notice_busy_endpoints(&mut self, now: Timestamp) {
        if self.discovery.is_idle() {
            return;
        }
        let topology = self.balancer.topology();
        for upstream in self.balancer.held() {
            if let Some(upstream) = topology.upstream(upstream)
                && let Some(address) = &upstream.endpoint
            {
                self.discovery.works(&upstream.cluster, address, now);
            }
        }
    }

    /// Shares measured latencies and shows them.
    #[inline(never)]
    fn exchange_latencies(&mut self, host: &mut impl Host, now: Timestamp) {
        let mut changed = Vec::new();
        let exchanged = self
            .balancer
            .exchange_latencies(host, now, |member, measured| {
                changed.push((member, *measured));
            });
        let topology = self.balancer.topology();
        for (member, measured) in changed {
            if let Some(member) = topology.member_handle(member) {
                self.metrics.measured(host, member, &measured);
            }
        }
        if let Err(error) = exchanged {
            self.metrics.state_failed(host, error);
        }
    }

    /// Shows how much of each limit is used.
    fn show_limits(&mut self, host: &mut impl Host) {
        for used in self.balancer.uses() {
            self.metrics.limit(host, self.balancer.topology(), used);
        }
    }

    /// Gives a reservation back, see [`Balancer::release`].
    #[inline(never)]
    pub fn release(
        &mut self,
        host: &mut impl Host,
        reservation: Reservation,
        finished: &Finished,
        now: Timestamp,
    ) {
        if let Err(error) = self.balancer.release(host, reservation, finished, now) {
            self.metrics.state_failed(host, error);
        }
        self.call_waiters(host);
    }

    /// Gives a reservation back and counts how its request ended.
    pub fn finish(
        &mut self,
        host: &mut impl Host,
        reservation: Reservation,
        finished: &Finished,
        now: Timestamp,
    ) {
        let member = reservation.member;
        self.release(host, reservation, finished, now);
        self.metrics.ended(host, member, finished.end.outcome());
    }

    /// Cluster and address of the endpoint where a request is counted.
    #[must_use]
    pub fn endpoint_of(&self, reservation: &Reservation) -> Option<(String, String)> {
        let topology = self.balancer.topology();
        let index = topology.find_upstream(reservation.upstream)?;
        let upstream = topology.upstream(index)?;
        Some((upstream.cluster.clone(), upstream.endpoint.clone()?))
    }

    /// Whether the next request to the cluster goes where the proxy sends it.
    pub fn explores(&mut self, cluster: &str, now: Timestamp) -> bool {
        self.discovery.explores(cluster, now, &mut self.rng)
    }

    /// The endpoint answers, though it was not picked.
    pub fn found(&mut self, host: &mut impl Host, pool: PoolIndex, address: &str, now: Timestamp) {
        if let Some(cluster) = self.balancer.cluster_of(pool)
            && self.discovery.found(&cluster, address, now)
        {
            self.tell_discovery(host);
        }
    }

    /// The endpoint could not be reached, or said that it cannot serve.
    pub fn failed(&mut self, host: &mut impl Host, cluster: &str, address: &str) {
        if self.discovery.failed(cluster, address, self.latest) {
            self.tell_discovery(host);
        }
    }

    /// The proxy does not know the endpoint.
    pub fn absent(&mut self, host: &mut impl Host, cluster: &str, address: &str) {
        if self.discovery.absent(cluster, address, self.latest) {
            self.tell_discovery(host);
        }
    }

    /// A request that was picked for another is counted here now.
    pub fn adopted(&mut self, host: &mut impl Host, reservation: &Reservation) {
        self.metrics.adopted(host, reservation.member);
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
        let topology = self.balancer.topology();
        if let Some(prober) = &mut self.prober {
            prober.set_topology(topology);
        }
        self.metrics.set_topology(topology, host, self.latest);
    }

    /// Takes leave of the other workers.
    pub fn end(&mut self, host: &mut impl Host) {
        if let Some(prober) = &mut self.prober {
            let left = prober.leave(host, self.latest);
            self.count_probes(host, left);
        }
        if let Err(error) = self.balancer.leave(host) {
            self.metrics.state_failed(host, error);
        }
    }
}

/// The plugin's name. Plugins may share one key space (Istio gives none of them its
/// own), so the key of the workers' record says whose it is; and so do gauges.
fn plugin_name(host: &mut impl Host) -> Result<String, HostError> {
    let name = host.property(attributes::PLUGIN_NAME)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

mod held;
#[cfg(test)]
mod tests;
mod watched;
