//! `lab serve`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::signals::end_signal;
use lab::model::{Control, Fleet, Loading};
use lab::serve::{Endpoint, FleetServer, Options};

/// Serve a fleet of emulated model servers over HTTP, each on a port of its own.
///
/// Once all of them listen, one line of JSON on standard output says where:
///
///   {"time_scale":1.0,"servers":[{"name":"h100-1","address":"127.0.0.1:40001","kind":"batching","model":"paceline-lab"}, ...]}
///
/// It runs until it is interrupted (Ctrl-C) or terminated.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// A preset or a JSON file
    ///
    /// Presets: unequal8 (2 H100, 4 A100 and 2 A40 LLM servers), equal8 (8 A100), slots8 (eight servers that take one
    /// request at a time, of speeds 1.7, 1 and 0.4), slots8-equal. The file's format is below.
    #[arg(long, value_name = "PRESET|FILE", default_value = "unequal8")]
    fleet: String,

    /// Serve this one of the fleet's servers alone
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// How many times faster than real life, 0.001 to 10000
    ///
    /// With 20, an answer that an H100 would take a second for comes after 50 ms. All times that servers are told or tell
    /// (x-service-ms, reload_seconds, /metrics) are the emulated ones.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,

    /// The address to listen on
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,

    /// The first server's port, the next one's is one more, and so on; 0 lets the system choose
    ///
    /// A `port` in the fleet file comes before it.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    base_port: u16,

    /// Also write the line of JSON to this file, once all servers listen
    ///
    /// It appears whole or not at all: a script can wait for it.
    #[arg(long, value_name = "FILE")]
    addresses: Option<PathBuf>,

    /// Decides which requests an `error_rate` hits
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// For so many seconds from the start, of the emulated time, all servers load their models
    #[arg(long, value_name = "SECONDS")]
    load_seconds: Option<f64>,

    /// What they answer while they load
    #[arg(long, value_enum, default_value_t = Loading::Unavailable)]
    loading: Loading,
}

const AFTER_HELP: &str = "\
What each server answers:
  POST /infer                 any request; headers (or fields of a JSON body) say how much work it is:
                              x-prompt-tokens (prompt_tokens), x-output-tokens (output_tokens), and for slot
                              servers x-service-ms (service_ms). x-request-size says how much memory it takes of a
                              device. Answers 4 bytes a token, with x-served-by: NAME.
  POST /v1/chat/completions   as OpenAI's, streaming too; so are POST /v1/completions and GET /v1/models.
  GET  /health                200 {\"status\":\"ready\"}, or 503 while loading, stopped or told not to be ready.
  GET  /metrics               Prometheus text, by vLLM's names.
  GET  /control               its state, load and counters.
  POST /control               one or more of
      {\"speed\": 0.25}                     four times slower from now on
      {\"mode\": \"stop\"}                    accept requests and answer none
      {\"mode\": {\"fail\": {\"status\": 503, \"retry_after_seconds\": 5}}}
      {\"mode\": \"drop\"}                    reset connections
      {\"ready\": false}                    /health says 503
      {\"error_rate\": 0.1}                 one request in ten fails with 500, or error_status
      {\"reload_seconds\": 30}              cold start: what runs is lost, 503 until it is over
      {\"reload_seconds\": 30, \"loading\": \"hang\"}   or nothing is answered, or \"says\": /health is 200
                                          {\"status\":\"loading\"}
      {\"normal\": true}                    back to normal
      {\"reset_counters\": true}

Fleet file:
  { \"servers\": [
      { \"name\": \"fast\", \"count\": 2, \"kind\": \"batching\", \"gpu\": \"h100\" },
      { \"name\": \"old\", \"kind\": \"batching\", \"gpu\": \"a40\", \"speed\": 0.9, \"kv_tokens\": 100000,
        \"max_sequences\": 128, \"token_budget\": 2048, \"max_waiting\": 500, \"model\": \"llama-8b\" },
      { \"name\": \"mine\", \"kind\": \"batching\", \"kv_tokens\": 200000,
        \"step_ms\": { \"b0\": 9.8, \"b1\": 0.02, \"c0\": 6.9, \"c1\": 0.0669, \"k\": 0.00008, \"h\": 3 } },
      { \"name\": \"painter\", \"kind\": \"slots\", \"slots\": 2, \"port\": 9001,
        \"service_ms\": { \"base\": 500, \"per_prompt_token\": 0, \"per_output_token\": 20 } } ] }
  Only name, kind and (batching) gpu, or step_ms with kv_tokens, are needed. A batching step takes
  max(b0 + b1 n, c0 + c1 n) + k context + h milliseconds for n tokens; gpu is h100, a100 or a40.

Servers that share a GPU:
  { \"devices\": [ { \"name\": \"gpu-0\", \"memory\": 4.0e10, \"reload_seconds\": 20 } ],
    \"servers\": [
      { \"name\": \"chat\", \"kind\": \"batching\", \"gpu\": \"a100\", \"device\": \"gpu-0\",
        \"memory\": { \"base\": 2.0e8, \"per_size\": 1.5e5 } },
      { \"name\": \"images\", \"kind\": \"slots\", \"slots\": 8, \"device\": \"gpu-0\", \"memory\": { \"base\": 6.0e9 } } ] }
  A request takes base + per_size x size bytes while it runs; its size is x-request-size, or else its prompt's tokens.
  When all together take more than there is, all servers of the device crash: what they have is reset, and until they
  have loaded again (20 s unless told otherwise) they answer 503. /metrics counts the crashes.

Example:
  lab serve --fleet equal8 --base-port 9001 --time-scale 10 &
  curl -i -d '{\"prompt_tokens\": 1000, \"output_tokens\": 50}' -H 'content-type: application/json' 127.0.0.1:9001/infer
  curl -d '{\"speed\": 0.25}' 127.0.0.1:9001/control";

#[derive(Serialize)]
struct Addresses<'a> {
    time_scale: f64,
    servers: &'a [Endpoint],
}

/// Serves until a signal comes.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    // Open-loop load on slow servers holds thousands of connections.
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let mut fleet = Fleet::load(&args.fleet).context("--fleet")?;
    if let Some(name) = &args.only {
        fleet = fleet.only(name).context("--only")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        // Before anybody can know that the servers run: a signal that comes at once must not be lost.
        let ended = end_signal()?;
        let servers = FleetServer::start(
            &fleet,
            &Options {
                host: args.host,
                base_port: args.base_port,
                time_scale: args.time_scale,
                seed: args.seed,
                begin: Control {
                    reload_seconds: args.load_seconds,
                    loading: Some(args.loading),
                    ..Control::default()
                },
            },
        )?;
        let addresses = serde_json::to_string(&Addresses {
            time_scale: args.time_scale,
            servers: servers.endpoints(),
        })?;
        writeln!(std::io::stdout(), "{addresses}").context("standard output")?;
        if let Some(path) = &args.addresses {
            write_whole(path, &addresses)
                .with_context(|| format!("--addresses {}", path.display()))?;
        }
        ended.await;
        Ok(())
    })
}

/// So that whoever waits for the file never reads half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{text}\n"))?;
    std::fs::rename(&partial, path)
}
