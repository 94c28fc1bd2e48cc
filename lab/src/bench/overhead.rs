use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

use super::Answerer;
use super::closed_loop::{DriveError, drive};
use crate::gateway::{Balancing, Gateway, GatewayError, Topology};

/// Connections of the closed loop for each worker of Envoy.
const CONNECTIONS_PER_WORKER: u64 = 8;

/// One point at which the filter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Upstreams to choose from.
    pub upstreams: usize,
    /// Envoy's worker threads.
    pub workers: u32,
    /// Bytes of each request's body.
    pub body_bytes: usize,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The filter under test.
    pub filter: PathBuf,
    /// A filter that does nothing.
    pub empty_filter: PathBuf,
    /// Rounds; each drives every variant once.
    pub rounds: usize,
    /// Requests of a variant in a round.
    pub requests: u64,
}

/// What was measured of one variant, each figure the median of the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Processor time of Envoy for each request, microseconds.
    pub cpu_us: f64,
    /// That time over the time without a filter, in the same round.
    pub cpu_ratio: f64,
    /// The least and the greatest of those ratios.
    pub cpu_ratio_range: (f64, f64),
    /// Median latency beyond that without a filter, in the same round, microseconds.
    pub added_latency_us: f64,
    /// Resident memory of Envoy at the end, MiB.
    pub memory_mib: f64,
}

/// What was measured at one point.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The point.
    pub case: Case,
    /// Envoy alone, `LEAST_REQUEST` over one cluster of all the servers.
    pub no_filter: Figures,
    /// With a filter that does nothing.
    pub empty_filter: Figures,
    /// With the filter.
    pub filter: Figures,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Envoy.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The load.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The server behind Envoy, or Envoy's figures.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// One variant of a case: its Envoy, and what each round gave.
struct Variant {
    gateway: Gateway,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    cpu_us: f64,
    latency_us: f64,
}

/// Measures one case. To be called within a `LocalSet`.
///
/// # Errors
/// See [`BenchError`].
pub async fn measure(case: Case, options: &Options) -> Result<Row, BenchError> {
    let server = Answerer::start()?;
    let upstreams: Vec<(String, SocketAddr)> = (0..case.upstreams)
        .map(|number| (format!("upstream-{number}"), server.address()))
        .collect();
    let clusters: Vec<serde_json::Value> = upstreams
        .iter()
        .map(|(name, _)| serde_json::json!({ "cluster": name }))
        .collect();
    let config = serde_json::json!({ "upstreams": clusters }).to_string();
    let filter = |module: &PathBuf| Balancing::Filter {
        module: module.clone(),
        config: config.clone(),
    };
    let balancings = [
        Balancing::LeastRequest { choice_count: 2 },
        filter(&options.empty_filter),
        filter(&options.filter),
    ];
    let mut variants = Vec::with_capacity(balancings.len());
    for balancing in balancings {
        let mut topology = Topology::new(upstreams.clone(), balancing);
        topology.workers = case.workers;
        variants.push(Variant {
            gateway: Gateway::start(&topology).await?,
            rounds: Vec::with_capacity(options.rounds),
        });
    }
    let body = Bytes::from(vec![b'x'; case.body_bytes]);
    let connections = CONNECTIONS_PER_WORKER * u64::from(case.workers);
    for round in 0..=options.rounds {
        for variant in &mut variants {
            let measured = variant
                .drive(connections, options.requests, body.clone())
                .await?;
            // The first round warms up.
            if round > 0 {
                variant.rounds.push(measured);
            }
        }
    }
    let [no_filter, empty_filter, filter] = variants.as_slice() else {
        return Err(io::Error::other("not every variant was started").into());
    };
    Ok(Row {
        case,
        no_filter: no_filter.figures(no_filter)?,
        empty_filter: empty_filter.figures(no_filter)?,
        filter: filter.figures(no_filter)?,
    })
}

impl Variant {
    async fn drive(
        &self,
        connections: u64,
        requests: u64,
        body: Bytes,
    ) -> Result<Round, BenchError> {
        let before = self.gateway.cpu_time()?;
        let driven = drive(self.gateway.address(), connections, requests, body).await?;
        let used = self.gateway.cpu_time()?.saturating_sub(before);
        Ok(Round {
            cpu_us: used.as_secs_f64() * 1e6 / driven.answered.max(1) as f64,
            latency_us: driven.median.as_secs_f64() * 1e6,
        })
    }

    fn figures(&self, baseline: &Variant) -> Result<Figures, BenchError> {
        let paired = || self.rounds.iter().zip(&baseline.rounds);
        let ratios: Vec<f64> = paired()
            .map(|(own, base)| own.cpu_us / base.cpu_us)
            .collect();
        let added = paired().map(|(own, base)| own.latency_us - base.latency_us);
        Ok(Figures {
            cpu_us: median(self.rounds.iter().map(|round| round.cpu_us)),
            cpu_ratio: median(ratios.iter().copied()),
            cpu_ratio_range: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ),
            added_latency_us: median(added),
            memory_mib: resident_mib(self.gateway.process_id())?,
        })
    }
}

/// The middle value, or the mean of the middle two; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2);
    let lower = values.get(values.len().saturating_sub(1) / 2);
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => 0.0,
    }
}

/// Resident memory of a process, from `/proc`.
pub(super) fn resident_mib(process: u32) -> io::Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0)
        .ok_or_else(|| io::Error::other(format!("{path}: no VmRSS in kB")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn a_process_has_memory() {
        assert!(resident_mib(std::process::id()).unwrap() > 1.0);
    }
}
