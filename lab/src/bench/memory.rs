use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::closed_loop::{Load, Until, drive, posts};
use super::overhead::{BenchError, Options, filter_config, resident_mib, upstream_names};
use super::{Answer, Answerer};
use crate::gateway::{Balancing, Gateway, Topology};

/// Memory of Envoy with so many workers, MiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryRow {
    /// Upstreams to choose from.
    pub upstreams: usize,
    /// Envoy alone, with one worker.
    pub no_filter: f64,
    /// What a worker more takes without a filter.
    pub per_worker_without: f64,
    /// What a worker more takes with a filter that does nothing.
    pub per_worker_empty: f64,
    /// What a worker more takes with the filter.
    pub per_worker: f64,
}

/// Numbers of workers between which the slope is taken.
const FEW: u32 = 1;
const MANY: u32 = 9;
/// Requests for each worker: enough for each to have run its VM.
const REQUESTS: u64 = 1_000;
const CONNECTIONS: u64 = 16;

/// What a worker takes in memory: the difference between Envoys with nine workers and with one, after traffic, over eight.
///
/// # Errors
/// See [`BenchError`].
pub async fn measure_memory(options: &Options) -> Result<Vec<MemoryRow>, BenchError> {
    let mut rows = Vec::new();
    for upstreams in [8, 256] {
        let filter = |module: &std::path::Path| Balancing::Filter {
            module: module.to_owned(),
            config: filter_config(&upstream_names(upstreams), false, None),
        };
        let none = Balancing::LeastRequest { choice_count: 2 };
        let (no_filter, without) = slope(upstreams, &none).await?;
        let (_, empty) = slope(upstreams, &filter(&options.empty_filter)).await?;
        let (_, own) = slope(upstreams, &filter(&options.filter)).await?;
        rows.push(MemoryRow {
            upstreams,
            no_filter,
            per_worker_without: without,
            per_worker_empty: empty,
            per_worker: own,
        });
    }
    Ok(rows)
}

/// The rows as a Markdown table.
#[must_use]
pub fn memory_table(rows: &[MemoryRow]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "upstreams",
        "Envoy of one worker, no filter",
        "a worker more: no filter",
        "empty filter",
        "Paceline",
    ]);
    let mib = |mib: f64| format!("{mib:.1} MiB");
    for row in rows {
        table.push_record([
            row.upstreams.to_string(),
            mib(row.no_filter),
            mib(row.per_worker_without),
            mib(row.per_worker_empty),
            mib(row.per_worker),
        ]);
    }
    table.build().with(Style::markdown()).to_string()
}

/// Memory with few workers, and how much one more adds.
async fn slope(upstreams: usize, balancing: &Balancing) -> Result<(f64, f64), BenchError> {
    let few = resident(upstreams, balancing, FEW).await?;
    let many = resident(upstreams, balancing, MANY).await?;
    Ok((few, (many - few) / f64::from(MANY - FEW)))
}

async fn resident(
    upstreams: usize,
    balancing: &Balancing,
    workers: u32,
) -> Result<f64, BenchError> {
    let server = Answerer::start(Answer::Whole, 1)?;
    let servers = upstream_names(upstreams);
    let servers = servers.into_iter().map(|name| (name, server.address()));
    let mut topology = Topology::new(servers, balancing.clone());
    topology.workers = workers;
    let gateway = Gateway::start(&topology).await?;
    let workers = u64::from(workers);
    let load = Load {
        threads: 1,
        connections: CONNECTIONS * workers,
        until: Until::Requests(REQUESTS * workers),
        requests: posts(b"{}", &[]),
    };
    drive(gateway.address(), &load).await?;
    Ok(resident_mib(gateway.process_id())?)
}
