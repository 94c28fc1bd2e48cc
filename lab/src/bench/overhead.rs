use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::closed_loop::{DriveError, Load, Until, drive, posts};
use super::{Answer, Answerer};
use crate::gateway::{Balancing, Gateway, GatewayError, Stats, Topology};

/// A stream is answered slowly, so that it takes more connections to keep a worker busy.
const STREAMS_PER_WORKER: u64 = 32;
/// A stream is about so many times the work of a short answer.
const WORK_OF_STREAM: u64 = 16;
/// More than all connections together, so that nothing is held.
const HIGH_CAP: u32 = 10_000;

/// One point at which the filter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Upstreams to choose from.
    pub upstreams: usize,
    /// Envoy's worker threads.
    pub workers: u32,
    /// Bytes of each request's body.
    pub body_bytes: usize,
    /// The body is a chat, and the filter reads the request's size from it.
    pub reads_body: bool,
    /// What comes back.
    pub answer: Answer,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The filter under test.
    pub filter: PathBuf,
    /// A filter that does nothing.
    pub empty_filter: PathBuf,
    /// Rounds; each drives every variant once.
    pub rounds: usize,
    /// How long each variant is driven in a round.
    pub until: Until,
    /// Connections of the closed loop for each worker of Envoy.
    pub connections: u64,
}

/// What was measured of one variant, each figure the median of the rounds unless it says otherwise.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Processor time of Envoy for each request, microseconds.
    pub cpu_us: f64,
    /// That time over the time without a filter, in the same round.
    pub cpu_ratio: f64,
    /// The least and the greatest of those ratios.
    pub cpu_ratio_range: (f64, f64),
    /// Requests answered a second.
    pub per_second: f64,
    /// Median latency beyond that without a filter, in the same round, microseconds.
    pub added_latency_us: f64,
    /// Resident memory of Envoy at the end, MiB.
    pub memory_mib: f64,
    /// Requests of all rounds.
    pub requests: u64,
    /// What the filter counted in all rounds.
    pub counted: Counted,
}

/// Counters of the filter that tell whether its workers are in each other's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// `paceline_transaction_retries_total`.
    pub retries: u64,
    /// `paceline_pass_through_total`, of all reasons.
    pub pass_throughs: u64,
}

/// What was measured at one point. All variants have the same clusters and routes, the shipped ones.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The point.
    pub case: Case,
    /// Envoy alone: requests take the fallback route, `LEAST_REQUEST` over one cluster of all the servers.
    pub none: Figures,
    /// Envoy alone: the client names each request's cluster in the header that the filter would set.
    pub control: Figures,
    /// As without a filter, but with one that does nothing.
    pub empty: Figures,
    /// With the filter.
    pub filter: Figures,
    /// With the filter, and a cap for each upstream that is never reached.
    pub capped: Figures,
    /// With the filter, which gives the access log each decision; Envoy writes none.
    pub logged: Figures,
    /// Processor time with the caps over that without them, in the same round: the median of the rounds.
    pub caps_ratio: f64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Envoy.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The load.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// The server behind Envoy, or Envoy's figures.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// One variant of a case: its Envoy, what it is sent, and what each round gave.
struct Variant {
    gateway: Gateway,
    load: Load,
    before: Counted,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    cpu_us: f64,
    latency_us: f64,
    per_second: f64,
    requests: u64,
}

/// Measures one case.
///
/// # Errors
/// See [`BenchError`].
pub async fn measure(case: Case, options: &Options) -> Result<Row, BenchError> {
    let threads = threads_beside(case.workers, cores());
    let server = Answerer::start(case.answer, threads)?;
    let names = upstream_names(case.upstreams);
    let filter = |module: &PathBuf, cap| Balancing::Filter {
        module: module.clone(),
        config: filter_config(&names, case.reads_body, cap),
    };
    let logging = Balancing::Filter {
        module: options.filter.clone(),
        config: filter_config(&names, case.reads_body, None).replacen(
            '{',
            r#"{"access_log":true,"#,
            1,
        ),
    };
    let body = case.body();
    let (plain, named) = (posts(&body, &[]), posts(&body, &names));
    let planned = [
        (Balancing::Client, &plain),
        (Balancing::Client, &named),
        (filter(&options.empty_filter, None), &plain),
        (filter(&options.filter, None), &plain),
        (filter(&options.filter, Some(HIGH_CAP)), &plain),
        (logging, &plain),
    ];
    let mut variants = Vec::with_capacity(planned.len());
    for (balancing, requests) in planned {
        let upstreams = names.iter().map(|name| (name, server.address()));
        let mut topology = Topology::new(upstreams, balancing);
        topology.workers = case.workers;
        variants.push(Variant {
            gateway: Gateway::start(&topology).await?,
            load: case.load(options, threads, requests),
            before: Counted::default(),
            rounds: Vec::with_capacity(options.rounds),
        });
    }
    // The first round warms up.
    for variant in &variants {
        variant.drive().await?;
    }
    for variant in &mut variants {
        variant.before = variant.counted().await?;
    }
    for _ in 0..options.rounds {
        for variant in &mut variants {
            let round = variant.drive().await?;
            variant.rounds.push(round);
        }
    }
    let [none, control, empty, filter, capped, logged] = variants.as_slice() else {
        return Err(io::Error::other("not every variant was started").into());
    };
    Ok(Row {
        case,
        none: none.figures(none).await?,
        control: control.figures(none).await?,
        empty: empty.figures(none).await?,
        filter: filter.figures(none).await?,
        capped: capped.figures(none).await?,
        logged: logged.figures(none).await?,
        caps_ratio: median(capped.cpu_ratios(filter)),
    })
}

/// The numbers of workers that the machine has cores for, and those that it has not.
#[must_use]
pub fn split_by_cores(workers: &[u32], cores: usize) -> (Vec<u32>, Vec<u32>) {
    let workers = workers.iter().copied();
    workers.partition(|workers| *workers as usize <= cores)
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Threads for the load, and as many for the servers: of the cores that Envoy leaves, half each, and no more than Envoy's.
fn threads_beside(workers: u32, cores: usize) -> usize {
    let workers = (workers as usize).max(1);
    (cores.saturating_sub(workers) / 2).clamp(1, workers)
}

pub(super) fn upstream_names(number: usize) -> Vec<String> {
    (0..number)
        .map(|number| format!("upstream-{number}"))
        .collect()
}

/// The filter's configuration with these upstreams and every default.
///
/// If `reads_body`, the size of a request is read from its body; with a `cap`, each upstream has that.
pub(super) fn filter_config(upstreams: &[String], reads_body: bool, cap: Option<u32>) -> String {
    let upstreams = upstreams.iter().map(|name| match cap {
        Some(cap) => serde_json::json!({ "cluster": name, "max_in_flight": cap }),
        None => serde_json::json!({ "cluster": name }),
    });
    // As the shipped file has it.
    serde_json::json!({
        "upstreams": upstreams.collect::<Vec<_>>(),
        "include_attempt_count_in_response": true,
        "request_size": if reads_body { "openai" } else { "content_length" },
    })
    .to_string()
}

/// A chat request of about `bytes` bytes. Its text has what JSON escapes, as people's has.
fn chat(bytes: usize) -> Vec<u8> {
    const LINE: &str = "The quick brown fox said \"hello\" and jumped.\n";
    let escaped = serde_json::json!(LINE).to_string().len() - 2;
    let content = LINE.repeat(bytes / escaped);
    let message = serde_json::json!({ "role": "user", "content": content });
    let body = serde_json::json!({ "model": "m", "messages": [message], "max_tokens": 100 });
    body.to_string().into_bytes()
}

impl Case {
    fn body(&self) -> Vec<u8> {
        if self.reads_body {
            chat(self.body_bytes)
        } else {
            vec![b'x'; self.body_bytes]
        }
    }

    fn load(&self, options: &Options, threads: usize, requests: &Arc<[Bytes]>) -> Load {
        let (connections, until) = match (self.answer, options.until) {
            (Answer::Whole, until) => (options.connections, until),
            (Answer::Chunks(_), Until::Requests(requests)) => (
                STREAMS_PER_WORKER,
                Until::Requests((requests / WORK_OF_STREAM).max(1)),
            ),
            (Answer::Chunks(_), until) => (STREAMS_PER_WORKER, until),
        };
        Load {
            threads,
            connections: connections * u64::from(self.workers),
            until,
            requests: Arc::clone(requests),
        }
    }
}

impl Counted {
    fn of(stats: &Stats) -> Self {
        Self {
            retries: stats.total("paceline_transaction_retries_total"),
            pass_throughs: stats.total("paceline_pass_through_total"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            retries: self.retries.saturating_sub(before.retries),
            pass_throughs: self.pass_throughs.saturating_sub(before.pass_throughs),
        }
    }
}

impl Row {
    /// The variants, each with its name.
    #[must_use]
    pub fn variants(&self) -> [(&'static str, &Figures); 6] {
        [
            ("none", &self.none),
            ("control", &self.control),
            ("empty", &self.empty),
            ("paceline", &self.filter),
            ("paceline, caps", &self.capped),
            ("paceline, access log", &self.logged),
        ]
    }
}

impl Variant {
    async fn drive(&self) -> Result<Round, BenchError> {
        let before = self.gateway.cpu_time()?;
        let driven = drive(self.gateway.address(), &self.load).await?;
        let used = self.gateway.cpu_time()?.saturating_sub(before);
        Ok(Round {
            cpu_us: used.as_secs_f64() * 1e6 / driven.answered.max(1) as f64,
            latency_us: driven.median.as_secs_f64() * 1e6,
            per_second: driven.per_second,
            requests: driven.answered,
        })
    }

    async fn counted(&self) -> Result<Counted, BenchError> {
        Ok(Counted::of(&self.gateway.stats().await?))
    }

    /// Round by round.
    fn cpu_ratios(&self, baseline: &Variant) -> impl Iterator<Item = f64> {
        let paired = self.rounds.iter().zip(&baseline.rounds);
        paired.map(|(own, base)| own.cpu_us / base.cpu_us)
    }

    async fn figures(&self, baseline: &Variant) -> Result<Figures, BenchError> {
        let ratios: Vec<f64> = self.cpu_ratios(baseline).collect();
        let paired = self.rounds.iter().zip(&baseline.rounds);
        let added = paired.map(|(own, base)| own.latency_us - base.latency_us);
        Ok(Figures {
            cpu_us: median(self.rounds.iter().map(|round| round.cpu_us)),
            cpu_ratio: median(ratios.iter().copied()),
            cpu_ratio_range: (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            ),
            per_second: median(self.rounds.iter().map(|round| round.per_second)),
            added_latency_us: median(added),
            memory_mib: resident_mib(self.gateway.process_id())?,
            requests: self.rounds.iter().map(|round| round.requests).sum(),
            counted: self.counted().await?.since(self.before),
        })
    }
}

/// The middle value, or the mean of the middle two; 0 of none.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2);
    let lower = values.get(values.len().saturating_sub(1) / 2);
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => 0.0,
    }
}

/// Resident memory of a process, from `/proc`.
pub(super) fn resident_mib(process: u32) -> io::Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0)
        .ok_or_else(|| io::Error::other(format!("{path}: no VmRSS in kB")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn workers_without_cores_are_left_out() {
        let split = |cores| split_by_cores(&[1, 2, 4, 8, 12], cores);
        assert_eq!(split(2), (vec![1, 2], vec![4, 8, 12]));
        assert_eq!(split(16), (vec![1, 2, 4, 8, 12], vec![]));
    }

    #[test]
    fn the_load_gets_the_cores_that_envoy_leaves() {
        let threads = |workers| threads_beside(workers, 16);
        assert_eq!([1, 2, 4, 8, 12, 16].map(threads), [1, 2, 4, 4, 2, 1]);
        assert_eq!(threads_beside(2, 1), 1);
    }

    #[test]
    fn counters_are_summed_over_reasons_and_taken_from_where_they_were() {
        let at = |retries: u64, passed: u64| {
            let counter =
                |name: &str, value: u64| serde_json::json!({ "name": name, "value": value });
            let stats = [
                counter("wasmcustom.paceline_transaction_retries_total", retries),
                counter(
                    "wasmcustom.paceline_pass_through_total;reason=no_pool",
                    passed,
                ),
                counter(
                    "wasmcustom.paceline_pass_through_total;reason=contention",
                    2,
                ),
                counter("wasmcustom.paceline_picks_total;pool=default", 99),
            ];
            let text = serde_json::json!({ "stats": stats }).to_string();
            Counted::of(&Stats::from_json(&text).unwrap())
        };
        let (before, after) = (at(3, 4), at(10, 5));
        assert_eq!((after.retries, after.pass_throughs), (10, 7));
        let since = after.since(before);
        assert_eq!((since.retries, since.pass_throughs), (7, 1));
        let none = Stats::from_json(r#"{"stats":[]}"#).unwrap();
        assert_eq!(Counted::of(&none), Counted::default());
    }

    #[test]
    fn streams_take_more_connections_and_fewer_requests() {
        let options = Options {
            filter: PathBuf::new(),
            empty_filter: PathBuf::new(),
            rounds: 1,
            until: Until::Requests(1_600),
            connections: 8,
        };
        let load = |answer| {
            let case = Case {
                upstreams: 8,
                workers: 2,
                body_bytes: 10,
                reads_body: false,
                answer,
            };
            let load = case.load(&options, 1, &posts(b"", &[]));
            (load.connections, load.until)
        };
        assert!(matches!(load(Answer::Whole), (16, Until::Requests(1_600))));
        assert!(matches!(
            load(Answer::Chunks(100)),
            (64, Until::Requests(100))
        ));
    }

    #[test]
    fn a_chat_has_about_the_size_that_was_asked_for() {
        let body = chat(200_000);
        assert!((195_000..205_000).contains(&body.len()), "{}", body.len());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["messages"][0]["content"].is_string());
    }

    #[test]
    fn a_process_has_memory() {
        assert!(resident_mib(std::process::id()).unwrap() > 1.0);
    }
}
