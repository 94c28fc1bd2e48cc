//! `paceline simulate`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use lab::model::Fleet;
use lab::simulate::{
    CaseResult, Offered, Policy, Scenario, notes, overview, picture, run_case, table,
};
use lab::workload::{WorkloadArgs, clamp_to_trace};

use crate::files::write;

/// Simulate what policies do to the latency of a fleet.
///
/// At virtual time, in seconds: Paceline's policies are the filter's own code, the servers those of `lab serve`. Every policy gets
/// the same requests, and equal seeds give equal figures. Intervals hold a figure with 95 % confidence.
///
/// A scenario is a file, see docs/simulator.md; or give --fleet and what is asked of it.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["scenario", "all", "list", "fleet"])))]
pub(crate) struct Args {
    /// A scenario's file, or the name of one that is shipped
    #[arg(long, value_name = "FILE|NAME")]
    scenario: Option<String>,

    /// Simulate every shipped scenario, and sum up what the last policy of each did
    #[arg(long)]
    all: bool,

    /// List the shipped scenarios
    #[arg(long)]
    list: bool,

    /// Your own fleet: a preset (unequal8, equal8, slots8, slots8-equal) or a JSON file, see `lab serve --help`
    #[arg(long, value_name = "PRESET|FILE")]
    fleet: Option<String>,

    #[command(flatten)]
    workload: WorkloadArgs,

    /// With --fleet: the parts of what it can serve at most that are asked for, a case each
    #[arg(
        long,
        value_name = "SHARE,...",
        value_delimiter = ',',
        conflicts_with = "rate"
    )]
    load: Vec<f64>,

    /// With --fleet: requests per second, a case each; a trace has a rate of its own
    #[arg(long, value_name = "PER SECOND,...", value_delimiter = ',')]
    rate: Vec<f64>,

    /// With --fleet: requests in a run
    #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
    requests: usize,

    /// With --fleet: gateway processes, a case each
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "1"
    )]
    gateways: Vec<NonZeroUsize>,

    /// With --fleet: workers of each gateway, a case each
    #[arg(
        long,
        value_name = "COUNT,...",
        value_delimiter = ',',
        default_value = "1"
    )]
    workers: Vec<NonZeroUsize>,

    /// Policies to compare instead of the scenario's: paceline:NAME, and others as in docs/simulator.md
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',')]
    policies: Vec<Policy>,

    /// How many seeds, instead of the scenario's number
    #[arg(long, value_name = "COUNT")]
    seeds: Option<NonZeroUsize>,

    /// Runs at a time, without it one for each processor; the figures do not depend on it
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,

    /// Where the figures are written as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Where the latency distributions are drawn; of several cases each in a file of its own, NAME-1.svg and so on
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Document<'a> {
    scenarios: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    scenario: &'a str,
    description: &'a str,
    fleet: Vec<&'a str>,
    workload: String,
    offered: String,
    warm_up: f64,
    seeds: usize,
    cases: &'a [CaseResult],
}

/// Simulates, then tells.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        for name in Scenario::shipped() {
            println!("{name:22} {}", Scenario::load(name)?.description);
        }
        return Ok(());
    }
    let mut results = Vec::new();
    for scenario in args.scenarios()? {
        results.push(simulate(args, scenario)?);
    }
    if args.all {
        println!("{}", sum_up(&results));
    }
    if let Some(path) = &args.json {
        let scenarios = results.iter().map(|(it, cases)| entry(it, cases)).collect();
        let text = serde_json::to_string_pretty(&Document { scenarios })?;
        write(path, &format!("{text}\n"))?;
    }
    if let Some(path) = &args.svg {
        draw(path, &results)?;
    }
    Ok(())
}

fn simulate(args: &Args, mut scenario: Scenario) -> anyhow::Result<(Scenario, Vec<CaseResult>)> {
    if !args.policies.is_empty() {
        scenario.policies.clone_from(&args.policies);
    }
    scenario.seeds = args.seeds.map_or(scenario.seeds, NonZeroUsize::get);
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    println!("{}: {}", scenario.name, scenario.description);
    let mut cases = Vec::new();
    for case in scenario.cases()? {
        let result = run_case(&case, &scenario.policies, scenario.seeds, threads)?;
        println!("{case}");
        println!("{}", table(&result));
        for note in notes(&result) {
            println!("{note}");
        }
        cases.push(result);
    }
    Ok((scenario, cases))
}

impl Args {
    fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        if let Some(name) = &self.scenario {
            return Ok(vec![Scenario::load(name).context("--scenario")?]);
        }
        if let Some(fleet) = &self.fleet {
            return Ok(vec![self.own(fleet)?]);
        }
        let all = Scenario::shipped().map(|name| Scenario::load(name).context(name));
        all.collect()
    }

    /// The scenario that the options describe.
    fn own(&self, fleet: &str) -> anyhow::Result<Scenario> {
        let workload = self.workload.workload()?;
        let offered = match (&self.load[..], &self.rate[..]) {
            ([], []) if workload.is_recorded() => Offered::Recorded,
            ([], []) => Offered::Load(vec![0.7]),
            (loads, []) => Offered::Load(loads.to_vec()),
            (_, rates) => Offered::Rate(rates.to_vec()),
        };
        let counts = |counts: &[NonZeroUsize]| counts.iter().map(|it| it.get()).collect();
        let requests = clamp_to_trace(&workload, self.requests);
        let fleet = Fleet::load(fleet).context("--fleet")?;
        let mut scenario = Scenario::new(fleet, workload, offered)?;
        scenario.set_requests(requests)?;
        scenario.gateways = counts(&self.gateways);
        scenario.workers = counts(&self.workers);
        Ok(scenario)
    }
}

fn sum_up(results: &[(Scenario, Vec<CaseResult>)]) -> String {
    let last = results.iter().filter_map(|(it, _)| it.policies.last());
    let policy = last.map(Policy::to_string).next().unwrap_or_default();
    let named = results.iter().flat_map(|(scenario, cases)| {
        let name = scenario.name.as_str();
        cases.iter().map(move |case| (name, case))
    });
    let cases: Vec<(&str, &CaseResult)> = named.collect();
    format!("{policy}\n{}", overview(&policy, &cases))
}

fn entry<'a>(scenario: &'a Scenario, cases: &'a [CaseResult]) -> Entry<'a> {
    let servers = scenario.fleet.servers().iter();
    Entry {
        scenario: &scenario.name,
        description: &scenario.description,
        fleet: servers.map(|it| it.name.as_str()).collect(),
        workload: scenario.workload.to_string(),
        offered: scenario.offered.to_string(),
        warm_up: scenario.warm_up,
        seeds: scenario.seeds,
        cases,
    }
}

fn draw(path: &Path, results: &[(Scenario, Vec<CaseResult>)]) -> anyhow::Result<()> {
    let cases = || {
        results
            .iter()
            .flat_map(|(scenario, cases)| cases.iter().map(move |case| (scenario, case)))
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    ensure!(!stem.is_empty(), "--svg: {} names no file", path.display());
    let only = cases().count() == 1;
    for (number, (scenario, case)) in cases().enumerate() {
        let path = if only {
            path.to_owned()
        } else {
            path.with_file_name(format!("{stem}-{}.svg", number + 1))
        };
        let title = format!("{}: {}", scenario.name, case.case);
        write(&path, &picture(&title, case)?)?;
    }
    Ok(())
}
