//! `lab up`.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, bail};
use serde_json::json;

use lab::gateway::{Balancing, Gateway, Topology, filter_module};
use lab::model::Fleet;
use lab::serve::{Endpoint, FleetServer, Options};

use super::signals::end_signal;

/// Run emulated model servers and an Envoy with Paceline in front of them, and say what to try.
///
/// Everything listens on loopback, on ports that the system chooses. It runs until it is interrupted (Ctrl-C) or terminated.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The servers: a preset (unequal8, equal8, slots8, slots8-equal) or a JSON file, see `lab serve --help`
    #[arg(long, value_name = "PRESET|FILE", default_value = "unequal8")]
    fleet: String,

    /// How many times faster than real life, 0.001 to 10000
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,

    /// Envoy's worker threads
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
}

/// Runs until a signal comes, or Envoy ends.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let fleet = Fleet::load(&args.fleet).context("--fleet")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let ended = end_signal()?;
        let options = Options {
            time_scale: args.time_scale,
            ..Options::default()
        };
        let servers = FleetServer::start(&fleet, &options)?;
        let endpoints = servers.endpoints();
        let mut gateway = Gateway::start(&topology(endpoints, args.workers)?).await?;
        write!(std::io::stdout(), "{}", guide(&gateway, endpoints)).context("standard output")?;
        tokio::select! {
            () = ended => Ok(()),
            error = gateway.ended() => bail!(error),
        }
    })
}

fn topology(servers: &[Endpoint], workers: u32) -> anyhow::Result<Topology> {
    let upstreams: Vec<_> = servers
        .iter()
        .map(|server| json!({ "cluster": server.name }))
        .collect();
    let balancing = Balancing::Filter {
        module: filter_module()?,
        config: json!({ "upstreams": upstreams, "explain": true }).to_string(),
    };
    let addresses = servers.iter().map(|server| (&*server.name, server.address));
    let mut topology = Topology::new(addresses, balancing);
    topology.workers = workers;
    Ok(topology)
}

/// What to try.
fn guide(gateway: &Gateway, servers: &[Endpoint]) -> String {
    let (url, admin) = (gateway.url(), gateway.admin_url());
    let mut text = format!(
        "Envoy with Paceline: {url}, its admin interface: {admin}\n\
         \n\
         A request; x-paceline-decision says where it went and why:\n  \
         curl -i -H 'x-prompt-tokens: 500' -H 'x-output-tokens: 20' -d '' {url}/infer\n"
    );
    // Writing to a String cannot fail.
    if let Some(server) = servers.first() {
        let Endpoint {
            name,
            address,
            model,
            ..
        } = server;
        let _ = write!(
            text,
            "\n\
             The same as a chat, streamed:\n  \
             curl -N -H 'content-type: application/json' {url}/v1/chat/completions \\\n    \
             -d '{{\"model\": \"{model}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}], \
             \"max_tokens\": 20, \"stream\": true}}'\n\
             \n\
             What Paceline has done:\n  \
             curl '{admin}/stats?filter=paceline'\n\
             \n\
             Make {name} four times slower, and normal again:\n  \
             curl -d '{{\"speed\": 0.25}}' http://{address}/control\n  \
             curl -d '{{\"normal\": true}}' http://{address}/control\n"
        );
    }
    text.push_str("\nThe servers:\n");
    for server in servers {
        let _ = writeln!(text, "  {:<10} http://{}", server.name, server.address);
    }
    text
}
