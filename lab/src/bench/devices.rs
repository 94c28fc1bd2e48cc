//! Models that share GPUs: who runs them out of memory, and what becomes of the requests.

use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::compare::CompareError;
use crate::gateway::{Balancing, Gateway, ModelServers, Topology, filter_module};
use crate::load::{Measurement, Settings, Tally, drive};
use crate::model::{Fleet, FleetError};
use crate::report::seconds;
use crate::serve::{FleetServer, Options};
use crate::workload::{ServiceTimes, SizeHint, Workload};

/// Two models on some GPUs: each GPU has a server of each model, and memory for about eight mean requests.
#[derive(Clone, Debug)]
pub struct SharedGpus {
    /// How many GPUs.
    pub gpus: usize,
    /// How long requests are sent, in emulated time.
    pub span: Duration,
    /// The part of all memory that requests take on average, if nobody crashes: less than 1.
    pub used: f64,
    /// Seconds of emulated time in a second of real time.
    pub time_scale: f64,
    /// Envoy's worker threads.
    pub workers: u32,
    /// Which requests come, and when.
    pub seed: u64,
}

/// Who chooses the server of a request there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// Envoy's `LEAST_REQUEST`, the less busy of two.
    LeastRequest,
    /// Envoy's `LEAST_REQUEST` over all servers of a model.
    LeastRequestFullScan,
    /// The filter, which knows the GPUs.
    Paceline,
}

/// What became of the GPUs and of the requests.
#[derive(Clone, Debug)]
pub struct SharedGpusRow {
    /// Who chose.
    pub chooser: Chooser,
    /// How often a GPU ran out of memory and its servers crashed.
    pub crashes: u64,
    /// By model: its name, and what was measured.
    pub models: Vec<(&'static str, Measurement)>,
}

/// A model: of what sizes its requests are, and what part of the memory is for it.
struct Model {
    name: &'static str,
    median_seconds: f64,
    cv: f64,
    mean_size: f64,
    base: f64,
    per_size: f64,
    share: f64,
}

const MEMORY: f64 = 4.0e10;
/// How closely sizes tell service times.
const CORRELATION: f64 = 0.8;
/// An answer that takes longer is of no use.
const GOAL: Duration = Duration::from_secs(120);
const MODEL_HEADER: HeaderName = HeaderName::from_static("x-model");

const MODELS: [Model; 2] = [
    Model {
        name: "chat",
        median_seconds: 8.0,
        cv: 1.0,
        mean_size: 4_000.0,
        base: 2.0e8,
        per_size: 4.0e5,
        share: 0.5,
    },
    Model {
        name: "images",
        median_seconds: 23.0,
        cv: 0.73,
        mean_size: 250_000.0,
        base: 1.0e9,
        per_size: 1.6e4,
        share: 0.5,
    },
];

impl Model {
    /// Mean bytes times seconds of a request: lognormal sizes and times of the same spread, so that the mean of their product is more than
    /// the product of their means by their covariance.
    fn byte_seconds(&self) -> f64 {
        let mean_seconds = self.median_seconds * (1.0 + self.cv * self.cv).sqrt();
        let mean_product = 1.0 + CORRELATION * self.cv * self.cv;
        mean_seconds * (self.base + self.per_size * self.mean_size * mean_product)
    }

    fn workload(&self) -> Workload {
        let times = ServiceTimes::Lognormal {
            median_seconds: self.median_seconds,
            cv: self.cv,
        };
        let hint = SizeHint {
            correlation: CORRELATION,
            mean: self.mean_size,
            cv: None,
        };
        // Both are within their ranges.
        Workload::of_sized_service(times, hint).unwrap_or_else(|_| Workload::of_service(times))
    }

    fn server(&self, gpu: usize) -> String {
        format!("{}-{gpu}", self.name)
    }
}

impl Chooser {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::LeastRequest,
        Self::LeastRequestFullScan,
        Self::Paceline,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LeastRequest => "envoy:least_request",
            Self::LeastRequestFullScan => "envoy:least_request_full_scan",
            Self::Paceline => "paceline:shortest_expected_delay",
        }
    }
}

impl SharedGpus {
    /// Five minutes of requests for four GPUs, in one minute of real time.
    pub const FIVE_MINUTES: Self = Self {
        gpus: 4,
        span: Duration::from_secs(300),
        used: 0.6,
        time_scale: 5.0,
        workers: 2,
        seed: 1,
    };

    fn gpus(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.gpus
    }

    fn fleet(&self) -> Result<Fleet, FleetError> {
        let devices: Vec<Value> = self
            .gpus()
            .map(|gpu| json!({ "name": format!("gpu-{gpu}"), "memory": MEMORY }))
            .collect();
        let servers: Vec<Value> = self
            .gpus()
            .flat_map(|gpu| {
                MODELS.iter().map(move |model| {
                    json!({
                        "name": model.server(gpu), "kind": "slots", "slots": 64, "model": model.name,
                        "device": format!("gpu-{gpu}"),
                        "memory": { "base": model.base, "per_size": model.per_size },
                    })
                })
            })
            .collect();
        Fleet::from_json(&json!({ "devices": devices, "servers": servers }).to_string())
    }

    /// As its users would configure it.
    fn filter_config(&self) -> String {
        let pools: Vec<Value> = MODELS
            .iter()
            .map(|model| {
                let upstreams: Vec<Value> = self
                    .gpus()
                    .map(|gpu| {
                        json!({
                            "cluster": model.server(gpu), "device": format!("gpu-{gpu}"),
                            "memory": { "base": model.base, "per_size": model.per_size },
                        })
                    })
                    .collect();
                json!({
                    "name": model.name, "match": { "model": model.name }, "upstreams": upstreams,
                    "request_size": { "header": "x-request-size" },
                })
            })
            .collect();
        let devices: Vec<Value> = self
            .gpus()
            .map(|gpu| json!({ "name": format!("gpu-{gpu}"), "memory": MEMORY }))
            .collect();
        json!({
            "devices": devices, "pools": pools, "model": { "header": "x-model" },
            "include_attempt_count_in_response": true,
        })
        .to_string()
    }

    /// Sends the same requests to servers of their own, balanced so.
    ///
    /// # Errors
    /// Whatever goes wrong with servers, Envoy or the generator; what goes wrong with a request is part of the result.
    pub async fn run(&self, chooser: Chooser) -> Result<SharedGpusRow, SharedGpusError> {
        let options = Options {
            time_scale: self.time_scale,
            ..Options::default()
        };
        let servers = FleetServer::start(&self.fleet()?, &options).map_err(CompareError::from)?;
        let balancing = match chooser {
            Chooser::LeastRequest => Balancing::LeastRequest { choice_count: 2 },
            Chooser::LeastRequestFullScan => Balancing::LeastRequestFullScan,
            Chooser::Paceline => Balancing::Filter {
                module: filter_module().map_err(CompareError::from)?,
                config: self.filter_config(),
            },
        };
        let upstreams = servers.endpoints().iter();
        let upstreams = upstreams.map(|endpoint| (endpoint.name.clone(), endpoint.address));
        let of_model = |model: &Model| ModelServers {
            model: model.name.to_owned(),
            upstreams: self.gpus().map(|gpu| model.server(gpu)).collect(),
        };
        let gateway = Gateway::start(&Topology {
            models: MODELS.iter().map(of_model).collect(),
            workers: self.workers,
            ..Topology::new(upstreams, balancing)
        })
        .await
        .map_err(CompareError::from)?;
        let [chat, images] = &MODELS;
        let measured = tokio::try_join!(self.load(&gateway, chat), self.load(&gateway, images))?;
        let crashes = servers.crashes();
        Ok(SharedGpusRow {
            chooser,
            crashes: crashes.iter().map(|(_, count)| count).sum(),
            models: vec![(chat.name, measured.0), (images.name, measured.1)],
        })
    }

    async fn load(&self, gateway: &Gateway, model: &Model) -> Result<Measurement, CompareError> {
        let rate = self.gpus as f64 * MEMORY * self.used * model.share / model.byte_seconds();
        let count = (rate * self.span.as_secs_f64()).round() as usize;
        let requests = model.workload().requests(count, Some(rate), self.seed)?;
        let of_model = (MODEL_HEADER, HeaderValue::from_static(model.name));
        let settings = Settings {
            time_scale: self.time_scale,
            warm_up: 0.0,
            headers: vec![HeaderMap::from_iter([of_model]); count].into(),
            ..Settings::new(gateway.address().into())
        };
        Ok(drive(requests, settings, |_| {}).await?)
    }
}

/// A comparison that could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum SharedGpusError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Compare(#[from] CompareError),
}

impl SharedGpusRow {
    /// What became of all requests.
    pub fn requests(&self) -> Tally {
        let mut all = Tally::default();
        for (_, measured) in &self.models {
            all += &measured.tally;
        }
        all
    }

    /// How many were answered within two minutes of emulated time.
    pub fn good(&self) -> u64 {
        let goal = u64::try_from(GOAL.as_micros()).unwrap_or(u64::MAX);
        let within = |measured: &Measurement| measured.latency.count_between(0, goal);
        self.models.iter().map(|(_, it)| within(it)).sum()
    }
}

/// A row for each who chooses.
#[must_use]
pub fn shared_gpus_table(setting: &SharedGpus, rows: &[SharedGpusRow]) -> String {
    let mut table = Builder::default();
    let mut head = vec![
        "policy".to_owned(),
        "crashes".to_owned(),
        "requests".to_owned(),
        "failed".to_owned(),
        "answered within 2 min".to_owned(),
    ];
    for Model { name, .. } in &MODELS {
        head.extend([format!("{name}: p50"), format!("{name}: p99")]);
    }
    table.push_record(head);
    for row in rows {
        let tally = row.requests();
        let total = tally.total();
        let mut cells = vec![
            format!("`{}`", row.chooser.name()),
            row.crashes.to_string(),
            total.to_string(),
            (total - tally.successes()).to_string(),
            format!("{:.1} %", 100.0 * row.good() as f64 / total as f64),
        ];
        for (_, measured) in &row.models {
            cells.extend([0.5, 0.99].map(|quantile| {
                seconds(measured.latency.value_at_quantile(quantile) as f64 / 1e6)
            }));
        }
        table.push_record(cells);
    }
    let table = table.build().with(Style::markdown()).to_string();
    format!(
        "{} GPUs with {MEMORY:e} bytes each, requests take {:.0} % of that on average; requests come for {} s, emulated {} times as fast as \
         in life; {} workers.\n\n{table}",
        setting.gpus,
        setting.used * 100.0,
        setting.span.as_secs(),
        setting.time_scale,
        setting.workers,
    )
}
