//! `paceline plan`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use lab::model::Fleet;
use lab::simulate::{Need, Offered, Plan, Policy, Scenario, needs};
use lab::workload::{WorkloadArgs, clamp_to_trace};

use crate::files::write;

/// Find out how many replicas each policy needs for a p99 goal.
///
/// Simulates fleets of different sizes, all under the same requests, and searches for the least that does: one whose p99, from the
/// first request on, is within the goal with 97.5 % confidence.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What a replica is: h100, a100, a40, slot, or a fleet (a preset or a JSON file) whose servers are taken in turn
    #[arg(long, value_name = "KIND|PRESET|FILE")]
    server: String,

    /// The goal: the p99 of the time to the whole answer, in seconds
    #[arg(long, value_name = "SECONDS")]
    p99: f64,

    #[command(flatten)]
    workload: WorkloadArgs,

    /// Requests per second; a trace has a rate of its own
    #[arg(long, value_name = "PER SECOND")]
    rate: Option<f64>,

    /// Requests in a run
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    requests: usize,

    /// Gateway processes
    #[arg(long, value_name = "COUNT", default_value = "1")]
    gateways: NonZeroUsize,

    /// Workers of each gateway
    #[arg(long, value_name = "COUNT", default_value = "1")]
    workers: NonZeroUsize,

    /// Policies to compare: paceline:NAME, and others as in docs/simulator.md
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_values = DEFAULT_POLICIES)]
    policies: Vec<Policy>,

    /// How many seeds
    #[arg(long, value_name = "COUNT", default_value = "5")]
    seeds: NonZeroUsize,

    /// Runs at a time, without it one for each processor; the figures do not depend on it
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,

    /// Where the figures are written as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const DEFAULT_POLICIES: [&str; 5] = [
    "envoy:round_robin",
    "envoy:least_request",
    "envoy:least_request_full_scan",
    "bound:added_delay",
    "paceline:shortest_expected_delay",
];

/// Searches, then tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        (0.000_001..=1e6).contains(&args.p99),
        "--p99: {} is not allowed: 0.000001 to 1000000 seconds",
        args.p99
    );
    let workload = args.workload.workload()?;
    let offered = match args.rate {
        Some(rate) => Offered::Rate(vec![rate]),
        None if workload.is_recorded() => Offered::Recorded,
        None => {
            bail!("--rate: nothing is not allowed: only recorded arrivals have a rate of their own")
        }
    };
    let requests = clamp_to_trace(&workload, args.requests);
    let mut scenario = Scenario::new(fleet(&args.server)?, workload, offered)?;
    scenario.set_requests(requests)?;
    scenario.gateways = vec![args.gateways.get()];
    scenario.workers = vec![args.workers.get()];
    scenario.seeds = args.seeds.get();
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let plan = Plan {
        scenario,
        p99: args.p99,
        threads,
    };
    let found: Vec<Need> = args
        .policies
        .iter()
        .map(|policy| plan.need(policy))
        .collect::<Result<_, _>>()?;
    println!("{}", needs(args.p99, &found));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&found)?;
        write(path, &format!("{text}\n"))?;
    }
    Ok(())
}

fn fleet(kind: &str) -> anyhow::Result<Fleet> {
    let one = match kind {
        "h100" | "a100" | "a40" => format!(r#""kind": "batching", "gpu": "{kind}""#),
        "slot" => r#""kind": "slots""#.to_owned(),
        _ => {
            return Fleet::load(kind)
                .context("--server: allowed are h100, a100, a40, slot or a fleet");
        }
    };
    let json = format!(r#"{{"servers": [{{"name": "{kind}", {one}}}]}}"#);
    Fleet::from_json(&json).context("--server")
}
