use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use paceline::outcome::Outcome;
use serde_json::{Value, json};

use crate::bench::closed_loop::DriveError;
use crate::gateway::{Balancing, Gateway, GatewayError, Topology, filter_module};
use crate::load::{LoadError, Settings, drive};
use crate::model::{Fleet, Time};
use crate::serve::{FleetServer, Options, StartError};
use crate::simulate::{Call, Caller, Ending, Figures, ScenarioError};
use crate::workload::Request;

/// What nothing was measured for.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum WaitError {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("the emulated servers: {0}")]
    Serve(#[from] StartError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error("the server behind Envoy: {0}")]
    System(#[from] std::io::Error),
    #[error("{0}")]
    Impossible(String),
}

/// Who balances.
#[derive(Clone, Debug)]
pub(super) enum Balancer {
    /// Envoy's `LEAST_REQUEST`, with its default of two choices.
    LeastRequest,
    /// The filter with a cap of one for each server, and this as its `admission`; sizes are in the header if `sized`.
    Paceline { admission: Value, sized: bool },
}

/// What a run happens on.
#[derive(Clone, Debug)]
pub(super) struct Stage<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) callers: &'a [Caller],
    /// Envoy's worker threads.
    pub(super) workers: u32,
    /// Seconds of emulated time in a second of real time.
    pub(super) time_scale: f64,
    /// Emulated time after which clients give up.
    pub(super) patience: Duration,
}

/// What became of the calls of a run, in their order, as the simulator tells it.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    pub(super) endings: Vec<Ending>,
    /// What makes the figures void.
    pub(super) remarks: Vec<String>,
}

const DEADLINE: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// The part of a run's requests that comes first and is not counted.
const WARM_UP: f64 = 0.1;
/// A request that no client gives up.
pub(super) const FOR_EVER: Duration = Duration::from_secs(36_000);

/// No request of a run is left out because too many are outstanding.
const MOST_OUTSTANDING: usize = 20_000;

impl Balancer {
    /// The filter with this `admission`, which is told of no sizes.
    pub(super) fn paceline(admission: Value) -> Self {
        Self::Paceline {
            admission,
            sized: false,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::LeastRequest => "LEAST_REQUEST",
            Self::Paceline { .. } => "Paceline",
        }
    }

    fn balancing(&self, fleet: &Fleet) -> Result<Balancing, GatewayError> {
        let (admission, sized) = match self {
            Self::LeastRequest => return Ok(Balancing::LeastRequest { choice_count: 2 }),
            Self::Paceline { admission, sized } => (admission, *sized),
        };
        let servers = fleet.servers().iter();
        let upstreams: Vec<Value> = servers
            .map(|server| json!({ "cluster": server.name, "max_in_flight": 1 }))
            .collect();
        let mut config = json!({ "upstreams": upstreams, "admission": admission });
        if let (true, Some(config)) = (sized, config.as_object_mut()) {
            let size = json!({ "header": "x-request-size" });
            config.insert("request_size".to_owned(), size);
        }
        Ok(Balancing::Filter {
            module: filter_module()?,
            config: config.to_string(),
        })
    }
}

impl Stage<'_> {
    /// Real time, as a configuration has it.
    pub(super) fn real(&self, emulated: Duration) -> String {
        let real = emulated.div_f64(self.time_scale).as_micros();
        format!("{real}us")
    }

    /// Sends the calls to new servers behind a new Envoy.
    pub(super) async fn run(&self, balancer: &Balancer, calls: &[Call]) -> Result<Ran, WaitError> {
        let options = Options {
            time_scale: self.time_scale,
            ..Options::default()
        };
        let servers = FleetServer::start(self.fleet, &options)?;
        let upstreams = servers.endpoints().iter();
        let upstreams = upstreams.map(|it| (it.name.clone(), it.address));
        let mut topology = Topology::new(upstreams, balancer.balancing(self.fleet)?);
        topology.workers = self.workers;
        topology.retries = false;
        let gateway = Gateway::start(&topology).await?;
        let settings = Settings {
            headers: calls.iter().map(|call| self.headers(call)).collect(),
            time_scale: self.time_scale,
            timeout: self.patience,
            warm_up: 0.0,
            max_outstanding: MOST_OUTSTANDING,
            keeps_records: true,
            ..Settings::new(gateway.address().into())
        };
        let requests = calls.iter().map(request).collect();
        let measurement = drive(requests, settings, |_| {}).await?;

        let mut endings: Vec<Ending> = calls.iter().map(|call| unanswered(call.arrival)).collect();
        for record in &measurement.records {
            if let Some(ending) = endings.get_mut(record.index) {
                ending.end = Some(ending.sent + record.took);
                if record.is_success() {
                    ending.outcome = Outcome::Success;
                }
            }
        }
        let lateness = measurement.lateness();
        let late = (!lateness.is_valid()).then(|| format!("{}: {lateness}", balancer.name()));
        let passed = gateway.stats().await?.total("paceline_pass_through_total");
        let passed = (passed > 0).then(|| format!("{passed} requests passed through"));
        Ok(Ran {
            endings,
            remarks: late.into_iter().chain(passed).collect(),
        })
    }

    fn headers(&self, call: &Call) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(caller) = self.callers.get(call.caller) else {
            return headers;
        };
        if let Some(deadline) = caller.deadline {
            let real = deadline.div_f64(self.time_scale).as_millis();
            headers.insert(DEADLINE, u64::try_from(real).unwrap_or(u64::MAX).into());
        }
        for (name, value) in [(PRIORITY, &caller.priority), (TENANT, &caller.tenant)] {
            let value = value.as_ref().and_then(|it| HeaderValue::from_str(it).ok());
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// The figures of those calls that are meant, without the warm-up.
pub(super) fn steady(
    calls: &[Call],
    endings: &[Ending],
    is_meant: impl Fn(&Call) -> bool,
) -> Figures {
    let first = (calls.len() as f64 * WARM_UP).round() as usize;
    let counted = calls.iter().zip(endings).skip(first);
    let meant = counted.filter(|(call, _)| is_meant(call));
    Figures::of_endings(meant.map(|(_, ending)| ending), None)
}

fn request(call: &Call) -> Request {
    Request {
        arrival: call.arrival.since(Time::ZERO),
        prompt_tokens: call.prompt_tokens,
        output_tokens: call.output_tokens,
        service: call.service,
        size: call.size,
    }
}

fn unanswered(sent: Time) -> Ending {
    Ending {
        sent,
        first_byte: None,
        end: None,
        server: None,
        outcome: Outcome::Unknown,
    }
}
