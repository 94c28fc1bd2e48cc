//! Metrics of limits, and of requests that wait for room or are rejected.

use super::Metrics;
use super::metric::{Metric, label};
use crate::decision::{Limited, Use};
use crate::host::{Host, MetricKind};
use crate::pool::{PoolIndex, Topology, Upstream};
use crate::rejection::Reason;

/// Each is defined at its first use: most configurations have no limits.
#[derive(Debug, Default)]
pub(super) struct CapacityMetrics {
    metrics: Vec<Metric>,
    /// The names of the pools, as labels.
    pools: Vec<String>,
}

impl CapacityMetrics {
    pub(super) fn new(topology: &Topology) -> Self {
        CapacityMetrics {
            metrics: Vec::new(),
            pools: topology.pools.iter().map(|it| label(&it.name)).collect(),
        }
    }

    #[inline(never)]
    fn named(&mut self, kind: MetricKind, name: String) -> Option<&mut Metric> {
        let known = self.metrics.iter().position(|metric| metric.name == name);
        let place = known.unwrap_or(self.metrics.len());
        if known.is_none() {
            self.metrics.push(Metric::new(kind, name));
        }
        self.metrics.get_mut(place)
    }

    fn pool(&self, pool: PoolIndex) -> &str {
        self.pools.get(pool.0).map_or("", String::as_str)
    }
}

impl Metrics {
    /// So many requests wait for room in `pool`, on all workers.
    pub fn held(&mut self, host: &mut impl Host, pool: PoolIndex, requests: u64) {
        let (pool, plugin) = (self.capacity.pool(pool), &self.plugin);
        let name = format!("paceline_held;pool={pool}{plugin}");
        if let Some(gauge) = self.capacity.named(MetricKind::Gauge, name) {
            gauge.record(host, requests);
        }
    }

    /// A request of `pool` no longer waits for room, after so many milliseconds.
    pub fn waited(&mut self, host: &mut impl Host, pool: PoolIndex, millis: u64) {
        let name = format!(
            "paceline_held_milliseconds;pool={}",
            self.capacity.pool(pool)
        );
        if let Some(histogram) = self.capacity.named(MetricKind::Histogram, name) {
            histogram.record(host, millis);
        }
    }

    /// A request of `pool` was answered here, by an error; `class` is its priority class,
    /// where the pool has any.
    pub fn rejected(
        &mut self,
        host: &mut impl Host,
        pool: PoolIndex,
        reason: Reason,
        class: Option<&str>,
    ) {
        let (pool, reason) = (self.capacity.pool(pool), reason.label());
        let class = class.map(|class| format!(";class={}", label(class)));
        let class = class.unwrap_or_default();
        let name = format!("paceline_rejections_total;pool={pool};reason={reason}{class}");
        if let Some(counter) = self.capacity.named(MetricKind::Counter, name) {
            counter.add(host, 1);
        }
    }

    /// So many headers of a request of `pool` that say something about its admission could
    /// not be read.
    pub fn admission_invalid(&mut self, host: &mut impl Host, pool: PoolIndex, headers: u32) {
        let pool = self.capacity.pool(pool);
        let name = format!("paceline_admission_header_invalid_total;pool={pool}");
        if let Some(counter) = self.capacity.named(MetricKind::Counter, name) {
            counter.add(host, i64::from(headers));
        }
    }

    /// A limit, and how much of it is used. What is in flight at an upstream has its own
    /// metric.
    pub fn limit(&mut self, host: &mut impl Host, topology: &Topology, used: Use) {
        let plugin = &self.plugin;
        let named = |limit: &str, used: Option<&str>, labels: &str| {
            let full = |name: &str| format!("{name};{labels}{plugin}");
            (full(limit), used.map(full))
        };
        let (limit, level) = match used.limited {
            Limited::Upstream(index) => {
                let name = topology.upstream(index).map_or("", Upstream::name);
                let labels = format!("upstream={}", label(name));
                named("paceline_max_in_flight", None, &labels)
            }
            Limited::Pool(index) => {
                let labels = format!("pool={}", self.capacity.pool(index));
                let level = "paceline_pool_in_flight";
                named("paceline_pool_max_in_flight", Some(level), &labels)
            }
            Limited::Device(index) => {
                let name = topology.device(index).map_or("", |it| it.name.as_str());
                let labels = format!("device={}", label(name));
                let level = "paceline_device_memory_used_bytes";
                named("paceline_device_memory_bytes", Some(level), &labels)
            }
        };
        let levels = level.map(|level| (level, used.used));
        for (name, value) in [(limit, used.limit)].into_iter().chain(levels) {
            if let Some(gauge) = self.capacity.named(MetricKind::Gauge, name) {
                gauge.record(host, value);
            }
        }
    }
}
