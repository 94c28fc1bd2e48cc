//! The filter's metrics: their names, and the handles that the host gave.
//!
//! Labels are part of a metric's name, `paceline_picks_total;pool=default;upstream=gpu-a`,
//! in a form that Envoy's `stats_tags` turn back into tags. Counters of several
//! plugins add up, so plugins share them; a gauge belongs to one plugin and has its
//! name as a label. The configuration limits the number of metrics, and for
//! endpoints that come and go [`MAX_ENDPOINTS`] and [`NAME_EVERY`] do. If the host
//! refuses to define a metric, it is not counted, and nothing else changes.
//!
//! Members and upstreams are named by their handles, because their numbers are
//! valid only until the topology changes.

use crate::config::Mode;
use crate::decision::{Condition, Measured, PassThrough};
use crate::estimate::Basis;
use crate::health::Verdict;
use crate::host::{Host, MetricKind};
use crate::outcome::{End, Outcome};
use crate::outlier::Event;
use crate::pool::{MemberHandle, PoolIndex, Topology, Upstream, UpstreamHandle};
use crate::request::Unknown;
use crate::state::{StateError, cell};
use crate::time::Timestamp;

mod capacity;
mod member;
mod metric;
mod observed;
mod outliers;
mod slots;
#[cfg(test)]
mod tests;

use capacity::CapacityMetrics;
use member::MemberMetrics;
use metric::{Metric, label};
use observed::ObservedMetrics;
pub use observed::{Agreement, Group};
use slots::Slots;
pub use slots::{MAX_ENDPOINTS, NAME_EVERY};

/// The label of all endpoints that have no metrics of their own.
const OTHER: &str = "other";

/// Handles of all metrics of one configuration.
#[derive(Debug)]
pub struct Metrics {
    /// Of each member that ever was; [`Slots`] says where.
    members: Vec<MemberMetrics>,
    member_slots: Slots,
    in_flight: Vec<Option<Metric>>,
    upstream_slots: Slots,
    explorations: Vec<Metric>,
    panics: Vec<Metric>,
    weighs: Vec<Metric>,
    pass_throughs: Vec<Metric>,
    /// For each pool, by reason.
    sizes_unknown: Vec<Vec<Metric>>,
    models_unknown: Vec<Metric>,
    /// The label of this plugin's gauges.
    plugin: String,
    retries: Metric,
    state_errors: Metric,
    capacity: CapacityMetrics,
    /// Of each pool that does not balance all of its requests.
    observed: Vec<Option<ObservedMetrics>>,
}

impl Metrics {
    /// The metrics of `topology`, in the plugin of that name. Those that tell something before the first
    /// request are defined at once, the others at their first use.
    pub fn new(topology: &Topology, plugin: &str, host: &mut impl Host, now: Timestamp) -> Self {
        let plugin = format!(";plugin={}", label(plugin));
        let weighs = |pool: &crate::pool::Pool| {
            let name = format!("paceline_weighs;pool={}{plugin}", label(&pool.name));
            Metric::new(MetricKind::Gauge, name)
        };
        let pass_through = |reason: &PassThrough| {
            let name = format!("paceline_pass_through_total;reason={}", reason.label());
            Metric::new(MetricKind::Counter, name)
        };
        let by_reason = |name: &str, labels: &str| -> Vec<Metric> {
            let named = |reason: &Unknown| {
                let name = format!("{name}{labels};reason={}", reason.label());
                Metric::new(MetricKind::Counter, name)
            };
            Unknown::ALL.iter().map(named).collect()
        };
        let size_unknown = |pool: &crate::pool::Pool| {
            let labels = format!(";pool={}", label(&pool.name));
            by_reason("paceline_size_unknown_total", &labels)
        };
        let explorations = |pool: &crate::pool::Pool| {
            let name = format!("paceline_explorations_total;pool={}", label(&pool.name));
            Metric::new(MetricKind::Counter, name)
        };
        let panics = |pool: &crate::pool::Pool| {
            let name = format!("paceline_panic_picks_total;pool={}", label(&pool.name));
            Metric::new(MetricKind::Counter, name)
        };
        let observed = |pool: &crate::pool::Pool| {
            let is_watched = pool.mode != Mode::Balance;
            is_watched.then(|| ObservedMetrics::new(&pool.name))
        };
        let counter = |name: &str| Metric::new(MetricKind::Counter, name.to_owned());
        let mut metrics = Metrics {
            members: Vec::new(),
            member_slots: Slots::default(),
            in_flight: Vec::new(),
            upstream_slots: Slots::default(),
            explorations: topology.pools.iter().map(explorations).collect(),
            panics: topology.pools.iter().map(panics).collect(),
            weighs: topology.pools.iter().map(weighs).collect(),
            pass_throughs: PassThrough::ALL.iter().map(pass_through).collect(),
            sizes_unknown: topology.pools.iter().map(size_unknown).collect(),
            models_unknown: by_reason("paceline_model_unknown_total", ""),
            plugin: plugin.clone(),
            retries: counter("paceline_transaction_retries_total"),
            state_errors: counter("paceline_state_errors_total"),
            capacity: CapacityMetrics::new(topology),
            observed: topology.pools.iter().map(observed).collect(),
        };
        let at_once = metrics.pass_throughs.iter_mut();
        for metric in at_once.chain([&mut metrics.retries, &mut metrics.state_errors]) {
            metric.id(host);
        }
        metrics.set_topology(topology, host, now);
        metrics
    }

    /// Follows a change of what can be chosen from. The gauges of what is gone
    /// show that nothing is in flight there and nothing was measured.
    pub fn set_topology(&mut self, topology: &Topology, host: &mut impl Host, now: Timestamp) {
        let gone = self.member_slots.begin();
        for member in &topology.members {
            let upstream = topology.upstream(member.upstream);
            let is_endpoint = upstream.is_some_and(|it| it.endpoint.is_some());
            let slot = self.member_slots.place(
                member.identity,
                is_endpoint.then_some(member.pool.0 as u64),
                now,
            );
            if slot.number == self.members.len() {
                let pool = topology.pool(member.pool);
                let name = match slot.is_shared {
                    false => upstream.map_or("", Upstream::name),
                    true => OTHER,
                };
                let is_checked = pool.is_some_and(|pool| pool.is_checked);
                let pool = pool.map_or("", |pool| &pool.name);
                let mut metrics = MemberMetrics::new(pool, name, is_checked, &self.plugin);
                metrics.is_shared = slot.is_shared;
                if slot.is_shared {
                    // Quantiles of one of several would not be those of all.
                    metrics.quantiles.clear();
                    if let Some(health) = &mut metrics.health {
                        health.ready = None;
                    }
                }
                metrics.picks.id(host);
                self.members.push(metrics);
            }
        }
        for slot in self.member_slots.end(gone) {
            let Some(gone) = self.members.get_mut(slot) else {
                continue;
            };
            for metrics in &mut gone.quantiles {
                metrics.show(host, None);
            }
            if let Some(health) = &mut gone.health {
                health.show(host, false);
            }
            if let Some(outliers) = &mut gone.outliers {
                outliers.show(host, Condition::GOOD);
            }
        }
        let gone = self.upstream_slots.begin();
        for upstream in &topology.upstreams {
            let group = upstream.endpoint.is_some().then_some(0);
            let slot = self.upstream_slots.place(upstream.identity, group, now);
            if slot.number == self.in_flight.len() {
                // No level of one of several would be that of all.
                let gauge = (!slot.is_shared).then(|| {
                    let (upstream, plugin) = (label(upstream.name()), &self.plugin);
                    let name = format!("paceline_in_flight;upstream={upstream}{plugin}");
                    let mut gauge = Metric::new(MetricKind::Gauge, name);
                    gauge.id(host);
                    gauge
                });
                self.in_flight.push(gauge);
            }
        }
        for slot in self.upstream_slots.end(gone) {
            if let Some(Some(gauge)) = self.in_flight.get_mut(slot) {
                gauge.record(host, 0);
            }
        }
    }

    fn member(&mut self, member: MemberHandle) -> Option<&mut MemberMetrics> {
        let slot = self.member_slots.find(member)?;
        self.members.get_mut(slot)
    }

    /// A request of `pool` went to its cluster without an endpoint picked.
    pub fn explored(&mut self, host: &mut impl Host, pool: PoolIndex) {
        if let Some(metric) = self.explorations.get_mut(pool.0) {
            metric.add(host, 1);
        }
    }

    /// A request of `pool` was placed among all its upstreams, because too many are
    /// ejected.
    pub fn panicked(&mut self, host: &mut impl Host, pool: PoolIndex) {
        if let Some(metric) = self.panics.get_mut(pool.0) {
            metric.add(host, 1);
        }
    }

    /// `member` was ejected, or has come back.
    pub fn stands(&mut self, host: &mut impl Host, member: MemberHandle, event: Event) {
        let plugin = self.plugin.clone();
        if let Event::Ejected(reason) = event
            && let Some(member) = self.member(member)
        {
            member.outliers(&plugin).ejected(host, reason);
        }
    }

    /// `member` is in this condition.
    pub fn condition(&mut self, host: &mut impl Host, member: MemberHandle, condition: Condition) {
        let slot = self.member_slots.find(member);
        let Some(member) = slot.and_then(|slot| self.members.get_mut(slot)) else {
            return;
        };
        if condition != Condition::GOOD || member.outliers.is_some() {
            member.outliers(&self.plugin).show(host, condition);
        }
    }

    /// A request was sent to `member`.
    pub fn picked(&mut self, host: &mut impl Host, member: MemberHandle) {
        if let Some(member) = self.member(member) {
            member.picks.add(host, 1);
        }
    }

    /// A request would have been sent to `member`.
    pub fn considered(&mut self, host: &mut impl Host, member: MemberHandle) {
        if let Some(member) = self.member(member) {
            let labels = &member.labels;
            let named = || ["paceline_observed_picks_total", labels].concat();
            let metric = member
                .considered
                .get_or_insert_with(|| Metric::new(MetricKind::Counter, named()));
            metric.add(host, 1);
        }
    }

    /// A request of `pool` took the proxy's own route, and this is how that compares
    /// with the pick: by the upstream, and by the seconds that were expected at the pick
    /// and there.
    pub fn compared(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        agreement: Agreement,
        delays: Option<(f64, f64)>,
    ) {
        if let Some(Some(metrics)) = self.observed.get_mut(pool.0) {
            metrics.compared(host, agreement, delays);
        }
    }

    /// A request of this pool and group ended after so many milliseconds.
    pub fn tried(
        &mut self,
        host: &mut impl Host,
        (pool, group): (PoolIndex, Group),
        end: &End,
        millis: u64,
    ) {
        if let Some(Some(metrics)) = self.observed.get_mut(pool.0) {
            metrics.tried(host, group, end, millis);
        }
    }

    /// A request turned out to be served by `member`, which was not picked.
    pub fn adopted(&mut self, host: &mut impl Host, member: MemberHandle) {
        if let Some(member) = self.member(member) {
            member.adoptions.add(host, 1);
        }
    }

    /// A request to `member` ended.
    pub fn ended(&mut self, host: &mut impl Host, member: MemberHandle, outcome: Outcome) {
        let member = self.member(member);
        if let Some(metric) = member.and_then(|m| m.outcomes.get_mut(outcome.index())) {
            metric.add(host, 1);
        }
    }

    /// The first byte of `member`'s answer came after so many milliseconds.
    pub fn first_byte(&mut self, host: &mut impl Host, member: MemberHandle, millis: u64) {
        if let Some(member) = self.member(member) {
            member.first_byte.record(host, millis);
        }
    }

    /// The last byte of `member`'s answer came after so many milliseconds.
    pub fn latency(&mut self, host: &mut impl Host, member: MemberHandle, millis: u64) {
        if let Some(member) = self.member(member) {
            member.latency.record(host, millis);
        }
    }

    /// The quantiles of what was measured of `member`. Those of which nothing
    /// was heard for long are 0, and those of which nothing ever was are not
    /// there.
    pub fn measured(&mut self, host: &mut impl Host, member: MemberHandle, measured: &Measured) {
        let Some(member) = self.member(member) else {
            return;
        };
        for (metrics, quantiles) in member.quantiles.iter_mut().zip(measured) {
            metrics.show(host, *quantiles);
        }
    }

    /// A probe of `member` has ended.
    pub fn probed(&mut self, host: &mut impl Host, member: MemberHandle, verdict: Verdict) {
        let health = self.member(member).and_then(|it| it.health.as_mut());
        if let Some(metric) = health.and_then(|it| it.probes.get_mut(verdict.index())) {
            metric.add(host, 1);
        }
    }

    /// Whether `member` is ready, by its pool's health check.
    pub fn ready(&mut self, host: &mut impl Host, member: MemberHandle, is_ready: bool) {
        if let Some(health) = self.member(member).and_then(|it| it.health.as_mut()) {
            health.show(host, is_ready);
        }
    }

    /// So many requests are in flight at the upstream.
    pub fn in_flight(&mut self, host: &mut impl Host, upstream: UpstreamHandle, requests: u64) {
        let slot = self.upstream_slots.find(upstream);
        if let Some(Some(metric)) = slot.and_then(|slot| self.in_flight.get_mut(slot)) {
            metric.record(host, requests);
        }
    }

    /// The pool with this number measures load in this.
    pub fn basis(&mut self, host: &mut impl Host, pool: PoolIndex, basis: Basis) {
        if let Some(metric) = self.weighs.get_mut(pool.0) {
            metric.record(host, u64::from(basis == Basis::Work));
        }
    }

    /// A request was left to the proxy's own route.
    pub fn passed_through(&mut self, host: &mut impl Host, reason: PassThrough) {
        if reason == PassThrough::Contention {
            self.retried(host, cell::ATTEMPTS);
        }
        if let Some(metric) = self.pass_throughs.get_mut(reason.index()) {
            metric.add(host, 1);
        }
    }

    /// A request of `pool` counts as the pool's mean, because its size is not
    /// known.
    pub fn size_unknown(&mut self, host: &mut impl Host, pool: PoolIndex, reason: Unknown) {
        let pool = self.sizes_unknown.get_mut(pool.0);
        if let Some(metric) = pool.and_then(|pool| pool.get_mut(reason.index())) {
            metric.add(host, 1);
        }
    }

    /// A request fits no pool that asks for a model, because its model is not
    /// known.
    pub fn model_unknown(&mut self, host: &mut impl Host, reason: Unknown) {
        if let Some(metric) = self.models_unknown.get_mut(reason.index()) {
            metric.add(host, 1);
        }
    }

    /// Transactions had to be tried again.
    pub fn retried(&mut self, host: &mut impl Host, retries: u32) {
        if retries > 0 {
            self.retries.add(host, i64::from(retries));
        }
    }

    /// A release or a renewal did not reach the shared state.
    pub fn state_failed(&mut self, host: &mut impl Host, error: StateError) {
        if error == StateError::Contended {
            self.retried(host, cell::ATTEMPTS);
        }
        self.state_errors.add(host, 1);
    }
}
