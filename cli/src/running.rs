//! The Envoy that watches files which change.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::gateway::{Admin, Stats};
use tokio::runtime::Runtime;

use crate::failure::{Exit, Failure};
use crate::files;
use crate::gateway::text;

/// Time between two looks at a condition that is being waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often to say that something is still being waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A file that Envoy watches.
#[derive(Clone, Copy)]
pub(crate) enum Watched {
    Listeners,
    Clusters,
}

impl Watched {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Listeners => text::LISTENERS,
            Self::Clusters => text::CLUSTERS,
        }
    }

    fn counters(self) -> [&'static str; 2] {
        match self {
            Self::Listeners => [
                "listener_manager.lds.update_success",
                "listener_manager.lds.update_rejected",
            ],
            Self::Clusters => [
                "cluster_manager.cds.update_success",
                "cluster_manager.cds.update_rejected",
            ],
        }
    }

    /// What is still being prepared after an update.
    fn warming(self) -> &'static str {
        match self {
            Self::Listeners => "listener_manager.total_listeners_warming",
            Self::Clusters => "cluster_manager.warming_clusters",
        }
    }
}

/// A running Envoy, or none.
pub(crate) struct Running {
    envoy: Option<(Runtime, Admin, SocketAddr)>,
    wait: Duration,
}

impl Running {
    /// The Envoy at this address; with `offline` there is none.
    pub(crate) fn find(
        address: SocketAddr,
        offline: bool,
        wait: Duration,
    ) -> Result<Self, Failure> {
        if offline {
            return Ok(Self { envoy: None, wait });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)?;
        let admin = Admin::new(address);
        let found = Self {
            envoy: Some((runtime, admin, address)),
            wait,
        };
        found.stats()?;
        Ok(found)
    }

    /// What became of a replaced file.
    pub(crate) fn taken_over(&self) -> &'static str {
        match self.envoy {
            Some(_) => "Envoy has taken it over",
            None => "replaced",
        }
    }

    /// Replaces a file, and waits until Envoy has taken it over.
    pub(crate) fn replace(&self, what: Watched, path: &Path, text: &str) -> Result<(), Failure> {
        let before = self.stats()?;
        files::replace(path, text)?;
        let [success, rejected] = what.counters();
        let grown = |now: &Stats, name: &str| now.total(name) > before.total(name);
        self.until(&format!("Envoy to take over {}", path.display()), |now| {
            if grown(now, rejected) {
                return Err(Failure::new(
                    Exit::Refused,
                    format_args!("{}: Envoy refuses it and keeps the old one, which is back; its log says why", path.display()),
                ));
            }
            Ok(grown(now, success) && now.total(what.warming()) == 0)
        })
    }

    /// Waits until no connection is left that began before the last change of the
    /// listener: requests on it may still go anywhere that the old one named.
    pub(crate) fn wait_until_drained(&self) -> Result<(), Failure> {
        const DRAINING: [&str; 2] = [
            "listener_manager.total_filter_chains_draining",
            "listener_manager.total_listeners_draining",
        ];
        self.until(
            "Envoy to drain old connections, for its --drain-time-s (600 s by default)",
            |now| Ok(DRAINING.iter().all(|name| now.total(name) == 0)),
        )
    }

    fn until(
        &self,
        what: &str,
        done: impl Fn(&Stats) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let Some((_, _, address)) = &self.envoy else {
            return Ok(());
        };
        let (begin, mut told) = (Instant::now(), Instant::now());
        while !done(&self.stats()?)? {
            if begin.elapsed() > self.wait {
                return Err(Failure::unavailable(format!(
                    "waited {} s for {what}, in vain; does the Envoy at {address} read this directory? \
                     `paceline envoy --dynamic` with the directory alone goes on from here",
                    self.wait.as_secs()
                )));
            }
            if told.elapsed() > PATIENCE {
                eprintln!("waiting for {what}");
                told = Instant::now();
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn stats(&self) -> Result<Stats, Failure> {
        let Some((runtime, admin, address)) = &self.envoy else {
            return Ok(Stats::default());
        };
        runtime.block_on(admin.stats()).map_err(|error| {
            Failure::unavailable(format!(
                "no Envoy at {address} to wait for ({error}); give its admin interface with --admin, or --offline if none runs"
            ))
        })
    }
}
