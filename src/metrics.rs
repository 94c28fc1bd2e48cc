//! The filter's metrics: their names, and the handles that the host gave.
//!
//! Labels are part of a metric's name, `paceline_picks_total;pool=default;upstream=gpu-a`,
//! in a form that Envoy's `stats_tags` turn into tags again. Their number is
//! bounded by the configuration and, where endpoints come and go, by
//! [`MAX_ENDPOINTS`]. A metric that the host refuses to define is not counted,
//! and nothing else changes.

use hashbrown::HashMap;

use crate::decision::{Measured, PassThrough, QUANTILES, Quantiles, Released};
use crate::estimate::Basis;
use crate::host::{Host, MetricId, MetricKind};
use crate::outcome::Outcome;
use crate::pool::{MemberIndex, Topology, Upstream, UpstreamIndex};
use crate::request::Unknown;
use crate::state::{Measure, StateError, transaction};

/// How many endpoints have metrics of their own. The proxy forgets no metric, so
/// those that a worker gets to know after them are counted together.
pub const MAX_ENDPOINTS: usize = 256;

/// The label of all endpoints beyond [`MAX_ENDPOINTS`].
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
    adoptions: Metric,
    first_byte: Metric,
    latency: Metric,
    outcomes: Vec<Metric>,
    /// By measure, each for all quantiles.
    quantiles: Vec<QuantileMetrics>,
}

/// The gauges of one measure.
#[derive(Debug)]
struct QuantileMetrics {
    gauges: Vec<Metric>,
    /// Of the gauges' unit in a second.
    scale: f64,
    /// What they show; `None` before they show anything.
    shown: Option<Vec<u64>>,
}

impl Metrics {
    /// The metrics of `topology`. Those that tell something before the first
    /// request are defined at once, the others at their first use.
    pub fn new(topology: &Topology, host: &mut impl Host) -> Self {
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
        let explorations = |pool: &crate::pool::Pool| {
            let name = format!("paceline_explorations_total;pool={}", label(&pool.name));
            Metric::new(MetricKind::Counter, name)
        };
        let counter = |name: &str| Metric::new(MetricKind::Counter, name.to_owned());
        let mut metrics = Metrics {
            members: Vec::new(),
            member_slots: Slots::default(),
            in_flight: Vec::new(),
            upstream_slots: Slots::default(),
            explorations: topology.pools.iter().map(explorations).collect(),
            weighs: topology.pools.iter().map(weighs).collect(),
            pass_throughs: PassThrough::ALL.iter().map(pass_through).collect(),
            sizes_unknown: topology.pools.iter().map(size_unknown).collect(),
            models_unknown: by_reason("paceline_model_unknown_total", ""),
            retries: counter("paceline_transaction_retries_total"),
            state_errors: counter("paceline_state_errors_total"),
        };
        let at_once = metrics.pass_throughs.iter_mut();
        for metric in at_once.chain([&mut metrics.retries, &mut metrics.state_errors]) {
            metric.id(host);
        }
        metrics.set_topology(topology, host);
        metrics
    }

    /// Follows a change of what can be chosen from. The gauges of what is gone
    /// show that nothing is in flight there.
    pub fn set_topology(&mut self, topology: &Topology, host: &mut impl Host) {
        let before = self.upstream_slots.places.clone();
        self.member_slots.places.clear();
        for member in &topology.members {
            let upstream = topology.upstreams.get(member.upstream);
            let is_endpoint = upstream.is_some_and(|it| it.endpoint.is_some());
            let shared =
                (is_endpoint && self.member_slots.are_full()).then_some(member.pool as u64);
            let slot = self
                .member_slots
                .place(member.identity, shared, is_endpoint);
            if slot == self.members.len() {
                let pool = topology
                    .pools
                    .get(member.pool)
                    .map_or("", |pool| &pool.name);
                let name = match shared {
                    None => upstream.map_or("", Upstream::name),
                    Some(_) => OTHER,
                };
                let mut metrics = MemberMetrics::new(pool, name);
                if shared.is_some() {
                    // Quantiles of one of several would not be those of all.
                    metrics.quantiles.clear();
                }
                metrics.picks.id(host);
                self.members.push(metrics);
            }
        }
        self.upstream_slots.places.clear();
        for upstream in &topology.upstreams {
            let is_endpoint = upstream.endpoint.is_some();
            let shared = (is_endpoint && self.upstream_slots.are_full()).then_some(0);
            let slot = self
                .upstream_slots
                .place(upstream.identity, shared, is_endpoint);
            if slot == self.in_flight.len() {
                // No level of one of several would be that of all.
                let gauge = shared.is_none().then(|| {
                    let name = format!("paceline_in_flight;upstream={}", label(upstream.name()));
                    let mut gauge = Metric::new(MetricKind::Gauge, name);
                    gauge.id(host);
                    gauge
                });
                self.in_flight.push(gauge);
            }
        }
        for slot in before {
            if !self.upstream_slots.places.contains(&slot)
                && let Some(Some(gauge)) = self.in_flight.get_mut(slot)
            {
                gauge.record(host, 0);
            }
        }
    }

    fn member(&mut self, member: MemberIndex) -> Option<&mut MemberMetrics> {
        let slot = self.member_slots.places.get(member)?;
        self.members.get_mut(*slot)
    }

    /// A request of `pool` went to its cluster without an endpoint picked.
    pub fn explored(&mut self, host: &mut impl Host, pool: usize) {
        if let Some(metric) = self.explorations.get_mut(pool) {
            metric.add(host, 1);
        }
    }

    /// A request was sent to `member`.
    pub fn picked(&mut self, host: &mut impl Host, member: MemberIndex) {
        if let Some(member) = self.member(member) {
            member.picks.add(host, 1);
        }
    }

    /// A request turned out to be served by `member`, which was not picked.
    pub fn adopted(&mut self, host: &mut impl Host, member: MemberIndex) {
        if let Some(member) = self.member(member) {
            member.adoptions.add(host, 1);
        }
    }

    /// A request to `member` ended.
    pub fn ended(&mut self, host: &mut impl Host, member: MemberIndex, outcome: Outcome) {
        let member = self.member(member);
        if let Some(metric) = member.and_then(|m| m.outcomes.get_mut(outcome.index())) {
            metric.add(host, 1);
        }
    }

    /// The first byte of `member`'s answer came after so many milliseconds.
    pub fn first_byte(&mut self, host: &mut impl Host, member: MemberIndex, millis: u64) {
        if let Some(member) = self.member(member) {
            member.first_byte.record(host, millis);
        }
    }

    /// The last byte of `member`'s answer came after so many milliseconds.
    pub fn latency(&mut self, host: &mut impl Host, member: MemberIndex, millis: u64) {
        if let Some(member) = self.member(member) {
            member.latency.record(host, millis);
        }
    }

    /// The quantiles of what was measured of `member`. Those of which nothing
    /// was heard for long are 0, and those of which nothing ever was are not
    /// there.
    pub fn measured(&mut self, host: &mut impl Host, member: MemberIndex, measured: &Measured) {
        let Some(member) = self.members.get_mut(member) else {
            return;
        };
        for (metrics, quantiles) in member.quantiles.iter_mut().zip(measured) {
            metrics.show(host, *quantiles);
        }
    }

    /// So many requests are in flight at the upstream with this number.
    pub fn in_flight(&mut self, host: &mut impl Host, upstream: UpstreamIndex, requests: u64) {
        let slot = self.upstream_slots.places.get(upstream);
        if let Some(Some(metric)) = slot.and_then(|slot| self.in_flight.get_mut(*slot)) {
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

impl MemberMetrics {
    fn new(pool: &str, upstream: &str) -> Self {
        let labels = format!(";pool={};upstream={}", label(pool), label(upstream));
        let named = |kind, name: &str| Metric::new(kind, format!("{name}{labels}"));
        let outcome = |outcome: &Outcome| {
            let name = format!(
                "paceline_outcomes_total{labels};outcome={}",
                outcome.label()
            );
            Metric::new(MetricKind::Counter, name)
        };
        MemberMetrics {
            picks: named(MetricKind::Counter, "paceline_picks_total"),
            adoptions: named(MetricKind::Counter, "paceline_adoptions_total"),
            first_byte: named(MetricKind::Histogram, "paceline_first_byte_milliseconds"),
            quantiles: Measure::ALL
                .iter()
                .map(|measure| QuantileMetrics::new(*measure, &labels))
                .collect(),
            latency: named(MetricKind::Histogram, "paceline_latency_milliseconds"),
            outcomes: Outcome::ALL.iter().map(outcome).collect(),
        }
    }
}

/// Where the metrics of what is in the topology are.
#[derive(Debug, Default)]
struct Slots {
    /// For each number in the topology.
    places: Vec<usize>,
    /// Of each identity that ever was.
    known: HashMap<u64, usize>,
    /// Of what is counted together.
    shared: HashMap<u64, usize>,
    endpoints: usize,
}

impl Slots {
    fn are_full(&self) -> bool {
        self.endpoints >= MAX_ENDPOINTS
    }

    /// Adds what has `identity` and returns its slot: the one that it has, or
    /// the next. With `shared` it has one with all others that have the same.
    #[inline(never)]
    fn place(&mut self, identity: u64, shared: Option<u64>, is_endpoint: bool) -> usize {
        let next = self.known.len() + self.shared.len();
        let slot = match (self.known.get(&identity), shared) {
            (Some(slot), _) => *slot,
            (None, Some(shared)) => *self.shared.entry(shared).or_insert(next),
            (None, None) => {
                self.endpoints += usize::from(is_endpoint);
                *self.known.entry(identity).or_insert(next)
            }
        };
        self.places.push(slot);
        slot
    }
}

impl QuantileMetrics {
    fn new(measure: Measure, labels: &str) -> Self {
        let (name, scale) = match measure {
            Measure::Complete => ("paceline_latency_quantile_milliseconds", 1e3),
            Measure::FirstByte => ("paceline_first_byte_quantile_milliseconds", 1e3),
            Measure::ChunkGap => ("paceline_chunk_gap_quantile_microseconds", 1e6),
        };
        let gauge = |(_, quantile): &(f64, &str)| {
            let name = format!("{name}{labels};quantile={quantile}");
            Metric::new(MetricKind::Gauge, name)
        };
        QuantileMetrics {
            gauges: QUANTILES.iter().map(gauge).collect(),
            scale,
            shown: None,
        }
    }

    /// Sets the gauges that change.
    fn show(&mut self, host: &mut impl Host, quantiles: Quantiles) {
        if quantiles.is_none() && self.shown.is_none() {
            return;
        }
        let values = quantiles.unwrap_or_default();
        let values = values.map(|seconds| (seconds * self.scale).round() as u64);
        if self.shown.as_deref() == Some(&values) {
            return;
        }
        for (gauge, value) in self.gauges.iter_mut().zip(values) {
            gauge.record(host, value);
        }
        self.shown = Some(values.to_vec());
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
            self.define(host);
        }
        self.id
    }

    #[inline(never)]
    fn define(&mut self, host: &mut impl Host) {
        self.id = host.define_metric(self.kind, &self.name).ok();
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
#[inline(never)]
fn label(value: &str) -> String {
    value.replace(';', "_")
}
