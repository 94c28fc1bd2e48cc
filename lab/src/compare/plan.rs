use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{CapacityError, Policy, capacity};
use crate::gateway::{Balancing, Gateway, GatewayError, Topology, envoy_binary};
use crate::load::{LoadError, MAX_TIME_SCALE, Progress, Settings, SettingsError, drive};
use crate::model::{Fleet, Kind};
use crate::report::{Comparison, RunReport, Series};
use crate::serve::{FleetServer, Options, StartError};
use crate::workload::{Request, Workload, WorkloadError};

/// What to compare, and on what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers.
    pub fleet: Fleet,
    /// What is asked of them.
    pub workload: Workload,
    /// The policies, in their order in the result; the last is the one that the others are measured by.
    pub policies: Vec<Policy>,
    /// The part of the fleet's [`capacity`] that is asked for, 0.01 to 2.
    pub load: f64,
    /// Requests of a run.
    pub requests: usize,
    /// The seed of each run. At least one, no two alike.
    pub seeds: Vec<u64>,
    /// Seconds of emulated time in a second of real time; `None` chooses it, see [`Prepared`].
    pub time_scale: Option<f64>,
    /// The part of the requests, 0 to 0.9, that comes first and is not measured.
    pub warm_up: f64,
    /// Emulated time after which a request is given up.
    pub timeout: Duration,
    /// Envoy's worker threads.
    pub workers: u32,
    /// The header in which requests show their size to the filter.
    pub size_header: Option<String>,
}

/// All that one needs to know to compare again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The servers' names.
    pub servers: Vec<String>,
    /// Sizes and arrivals.
    pub workload: String,
    /// Requests per second that all servers together can serve when they are always busy.
    pub capacity: f64,
    /// The part of the capacity that was asked for.
    pub load: f64,
    /// Requests per second.
    pub rate: f64,
    /// Requests of a run, those of the warm-up too.
    pub requests: usize,
    /// The part of the requests that was not measured.
    pub warm_up: f64,
    /// Seconds of emulated time in a second of real time.
    pub time_scale: f64,
    /// Seconds of emulated time after which a request was given up.
    pub timeout_seconds: f64,
    /// Envoy's worker threads.
    pub workers: u32,
}

/// Where a comparison is.
#[derive(Clone, Debug)]
pub struct Step {
    /// The policy under test.
    pub policy: String,
    /// The seed of its arrivals.
    pub seed: u64,
    /// Which run it is, from 0.
    pub run: usize,
    /// How far it has come; `None` before its first request.
    pub progress: Option<Progress>,
}

/// A comparison that cannot be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum CompareError {
    #[error("load: {0} is not allowed, 0.01 to 2 is")]
    Load(f64),
    #[error("no policy to compare: give one or more")]
    NoPolicies,
    #[error("policy {0} is given twice")]
    RepeatedPolicy(String),
    #[error("no seed: give one or more")]
    NoSeeds,
    #[error("seed {0} is given twice")]
    RepeatedSeed(u64),
    #[error("workers: {0} is not allowed, 1 to 64 is")]
    Workers(u32),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("the emulated servers: {0}")]
    Serve(#[from] StartError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Driving(#[from] LoadError),
}

/// Who is told of each [`Step`].
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// A [`Plan`] that can be carried out: nothing that it needs is missing.
///
/// A time scale that the plan left open is the one under which the requests of a run arrive within 27 s of real time, but at least 1,
/// and not so great that timers would be part of the result: at most 4 for batching servers, whose steps then last some
/// milliseconds, and for slot servers so much that a request takes 20 ms on average.
#[derive(Clone, Debug)]
pub struct Prepared {
    plan: Plan,
    setting: Setting,
}

/// How long the requests of a run should arrive, in real time.
const ARRIVALS: Duration = Duration::from_secs(27);

/// The greatest time scale that is chosen where a server batches.
const MAX_BATCHING_SCALE: f64 = 4.0;

/// The shortest real time that a request should take on average where all servers have slots.
const MIN_SLOT_TIME: Duration = Duration::from_millis(20);

impl Plan {
    /// Finds out what the fleet can serve, and whether all is there.
    ///
    /// # Errors
    /// See [`CompareError`].
    pub fn prepare(self) -> Result<Prepared, CompareError> {
        self.check()?;
        let capacity = capacity(&self.fleet, &self.workload)?;
        let rate = capacity * self.load;
        let time_scale = match self.time_scale {
            Some(scale) => scale,
            None => self.time_scale_for(capacity),
        };
        // Whatever the address: the rest is checked before there is one.
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.settings(anywhere, time_scale).check()?;
        let servers = self.fleet.servers();
        let setting = Setting {
            servers: servers.iter().map(|server| server.name.clone()).collect(),
            workload: self.workload.to_string(),
            capacity,
            load: self.load,
            rate,
            requests: self.requests,
            warm_up: self.warm_up,
            time_scale,
            timeout_seconds: self.timeout.as_secs_f64(),
            workers: self.workers,
        };
        Ok(Prepared {
            plan: self,
            setting,
        })
    }

    fn settings(&self, address: SocketAddr, time_scale: f64) -> Settings {
        Settings {
            time_scale,
            warm_up: self.warm_up,
            timeout: self.timeout,
            ..Settings::new(address.into())
        }
    }

    fn time_scale_for(&self, capacity: f64) -> f64 {
        let arrivals = self.requests as f64 / (capacity * self.load);
        let wanted = arrivals / ARRIVALS.as_secs_f64();
        let slots = self
            .fleet
            .servers()
            .iter()
            .map(|server| match &server.kind {
                Kind::Slots(spec) => Some(spec.slots.get()),
                Kind::Batching(_) => None,
            });
        let greatest = match slots.sum::<Option<usize>>() {
            // By Little's law, of servers that are always busy.
            Some(slots) => slots as f64 / capacity / MIN_SLOT_TIME.as_secs_f64(),
            None => MAX_BATCHING_SCALE,
        };
        wanted.min(greatest).clamp(1.0, MAX_TIME_SCALE)
    }

    fn check(&self) -> Result<(), CompareError> {
        if !(0.01..=2.0).contains(&self.load) {
            return Err(CompareError::Load(self.load));
        }
        if !(1..=64).contains(&self.workers) {
            return Err(CompareError::Workers(self.workers));
        }
        if self.policies.is_empty() {
            return Err(CompareError::NoPolicies);
        }
        if self.seeds.is_empty() {
            return Err(CompareError::NoSeeds);
        }
        if let Some(policy) = first_repeated(&self.policies) {
            return Err(CompareError::RepeatedPolicy(policy.to_string()));
        }
        if let Some(seed) = first_repeated(&self.seeds) {
            return Err(CompareError::RepeatedSeed(*seed));
        }
        envoy_binary()?;
        for policy in &self.policies {
            policy.balancing([], self.size_header.as_deref())?;
        }
        Ok(())
    }
}

impl Prepared {
    /// What will be compared, and on what.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// How many runs that is.
    pub fn runs(&self) -> usize {
        self.plan.policies.len() * self.plan.seeds.len()
    }

    /// How long the requests of a run arrive, in real time. What is outstanding then takes its time too.
    pub fn arrivals(&self) -> Duration {
        let Setting {
            requests,
            rate,
            time_scale,
            ..
        } = &self.setting;
        Duration::from_secs_f64(*requests as f64 / rate / time_scale)
    }

    /// Runs every policy on every seed, one run at a time. For each seed the policies follow each other, on the same requests, so
    /// that a machine that changes its pace does it to all of them. Each run has servers and an Envoy of its own.
    ///
    /// Dropping the future ends the Envoy of the moment.
    ///
    /// # Errors
    /// Whatever goes wrong with servers, Envoy or the generator; what goes wrong with a request is part of the result.
    pub async fn run(self, observer: &Observer) -> Result<Comparison<Setting>, CompareError> {
        let Plan {
            policies,
            seeds,
            workload,
            ..
        } = &self.plan;
        let mut reports: Vec<Vec<RunReport>> = policies.iter().map(|_| Vec::new()).collect();
        let mut run = 0;
        for &seed in seeds {
            let requests = workload.requests(self.plan.requests, Some(self.setting.rate), seed)?;
            for (policy, reports) in policies.iter().zip(&mut reports) {
                let step = Step {
                    policy: policy.to_string(),
                    seed,
                    run,
                    progress: None,
                };
                observer(step.clone());
                reports.push(self.run_valid(policy, &step, &requests, observer).await?);
                run += 1;
            }
        }
        let names = policies.iter().map(Policy::name);
        let series = names
            .zip(reports)
            .map(|(name, runs)| Series::new(name, runs))
            .collect();
        Ok(Comparison::new(self.setting, series))
    }

    /// A run that is void, because the generator fell behind, is made once more and then taken as it is.
    async fn run_valid(
        &self,
        policy: &Policy,
        step: &Step,
        requests: &[Request],
        observer: &Observer,
    ) -> Result<RunReport, CompareError> {
        let run = || self.run_one(policy, step.clone(), requests.to_vec(), observer);
        let report = run().await?;
        if report.schedule_delay.valid {
            Ok(report)
        } else {
            run().await
        }
    }

    async fn run_one(
        &self,
        policy: &Policy,
        step: Step,
        requests: Vec<Request>,
        observer: &Observer,
    ) -> Result<RunReport, CompareError> {
        let servers = FleetServer::start(
            &self.plan.fleet,
            &Options {
                time_scale: self.setting.time_scale,
                seed: step.seed,
                ..Options::default()
            },
        )?;
        let endpoints = servers.endpoints();
        let clusters = endpoints.iter().map(|endpoint| endpoint.name.as_str());
        let balancing = policy.balancing(clusters, self.plan.size_header.as_deref())?;
        let is_filter = matches!(balancing, Balancing::Filter { .. });
        let upstreams = endpoints
            .iter()
            .map(|endpoint| (endpoint.name.clone(), endpoint.address));
        let gateway = Gateway::start(&Topology {
            workers: self.plan.workers,
            ..Topology::new(upstreams, balancing)
        })
        .await?;
        let settings = self
            .plan
            .settings(gateway.address(), self.setting.time_scale);
        let (seed, sent) = (step.seed, requests.len());
        let observer = Arc::clone(observer);
        let observe = move |progress| {
            observer(Step {
                progress: Some(progress),
                ..step.clone()
            });
        };
        let measurement = drive(requests, settings, observe).await?;
        let mut report = RunReport::new(seed, measurement);
        if is_filter {
            report.remarks.extend(passed_through(&gateway, sent).await?);
        }
        Ok(report)
    }
}

/// Says so if the filter did not pick for every request: Envoy's own policy is part of the result then.
async fn passed_through(gateway: &Gateway, sent: usize) -> Result<Option<String>, GatewayError> {
    let stats = gateway.stats().await?;
    let passed = stats.total("paceline_pass_through_total");
    let picked = stats.total("paceline_picks_total");
    let complete = passed == 0 && picked >= sent as u64;
    Ok((!complete).then(|| {
        format!(
            "the filter picked {picked} times for {sent} requests and passed {passed} through to Envoy's own policy"
        )
    }))
}

fn first_repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    let mut rest = values;
    while let [first, after @ ..] = rest {
        if after.contains(first) {
            return Some(first);
        }
        rest = after;
    }
    None
}
