//! The metrics of one member: counts, latencies, quantiles, and whether it is ready.

use super::metric::{Metric, label};
use super::outliers::OutlierMetrics;
use crate::decision::{QUANTILES, Quantiles};
use crate::health::Verdict;
use crate::host::{Host, MetricKind};
use crate::outcome::Outcome;
use crate::state::Measure;

/// The metrics of one member.
#[derive(Debug)]
pub(super) struct MemberMetrics {
    pub(super) picks: Metric,
    /// Picks that nothing came of, once there is one.
    pub(super) considered: Option<Metric>,
    pub(super) adoptions: Metric,
    pub(super) first_byte: Metric,
    pub(super) latency: Metric,
    pub(super) outcomes: Vec<Metric>,
    /// By measure, each for all quantiles.
    pub(super) quantiles: Vec<QuantileMetrics>,
    /// The labels of all of them.
    pub(super) labels: String,
    /// Whether several members have these metrics together.
    pub(super) is_shared: bool,
    /// Of its ejections and its warming, once there is something to tell.
    pub(super) outliers: Option<Box<OutlierMetrics>>,
    /// Where the pool has a health check.
    pub(super) health: Option<HealthMetrics>,
}

/// What is told of a member that is asked whether it is ready.
#[derive(Debug)]
pub(super) struct HealthMetrics {
    /// Not where several members share it.
    pub(super) ready: Option<Metric>,
    /// What `ready` shows; `None` before it shows anything.
    pub(super) shown: Option<bool>,
    /// By verdict.
    pub(super) probes: Vec<Metric>,
}

/// The gauges of one measure.
#[derive(Debug)]
pub(super) struct QuantileMetrics {
    pub(super) gauges: Vec<Metric>,
    /// Of the gauges' unit in a second.
    pub(super) scale: f64,
    /// What they show; `None` before they show anything.
    pub(super) shown: Option<Vec<u64>>,
}

impl MemberMetrics {
    pub(super) fn new(pool: &str, upstream: &str, is_checked: bool, plugin: &str) -> Self {
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
            considered: None,
            adoptions: named(MetricKind::Counter, "paceline_adoptions_total"),
            first_byte: named(MetricKind::Histogram, "paceline_first_byte_milliseconds"),
            quantiles: Measure::ALL
                .iter()
                .map(|measure| QuantileMetrics::new(*measure, &labels, plugin))
                .collect(),
            latency: named(MetricKind::Histogram, "paceline_latency_milliseconds"),
            outcomes: Outcome::ALL.iter().map(outcome).collect(),
            is_shared: false,
            outliers: None,
            health: is_checked.then(|| HealthMetrics::new(&labels, plugin)),
            labels,
        }
    }

    /// Those of its ejections and its warming.
    #[inline(never)]
    pub(super) fn outliers(&mut self, plugin: &str) -> &mut OutlierMetrics {
        let (labels, has_gauges) = (&self.labels, !self.is_shared);
        self.outliers
            .get_or_insert_with(|| Box::new(OutlierMetrics::new(labels, plugin, has_gauges)))
    }
}

impl HealthMetrics {
    fn new(labels: &str, plugin: &str) -> Self {
        let probe = |verdict: &Verdict| {
            let name = format!("paceline_probes_total{labels};outcome={}", verdict.label());
            Metric::new(MetricKind::Counter, name)
        };
        let ready = format!("paceline_ready{labels}{plugin}");
        HealthMetrics {
            ready: Some(Metric::new(MetricKind::Gauge, ready)),
            shown: None,
            probes: Verdict::ALL.iter().map(probe).collect(),
        }
    }

    /// Sets the gauge if it changes.
    pub(super) fn show(&mut self, host: &mut impl Host, is_ready: bool) {
        if self.shown == Some(is_ready) {
            return;
        }
        self.shown = Some(is_ready);
        if let Some(gauge) = &mut self.ready {
            gauge.record(host, u64::from(is_ready));
        }
    }
}

impl QuantileMetrics {
    fn new(measure: Measure, labels: &str, plugin: &str) -> Self {
        let (name, scale) = match measure {
            Measure::Complete => ("paceline_latency_quantile_milliseconds", 1e3),
            Measure::FirstByte => ("paceline_first_byte_quantile_milliseconds", 1e3),
            Measure::ChunkGap => ("paceline_chunk_gap_quantile_microseconds", 1e6),
        };
        let gauge = |(_, quantile): &(f64, &str)| {
            let name = format!("{name}{labels};quantile={quantile}{plugin}");
            Metric::new(MetricKind::Gauge, name)
        };
        QuantileMetrics {
            gauges: QUANTILES.iter().map(gauge).collect(),
            scale,
            shown: None,
        }
    }

    /// Sets the gauges that change.
    #[inline(never)]
    pub(super) fn show(&mut self, host: &mut impl Host, quantiles: Quantiles) {
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
