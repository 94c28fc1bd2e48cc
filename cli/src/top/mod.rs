//! `paceline top`.

mod picture;
mod screen;
mod snapshot;
mod told;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::gateway::{Admin, Stats};
use tokio::runtime::Runtime;

use crate::failure::Failure;
use crate::gateway::Recipe;
use crate::gateway_options::address;
use snapshot::{Rates, Snapshot};
use told::{Page, Told};

/// Show what a running Envoy with Paceline does: pools, upstreams, picks, failures, quantiles,
/// who is not ready, ejected or warming, and how full the caps are.
///
/// In the terminal it is refreshed in place; q ends it, arrows and page keys scroll. Elsewhere it is plain text, a block each time.
/// It reads Envoy's /stats and changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Envoy's admin interface
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address, default_value_t = Recipe::ADMIN)]
    admin: SocketAddr,

    /// The status page, for each upstream's pace and the last decisions as well, such as
    /// http://127.0.0.1:9902/paceline
    #[arg(long, value_name = "URL", value_parser = Page::parse)]
    status: Option<Page>,

    /// Seconds between two looks, over which rates are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,

    /// Look for one interval, print it, and end
    #[arg(long)]
    once: bool,
}

/// All that is Paceline's, and nothing else: an Envoy may have many metrics.
const PATH: &str = "/stats?format=json&filter=paceline_";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give 0.1 to 3600".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let envoy = Envoy::new(args)?;
    let interval = Duration::from_secs_f64(args.interval);
    // An Envoy that is not there at all is told at once, and not in a picture.
    let first = envoy.look()?;
    if std::io::stdout().is_terminal() && !args.once {
        return screen::show(&envoy, first, interval);
    }
    let mut before = first;
    loop {
        std::thread::sleep(interval);
        let now = envoy.look()?;
        let lines = picture::lines(
            &Rates::between(&before, &now),
            now.told.as_ref(),
            envoy.address,
        );
        let text = format!("{}\n\n", lines.join("\n"));
        // Nobody reads on: `paceline top | head`.
        if std::io::stdout().write_all(text.as_bytes()).is_err() || args.once {
            return Ok(());
        }
        before = now;
    }
}

/// The admin interface of an Envoy.
struct Envoy {
    runtime: Runtime,
    admin: Admin,
    address: SocketAddr,
    status: Option<Page>,
}

impl Envoy {
    fn new(args: &Args) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)?;
        Ok(Self {
            runtime,
            admin: Admin::new(args.admin),
            address: args.admin,
            status: args.status.clone(),
        })
    }

    /// Its metrics of this moment.
    fn look(&self) -> Result<Snapshot, Failure> {
        let unavailable = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!(
                "{}: {error}; name Envoy's admin interface with --admin",
                self.address
            ))
        };
        let answer = self.runtime.block_on(self.admin.get(PATH));
        let answer = answer.map_err(|error| unavailable(&error))?;
        let stats = Stats::from_json(&answer).map_err(|error| unavailable(&error))?;
        if stats.iter().next().is_none() {
            return Err(unavailable(&"this Envoy has no metrics of Paceline"));
        }
        let mut snapshot = Snapshot::of(&stats, Instant::now());
        snapshot.told = self
            .status
            .as_ref()
            .map(|page| self.ask(page))
            .transpose()?;
        Ok(snapshot)
    }

    /// What the status page tells.
    fn ask(&self, page: &Page) -> Result<Told, Failure> {
        let unavailable = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!(
                "{}: {error}; name the status page with --status",
                page.address
            ))
        };
        // It speaks the same HTTP as the admin interface.
        let answer = self
            .runtime
            .block_on(Admin::new(page.address).get(&page.json()));
        let answer = answer.map_err(|error| unavailable(&error))?;
        serde_json::from_str(&answer).map_err(|error| unavailable(&error))
    }
}
