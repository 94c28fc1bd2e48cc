//! `lab sweep`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use lab::bench::SWEEPS;

use super::page::Page;

/// Try other values of the constants that the default policy has, in the simulator.
///
/// A row a value; a cell has p99, then mean over the whole run, over those with the filter's own value (bold) on the same requests, with
/// intervals of 95 % confidence. Equal on every machine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// These constants alone
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(SWEEPS.map(|it| it.name)))]
    only: Vec<String>,

    /// The page to write the tables into, each into its own part
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,

    /// Runs at a time, without it one for each processor; the figures do not depend on it
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|it| it == name);
    let sweeps = || SWEEPS.iter().filter(|sweep| wanted(sweep.name));
    let page = Page::open(args.page.as_deref(), sweeps().map(|sweep| sweep.name))?;
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    for sweep in sweeps() {
        let table = sweep.run(threads)?;
        println!("{table}\n");
        page.set(sweep.name, &table)?;
    }
    Ok(())
}
