//! Runs a scenario: all contenders at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::contender::Contender;
use super::scenario::{Check, Event, Scenario};
use crate::gateway::{Gateway, GatewayError, Upstream};
use crate::load::{Lateness, LoadError, Record, Settings, drive};
use crate::serve::{FleetServer, Options, ServeError, StartError};
use crate::workload::WorkloadError;

/// What a contender did in a scenario.
#[derive(Clone, Debug)]
pub struct Run {
    /// Who it is.
    pub contender: Contender,
    /// Every request.
    pub records: Vec<Record>,
    /// How often it ejected a server.
    pub ejections: u64,
    /// How late the generator was.
    pub lateness: Lateness,
}

impl Run {
    /// Whether the generator was so late that the figures are its own. Where only ends count, or whether an answer takes longer than a
    /// second, it may be later than where latency itself is asked for.
    #[must_use]
    pub fn is_spoilt(&self, scenario: &Scenario) -> bool {
        match scenario.check {
            Check::Tail { .. } => !self.lateness.is_valid(),
            _ => self.lateness.p99 > MAX_DELAY || self.lateness.unsent > 0,
        }
    }
}

/// A quarter of the shortest time that is asked for, other than of a tail.
const MAX_DELAY: Duration = Duration::from_millis(250);

/// A scenario that cannot be run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says it itself")]
pub enum FaultError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Servers(#[from] StartError),
    #[error(transparent)]
    Told(#[from] ServeError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// Runs these scenarios, and in each all contenders, at the same time. The runs of each come in the order of its contenders.
///
/// # Errors
/// Whatever goes wrong with servers, Envoy or the generator; what goes wrong with a request is part of the result.
pub async fn run_together(scenarios: &[Scenario]) -> Result<Vec<Vec<Run>>, FaultError> {
    // All must be there before the first request: an Envoy's start takes a core for a while.
    let mut prepared = Vec::new();
    for scenario in scenarios {
        let shared = Arc::new(scenario.clone());
        for contender in &scenario.contenders {
            prepared.push(Prepared::start(Arc::clone(&shared), *contender).await?);
        }
    }
    let mut running = JoinSet::new();
    for (number, prepared) in prepared.into_iter().enumerate() {
        running.spawn(async move { (number, prepared.run().await) });
    }
    let mut runs = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        // A task neither panics nor is it aborted.
        let (number, run) = ended.map_err(|_| LoadError::Ended)?;
        runs.insert(number, run?);
    }
    let mut runs = runs.into_values();
    let of_scenario = |it: &Scenario| runs.by_ref().take(it.contenders.len()).collect();
    Ok(scenarios.iter().map(of_scenario).collect())
}

/// A contender with its servers and its Envoy, before the first request.
struct Prepared {
    scenario: Arc<Scenario>,
    contender: Contender,
    servers: FleetServer,
    upstreams: Vec<Upstream>,
    gateway: Gateway,
}

impl Prepared {
    async fn start(scenario: Arc<Scenario>, contender: Contender) -> Result<Self, FaultError> {
        let servers = FleetServer::start(&scenario.fleet, &Options::default())?;
        let upstreams: Vec<_> = servers
            .endpoints()
            .iter()
            .map(|endpoint| Upstream {
                name: endpoint.name.clone(),
                address: endpoint.address,
            })
            .collect();
        let joins = scenario.joins();
        let members = upstreams.len() - usize::from(joins);
        let topology = contender.topology(&upstreams, members, scenario.setup, joins)?;
        let gateway = Gateway::start(&topology).await?;
        Ok(Self {
            scenario,
            contender,
            servers,
            upstreams,
            gateway,
        })
    }

    async fn run(mut self) -> Result<Run, FaultError> {
        let scenario = Arc::clone(&self.scenario);
        let count = (scenario.rate * scenario.span.as_secs_f64()) as usize;
        let requests = scenario.workload.requests(count, Some(scenario.rate), 1)?;
        let settings = Settings {
            timeout: scenario.patience,
            warm_up: 0.0,
            max_outstanding: 20_000,
            keeps_records: true,
            ..Settings::new(self.gateway.address().into())
        };
        let start = Instant::now();
        let (measurement, ()) = tokio::try_join!(
            async {
                drive(requests, settings, |_| {})
                    .await
                    .map_err(FaultError::from)
            },
            self.let_happen(start),
        )?;
        Ok(Run {
            contender: self.contender,
            lateness: measurement.lateness(),
            records: measurement.records,
            ejections: self.ejections().await?,
        })
    }

    async fn let_happen(&mut self, start: Instant) -> Result<(), FaultError> {
        let scenario = Arc::clone(&self.scenario);
        for (at, event) in &scenario.events {
            sleep_until(start + *at).await;
            match event {
                Event::Tell(number, control) => {
                    if let Some(server) = self.upstreams.get(*number) {
                        self.servers.control(&server.name, control)?;
                    }
                }
                Event::Join => self.join().await?,
            }
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<(), FaultError> {
        let all = &self.upstreams;
        match self.contender {
            Contender::Paceline => {
                let setup = self.scenario.setup;
                let topology = self.contender.topology(all, all.len(), setup, true)?;
                self.gateway.reconfigure(&topology).await?;
            }
            Contender::Guarded | Contender::Plain => self.gateway.set_endpoints(all).await?,
        }
        Ok(())
    }

    async fn ejections(&self) -> Result<u64, FaultError> {
        let stats = self.gateway.stats().await?;
        let envoys = stats.iter().filter(|it| {
            it.name
                .ends_with(".outlier_detection.ejections_enforced_total")
        });
        let envoys: u64 = envoys.map(|it| it.value).sum();
        Ok(envoys + stats.total("paceline_ejections_total"))
    }
}

impl Scenario {
    /// Whether a server joins.
    fn joins(&self) -> bool {
        let joins = |it: &(Duration, Event)| matches!(it.1, Event::Join);
        self.events.iter().any(joins)
    }
}
