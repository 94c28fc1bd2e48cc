use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::CreationError;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderName;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout_at;

use super::connections::{Connections, broken};
use super::pacer::Pacer;
use super::record::Record;
use super::tally::{Answer, Outcome};
use super::{Measurement, Settings, SettingsError};
use crate::workload::Request;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Requests that were due so far.
    pub due: usize,
    /// Requests that have ended, in whatever way.
    pub ended: usize,
    /// All requests of the run.
    pub total: usize,
}

/// Load that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Settings out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Arrivals that are not in order.
    #[error(
        "request {0} arrives before the one before it: requests must be in the order of their arrival"
    )]
    Order(usize),
    /// No thread or no runtime could be had from the system.
    #[error("the load generator cannot start: {0}")]
    System(#[from] io::Error),
    /// No histogram.
    #[error("the load generator cannot start: {0}")]
    Histogram(#[from] CreationError),
    /// The generator ended before its time.
    #[error("the load generator ended early")]
    Ended,
}

/// Sends the requests, each when it is due, and tells what became of them.
///
/// The generator works on threads of its own, so that what else the caller's runtime does cannot delay it. `observe` is called there
/// whenever a request has ended. Dropping the future ends the generator and closes its connections.
///
/// # Errors
/// See [`LoadError`]. What goes wrong with a request is part of the [`Measurement`].
pub async fn drive(
    requests: Vec<Request>,
    settings: Settings,
    observe: impl Fn(Progress) + Send + 'static,
) -> Result<Measurement, LoadError> {
    settings.check()?;
    let unordered = requests
        .windows(2)
        .position(|pair| matches!(pair, [a, b] if b.arrival < a.arrival));
    if let Some(index) = unordered {
        return Err(LoadError::Order(index + 1));
    }
    let (tell, told) = oneshot::channel();
    let _thread = thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            let mut tell = tell;
            let result = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(LoadError::from)
                .and_then(|runtime| {
                    LocalSet::new().block_on(&runtime, async {
                        tokio::select! {
                            result = run(requests, settings, observe) => result,
                            () = tell.closed() => Err(LoadError::Ended),
                        }
                    })
                });
            // Nobody is there to be told if the caller gave up.
            let _ = tell.send(result);
        })?;
    told.await.unwrap_or(Err(LoadError::Ended))
}

/// What all requests of a run share.
struct Run {
    requests: Vec<Request>,
    settings: Settings,
    start: Instant,
    connections: Rc<Connections>,
    measurement: RefCell<Measurement>,
    warm_up: usize,
}

async fn run(
    requests: Vec<Request>,
    settings: Settings,
    observe: impl Fn(Progress),
) -> Result<Measurement, LoadError> {
    let scale = settings.time_scale;
    let offsets = requests
        .iter()
        .map(|request| request.arrival.div_f64(scale))
        .collect();
    let total = requests.len();
    // The first request should not find the threads still starting.
    let start = Instant::now() + Duration::from_millis(20);
    let run = Rc::new(Run {
        warm_up: (total as f64 * settings.warm_up) as usize,
        measurement: RefCell::new(Measurement::new(scale)?),
        connections: Connections::new(settings.target.clone()),
        requests,
        settings,
        start,
    });
    let mut pacer = Pacer::start(start, offsets)?;
    let mut outstanding = JoinSet::new();
    let mut progress = Progress {
        due: 0,
        ended: 0,
        total,
    };
    let mut all_due = false;
    while !all_due || !outstanding.is_empty() {
        tokio::select! {
            biased;
            due = pacer.next(), if !all_due => match due {
                Some(index) => {
                    progress.due += 1;
                    if outstanding.len() < run.settings.max_outstanding {
                        outstanding.spawn_local(Rc::clone(&run).one(index));
                        continue;
                    }
                    run.record(index, &Outcome::Unsent, Duration::ZERO);
                    progress.ended += 1;
                }
                None => { all_due = true; continue; }
            },
            Some(ended) = outstanding.join_next() => {
                // A task neither panics nor is it aborted: if so, its request would be missing from the tally.
                ended.map_err(|_| LoadError::Ended)?;
                progress.ended += 1;
            }
        }
        observe(progress);
    }
    let elapsed = start.elapsed();
    let mut measurement = run.measurement.borrow().clone();
    measurement.elapsed = elapsed;
    measurement.connections = run.connections.opened();
    Ok(measurement)
}

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

impl Run {
    fn due(&self, index: usize) -> Instant {
        let arrival = self
            .requests
            .get(index)
            .map_or(Duration::ZERO, |request| request.arrival);
        self.start + arrival.div_f64(self.settings.time_scale)
    }

    async fn one(self: Rc<Self>, index: usize) {
        let due = self.due(index);
        let delay = due.elapsed();
        let Some(request) = self.requests.get(index) else {
            return;
        };
        let mut request = self.settings.form.request(request, &self.settings.target);
        if let Some(headers) = self.settings.headers.get(index) {
            request.headers_mut().extend(headers.clone());
        }
        let deadline = due + self.settings.timeout.div_f64(self.settings.time_scale);
        let outcome = timeout_at(deadline.into(), self.exchange(request, due))
            .await
            .unwrap_or(Outcome::TimedOut);
        self.record(index, &outcome, delay);
    }

    async fn exchange(&self, request: hyper::Request<Full<Bytes>>, due: Instant) -> Outcome {
        let (response, connection) = match self.connections.send(request).await {
            Ok(sent) => sent,
            Err(outcome) => return outcome,
        };
        let (head, mut body) = response.into_parts();
        let mut first_byte = None;
        while let Some(frame) = body.frame().await {
            if let Err(error) = frame {
                return broken(&error);
            }
            first_byte.get_or_insert_with(|| due.elapsed());
        }
        let total = due.elapsed();
        connection.release();
        Outcome::Answered(Answer {
            status: head.status.as_u16(),
            served_by: head.headers.get(SERVED_BY).cloned(),
            first_byte: first_byte.unwrap_or(total),
            total,
        })
    }

    fn record(&self, index: usize, outcome: &Outcome, delay: Duration) {
        let mut measurement = self.measurement.borrow_mut();
        if self.settings.keeps_records {
            let request = self.requests.get(index);
            let due = request.map_or(Duration::ZERO, |request| request.arrival);
            let took = match outcome {
                Outcome::Answered(answer) => answer.total,
                _ => self.due(index).elapsed(),
            };
            let took = took.mul_f64(self.settings.time_scale);
            let record = Record::new(index, due, took, outcome);
            measurement.records.push(record);
        }
        if index < self.warm_up {
            measurement.record_warm_up(outcome);
        } else {
            measurement.record(outcome, delay, self.settings.timeout);
        }
    }
}
