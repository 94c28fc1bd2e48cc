use std::path::PathBuf;

use anyhow::Context as _;
use tokio::task::LocalSet;

use lab::bench::{Case, Options, measure, render, to_json};
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cases = args.cases();
    let mut rows = Vec::with_capacity(cases.len());
    for (number, case) in cases.iter().enumerate() {
        eprintln!("case {} of {}: {case:?}", number + 1, cases.len());
        rows.push(LocalSet::new().block_on(&runtime, measure(*case, &options))?);
    }
    println!("{}", render(&rows));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", to_json(&rows));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let first_body = self.bodies.first().copied().unwrap_or(1_000);
        for &upstreams in &self.upstreams {
            for &workers in &self.workers {
                cases.push(Case {
                    upstreams: upstreams as usize,
                    workers,
                    body_bytes: first_body,
                });
            }
        }
        let larger = self.bodies.iter().skip(1).map(|&body_bytes| Case {
            upstreams: 8,
            workers: 1,
            body_bytes,
        });
        cases.extend(larger);
        cases
    }
}
