//! `lab overhead`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use lab::bench::{
    Answer, Case, Options, Row, Until, cores, measure, render, split_by_cores, to_json,
    workers_table,
};
use lab::gateway::filter_module;

/// Measure what the filter costs: Envoy without it, with an empty one and with Paceline, side by side.
///
/// "control" has no filter either, but the clients name each request's cluster as the filter would. Two tables: what a request costs,
/// and, for small messages, how many are answered a second.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Upstreams to choose from, a case each.
    #[arg(long, value_delimiter = ',', default_value = "2,8,64,256,1000", value_parser = clap::value_parser!(u32).range(1..=5000))]
    upstreams: Vec<u32>,
    /// Envoy's worker threads, a case each; those that the machine has no cores for are left out.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Vec<u32>,
    /// Bytes of a request's body, a case each; beyond the first only with 8 upstreams and one worker, passed on and read by the filter.
    #[arg(long, value_delimiter = ',', default_value = "1000,200000")]
    bodies: Vec<usize>,
    /// Chunks of a streamed answer, a case with 8 upstreams and one worker; 0 leaves it out.
    #[arg(long, default_value_t = STREAMED_CHUNKS)]
    chunks: u32,
    /// Rounds; each drives every variant once, and ratios are taken within a round.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Requests of a variant in a round.
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(100..))]
    requests: u64,
    /// Seconds of a variant in a round, instead of a number of requests.
    #[arg(long, conflicts_with = "requests", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Connections that keep each worker busy.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    connections: u64,
    /// The module of a filter that does nothing, as `make bench` builds it.
    #[arg(long, value_name = "FILE")]
    empty_filter: PathBuf,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Chunks of the streamed answers that the documentation shows.
const STREAMED_CHUNKS: u32 = 100;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
        filter: filter_module()?,
        empty_filter: args.empty_filter.clone(),
        rounds: args.rounds as usize,
        until: args
            .seconds
            .map_or(Until::Requests(args.requests), Until::Elapsed),
        connections: args.connections,
    };
    let cores = cores();
    let (workers, left_out) = split_by_cores(&args.workers, cores);
    let cases = cases(&args.upstreams, &workers, &args.bodies, args.chunks);
    let rows = measure_all(&cases, &options)?;
    println!("{}\n", render(&rows));
    let is_first = |bytes| args.bodies.first().is_none_or(|first| *first == bytes);
    let alike = |row: &&Row| row.case.answer == Answer::Whole && is_first(row.case.body_bytes);
    let by_workers: Vec<Row> = rows.iter().filter(alike).cloned().collect();
    println!("{}", workers_table(&by_workers, &left_out, cores));
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", to_json(&rows));
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A number of seconds, as `--seconds` takes it.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("0.05 to 600 are allowed".to_owned())
    }
}

/// Measures one case after another; says on standard error which.
pub(super) fn measure_all(cases: &[Case], options: &Options) -> anyhow::Result<Vec<Row>> {
    let runtime = event_loop()?;
    let mut rows = Vec::with_capacity(cases.len());
    for (number, case) in cases.iter().enumerate() {
        eprintln!(
            "case {} of {}: {} upstreams, {} workers, {} bytes{}, {:?}",
            number + 1,
            cases.len(),
            case.upstreams,
            case.workers,
            case.body_bytes,
            if case.reads_body { ", read" } else { "" },
            case.answer
        );
        rows.push(runtime.block_on(measure(*case, options))?);
    }
    Ok(rows)
}

/// Where measurements run. Every variant has connections to every upstream, so that there may be many of them.
pub(super) fn event_loop() -> anyhow::Result<tokio::runtime::Runtime> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// The cases that the documentation shows.
pub(super) fn standard_cases() -> Vec<Case> {
    cases(
        &[2, 8, 64, 256, 1000],
        &[1, 2],
        &[1_000, 200_000],
        STREAMED_CHUNKS,
    )
}

/// The cases that the documentation shows by workers.
pub(super) fn worker_cases(workers: &[u32]) -> Vec<Case> {
    cases(&[8], workers, &[1_000], 0)
}

/// Every number of upstreams with every number of workers and the first body; the other bodies and the streamed answers with 8 upstreams
/// and one worker.
fn cases(upstreams: &[u32], workers: &[u32], bodies: &[usize], chunks: u32) -> Vec<Case> {
    let case = |upstreams: u32, workers, body_bytes, answer| Case {
        upstreams: upstreams as usize,
        workers,
        body_bytes,
        reads_body: false,
        answer,
    };
    let (first, others) = bodies.split_first().unwrap_or((&1_000, &[]));
    let mut cases: Vec<Case> = upstreams
        .iter()
        .flat_map(|&upstreams| {
            workers
                .iter()
                .map(move |&workers| case(upstreams, workers, *first, Answer::Whole))
        })
        .collect();
    for &body_bytes in others {
        let passed_on = case(8, 1, body_bytes, Answer::Whole);
        let read = Case {
            reads_body: true,
            ..passed_on
        };
        cases.extend([passed_on, read]);
    }
    if chunks > 0 {
        cases.push(case(8, 1, *first, Answer::Chunks(chunks)));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_large_bodies_are_measured_once() {
        let cases = standard_cases();
        let streams = cases.iter().filter(|case| case.answer != Answer::Whole);
        assert_eq!(streams.count(), 1);
        let large = cases.iter().filter(|case| case.body_bytes > 1_000);
        let read: Vec<_> = large.map(|case| case.reads_body).collect();
        assert_eq!(read, [false, true]);
        assert_eq!(cases.len(), 13);
        let workers: Vec<_> = worker_cases(&[1, 12]).iter().map(|c| c.workers).collect();
        assert_eq!(workers, [1, 12]);
    }

    #[test]
    fn seconds_have_a_range() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1_500)));
        for text in ["0", "-1", "nan", "soon", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
