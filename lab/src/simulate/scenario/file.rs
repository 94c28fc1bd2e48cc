//! The JSON form of a scenario: read strictly, then checked key by key.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::events::{EventEntry, read_events};
use super::limits::{refused, seconds_within, within};
use super::one_or_many::OneOrMany;
use super::{Abandonment, Before, Length, Offered, Scenario, ScenarioError};
use crate::json::{self, JsonError};
use crate::model::{Fleet, FleetError};
use crate::simulate::call::Caller;
use crate::simulate::policy::Policy;
use crate::simulate::settings::Settings;
use crate::workload::{Arrivals, Part, ServiceTimes, Shape, SizeHint, Trace, Workload};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScenarioFile {
    #[serde(default)]
    description: String,
    fleet: Box<RawValue>,
    workload: Box<RawValue>,
    arrivals: Option<String>,
    load: Option<OneOrMany<f64>>,
    rate: Option<OneOrMany<f64>>,
    clients: Option<OneOrMany<NonZeroUsize>>,
    requests: Option<usize>,
    duration_seconds: Option<f64>,
    gateways: Option<OneOrMany<NonZeroUsize>>,
    workers: Option<OneOrMany<NonZeroUsize>>,
    warm_up: Option<f64>,
    timeout_seconds: Option<f64>,
    goal_seconds: Option<f64>,
    abandon: Option<AbandonEntry>,
    callers: Option<Vec<CallerEntry>>,
    #[serde(default)]
    before: Vec<BeforeEntry>,
    #[serde(default)]
    events: Vec<EventEntry>,
    policies: Option<Vec<Box<RawValue>>>,
    seeds: Option<NonZeroUsize>,
    config: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AbandonEntry {
    share: f64,
    after_seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerEntry {
    share: f64,
    tenant: Option<String>,
    priority: Option<String>,
    deadline_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BeforeEntry {
    seconds: f64,
    workload: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensEntry {
    tokens: TokensPair,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensPair {
    prompt: u32,
    output: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceEntry {
    trace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    service: ServiceTimes,
    size: Option<SizeHint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MixEntry {
    mix: Vec<PartEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhasesEntry {
    phases: Vec<PartEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartEntry {
    share: f64,
    workload: Box<RawValue>,
}

const MAX_GATEWAYS: usize = 1_000;
const MAX_WORKERS: usize = 256;
const MAX_SEEDS: usize = 1_000;
pub(super) const DEFAULT_REQUESTS: usize = 20_000;
pub(super) const DEFAULT_WARM_UP: f64 = 0.2;
pub(super) const DEFAULT_SEEDS: usize = 5;

/// The policies that are compared where a scenario names none; the last is the filter's default.
const DEFAULT_POLICIES: [&str; 9] = [
    "envoy:round_robin",
    "envoy:least_request",
    "envoy:least_request_full_scan",
    "tower:peak_ewma",
    "prequal:hcl",
    "bound:own_delay",
    "bound:added_delay",
    "bound:pace_times_load",
    "paceline:shortest_expected_delay",
];

/// And before those, where all servers are slot servers.
const DEFAULT_SLOT_BOUNDS: [&str; 2] = ["bound:central_queue", "bound:clairvoyant"];

impl ScenarioFile {
    pub(super) fn check(self, name: &str, directory: &Path) -> Result<Scenario, ScenarioError> {
        let fleet = read_fleet(&self.fleet, directory)?;
        let workload = read_workload(&self.workload, "workload", directory)?;
        let workload = match self.arrivals {
            None => workload,
            Some(text) => {
                let arrivals: Arrivals = text
                    .parse()
                    .map_err(|error: String| at("arrivals", error))?;
                workload
                    .arriving(arrivals)
                    .map_err(|error| at("arrivals", error))?
            }
        };
        let offered = read_offered(self.load, self.rate, self.clients, &workload)?;
        let length = match (self.requests, self.duration_seconds) {
            (Some(_), Some(seconds)) => {
                let allowed = "either this or requests";
                return Err(refused("duration_seconds", seconds, allowed));
            }
            (None, Some(seconds)) if matches!(offered, Offered::Clients(_)) => {
                let allowed = "with clients it is requests that a run's length is given in";
                return Err(refused("duration_seconds", seconds, allowed));
            }
            (requests, None) => check_requests(requests.unwrap_or(DEFAULT_REQUESTS))?,
            (None, Some(seconds)) => Length::Seconds(
                seconds_within("duration_seconds", Some(seconds), 0.001)?.unwrap_or_default(),
            ),
        };
        let gateways = counts("gateways", self.gateways, MAX_GATEWAYS)?;
        let workers = counts("workers", self.workers, MAX_WORKERS)?;
        let warm_up = self.warm_up.unwrap_or(DEFAULT_WARM_UP);
        if !(0.0..=0.9).contains(&warm_up) {
            return Err(refused(
                "warm_up",
                warm_up,
                "0 to 0.9, a part of the requests",
            ));
        }
        let seeds = self.seeds.map_or(DEFAULT_SEEDS, NonZeroUsize::get);
        within("seeds", seeds, 1, MAX_SEEDS)?;
        let config = self.config.unwrap_or_default();
        check_config(&config)?;
        let before = read_before(self.before, directory, &offered)?;
        let (present, incidents) = read_events(self.events, &fleet, &gateways, &workers)?;
        Ok(Scenario {
            name: name.to_owned(),
            description: self.description,
            present,
            incidents,
            policies: read_policies(self.policies, &fleet)?,
            callers: read_callers(self.callers)?,
            abandonment: self.abandon.map(AbandonEntry::check).transpose()?,
            before,
            timeout: seconds_within("timeout_seconds", self.timeout_seconds, 0.001)?,
            goal: seconds_within("goal_seconds", self.goal_seconds, 0.0)?,
            fleet,
            workload,
            offered,
            length,
            gateways,
            workers,
            warm_up,
            seeds,
            config,
        })
    }
}

impl AbandonEntry {
    fn check(self) -> Result<Abandonment, ScenarioError> {
        if !(0.0..=1.0).contains(&self.share) {
            return Err(refused("abandon.share", self.share, "0 to 1"));
        }
        let after = seconds_within("abandon.after_seconds", Some(self.after_seconds), 0.0)?;
        Ok(Abandonment {
            share: self.share,
            after: after.unwrap_or_default(),
        })
    }
}

fn read_callers(given: Option<Vec<CallerEntry>>) -> Result<Vec<Caller>, ScenarioError> {
    let Some(given) = given else {
        return Ok(vec![Caller::default()]);
    };
    if given.is_empty() {
        return Err(refused("callers", "[]", "at least one"));
    }
    let mut callers = Vec::with_capacity(given.len());
    for (place, entry) in given.into_iter().enumerate() {
        let key = |key: &str| format!("callers[{place}].{key}");
        if !(1e-6..=1e6).contains(&entry.share) {
            let allowed = "0.000001 to 1000000, relative to the other callers";
            return Err(refused(&key("share"), entry.share, allowed));
        }
        callers.push(Caller {
            share: entry.share,
            tenant: entry.tenant,
            priority: entry.priority,
            deadline: seconds_within(&key("deadline_seconds"), entry.deadline_seconds, 0.001)?,
        });
    }
    Ok(callers)
}

fn read_fleet(json: &RawValue, directory: &Path) -> Result<Fleet, ScenarioError> {
    let fleet = match serde_json::from_str::<String>(json.get()) {
        Ok(name) => match Fleet::preset(&name) {
            Some(fleet) => Ok(fleet),
            None => Fleet::load(&directory.join(&name).to_string_lossy()),
        },
        Err(_) => Fleet::from_json(json.get()),
    };
    fleet.map_err(|error| match error {
        FleetError::Read { .. } => at("fleet", error),
        inside => ScenarioError::Inside(format!("fleet.{inside}")),
    })
}

fn read_workload(json: &RawValue, path: &str, directory: &Path) -> Result<Workload, ScenarioError> {
    let text = json.get();
    if let Ok(name) = serde_json::from_str::<String>(text) {
        let shape: Shape = name.parse().map_err(|error: String| at(path, error))?;
        return Ok(Workload::of_shape(shape));
    }
    let keys: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| refused(path, text, WORKLOADS))?;
    let inside = |error: JsonError| ScenarioError::Inside(format!("{path}.{error}"));
    if keys.contains_key("trace") {
        let TraceEntry { trace } = json::from_slice(text.as_bytes()).map_err(inside)?;
        let trace = Trace::open(&directory.join(trace))
            .map_err(|error| at(&format!("{path}.trace"), error))?;
        return Ok(Workload::of_trace(Arc::new(trace)));
    }
    if keys.contains_key("service") {
        let ServiceEntry { service, size } = json::from_slice(text.as_bytes()).map_err(inside)?;
        service
            .check()
            .map_err(|error| ScenarioError::Inside(format!("{path}.service.{error}")))?;
        let Some(size) = size else {
            return Ok(Workload::of_service(service));
        };
        size.check()
            .map_err(|error| ScenarioError::Inside(format!("{path}.size.{error}")))?;
        return Workload::of_sized_service(service, size)
            .map_err(|error| at(&format!("{path}.service"), error));
    }
    if keys.contains_key("tokens") {
        let TokensEntry { tokens } = json::from_slice(text.as_bytes()).map_err(inside)?;
        return Workload::of_tokens(tokens.prompt, tokens.output)
            .map_err(|error| ScenarioError::Inside(format!("{path}.tokens.{error}")));
    }
    if keys.contains_key("mix") {
        let MixEntry { mix } = json::from_slice(text.as_bytes()).map_err(inside)?;
        let path = format!("{path}.mix");
        return Workload::of_mix(read_parts(mix, &path, directory)?)
            .map_err(|error| ScenarioError::Inside(format!("{path}{error}")));
    }
    if keys.contains_key("phases") {
        let PhasesEntry { phases } = json::from_slice(text.as_bytes()).map_err(inside)?;
        let path = format!("{path}.phases");
        return Workload::of_phases(read_parts(phases, &path, directory)?)
            .map_err(|error| ScenarioError::Inside(format!("{path}{error}")));
    }
    Err(refused(path, text, WORKLOADS))
}

const WORKLOADS: &str =
    "the name of a shape, or an object with one of trace, service, tokens, mix and phases";

/// Requests that come before the workload.
fn read_before(
    entries: Vec<BeforeEntry>,
    directory: &Path,
    offered: &Offered,
) -> Result<Vec<Before>, ScenarioError> {
    if !entries.is_empty() && matches!(offered, Offered::Clients(_)) {
        let allowed = "only where requests come by load, by rate or as recorded";
        return Err(refused("before", "an array", allowed));
    }
    let read = |(place, entry): (usize, BeforeEntry)| {
        let key = |key: &str| format!("before[{place}].{key}");
        let ahead = seconds_within(&key("seconds"), Some(entry.seconds), 0.0)?;
        let workload = read_workload(&entry.workload, &key("workload"), directory)?;
        if workload.available().is_some() {
            let allowed = "a workload that is generated";
            return Err(refused(&key("workload"), &workload, allowed));
        }
        Ok(Before {
            ahead: ahead.unwrap_or_default(),
            workload,
        })
    };
    let mut before = (entries.into_iter().enumerate().map(read)).collect::<Result<Vec<_>, _>>()?;
    before.sort_by_key(|it| std::cmp::Reverse(it.ahead));
    Ok(before)
}

fn read_parts(
    entries: Vec<PartEntry>,
    path: &str,
    directory: &Path,
) -> Result<Vec<Part>, ScenarioError> {
    let read = |(place, entry): (usize, PartEntry)| {
        let path = format!("{path}[{place}].workload");
        Ok(Part {
            share: entry.share,
            workload: read_workload(&entry.workload, &path, directory)?,
        })
    };
    entries.into_iter().enumerate().map(read).collect()
}

fn read_offered(
    load: Option<OneOrMany<f64>>,
    rate: Option<OneOrMany<f64>>,
    clients: Option<OneOrMany<NonZeroUsize>>,
    workload: &Workload,
) -> Result<Offered, ScenarioError> {
    let offered = match (load, rate, clients) {
        (Some(OneOrMany(loads)), None, None) => Offered::Load(loads),
        (None, Some(OneOrMany(rates)), None) => Offered::Rate(rates),
        (None, None, Some(OneOrMany(clients))) => Offered::Clients(clients),
        (None, None, None) if workload.is_recorded() => Offered::Recorded,
        (None, None, None) => {
            let allowed =
                "one of load, rate and clients; only recorded arrivals have a rate of their own";
            return Err(refused("load", "nothing", allowed));
        }
        _ => {
            let value = "more than one of load, rate and clients";
            return Err(refused("load", value, "one of them"));
        }
    };
    check_offered(&offered)?;
    Ok(offered)
}

pub(super) fn check_offered(offered: &Offered) -> Result<(), ScenarioError> {
    let (key, values, range, allowed) = match offered {
        Offered::Load(loads) => (
            "load",
            loads,
            0.001..=100.0,
            "0.001 to 100, a multiple of the fleet's capacity",
        ),
        Offered::Rate(rates) => (
            "rate",
            rates,
            0.001..=1e6,
            "0.001 to 1000000 requests a second",
        ),
        Offered::Recorded | Offered::Clients(_) => return Ok(()),
    };
    match values.iter().find(|value| !range.contains(*value)) {
        Some(value) => Err(refused(key, value, allowed)),
        None => Ok(()),
    }
}

pub(super) fn check_requests(requests: usize) -> Result<Length, ScenarioError> {
    within("requests", requests, 1, crate::workload::MAX_REQUESTS)?;
    Ok(Length::Requests(requests))
}

fn counts(
    key: &str,
    given: Option<OneOrMany<NonZeroUsize>>,
    most: usize,
) -> Result<Vec<usize>, ScenarioError> {
    let counts = given.map_or_else(
        || vec![1],
        |OneOrMany(all)| all.into_iter().map(NonZeroUsize::get).collect(),
    );
    for count in &counts {
        within(key, *count, 1, most)?;
    }
    Ok(counts)
}

fn check_config(config: &Map<String, Value>) -> Result<(), ScenarioError> {
    for given in ["upstreams", "pools", "policy"] {
        if config.contains_key(given) {
            let key = format!("config.{given}");
            let allowed = "the fleet says what the upstreams are, and policies what the policy is";
            return Err(refused(&key, "this key", allowed));
        }
    }
    let policy = Value::String("random".to_owned());
    let settings = Settings::new(policy)
        .map_err(ScenarioError::Inside)?
        .beside(config);
    match settings.config(std::iter::once("any")) {
        Ok(_) => Ok(()),
        Err(error) => Err(at("config", error)),
    }
}

fn read_policies(
    given: Option<Vec<Box<RawValue>>>,
    fleet: &Fleet,
) -> Result<Vec<Policy>, ScenarioError> {
    let Some(given) = given else {
        return default_policies(fleet);
    };
    if given.is_empty() {
        return Err(refused("policies", "[]", "at least one"));
    }
    let mut policies: Vec<Policy> = Vec::new();
    for (json, index) in given.iter().zip(0..) {
        let policy = match serde_json::from_str::<String>(json.get()) {
            Ok(name) => read_policy(&name, index),
            Err(_) => read_policy(json.get(), index),
        }?;
        policy
            .check(fleet.servers())
            .map_err(|error| at(&format!("policies[{index}]"), error))?;
        if policies.contains(&policy) {
            let path = format!("policies[{index}]");
            return Err(refused(&path, &policy, "each policy once"));
        }
        policies.push(policy);
    }
    Ok(policies)
}

pub(super) fn default_policies(fleet: &Fleet) -> Result<Vec<Policy>, ScenarioError> {
    let all_slots = fleet.servers().iter().all(|it| it.kind.name() == "slots");
    let bounds = DEFAULT_SLOT_BOUNDS.iter().filter(|_| all_slots);
    let defaults = bounds.chain(&DEFAULT_POLICIES).zip(0..);
    defaults
        .map(|(name, index)| read_policy(name, index))
        .collect()
}

fn read_policy(text: &str, index: usize) -> Result<Policy, ScenarioError> {
    text.parse()
        .map_err(|error: String| at(&format!("policies[{index}]"), error))
}

fn at(key: &str, error: impl fmt::Display) -> ScenarioError {
    ScenarioError::Inside(format!("{key}: {error}"))
}
