//! The metrics of a member's ejections and of its warming: none until it is ejected or warms up for the first
//! time, so where all is well they cost nothing.

use super::metric::Metric;
use crate::decision::Condition;
use crate::host::{Host, MetricKind};
use crate::outlier::{Phase, Reason};

/// The metrics of one member as an outlier.
#[derive(Debug)]
pub(super) struct OutlierMetrics {
    /// Its ejections, by reason.
    ejections: Vec<Metric>,
    /// Whether it is out, by reason; empty where it has no gauges of its own.
    ejected: Vec<Metric>,
    /// Whether it warms up.
    warming: Option<Metric>,
    /// Why it is out, as the gauges show.
    out: Option<Reason>,
    is_warming: bool,
}

impl OutlierMetrics {
    /// Of the member with these labels. Without `has_gauges` there are no levels, because
    /// those of one of several would not be those of all.
    pub(super) fn new(labels: &str, plugin: &str, has_gauges: bool) -> Self {
        let by_reason = |kind, name: &str, rest: &str| -> Vec<Metric> {
            let named = |reason: &Reason| {
                let reason = reason.label();
                Metric::new(kind, format!("{name}{labels};reason={reason}{rest}"))
            };
            Reason::ALL.iter().map(named).collect()
        };
        let ejected = match has_gauges {
            true => by_reason(MetricKind::Gauge, "paceline_ejected", plugin),
            false => Vec::new(),
        };
        let warming = has_gauges.then(|| {
            let name = format!("paceline_warming{labels}{plugin}");
            Metric::new(MetricKind::Gauge, name)
        });
        OutlierMetrics {
            ejections: by_reason(MetricKind::Counter, "paceline_ejections_total", ""),
            ejected,
            warming,
            out: None,
            is_warming: false,
        }
    }

    /// It was ejected.
    pub(super) fn ejected(&mut self, host: &mut impl Host, reason: Reason) {
        if let Some(metric) = self.ejections.get_mut(reason.index()) {
            metric.add(host, 1);
        }
    }

    /// Sets the gauges that change.
    pub(super) fn show(&mut self, host: &mut impl Host, condition: Condition) {
        let out = match condition.phase {
            Phase::In => None,
            Phase::Ejected(reason) | Phase::HalfOpen(reason) => Some(reason),
        };
        if self.out != out {
            for (reason, level) in [(self.out, 0), (out, 1)] {
                let gauge = reason.and_then(|reason| self.ejected.get_mut(reason.index()));
                if let Some(gauge) = gauge {
                    gauge.record(host, level);
                }
            }
            self.out = out;
        }
        let is_warming = condition.warmth < 1.0;
        if self.is_warming != is_warming {
            if let Some(gauge) = &mut self.warming {
                gauge.record(host, is_warming.into());
            }
            self.is_warming = is_warming;
        }
    }
}
