//! Envoy's statistics, with the filter's labels taken out of their names.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One counter or gauge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The name without labels, and without Envoy's `wasmcustom.` before it.
    pub name: String,
    /// The labels, from the name's `;label=value` segments.
    pub labels: BTreeMap<String, String>,
    /// The value. A gauge below zero shows as a number near 2^64.
    pub value: u64,
}

impl Sample {
    fn new(full_name: &str, value: u64) -> Self {
        let name = full_name.strip_prefix("wasmcustom.").unwrap_or(full_name);
        let mut segments = name.split(';');
        let name = segments.next().unwrap_or_default().to_owned();
        let labels = segments
            .filter_map(|segment| segment.split_once('='))
            .map(|(label, value)| (label.to_owned(), value.to_owned()))
            .collect();
        Self {
            name,
            labels,
            value,
        }
    }

    fn carries(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(label, value)| self.labels.get(*label).is_some_and(|own| own == value))
    }
}

/// The counters and gauges of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    samples: Vec<Sample>,
}

impl Stats {
    /// Reads what `/stats?format=json` answers. Histograms are left out.
    ///
    /// # Errors
    ///
    /// A text that is not that.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Answer {
            stats: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Scalar {
                name: String,
                value: u64,
            },
            /// Histograms, and the text readouts that Envoy has a few of.
            Other(serde::de::IgnoredAny),
        }
        let answer: Answer = serde_json::from_str(text)?;
        let samples = answer
            .stats
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Scalar { name, value } => Some(Sample::new(&name, value)),
                Entry::Other(_) => None,
            })
            .collect();
        Ok(Self { samples })
    }

    /// All samples of that name which carry these labels, among others.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name && sample.carries(labels))
    }

    /// The sum over those samples; 0 where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.select(name, labels)
            .map(|sample| sample.value)
            .fold(0, u64::wrapping_add)
    }

    /// The sum over all labels of that name; 0 where there is none.
    #[must_use]
    pub fn total(&self, name: &str) -> u64 {
        self.sum(name, &[])
    }

    /// The values of that name by the values of one of its labels, summed over
    /// the others.
    #[must_use]
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for sample in self.select(name, &[]) {
            if let Some(value) = sample.labels.get(label) {
                let sum: &mut u64 = sums.entry(value.clone()).or_default();
                *sum = sum.wrapping_add(sample.value);
            }
        }
        sums
    }

    /// All samples.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"stats":[
        {"name":"server.version","value":"9e5580"},
        {"name":"listener_manager.lds.update_success","value":2},
        {"name":"wasmcustom.paceline_picks_total;pool=default;upstream=gpu-a","value":3},
        {"name":"wasmcustom.paceline_picks_total;pool=batch;upstream=gpu-a","value":4},
        {"name":"wasmcustom.paceline_picks_total;pool=default;upstream=gpu-b","value":5},
        {"histograms":{"supported_quantiles":[0.5],"computed_quantiles":[]}}]}"#;

    #[test]
    fn labels_are_told_from_names() {
        let stats = Stats::from_json(ANSWER).unwrap();
        assert_eq!(stats.total("listener_manager.lds.update_success"), 2);
        assert_eq!(stats.total("paceline_picks_total"), 12);
        assert_eq!(
            stats.sum("paceline_picks_total", &[("upstream", "gpu-a")]),
            7
        );
        assert_eq!(
            stats.sum(
                "paceline_picks_total",
                &[("upstream", "gpu-a"), ("pool", "batch")]
            ),
            4
        );
        assert_eq!(stats.total("paceline_absent"), 0);
    }

    #[test]
    fn values_are_summed_over_the_other_labels() {
        let stats = Stats::from_json(ANSWER).unwrap();
        let picks = stats.by_label("paceline_picks_total", "upstream");
        assert_eq!(
            picks,
            [("gpu-a".to_owned(), 7), ("gpu-b".to_owned(), 5)].into()
        );
    }
}
