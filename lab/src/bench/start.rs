//! How long Envoy takes to start, and how much longer with the filter's file to load.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::overhead::{BenchError, Options, filter_config, median, upstream_names};
use super::{Answer, Answerer};
use crate::gateway::{Balancing, Gateway, Start, Topology};

const UPSTREAMS: usize = 8;

/// The starts of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct StartRow {
    /// Which filter.
    pub filter: &'static str,
    /// Bytes of its file; 0 without one.
    pub file_bytes: u64,
    /// From Envoy's start until it was ready, milliseconds, of each start.
    pub ready_ms: Vec<f64>,
    /// Processor time until then, all threads of Envoy together, milliseconds, of each start.
    pub cpu_ms: Vec<f64>,
}

/// Starts Envoy so many times without a filter, with an empty one and with the filter, in turn: 8 upstreams, one worker.
///
/// # Errors
/// See [`BenchError`].
pub async fn measure_start(options: &Options, starts: usize) -> Result<Vec<StartRow>, BenchError> {
    let server = Answerer::start(Answer::Whole, 1)?;
    let names = upstream_names(UPSTREAMS);
    let filter = |module: &Path| Balancing::Filter {
        module: module.to_owned(),
        config: filter_config(&names, false, None),
    };
    let variants = [
        ("none", None, Balancing::Client),
        (
            "empty",
            Some(&options.empty_filter),
            filter(&options.empty_filter),
        ),
        ("paceline", Some(&options.filter), filter(&options.filter)),
    ];
    let mut rows = Vec::new();
    let mut topologies = Vec::new();
    for (name, module, balancing) in variants {
        let file = module.map(std::fs::metadata).transpose()?;
        rows.push(StartRow {
            filter: name,
            file_bytes: file.map_or(0, |file| file.len()),
            ready_ms: Vec::with_capacity(starts),
            cpu_ms: Vec::with_capacity(starts),
        });
        let upstreams = names.iter().map(|name| (name, server.address()));
        topologies.push(Topology::new(upstreams, balancing));
    }
    // The first start of each reads files that are not in memory yet.
    for start in 0..=starts {
        for (row, topology) in rows.iter_mut().zip(&topologies) {
            let Start { elapsed, cpu } = Gateway::start(topology).await?.start_cost();
            if start > 0 {
                row.ready_ms.push(milliseconds(elapsed));
                row.cpu_ms.push(milliseconds(cpu));
            }
        }
    }
    Ok(rows)
}

/// The rows as a Markdown table.
#[must_use]
pub fn start_table(rows: &[StartRow]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "filter",
        "file",
        "starts",
        "until ready, median",
        "(range)",
        "CPU until ready, median",
        "(range)",
    ]);
    for row in rows {
        let (ready, ready_range) = spread(&row.ready_ms);
        let (cpu, cpu_range) = spread(&row.cpu_ms);
        table.push_record([
            row.filter.to_owned(),
            match row.file_bytes {
                0 => String::new(),
                bytes => format!("{:.0} KB", bytes as f64 / 1e3),
            },
            row.ready_ms.len().to_string(),
            ready,
            ready_range,
            cpu,
            cpu_range,
        ]);
    }
    table.build().with(Style::markdown()).to_string()
}

/// The median, and the least and the greatest.
fn spread(milliseconds: &[f64]) -> (String, String) {
    let least = milliseconds.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = milliseconds.iter().copied().fold(0.0, f64::max);
    let median = median(milliseconds.iter().copied());
    (
        format!("{median:.0} ms"),
        format!("{least:.0}-{greatest:.0}"),
    )
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_ranges() {
        let row = |filter, file_bytes| StartRow {
            filter,
            file_bytes,
            ready_ms: vec![230.0, 210.0, 500.0],
            cpu_ms: vec![90.0, 80.0, 85.0],
        };
        let table = start_table(&[row("none", 0), row("paceline", 373_561)]);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert!(lines[1].contains("374 KB"), "{table}");
        for figure in ["230 ms", "210-500", "85 ms", "80-90"] {
            assert!(lines[0].contains(figure), "{figure} in {table}");
        }
    }
}
