//! The command line: one file a subcommand.

mod bench;
mod compare;
mod image;
mod load;
mod overhead;
mod page;
mod progress;
mod serve;
mod signals;
mod sweep;
mod up;

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
    Compare(compare::Args),
    Image(image::Args),
    Load(load::Args),
    Overhead(overhead::Args),
    Serve(serve::Args),
    Sweep(sweep::Args),
    Up(up::Args),
}

/// Does what the command line says.
///
/// # Errors
/// Names the place, the value and what is allowed.
pub(crate) fn run() -> anyhow::Result<()> {
    let Cli { command } = Cli::parse();
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Overhead(args) => overhead::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Up(args) => up::run(&args),
    }
}
