//! The part of an exchange that limits add: to wait for room, and to be answered here.

use super::phase::{Held, Phase};
use super::{Exchange, Flow};
use crate::decision::{Decision, Demand, PassThrough};
use crate::host::{Host, HostError, LocalResponse};
use crate::pool::PoolIndex;
use crate::rejection::{Answer, Reason, is_grpc};
use crate::worker::{ToHold, Worker};

/// What became of a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It goes on, or has been answered.
    Done,
    /// There is no room for it.
    NoRoom,
}

impl Exchange {
    /// The request waits, unless there is room now or too many wait.
    pub(super) fn hold(&mut self, worker: &mut Worker, host: &mut impl Host, held: Held) {
        let (since, pool, admission) = (held.since, held.demand.pool, held.admission);
        let request = ToHold {
            context: self.context,
            demand: held.demand,
            class: admission.class,
            tenant: admission.tenant,
            bytes: content_length(host),
        };
        self.phase = Phase::Held(held);
        if let Err(reason) = worker.hold(host, &request, since) {
            self.reject(worker, host, (pool, admission.class), reason);
            return;
        }
        // Room that was made before anybody knew that this request waits.
        if worker.next_to_start(host, pool, false) == Some(self.context) {
            worker.look_for_room(host);
            let _ = self.try_to_start(worker, host);
        }
    }

    /// It is this request's turn: sends it somewhere, if there is room. `host` must be at
    /// its stream.
    pub fn start(&mut self, worker: &mut Worker, host: &mut impl Host) -> Start {
        let started = self.try_to_start(worker, host);
        if started == Start::Done && self.flow() == Flow::Continue {
            worker.waiting.resume(self.context, host);
        }
        started
    }

    /// The request has waited enough, or has to go for others. `host` must be at its
    /// stream.
    pub fn refuse(&mut self, worker: &mut Worker, host: &mut impl Host, reason: Reason) {
        let Some(held) = self.leave_queue(worker, host) else {
            return;
        };
        let place = (held.demand.pool, held.admission.class);
        self.reject(worker, host, place, reason);
        if self.flow() == Flow::Continue {
            worker.waiting.resume(self.context, host);
        }
    }

    fn try_to_start(&mut self, worker: &mut Worker, host: &mut impl Host) -> Start {
        let Phase::Held(held) = &self.phase else {
            worker.forget(host, self.context);
            return Start::Done;
        };
        let now = worker.now(host);
        let class = held.admission.class;
        let demand = Demand {
            waiting: worker.waiting_in(held.demand.pool),
            waited: now.since(held.since),
            ..held.demand
        };
        let decision = worker.balancer.decide(host, &demand, now);
        if let Decision::Hold(_) = decision {
            return Start::NoRoom;
        }
        worker.unhold_to_start(host, (self.context, demand.pool));
        let Some(held) = self.leave_queue(worker, host) else {
            return Start::Done;
        };
        let millis = now.since(held.since).as_millis() as u64;
        let note = format!(
            "{}; held={millis}ms; held_for={}",
            held.description, held.reason
        );
        self.carry_out(worker, host, (&demand, class), decision, &note);
        Start::Done
    }

    /// Takes the request out of its queue: it is decided about next.
    pub(super) fn leave_queue(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
    ) -> Option<Held> {
        let held = match std::mem::take(&mut self.phase) {
            Phase::Held(held) => held,
            other => {
                self.phase = other;
                return None;
            }
        };
        let pool = held.demand.pool;
        worker.unhold(host, (self.context, pool));
        let waited = worker.now(host).since(held.since);
        self.waited_millis = waited.as_millis() as u64;
        worker.metrics.waited(host, pool, self.waited_millis);
        Some(held)
    }

    /// Answers the request here; where the proxy does not do that, it goes on to the
    /// proxy's own route.
    pub(super) fn reject(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        (pool, class): (PoolIndex, usize),
        reason: Reason,
    ) {
        if answer(worker, host, pool, reason).is_err() {
            let reason = match reason {
                Reason::TooLarge => PassThrough::TooLarge,
                Reason::Deadline => PassThrough::Late,
                _ => PassThrough::NoRoom,
            };
            self.pass_through(worker, host, (Some(pool), reason), "");
            return;
        }
        self.log(worker, host, "rejected", reason.label());
        let configured = worker.config.pools.get(pool.0);
        let priority = configured.and_then(|pool| pool.admission.priority.as_ref());
        let class = priority.and_then(|it| it.classes.get(class));
        let class = class.map(String::as_str);
        worker.metrics.rejected(host, pool, reason, class);
        if worker.explains(false) {
            let text = format!("rejected; reason={}", reason.label());
            self.explain(worker, Some(pool), false, text);
        }
        self.phase = Phase::Answered;
    }
}

/// Sends the answer.
fn answer(
    worker: &mut Worker,
    host: &mut impl Host,
    pool: PoolIndex,
    reason: Reason,
) -> Result<(), HostError> {
    let after = worker.retry_after(pool);
    let topology = worker.balancer.topology();
    let name = topology.pool(pool).map_or("", |pool| pool.name.as_str());
    let content_type = host.request_header("content-type").unwrap_or(None);
    let is_grpc = content_type.is_some_and(|value| is_grpc(&value));
    let answer = Answer::new(reason, name, after, is_grpc);
    let headers = answer.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    host.respond(&LocalResponse {
        status: answer.status,
        details: reason.label(),
        headers: &headers,
        body: answer.body.as_bytes(),
        grpc_status: answer.grpc_status,
    })
}

/// The bytes that the request declares its body to have.
fn content_length(host: &mut impl Host) -> u32 {
    let value = host.request_header("content-length").unwrap_or(None);
    let text = value.and_then(|value| String::from_utf8(value).ok());
    let length = text.and_then(|text| text.parse::<u64>().ok());
    u32::try_from(length.unwrap_or(0)).unwrap_or(u32::MAX)
}
