//! The command line: one file a subcommand.

mod bench;
mod open_files;
mod serve;
mod simulate;

use clap::{Parser, Subcommand};

/// Emulated model servers, open-loop load and side-by-side comparisons for Paceline.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Serve(serve::Args),
    Simulate(simulate::Args),
}

/// Does what the command line says.
///
/// # Errors
/// Names the place, the value and what is allowed.
pub(crate) fn run() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    open_files::raise_limit();
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Simulate(args) => simulate::run(&args),
    }
}
