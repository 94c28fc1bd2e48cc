//! `paceline envoy`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::command_line;
use crate::dynamic;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::gateway::{Layout, Recipe, text};
use crate::gateway_options::{GatewayOptions, ServerOptions, address};

/// Write an Envoy configuration with Paceline for a list of servers.
///
/// The whole of it: listener, filter, routes with retries, clusters, tags of metrics, and the admin interface on loopback.
/// The filter's own code checks its configuration. Without --dynamic it is one file, on standard output unless --out names it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    servers: ServerOptions,

    #[command(flatten)]
    options: GatewayOptions,

    /// Where clients connect [default: 0.0.0.0:10000]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    listen: Option<SocketAddr>,

    /// Envoy's admin interface; whoever reaches it can stop Envoy [default: 127.0.0.1:9901]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    admin: Option<SocketAddr>,

    /// Where Envoy finds the filter [default: /etc/envoy/paceline.wasm]
    #[arg(long, value_name = "FILE")]
    filter: Option<String>,

    /// Write the configuration to this file
    #[arg(long, value_name = "FILE", conflicts_with = "dynamic")]
    out: Option<PathBuf>,

    /// Write three files into this directory, of which Envoy watches two: listeners and clusters change without a restart
    ///
    /// The directory also keeps gateway.json, by which later calls know the servers. They need --add, --remove, --config or a new
    /// list of servers; each waits until the running Envoy has taken over one file before it changes the next.
    #[arg(long, value_name = "DIR")]
    dynamic: Option<PathBuf>,

    /// With --dynamic: where Envoy sees the directory, if not by its own path
    #[arg(long, value_name = "DIR", requires = "dynamic")]
    mounted_at: Option<String>,

    /// With --dynamic: add a server, written as for --server, or where there are models as for --model
    #[arg(long, value_name = "[NAME=]URL,...", requires = "dynamic", conflicts_with_all = ["servers", "models", "endpoints"])]
    add: Vec<String>,

    /// With --dynamic: remove a server by its name or URL
    #[arg(long, value_name = "NAME,...", requires = "dynamic", value_delimiter = ',', conflicts_with_all = ["servers", "models", "endpoints"])]
    remove: Vec<String>,

    /// With --dynamic: no Envoy runs on the files, so there is none to wait for
    #[arg(long, requires = "dynamic")]
    offline: bool,

    /// With --dynamic: how many seconds to wait for Envoy at each step; to drain connections takes as long as its --drain-time-s
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "dynamic",
        default_value_t = 900
    )]
    wait: u64,
}

const EXAMPLES: &str = "Examples:
  paceline envoy --server http://gpu-a:8000 --server http://gpu-b:8000 > envoy.yaml
  paceline envoy --model llama=http://gpu-a:8000 --model qwen=http://gpu-b:8000 --out envoy.yaml
  paceline envoy --endpoints dns:gpus.models.svc.cluster.local:8000 --config pool.json
  paceline envoy --server http://gpu-a:8000 --dynamic /etc/envoy
  paceline envoy --dynamic /etc/envoy --add http://gpu-c:8000";

/// Where the filter is in the shipped files and in the images.
const FILTER: &str = "/etc/envoy/paceline.wasm";

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(directory) = &args.dynamic else {
        let recipe = args.recipe()?;
        let command = command_line::of(&recipe, args.options.config.as_deref(), &[]);
        let text = text::whole(&Layout::of(&recipe)?, &command)?;
        return match &args.out {
            Some(path) => files::write(path, &text),
            None => std::io::stdout()
                .write_all(text.as_bytes())
                .map_err(|error| {
                    Failure::new(Exit::NoOutput, format_args!("standard output: {error}"))
                }),
        };
    };
    let change = dynamic::Change {
        directory,
        mounted_at: args.mounted_at.as_deref(),
        offline: args.offline,
        wait: Duration::from_secs(args.wait),
    };
    match dynamic::read(directory)? {
        None if !(args.add.is_empty() && args.remove.is_empty()) => Err(Failure::usage(format!(
            "{}: nothing that `paceline envoy --dynamic` has written; begin with --server",
            directory.display()
        ))),
        None => change.begin(args.recipe()?),
        Some(state) => {
            let state = change.resume(state)?;
            let recipe = args.changed(state.recipe())?;
            print!("{}", change.go(state, recipe)?.servers());
            Ok(())
        }
    }
}

impl Args {
    fn recipe(&self) -> Result<Recipe, Failure> {
        self.options.recipe(
            self.servers.targets()?,
            self.listen.unwrap_or(Recipe::LISTEN),
            self.admin.unwrap_or(Recipe::ADMIN),
            self.filter.clone().unwrap_or_else(|| FILTER.to_owned()),
        )
    }

    /// What there is, changed by what is given.
    fn changed(&self, recipe: &Recipe) -> Result<Recipe, Failure> {
        let mut recipe = recipe.clone();
        if self.servers.are_given() {
            recipe.targets = self.servers.targets()?;
        }
        dynamic::add(&mut recipe, &self.add)?;
        dynamic::remove(&mut recipe, &self.remove)?;
        if self.options.config.is_some() {
            recipe.config = self.options.configuration()?;
        } else if !self.add.is_empty() || !self.remove.is_empty() {
            dynamic::refuse_own_upstreams(&recipe)?;
        }
        if let Some(header) = &self.options.model_header {
            recipe.model_header = Some(header.to_ascii_lowercase());
        }
        recipe.listen = self.listen.unwrap_or(recipe.listen);
        recipe.admin = self.admin.unwrap_or(recipe.admin);
        if self.options.no_status {
            recipe.status = None;
        } else if self.options.status.is_some() {
            recipe.status = self.options.status;
        }
        if let Some(filter) = &self.filter {
            recipe.filter.clone_from(filter);
        }
        if let Some(file) = &self.options.ca_file {
            recipe.ca_file.clone_from(file);
        }
        Ok(recipe)
    }
}
