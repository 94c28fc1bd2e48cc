//! One server of the fleet: its model, and who waits for what comes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::clock::ScaledClock;
use super::histogram::Histogram;
use super::pacer::Agenda;
use crate::model::{
    Condition, Control, ControlError, Counters, Devices, Event, EventKind, Job, JobId, Load,
    LossReason, Refusal, Server, ServerSpec, Time,
};

/// A server's state, for the HTTP handlers and the pacer alike.
#[derive(Debug)]
pub(super) struct Replica {
    spec: ServerSpec,
    name: HeaderValue,
    index: usize,
    clock: ScaledClock,
    agenda: Arc<Agenda>,
    /// Of the whole fleet. Locked last, under `live`.
    devices: Arc<Mutex<Devices>>,
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    server: Server,
    waiters: HashMap<JobId, Waiter>,
    next_job: u64,
    first_token_seconds: Histogram,
    latency_seconds: Histogram,
    /// Kept for its memory; empty between calls.
    events: Vec<Event>,
}

#[derive(Debug)]
struct Waiter {
    since: Time,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Whole(oneshot::Sender<Ending>),
    Stream(mpsc::UnboundedSender<Progress>),
}

/// How a job ended.
pub(super) type Ending = Result<(), LossReason>;

/// What a streamed job has to tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Progress {
    Tokens(u32),
    End(Ending),
}

/// What a request asks of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) service: Option<Duration>,
    pub(super) size: Option<u64>,
}

/// A job under way. Dropped before its end, it cancels the job: the client has gone.
#[derive(Debug)]
pub(super) struct Ticket {
    replica: Arc<Replica>,
    job: JobId,
    ended: bool,
}

/// Everything that is known of a server, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) condition: Condition,
    pub(super) load: Load,
    pub(super) counters: Counters,
    pub(super) first_token_seconds: Histogram,
    pub(super) latency_seconds: Histogram,
}

impl Replica {
    pub(super) fn new(
        spec: &ServerSpec,
        index: usize,
        seed: u64,
        clock: ScaledClock,
        agenda: Arc<Agenda>,
        devices: Arc<Mutex<Devices>>,
    ) -> Self {
        Self {
            // A server's name has no character that a header could not have.
            name: HeaderValue::from_str(&spec.name)
                .unwrap_or_else(|_| HeaderValue::from_static("unnamed")),
            index,
            clock,
            agenda,
            devices,
            live: Mutex::new(Live {
                server: Server::new(spec, seed),
                waiters: HashMap::new(),
                next_job: 0,
                first_token_seconds: Histogram::of_first_token(),
                latency_seconds: Histogram::of_latency(),
                events: Vec::new(),
            }),
            spec: spec.clone(),
        }
    }

    pub(super) fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    pub(super) fn name_header(&self) -> &HeaderValue {
        &self.name
    }

    /// Runs a job to its end.
    ///
    /// # Errors
    /// If the server refuses it.
    pub(super) async fn run(self: &Arc<Self>, demand: Demand) -> Result<Ending, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let mut ticket = self.submit(demand, false, Sink::Whole(sender))?;
        // The sender is dropped unused only with the whole fleet.
        let ending = receiver.await.unwrap_or(Err(LossReason::Dropped));
        ticket.end();
        Ok(ending)
    }

    /// Starts a job that tells of each token.
    ///
    /// # Errors
    /// If the server refuses it.
    pub(super) fn stream(
        self: &Arc<Self>,
        demand: Demand,
    ) -> Result<(Ticket, mpsc::UnboundedReceiver<Progress>), Refusal> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let ticket = self.submit(demand, true, Sink::Stream(sender))?;
        Ok((ticket, receiver))
    }

    /// Lets the server do what is due.
    pub(super) fn catch_up(&self) {
        self.with_live(|live, now| live.server.advance(now, &mut live.events));
    }

    pub(super) fn control(&self, control: &Control) -> Result<(), ControlError> {
        self.with_live(|live, now| {
            live.server.control(now, control, &mut live.events)?;
            if control.reset_counters {
                live.first_token_seconds.reset();
                live.latency_seconds.reset();
            }
            Ok(())
        })
    }

    pub(super) fn condition(&self) -> Condition {
        self.live.lock().server.condition(self.clock.now())
    }

    /// Whether it answers nothing before it has loaded.
    pub(super) fn hangs(&self) -> bool {
        self.condition().hangs()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.with_live(|live, now| {
            live.server.advance(now, &mut live.events);
            live.dispatch();
            Snapshot {
                condition: live.server.condition(now),
                load: live.server.load(),
                counters: *live.server.counters(),
                first_token_seconds: live.first_token_seconds.clone(),
                latency_seconds: live.latency_seconds.clone(),
            }
        })
    }

    fn submit(
        self: &Arc<Self>,
        demand: Demand,
        stream: bool,
        sink: Sink,
    ) -> Result<Ticket, Refusal> {
        let job = self.with_live(|live, now| {
            let id = JobId(live.next_job);
            live.next_job += 1;
            let job = Job {
                service: demand.service,
                size: demand.size,
                stream,
                ..Job::of_tokens(id, demand.prompt_tokens, demand.output_tokens)
            };
            // First the waiter: a job of no length ends on arrival.
            live.waiters.insert(id, Waiter { since: now, sink });
            let admitted = live.server.arrive(now, job, &mut live.events);
            if admitted.is_err() {
                live.waiters.remove(&id);
            }
            admitted.map(|()| id)
        })?;
        Ok(Ticket {
            replica: Arc::clone(self),
            job,
            ended: false,
        })
    }

    fn cancel(&self, job: JobId) {
        self.with_live(|live, now| {
            if live.waiters.remove(&job).is_some() {
                live.server.cancel(now, job, &mut live.events);
            }
        });
    }

    /// Every access to the model: what happened is told to those who wait, and the pacer hears what is due next.
    fn with_live<T>(&self, act: impl FnOnce(&mut Live, Time) -> T) -> T {
        let mut live = self.live.lock();
        // Only now, so that under the lock time never goes back.
        let now = self.clock.now();
        let result = act(&mut live, now);
        if self.spec.placement.is_some() {
            self.settle(&mut live, now);
        } else {
            self.agenda.schedule(self.index, live.server.next_event());
        }
        live.dispatch();
        result
    }

    /// Says what the server's requests take of its device. If that is more than there is, all servers of the device crash: this one at
    /// once, the others when the pacer comes to them, which it does next.
    fn settle(&self, live: &mut Live, now: Time) {
        let Live { server, events, .. } = live;
        let mut devices = self.devices.lock();
        let crashing = devices.take(self.index, server.load().device_memory);
        if let Some(reload) = devices.crash(self.index) {
            server.run_out_of_memory(now, reload, events);
        }
        // Under the lock of the devices: the last word about a server that has to crash is that it is due now, or its own when it has.
        self.agenda.schedule(self.index, server.next_event());
        for other in crashing.into_iter().filter(|other| *other != self.index) {
            self.agenda.schedule(other, Some(now));
        }
    }
}

impl Live {
    fn dispatch(&mut self) {
        for event in self.events.drain(..) {
            match event.kind {
                EventKind::FirstToken => {
                    if let Some(waiter) = self.waiters.get(&event.job) {
                        let latency = event.at.since(waiter.since).as_secs_f64();
                        self.first_token_seconds.observe(latency);
                        waiter.sink.tell(Progress::Tokens(1));
                    }
                }
                EventKind::Tokens(count) => {
                    if let Some(waiter) = self.waiters.get(&event.job) {
                        waiter.sink.tell(Progress::Tokens(count));
                    }
                }
                EventKind::Preempted => {}
                EventKind::Done => {
                    if let Some(waiter) = self.waiters.remove(&event.job) {
                        let latency = event.at.since(waiter.since).as_secs_f64();
                        self.latency_seconds.observe(latency);
                        waiter.sink.end(Ok(()));
                    }
                }
                EventKind::Lost(reason) => {
                    if let Some(waiter) = self.waiters.remove(&event.job) {
                        waiter.sink.end(Err(reason));
                    }
                }
            }
        }
    }
}

// Whoever no longer listens has gone and is about to cancel: a failed send is no news.
impl Sink {
    fn tell(&self, progress: Progress) {
        if let Self::Stream(sender) = self {
            let _ = sender.send(progress);
        }
    }

    fn end(self, ending: Ending) {
        match self {
            Self::Whole(sender) => {
                let _ = sender.send(ending);
            }
            Self::Stream(sender) => {
                let _ = sender.send(Progress::End(ending));
            }
        }
    }
}

impl Ticket {
    /// The job has ended by itself.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.replica.cancel(self.job);
        }
    }
}
