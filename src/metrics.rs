//! The filter's metrics: their names, and the handles that the host gave.
//!
//! Labels are part of a metric's name, `paceline_picks_total;pool=default;upstream=gpu-a`,
//! in a form that Envoy's `stats_tags` turn into tags again. Their number is
//! bounded by the configuration. A metric that the host refuses to define is
//! not counted, and nothing else changes.

use crate::decision::{PassThrough, Released};
use crate::estimate::Basis;
use crate::host::{Host, MetricId, MetricKind};
use crate::outcome::Outcome;
use crate::pool::{MemberIndex, Topology, UpstreamIndex};
use crate::request::Unknown;
use crate::state::{StateError, transaction};

/// Handles of all metrics of one configuration.
#[derive(Debug)]
pub struct Metrics {
    members: Vec<MemberMetrics>,
    in_flight: Vec<Metric>,
    weighs: Vec<Metric>,
    pass_throughs: Vec<Metric>,
    /// For each pool, by reason.
    sizes_unknown: Vec<Vec<Metric>>,
    models_unknown: Vec<Metric>,
    retries: Metric,
    state_errors: Metric,
}

#[derive(Debug)]
struct MemberMetrics {
    picks: Metric,
    first_byte: Metric,
    latency: Metric,
    outcomes: Vec<Metric>,
}

impl Metrics {
    /// The metrics of `topology`. Those that tell something before the first
    /// request are defined at once, the others at their first use.
    pub fn new(topology: &Topology, host: &mut impl Host) -> Self {
        let member_metrics = |member: &crate::pool::Member| {
            let pool = topology
                .pools
                .get(member.pool)
                .map_or("", |pool| &pool.name);
            let upstream = topology.upstreams.get(member.upstream);
            let upstream = upstream.map_or("", |upstream| &upstream.cluster);
            let labels = format!(";pool={};upstream={}", label(pool), label(upstream));
            let named = |kind, name: &str| Metric::new(kind, format!("{name}{labels}"));
            MemberMetrics {
                picks: named(MetricKind::Counter, "paceline_picks_total"),
                first_byte: named(MetricKind::Histogram, "paceline_first_byte_milliseconds"),
                latency: named(MetricKind::Histogram, "paceline_latency_milliseconds"),
                outcomes: Outcome::ALL
                    .iter()
                    .map(|outcome| {
                        let name = format!(
                            "paceline_outcomes_total{labels};outcome={}",
                            outcome.label()
                        );
                        Metric::new(MetricKind::Counter, name)
                    })
                    .collect(),
            }
        };
        let in_flight = |upstream: &crate::pool::Upstream| {
            let name = format!("paceline_in_flight;upstream={}", label(&upstream.cluster));
            Metric::new(MetricKind::Gauge, name)
        };
        let weighs = |pool: &crate::pool::Pool| {
            let name = format!("paceline_weighs;pool={}", label(&pool.name));
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
        let counter = |name: &str| Metric::new(MetricKind::Counter, name.to_owned());
        let mut metrics = Metrics {
            members: topology.members.iter().map(member_metrics).collect(),
            in_flight: topology.upstreams.iter().map(in_flight).collect(),
            weighs: topology.pools.iter().map(weighs).collect(),
            pass_throughs: PassThrough::ALL.iter().map(pass_through).collect(),
            sizes_unknown: topology.pools.iter().map(size_unknown).collect(),
            models_unknown: by_reason("paceline_model_unknown_total", ""),
            retries: counter("paceline_transaction_retries_total"),
            state_errors: counter("paceline_state_errors_total"),
        };
        let picks = metrics.members.iter_mut().map(|member| &mut member.picks);
        let at_once = picks
            .chain(&mut metrics.in_flight)
            .chain(&mut metrics.pass_throughs)
            .chain([&mut metrics.retries, &mut metrics.state_errors]);
        for metric in at_once {
            metric.id(host);
        }
        metrics
    }

    /// A request was sent to `member`.
    pub fn picked(&mut self, host: &mut impl Host, member: MemberIndex) {
        if let Some(member) = self.members.get_mut(member) {
            member.picks.add(host, 1);
        }
    }

    /// A request to `member` ended.
    pub fn ended(&mut self, host: &mut impl Host, member: MemberIndex, outcome: Outcome) {
        let member = self.members.get_mut(member);
        if let Some(metric) = member.and_then(|m| m.outcomes.get_mut(outcome.index())) {
            metric.add(host, 1);
        }
    }

    /// The first byte of `member`'s answer came after so many milliseconds.
    pub fn first_byte(&mut self, host: &mut impl Host, member: MemberIndex, millis: u64) {
        if let Some(member) = self.members.get_mut(member) {
            member.first_byte.record(host, millis);
        }
    }

    /// The last byte of `member`'s answer came after so many milliseconds.
    pub fn latency(&mut self, host: &mut impl Host, member: MemberIndex, millis: u64) {
        if let Some(member) = self.members.get_mut(member) {
            member.latency.record(host, millis);
        }
    }

    /// So many requests are in flight at the upstream with this number.
    pub fn in_flight(&mut self, host: &mut impl Host, upstream: UpstreamIndex, requests: u64) {
        if let Some(metric) = self.in_flight.get_mut(upstream) {
            metric.record(host, requests);
        }
    }

    /// The pool with this number measures load in this.
    pub fn basis(&mut self, host: &mut impl Host, pool: usize, basis: Basis) {
        if let Some(metric) = self.weighs.get_mut(pool) {
            metric.record(host, u64::from(basis == Basis::Work));
        }
    }

    /// A request to the upstream with this number was taken back from the
    /// count, or that failed.
    pub fn released(
        &mut self,
        host: &mut impl Host,
        upstream: UpstreamIndex,
        released: Result<Released, StateError>,
    ) {
        match released {
            Ok(released) => {
                self.retried(host, released.retries);
                self.in_flight(host, upstream, released.in_flight);
            }
            Err(error) => self.state_failed(host, error),
        }
    }

    /// A request was left to the proxy's own route.
    pub fn passed_through(&mut self, host: &mut impl Host, reason: PassThrough) {
        if reason == PassThrough::Contention {
            self.retried(host, transaction::ATTEMPTS);
        }
        if let Some(metric) = self.pass_throughs.get_mut(reason.index()) {
            metric.add(host, 1);
        }
    }

    /// A request of `pool` counts as the pool's mean, because its size is not
    /// known.
    pub fn size_unknown(&mut self, host: &mut impl Host, pool: usize, reason: Unknown) {
        let pool = self.sizes_unknown.get_mut(pool);
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
            self.retried(host, transaction::ATTEMPTS);
        }
        self.state_errors.add(host, 1);
    }
}

/// One metric, made known to the host when it is first needed: to define it
/// twice costs the host a handle each time.
#[derive(Debug)]
struct Metric {
    kind: MetricKind,
    name: String,
    id: Option<MetricId>,
}

impl Metric {
    const fn new(kind: MetricKind, name: String) -> Self {
        Metric {
            kind,
            name,
            id: None,
        }
    }

    fn id(&mut self, host: &mut impl Host) -> Option<MetricId> {
        if self.id.is_none() {
            self.id = host.define_metric(self.kind, &self.name).ok();
        }
        self.id
    }

    // A metric that cannot be written is no reason to do anything else.

    fn add(&mut self, host: &mut impl Host, by: i64) {
        if let Some(id) = self.id(host) {
            let _ = host.increment_metric(id, by);
        }
    }

    fn record(&mut self, host: &mut impl Host, value: u64) {
        if let Some(id) = self.id(host) {
            let _ = host.record_metric(id, value);
        }
    }
}

/// A label's value; a semicolon would end it.
fn label(value: &str) -> String {
    value.replace(';', "_")
}
