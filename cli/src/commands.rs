//! The commands, each of which has a file.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::failure::{Exit, Failure};
use crate::{check, envoy, istio, plan, run, schema, simulate, top};

/// Paceline: a load balancer for model serving in Envoy and Istio.
///
/// Writes, checks and runs gateways, and plans fleets.
#[derive(Debug, Parser)]
#[command(name = "paceline", version, about, after_help = Exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Envoy(envoy::Args),
    Istio(istio::Args),
    Run(run::Args),
    Top(top::Args),
    Check(check::Args),
    Schema(schema::Args),
    Plan(plan::Args),
    Simulate(simulate::Args),
    Completion(Completion),
}

/// Print a script that completes this command in a shell.
///
/// For bash: paceline completion bash > ~/.local/share/bash-completion/completions/paceline
#[derive(Debug, clap::Args)]
struct Completion {
    /// The shell
    shell: clap_complete::Shell,
}

/// Why a command ended early.
pub(crate) enum Stopped {
    /// The command line, or a wish for help.
    Parser(clap::Error),
    /// Anything else.
    Failure(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Does what the command line says.
pub(crate) fn run() -> Result<(), Stopped> {
    let cli = Cli::try_parse().map_err(Stopped::Parser)?;
    match cli.command {
        Command::Envoy(args) => envoy::run(&args)?,
        Command::Istio(args) => istio::run(&args)?,
        Command::Run(args) => run::run(&args)?,
        Command::Top(args) => top::run(&args)?,
        Command::Check(args) => check::run(&args)?,
        Command::Schema(args) => schema::run(&args)?,
        Command::Plan(args) => plan::run(&args).map_err(Failure::from)?,
        Command::Simulate(args) => simulate::run(&args).map_err(Failure::from)?,
        Command::Completion(args) => {
            let mut command = Cli::command();
            clap_complete::generate(args.shell, &mut command, "paceline", &mut std::io::stdout());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
