//! Metrics: named once for the process, numbered anew at every definition.

use super::abi::{HostResult, Status};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

impl TryFrom<u32> for MetricType {
    type Error = Status;

    fn try_from(number: u32) -> HostResult<Self> {
        match number {
            0 => Ok(Self::Counter),
            1 => Ok(Self::Gauge),
            2 => Ok(Self::Histogram),
            _ => Err(Status::BadArgument),
        }
    }
}

/// The values of all metrics of one Envoy process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Vec<u64>>,
}

impl Metrics {
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    pub(crate) fn gauges(&self) -> &BTreeMap<String, u64> {
        &self.gauges
    }

    pub(crate) fn histograms(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.histograms
    }
}

/// The ids under which one VM knows the metrics that it has defined. Every
/// definition gives a new id, of the same name too; the type is in the low bits.
#[derive(Debug, Default)]
pub(crate) struct MetricIds {
    names: BTreeMap<u32, String>,
}

const ID_INCREMENT: u32 = 4;
const TYPE_MASK: u32 = 3;

impl MetricIds {
    pub(crate) fn define(&mut self, metrics: &mut Metrics, kind: MetricType, name: &str) -> u32 {
        match kind {
            MetricType::Counter => drop(metrics.counters.entry(name.into()).or_default()),
            MetricType::Gauge => drop(metrics.gauges.entry(name.into()).or_default()),
            MetricType::Histogram => drop(metrics.histograms.entry(name.into()).or_default()),
        }
        let id = (self.names.len() as u32 + 1) * ID_INCREMENT + kind as u32;
        self.names.insert(id, name.into());
        id
    }

    /// How many definitions this VM has made.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Adds to a counter (only upwards) or a gauge (which wraps below zero).
    pub(crate) fn increment(&self, metrics: &mut Metrics, id: u32, offset: i64) -> HostResult {
        match MetricType::try_from(id & TYPE_MASK)? {
            MetricType::Counter => {
                let value = self.value(&mut metrics.counters, id)?;
                if offset <= 0 {
                    return Err(Status::BadArgument);
                }
                *value = value.wrapping_add_signed(offset);
                Ok(())
            }
            MetricType::Gauge => {
                let value = self.value(&mut metrics.gauges, id)?;
                *value = value.wrapping_add_signed(offset);
                Ok(())
            }
            MetricType::Histogram => Err(Status::BadArgument),
        }
    }

    /// Adds to a counter, sets a gauge, records in a histogram.
    pub(crate) fn record(&self, metrics: &mut Metrics, id: u32, value: u64) -> HostResult {
        let kind = MetricType::try_from(id & TYPE_MASK).map_err(|_| Status::NotFound)?;
        match kind {
            MetricType::Counter => *self.value(&mut metrics.counters, id)? += value,
            MetricType::Gauge => *self.value(&mut metrics.gauges, id)? = value,
            MetricType::Histogram => self.value(&mut metrics.histograms, id)?.push(value),
        }
        Ok(())
    }

    pub(crate) fn get(&self, metrics: &mut Metrics, id: u32) -> HostResult<u64> {
        match MetricType::try_from(id & TYPE_MASK)? {
            MetricType::Counter => self.value(&mut metrics.counters, id).copied(),
            MetricType::Gauge => self.value(&mut metrics.gauges, id).copied(),
            MetricType::Histogram => Err(Status::BadArgument),
        }
    }

    fn value<'a, V>(&self, values: &'a mut BTreeMap<String, V>, id: u32) -> HostResult<&'a mut V> {
        let name = self.names.get(&id).ok_or(Status::NotFound)?;
        values.get_mut(name).ok_or(Status::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_has_its_own_id_but_one_name_is_one_metric() {
        let mut metrics = Metrics::default();
        let [mut first, mut second] = [MetricIds::default(), MetricIds::default()];
        let a = first.define(&mut metrics, MetricType::Gauge, "load");
        let b = first.define(&mut metrics, MetricType::Gauge, "load");
        let other_vm = second.define(&mut metrics, MetricType::Gauge, "load");
        assert_ne!(a, b);
        first.increment(&mut metrics, a, 3).unwrap();
        first.increment(&mut metrics, b, -1).unwrap();
        second.increment(&mut metrics, other_vm, 5).unwrap();
        assert_eq!(metrics.gauges()["load"], 7);
        assert_eq!(first.get(&mut metrics, a), Ok(7));
    }

    #[test]
    fn a_gauge_wraps_below_zero_and_a_counter_only_rises() {
        let mut metrics = Metrics::default();
        let mut ids = MetricIds::default();
        let gauge = ids.define(&mut metrics, MetricType::Gauge, "gauge");
        let counter = ids.define(&mut metrics, MetricType::Counter, "counter");
        ids.increment(&mut metrics, gauge, -1).unwrap();
        assert_eq!(metrics.gauges()["gauge"], u64::MAX);
        for offset in [0, -1] {
            let result = ids.increment(&mut metrics, counter, offset);
            assert_eq!(result, Err(Status::BadArgument));
        }
        ids.increment(&mut metrics, counter, 2).unwrap();
        ids.record(&mut metrics, counter, 3).unwrap();
        assert_eq!(metrics.counter("counter"), 5);
    }

    #[test]
    fn a_histogram_can_be_recorded_but_not_read() {
        let mut metrics = Metrics::default();
        let mut ids = MetricIds::default();
        let id = ids.define(&mut metrics, MetricType::Histogram, "latency");
        ids.record(&mut metrics, id, 42).unwrap();
        assert_eq!(metrics.histograms()["latency"], [42]);
        assert_eq!(ids.get(&mut metrics, id), Err(Status::BadArgument));
        assert_eq!(ids.increment(&mut metrics, id, 1), Err(Status::BadArgument));
    }

    #[test]
    fn an_id_that_was_never_given_is_not_found() {
        let mut metrics = Metrics::default();
        let ids = MetricIds::default();
        for id in [4, 5] {
            assert_eq!(ids.increment(&mut metrics, id, 1), Err(Status::NotFound));
            assert_eq!(ids.get(&mut metrics, id), Err(Status::NotFound));
        }
        assert_eq!(ids.record(&mut metrics, 6, 1), Err(Status::NotFound));
        assert_eq!(ids.record(&mut metrics, 7, 1), Err(Status::NotFound));
    }
}
