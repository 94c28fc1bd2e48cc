//! One metric of the host's.

use crate::host::{Host, MetricId, MetricKind};

/// One metric, made known to the host when it is first needed: to define it
/// twice costs the host a handle each time.
#[derive(Debug)]
pub(super) struct Metric {
    kind: MetricKind,
    pub(super) name: String,
    id: Option<MetricId>,
}

impl Metric {
    pub(super) const fn new(kind: MetricKind, name: String) -> Self {
        Metric {
            kind,
            name,
            id: None,
        }
    }

    pub(super) fn id(&mut self, host: &mut impl Host) -> Option<MetricId> {
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

    pub(super) fn add(&mut self, host: &mut impl Host, by: i64) {
        if let Some(id) = self.id(host) {
            let _ = host.increment_metric(id, by);
        }
    }

    pub(super) fn record(&mut self, host: &mut impl Host, value: u64) {
        if let Some(id) = self.id(host) {
            let _ = host.record_metric(id, value);
        }
    }
}

/// A label's value; a semicolon would end it.
#[inline(never)]
pub(super) fn label(value: &str) -> String {
    value.replace(';', "_")
}
