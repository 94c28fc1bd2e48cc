//! Emulated model servers over HTTP, in real time or faster.
//!
//! [`FleetServer::start`] hosts all servers of a [`Fleet`], each on a port of its own, on two threads that end when the
//! handle is dropped. The servers are the state machines of [`crate::model`]; this module gives them sockets and a clock.
//!
//! ```
//! use lab::model::{Control, Fleet};
//! use lab::serve::{FleetServer, Options};
//!
//! let fleet = Fleet::preset("equal8").unwrap();
//! let servers = FleetServer::start(&fleet, &Options { time_scale: 20.0, ..Options::default() }).unwrap();
//! let first = &servers.endpoints()[0];
//! println!("POST http://{}/infer", first.address);
//! servers.control(&first.name, &Control { speed: Some(0.25), ..Control::default() }).unwrap();
//! assert_eq!(servers.status(&first.name).unwrap().condition.speed, 0.25);
//! ```
//!
//! # Time
//!
//! `time_scale` makes everything so many times faster than it claims to be. Every time that goes in or comes out (service times, the seconds of a
//! reload, latencies in `/metrics`) is the servers' own; only the clock on the wall runs slower. The one exception is
//! `Retry-After`, which is sent as it was given.
//!
//! # Endpoints
//!
//! Every answer has the header `x-served-by`, the server's name. HTTP/1.1, without TLS.
//!
//! ## `POST /infer`
//!
//! Any request to any model. How much work it is, headers say, or else the fields of a JSON body (`content-type: application/json`), or else
//! its length:
//!
//! | header | JSON field | meaning | without either |
//! |---|---|---|---|
//! | `x-prompt-tokens` | `prompt_tokens` | tokens that go in | a quarter of the body's bytes |
//! | `x-output-tokens` | `output_tokens` | tokens that come out | 128 |
//! | `x-service-ms` | `service_ms` | time on a slot server of speed 1 | what the fleet says for so many tokens |
//! | `x-request-size` | | size, by which it takes memory of a [device](crate::model::Fleet#devices) | the tokens that go in |
//!
//! Tokens of 0 count as 1. The answer is text of 4 bytes an output token, sent when the last one is done.
//!
//! ## `POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`
//!
//! As OpenAI's. Prompts are taken for 4 bytes a token. The answer has `max_tokens` (or `max_completion_tokens`) tokens, 128 without; the
//! header `x-output-tokens` says where it would end by itself, and the others of the table work too. `"stream": true` sends the head at once, as
//! vLLM does, the first event with the first token, then one a token (a slot server's all at its end), and `[DONE]`. `stream_options.include_usage` is
//! understood; `n` must be 1; a `model` that is not the server's is a 404.
//!
//! ## `GET /health`, `GET /metrics`
//!
//! Health is 200 and `{"status":"ready"}`, or 503 while the server loads, is stopped or was told not to be ready. Metrics are in the Prometheus text format
//! by vLLM's names: `vllm:num_requests_running`, `vllm:num_requests_waiting`, `vllm:kv_cache_usage_perc`, `vllm:prompt_tokens_total`,
//! `vllm:generation_tokens_total`, `vllm:num_preemptions_total`, `vllm:request_success_total`, `vllm:time_to_first_token_seconds` and
//! `vllm:e2e_request_latency_seconds`. `lab:device_memory_used_bytes` is what the server's requests take of its device's memory, and
//! `lab:out_of_memory_crashes_total` how often that ran out.
//!
//! ## `POST /control`, `GET /control`
//!
//! Makes the server misbehave, and shows its state. The body is the JSON form of [`Control`]:
//!
//! | body | from now on |
//! |---|---|
//! | `{"speed": 0.25}` | four times slower, for what is under way too |
//! | `{"mode": "stop"}` | accepts requests, answers none |
//! | `{"mode": {"fail": {"status": 503, "retry_after_seconds": 5}}}` | new requests fail at once |
//! | `{"mode": "drop"}` | connections are reset, those of requests under way too |
//! | `{"ready": false}` | `/health` says 503, requests are served |
//! | `{"error_rate": 0.1}` | one request in ten fails with 500, or with `error_status` |
//! | `{"reload_seconds": 30}` | a cold start: requests under way are lost, and for 30 s all is 503 |
//! | `{"reload_seconds": 30, "loading": "says"}` | the same, but `/health` says 200 and `{"status":"loading"}` |
//! | `{"reload_seconds": 30, "loading": "hang"}` | a cold start that answers nothing for 30 s, and then everything |
//! | `{"normal": true}` | back to normal |
//! | `{"reset_counters": true}` | counters and histograms start from zero |
//!
//! Servers that share a [device](crate::model::Fleet#devices) crash when it runs out of memory: connections of requests under way are reset,
//! and until the models are loaded again all is 503.
//!
//! A client that goes away cancels its request: its slot or KV memory is free at once.

mod answer;
mod clock;
mod completion;
mod connection;
mod histogram;
mod http;
mod infer;
mod metrics;
mod openai;
mod pacer;
mod replica;
mod request;
mod sse;
mod text_bytes;
mod token_text;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::model::{
    Condition, Control, ControlError, Counters, Devices, Fleet, Load, ServerSpec, Time,
};
use clock::ScaledClock;
use pacer::Agenda;
use replica::Replica;

/// How a fleet is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The address to listen on; 127.0.0.1 unless told otherwise.
    pub host: IpAddr,
    /// The port of the fleet's first server, the next one's is one more, and so on; 0 lets the system choose each. A port
    /// that the fleet gives a server comes before that.
    pub base_port: u16,
    /// How many times faster than real life, 0.001 to 10000.
    pub time_scale: f64,
    /// Decides which requests an `error_rate` hits.
    pub seed: u64,
    /// What all servers are told before they answer anything: to load for a while, say.
    pub begin: Control,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            base_port: 0,
            time_scale: 1.0,
            seed: 1,
            begin: Control::default(),
        }
    }
}

/// The servers of a fleet, listening. They end when this is dropped, and all their connections with them.
#[derive(Debug)]
pub struct FleetServer {
    endpoints: Vec<Endpoint>,
    replicas: Vec<Arc<Replica>>,
    clock: ScaledClock,
    agenda: Arc<Agenda>,
    devices: Arc<Mutex<Devices>>,
    /// Dropped to end the HTTP thread.
    running: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a server listens, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Its name, also in the `x-served-by` header of its answers.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// `batching` or `slots`.
    pub kind: &'static str,
    /// The model that it serves.
    pub model: String,
}

/// What a server is, does and has done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Status {
    /// How it is.
    #[serde(flatten)]
    pub condition: Condition,
    /// What it is busy with.
    pub load: Load,
    /// What it has done.
    pub counters: Counters,
}

/// A fleet that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A time scale out of its range.
    #[error("time scale: {0} is not allowed, 0.001 to 10000 is")]
    TimeScale(f64),
    /// More servers than there are ports above the first.
    #[error("base port: {base_port} leaves no port for {name}, the last is 65535")]
    NoPort {
        /// The first port.
        base_port: u16,
        /// The first server without one.
        name: String,
    },
    /// An address that cannot be listened on.
    #[error("{name}: cannot listen on {address}: {source}")]
    Bind {
        /// Whose it is.
        name: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Nothing that a server can be told.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// No thread, or no event loop.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// No server to be told something, or nothing that it can be told.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No server of that name.
    #[error("no server is named {0:?}")]
    UnknownServer(String),
    /// A value out of its range.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl FleetServer {
    /// Starts all servers of the fleet; when it returns, all listen.
    ///
    /// Needs no async runtime and can be called within one.
    ///
    /// # Errors
    /// If an option is out of its range, a port is taken, or the system gives no thread.
    pub fn start(fleet: &Fleet, options: &Options) -> Result<Self, StartError> {
        if !(0.001..=10_000.0).contains(&options.time_scale) {
            return Err(StartError::TimeScale(options.time_scale));
        }
        let clock = ScaledClock::start(options.time_scale);
        let agenda = Arc::new(Agenda::of(fleet.servers().len()));
        let devices = Devices::new(fleet.devices(), fleet.placements());
        let devices = Arc::new(Mutex::new(devices));
        let mut endpoints = Vec::new();
        let mut replicas = Vec::new();
        let mut listening = Vec::new();
        for (index, spec) in fleet.servers().iter().enumerate() {
            let (listener, address) = bind(spec, index, options)?;
            endpoints.push(Endpoint {
                name: spec.name.clone(),
                address,
                kind: spec.kind.name(),
                model: spec.model.clone(),
            });
            let seed = options.seed.wrapping_add(index as u64);
            let (agenda, devices) = (Arc::clone(&agenda), Arc::clone(&devices));
            let replica = Replica::new(spec, index, seed, clock, agenda, devices);
            replica.control(&options.begin)?;
            let replica = Arc::new(replica);
            listening.push((listener, Arc::clone(&replica)));
            replicas.push(replica);
        }
        let (running, stopped) = oneshot::channel();
        let mut server = Self {
            endpoints,
            replicas,
            clock,
            agenda,
            devices,
            running: Some(running),
            threads: Vec::new(),
        };
        server.spawn_pacer()?;
        server.spawn_http(listening, stopped)?;
        Ok(server)
    }

    /// Where the servers listen, in the fleet's order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The servers' time: seconds since the start, times the time scale.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Tells a server how to be from now on.
    ///
    /// # Errors
    /// If there is no such server, or a value is out of its range.
    pub fn control(&self, server: &str, control: &Control) -> Result<(), ServeError> {
        Ok(self.replica(server)?.control(control)?)
    }

    /// What a server is, does and has done.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn status(&self, server: &str) -> Result<Status, ServeError> {
        Ok(Status::from(self.replica(server)?.snapshot()))
    }

    /// How often each device has run out of memory, in the fleet's order.
    pub fn crashes(&self) -> Vec<(String, u64)> {
        let devices = self.devices.lock();
        let crashes = devices.crashes();
        crashes
            .map(|(device, count)| (device.to_owned(), count))
            .collect()
    }

    fn replica(&self, name: &str) -> Result<&Replica, ServeError> {
        let mut replicas = self.replicas.iter();
        let replica = replicas.find(|replica| replica.spec().name == name);
        replica
            .map(Arc::as_ref)
            .ok_or_else(|| ServeError::UnknownServer(name.to_owned()))
    }

    fn spawn_pacer(&mut self) -> io::Result<()> {
        let (agenda, replicas, clock) =
            (Arc::clone(&self.agenda), self.replicas.clone(), self.clock);
        let pacer = Builder::new().name("lab-pacer".to_owned()).spawn(move || {
            agenda.run(clock, |server| {
                if let Some(replica) = replicas.get(server) {
                    replica.catch_up();
                }
            });
        })?;
        self.threads.push(pacer);
        Ok(())
    }

    fn spawn_http(
        &mut self,
        listening: Vec<(TcpListener, Arc<Replica>)>,
        stopped: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        // One thread: the servers share few cores with what is measured, and handing over costs more than it gains.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        for (listener, replica) in listening {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(http::listen(listener, replica));
        }
        drop(entered);
        let http = Builder::new().name("lab-http".to_owned()).spawn(move || {
            // An error says that the handle was dropped; then the runtime goes, and every task with it.
            let _ = runtime.block_on(stopped);
        })?;
        self.threads.push(http);
        Ok(())
    }
}

impl Drop for FleetServer {
    fn drop(&mut self) {
        self.running = None;
        self.agenda.stop();
        for thread in self.threads.drain(..) {
            // If it panicked, it said so itself.
            let _ = thread.join();
        }
    }
}

fn bind(
    spec: &ServerSpec,
    index: usize,
    options: &Options,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let port = match (spec.port, options.base_port) {
        (Some(port), _) => port,
        (None, 0) => 0,
        (None, base_port) => {
            u16::try_from(usize::from(base_port) + index).map_err(|_| StartError::NoPort {
                base_port,
                name: spec.name.clone(),
            })?
        }
    };
    let address = SocketAddr::new(options.host, port);
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|source| StartError::Bind {
        name: spec.name.clone(),
        address,
        source,
    })
}
