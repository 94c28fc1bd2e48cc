use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context as _;

use lab::simulate::{Policy, Scenario, run_case, table};

/// Simulate a fleet under several policies at virtual time.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A scenario's file.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// Policies to compare instead of the scenario's.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<Policy>,
    /// How many seeds, instead of the scenario's number.
    #[arg(long)]
    seeds: Option<NonZeroUsize>,
    /// Runs at a time; they change nothing but the time that it takes.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let path = &args.scenario;
    let json =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let directory = path.parent().unwrap_or(path);
    let scenario = Scenario::from_json(&name, &json, directory)?;
    let policies = if args.policies.is_empty() {
        &scenario.policies
    } else {
        &args.policies
    };
    let seeds = args.seeds.map_or(scenario.seeds, NonZeroUsize::get);
    for case in scenario.cases()? {
        let result = run_case(&case, policies, seeds, args.threads)?;
        println!("{}: {case}", scenario.name);
        println!("{}", table(&result));
    }
    Ok(())
}
