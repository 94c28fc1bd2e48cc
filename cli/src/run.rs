//! `paceline run`.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use lab::gateway::{Admin, GatewayError, filter_module};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::command_line::{self, shell};
use crate::end_signals::EndSignals;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::gateway::{Layout, Recipe, Targets, text};
use crate::gateway_options::{GatewayOptions, ServerOptions, address};

/// Start an Envoy with Paceline in front of a list of servers, and say what to try.
///
/// In the foreground, until it is interrupted (Ctrl-C) or terminated. Without a configuration of your own, every answer says in
/// x-paceline-decision where it was sent and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    servers: ServerOptions,

    #[command(flatten)]
    options: GatewayOptions,

    /// Where clients connect; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address, default_value = "127.0.0.1:10000")]
    listen: SocketAddr,

    /// Envoy's admin interface; whoever reaches it can stop Envoy
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address, default_value_t = Recipe::ADMIN)]
    admin: SocketAddr,

    /// The Envoy to run, if not the one on the PATH
    #[arg(long, value_name = "FILE", env = "PACELINE_ENVOY")]
    envoy: Option<PathBuf>,

    /// The filter, if not the one that is built in this checkout
    #[arg(long, value_name = "FILE", env = "PACELINE_WASM")]
    filter: Option<PathBuf>,

    /// Options of Envoy's own, such as -- --concurrency 2 --log-level info
    #[arg(last = true, value_name = "ENVOY OPTION")]
    more: Vec<String>,
}

/// How long Envoy may take to accept requests, and to end.
const START_DEADLINE: Duration = Duration::from_secs(60);
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at a condition that is being waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let recipe = args.recipe()?;
    let layout = Layout::of(&recipe)?;
    let config = args.options.config.as_deref();
    let text = text::whole(&layout, &command_line::of(&recipe, config, &[]))?;
    let envoy = args.envoy()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    runtime.block_on(serve(args, &recipe, &text, &envoy))
}

async fn serve(args: &Args, recipe: &Recipe, text: &str, envoy: &Path) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(anyhow::Error::from)?;
    let config = directory.path().join("envoy.yaml");
    files::write(&config, text)?;
    let admin_file = directory.path().join("admin-address");
    // Before Envoy starts: from here on no signal ends this process without it.
    let mut signals = EndSignals::listen()?;
    let mut command = Command::new(envoy);
    command
        .arg("--config-path")
        .arg(&config)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .args(["--use-dynamic-base-id", "--log-level", "warning"])
        .args(["--component-log-level", "wasm:info"])
        .args(&args.more)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Failure::unavailable(format!("cannot run {}: {error}", envoy.display()))
    })?;

    let start = tokio::time::timeout(START_DEADLINE, ready(&mut child, &admin_file));
    let admin = tokio::select! {
        () = signals.next() => return end(child, &mut signals).await,
        admin = start => match admin {
            Ok(admin) => admin?,
            Err(_) => {
                end(child, &mut signals).await?;
                return Err(Failure::unavailable(format!("Envoy was not ready after {START_DEADLINE:?}")));
            }
        },
    };
    let unavailable = |error: GatewayError| Failure::unavailable(error.to_string());
    let envoy = Admin::new(admin);
    let listener = envoy
        .listener_address("ingress")
        .await
        .map_err(unavailable)?;
    let status = match recipe.status {
        Some(_) => Some(
            envoy
                .listener_address("status")
                .await
                .map_err(unavailable)?,
        ),
        None => None,
    };
    write!(
        std::io::stdout(),
        "{}",
        guide(recipe, listener, admin, status)
    )
    .map_err(|error| Failure::new(Exit::NoOutput, format_args!("standard output: {error}")))?;
    tokio::select! {
        () = signals.next() => end(child, &mut signals).await,
        status = child.wait() => Err(ended(status)),
    }
}

/// Waits until Envoy accepts requests; gives its admin interface.
async fn ready(child: &mut Child, admin_file: &Path) -> Result<SocketAddr, Failure> {
    loop {
        if let Some(status) = child.try_wait().map_err(anyhow::Error::from)? {
            return Err(ended(Ok(status)));
        }
        let written = std::fs::read_to_string(admin_file).unwrap_or_default();
        if let Ok(address) = written.trim().parse()
            && Admin::new(address).is_ready().await
        {
            return Ok(address);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> Failure {
    let how = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Failure::unavailable(format!("Envoy ended ({how}); what it said is above"))
}

/// Asks Envoy to end, and waits for it; kills it if it does not, or when a second
/// signal comes.
async fn end(mut child: Child, signals: &mut EndSignals) -> Result<(), Failure> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(process) = id.and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself; a terminal's Ctrl-C reaches it, too.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
    tokio::select! {
        _ = child.wait() => return Ok(()),
        () = signals.next() => {}
        () = tokio::time::sleep(END_DEADLINE) => {}
    }
    child
        .kill()
        .await
        .map_err(|error| Failure::from(anyhow::Error::from(error)))
}

impl Args {
    fn recipe(&self) -> Result<Recipe, Failure> {
        let filter = match &self.filter {
            Some(path) if path.is_file() => path.clone(),
            Some(path) => {
                let why = format_args!("--filter: no file {}", path.display());
                return Err(Failure::new(Exit::NoInput, why));
            }
            None => filter_module()
                .map_err(|error| Failure::new(Exit::NoInput, format_args!("{error}")))?,
        };
        let filter = std::path::absolute(&filter).map_err(anyhow::Error::from)?;
        let filter = filter.display().to_string();
        let targets = self.servers.targets()?;
        let mut recipe = self
            .options
            .recipe(targets, self.listen, self.admin, filter)?;
        if self.options.config.is_none() {
            recipe.config.insert("explain".to_owned(), json!(true));
        }
        Ok(recipe)
    }

    fn envoy(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.envoy {
            return match path.is_file() {
                true => Ok(path.clone()),
                false => Err(Failure::unavailable(format!(
                    "--envoy: no file {}",
                    path.display()
                ))),
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|it| it.join("envoy"));
        found.into_iter().find(|it| it.is_file()).ok_or_else(|| {
            Failure::unavailable(
                "no envoy on the PATH: name one with --envoy or PACELINE_ENVOY; in a checkout `make setup` installs one",
            )
        })
    }
}

/// What to try.
fn guide(
    recipe: &Recipe,
    listener: SocketAddr,
    admin: SocketAddr,
    status: Option<SocketAddr>,
) -> String {
    let url = format!("http://{}", reachable(listener));
    let admin_option = match admin == Recipe::ADMIN {
        true => String::new(),
        false => format!(" --admin {}", reachable(admin)),
    };
    let model = recipe.servers().iter().find_map(|it| it.model.as_deref());
    let request = match (model, &recipe.model_header) {
        (Some(model), Some(header)) => {
            format!(
                "curl -i -H {} {url}/v1/models",
                shell(&format!("{header}: {model}"))
            )
        }
        (Some(model), None) => {
            let body = json!({ "model": model, "prompt": "Hello", "max_tokens": 16 });
            format!(
                "curl -i -H 'content-type: application/json' -d {} {url}/v1/completions",
                shell(&body.to_string())
            )
        }
        (None, _) => format!("curl -i {url}/v1/models"),
    };
    let page = status.map(|status| {
        let status = reachable(status);
        format!("\nThe same as a page, in a browser:\n  http://{status}/paceline\n")
    });
    let page = page.unwrap_or_default();
    let mut text = format!(
        "Envoy with Paceline listens at {url}\n\
         \n\
         A request; x-paceline-decision says where it went and why:\n  {request}\n\
         \n\
         What it does, as it happens:\n  paceline top{admin_option}\n\
         {page}\
         \n\
         Its metrics:\n  curl 'http://{}/stats?filter=paceline'\n\
         \n\
         The servers:\n",
        reachable(admin)
    );
    match &recipe.targets {
        Targets::Endpoints(server) => text.push_str(&format!("  the addresses of {server}\n")),
        Targets::Servers(servers) => {
            for server in servers {
                text.push_str(&format!("  {:<16} {}\n", server.name, server.url));
            }
        }
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}

/// An address to connect to: all addresses include this one.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
        }
        _ => address,
    }
}
