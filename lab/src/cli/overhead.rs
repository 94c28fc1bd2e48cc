//! `lab overhead`.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::task::LocalSet;

use lab::bench::{Case, Options, Row, measure, render, to_json};
use lab::gateway::filter_module;

/// Measure what the filter costs: Envoy without it, with an empty one and with Paceline, side by side.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Upstreams to choose from, a case each.
    #[arg(long, value_delimiter = ',', default_value = "2,8,64,256,1000", value_parser = clap::value_parser!(u32).range(1..=5000))]
    upstreams: Vec<u32>,
    /// Envoy's worker threads, a case each.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Vec<u32>,
    /// Bytes of a request's body, a case each; beyond the first only with 8 upstreams and one worker.
    #[arg(long, value_delimiter = ',', default_value = "1000,200000")]
    bodies: Vec<usize>,
    /// Rounds; each drives every variant once, and ratios are taken within a round.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Requests of a variant in a round.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(100..))]
    requests: u64,
    /// The module of a filter that does nothing, as `make bench` builds it.
    #[arg(long, value_name = "FILE")]
    empty_filter: PathBuf,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
        filter: filter_module()?,
        empty_filter: args.empty_filter.clone(),
        rounds: args.rounds as usize,
        requests: args.requests,
    };
    let rows = measure_all(&args.cases(), &options)?;
    println!("{}", render(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", to_json(&rows));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Measures one case after another; says on standard error which.
pub(super) fn measure_all(cases: &[Case], options: &Options) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let mut rows = Vec::with_capacity(cases.len());
    for (number, case) in cases.iter().enumerate() {
        eprintln!(
            "case {} of {}: {} upstreams, {} workers, {} bytes",
            number + 1,
            cases.len(),
            case.upstreams,
            case.workers,
            case.body_bytes
        );
        rows.push(LocalSet::new().block_on(&runtime, measure(*case, options))?);
    }
    Ok(rows)
}

/// The cases that the documentation shows.
pub(super) fn standard_cases() -> Vec<Case> {
    cases(&[2, 8, 64, 256, 1000], &[1, 2], &[1_000, 200_000])
}

/// Every number of upstreams with every number of workers and the first body, and the other bodies with 8 upstreams and one worker.
fn cases(upstreams: &[u32], workers: &[u32], bodies: &[usize]) -> Vec<Case> {
    let case = |upstreams: u32, workers, body_bytes| Case {
        upstreams: upstreams as usize,
        workers,
        body_bytes,
    };
    let (first, others) = bodies.split_first().unwrap_or((&1_000, &[]));
    let mut cases: Vec<Case> = upstreams
        .iter()
        .flat_map(|&upstreams| {
            workers
                .iter()
                .map(move |&workers| case(upstreams, workers, *first))
        })
        .collect();
    cases.extend(others.iter().map(|&body_bytes| case(8, 1, body_bytes)));
    cases
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        cases(&self.upstreams, &self.workers, &self.bodies)
    }
}
