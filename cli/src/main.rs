//! The `paceline` command: what those need who run a gateway.

mod check;
mod command_line;
mod commands;
mod dynamic;
mod end_signals;
mod envoy;
mod failure;
mod files;
mod gateway;
mod gateway_options;
mod istio;
mod plan;
mod run;
mod running;
mod schema;
mod simulate;
mod top;

use std::process::ExitCode;

use failure::Exit;

fn main() -> ExitCode {
    match commands::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(commands::Stopped::Parser(error)) => {
            // Help and the version are no errors.
            let code = if error.use_stderr() {
                Exit::Usage as u8
            } else {
                0
            };
            // Where it cannot be printed, nobody reads that either.
            let _ = error.print();
            ExitCode::from(code)
        }
        Err(commands::Stopped::Failure(failure)) => {
            eprintln!("paceline: {failure}");
            failure.code()
        }
    }
}
