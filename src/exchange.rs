//! One request's way: picked, routed, observed, released.
//!
//! An exchange ends exactly once, at whichever end the proxy reports first.
//! Until then it holds its reservation; one that is dropped without an end (a
//! stream that the proxy forgets) must still be given to [`Exchange::end`].

use crate::config::RequestView;
use crate::decision::{Demand, Finished, PassThrough, Reservation};
use crate::host::Host;
use crate::outcome::{End, parse_retry_after};
use crate::request::RequestHeaders;
use crate::time::Timestamp;
use crate::worker::Worker;

/// The response header that tells the decision.
pub const DECISION_HEADER: &str = "x-paceline-decision";

/// One request and its response.
#[derive(Debug, Default)]
pub struct Exchange {
    reservation: Option<Reservation>,
    explanation: Option<String>,
    first_byte_at: Option<Timestamp>,
    response_bytes: u64,
    request_complete: bool,
    response_complete: bool,
    /// The response ended with trailers or with its headers, as a gRPC status
    /// does.
    may_have_grpc_status: bool,
}

impl Exchange {
    /// The request's headers have come: picks an upstream and names it in the
    /// routing header, or leaves the request to the proxy's own route. Either
    /// way the client's own copy of the header is gone.
    pub fn on_request_headers(&mut self, worker: &mut Worker, host: &mut impl Host, end: bool) {
        self.request_complete = end;
        if self.reservation.is_some() {
            return;
        }
        if let Err(reason) = self.route(worker, host) {
            // What cannot be removed cannot be helped.
            let _ = host.remove_request_header(&worker.config.route_header);
            worker.metrics.passed_through(host, reason);
            if worker.config.explain {
                self.explanation = Some(format!("pass_through; reason={}", reason.label()));
            }
        }
    }

    fn route(&mut self, worker: &mut Worker, host: &mut impl Host) -> Result<(), PassThrough> {
        let pool = pool_of(worker, host).ok_or(PassThrough::NoPool)?;
        let now = worker.now(host);
        let demand = Demand { pool, size: None };
        let route = worker.balancer.pick(host, &demand, now)?;
        let (member, upstream) = (route.reservation.member, route.reservation.upstream);
        let topology = worker.balancer.topology();
        let named = match topology.upstream_of(member) {
            Some(upstream) => {
                host.set_request_header(&worker.config.route_header, &upstream.cluster)
            }
            None => Ok(()),
        };
        if worker.config.explain {
            self.explanation = Some(route.explanation.describe(topology, member));
        }
        if named.is_err() {
            let unsent = Finished::default();
            let released = worker
                .balancer
                .release(host, route.reservation, &unsent, now);
            worker.metrics.released(host, upstream, released);
            return Err(PassThrough::HostError);
        }
        self.reservation = Some(route.reservation);
        worker.metrics.picked(host, member);
        worker.metrics.retried(host, route.retries);
        worker.metrics.in_flight(host, upstream, route.in_flight);
        Ok(())
    }

    /// The request has come to its end.
    pub fn on_request_end(&mut self) {
        self.request_complete = true;
    }

    /// The response's headers have come.
    pub fn on_response_headers(&mut self, worker: &mut Worker, host: &mut impl Host, end: bool) {
        if end {
            self.response_complete = true;
            self.may_have_grpc_status = true;
        }
        if let Some(explanation) = &self.explanation {
            let _ = host.set_response_header(DECISION_HEADER, explanation);
        }
        if self.reservation.is_some() && self.first_byte_at.is_none() {
            self.first_byte_at = Some(worker.now(host));
        }
    }

    /// A piece of the response's body has come.
    pub fn on_response_body(&mut self, bytes: usize, end: bool) {
        self.response_bytes = self.response_bytes.saturating_add(bytes as u64);
        self.response_complete |= end;
    }

    /// The response's trailers have come.
    pub fn on_response_trailers(&mut self) {
        self.response_complete = true;
        self.may_have_grpc_status = true;
    }

    /// The request is over, one way or another. The first call counts.
    pub fn end(&mut self, worker: &mut Worker, host: &mut impl Host) {
        if self.reservation.is_some() {
            let end = self.read_end(host);
            self.end_as(worker, host, end);
        }
    }

    fn end_as(&mut self, worker: &mut Worker, host: &mut impl Host, end: End) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let (member, upstream) = (reservation.member, reservation.upstream);
        let picked_at = reservation.picked_at;
        let asks_for_time = matches!(end.status, Some(429 | 503));
        let finished = Finished {
            end,
            response_bytes: self.response_bytes,
            retry_after: asks_for_time.then(|| retry_after(host)).flatten(),
        };
        let now = worker.now(host);
        let released = worker.balancer.release(host, reservation, &finished, now);
        worker.metrics.released(host, upstream, released);
        let millis = |until: Timestamp| until.since(picked_at).as_millis() as u64;
        worker.metrics.ended(host, member, end.outcome());
        // Of a retried request another upstream has used the time.
        if end.attempts == 1 {
            if let Some(at) = self.first_byte_at {
                worker.metrics.first_byte(host, member, millis(at));
            }
            worker.metrics.latency(host, member, millis(now));
        }
    }

    /// Asks the host how the request ended. What the host does not say is
    /// taken as nobody's fault.
    fn read_end(&self, host: &mut impl Host) -> End {
        let attempts = match host.property(&["upstream", "request_attempt_count"]) {
            Ok(Some(bytes)) => little_endian(&bytes),
            // The proxy has nothing to say of an upstream: it answered itself.
            Ok(None) => 0,
            Err(_) => 1,
        };
        let status = number(host, &["response", "code"]);
        let is_good = status.is_some_and(|code| (200..400).contains(&code));
        // An answer that came to its end and is good raises no flag that
        // matters, so one call is saved where most requests are.
        let flags = if is_good && self.response_complete && attempts == 1 {
            0
        } else {
            number(host, &["response", "flags"]).unwrap_or(0)
        };
        // Envoy makes up a gRPC status for other answers, for a 200 an error:
        // only an answer of gRPC is asked for one.
        let grpc_status = if self.may_have_grpc_status && is_grpc(host) {
            number(host, &["response", "grpc_status"])
        } else {
            None
        };
        End {
            status: status
                .and_then(|code| u16::try_from(code).ok())
                .filter(|code| *code > 0),
            grpc_status: grpc_status.and_then(|status| u32::try_from(status).ok()),
            flags,
            attempts,
            request_complete: self.request_complete,
            response_complete: self.response_complete,
        }
    }
}

/// The first pool whose match fits the request.
fn pool_of(worker: &Worker, host: &mut impl Host) -> Option<usize> {
    let mut headers = RequestHeaders::new(host);
    let view: &mut dyn RequestView = &mut headers;
    let mut pools = worker.config.pools.iter();
    pools.position(|pool| pool.matcher.matches(view))
}

fn is_grpc(host: &mut impl Host) -> bool {
    let content_type = host.response_header("content-type").unwrap_or(None);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn retry_after(host: &mut impl Host) -> Option<std::time::Duration> {
    let value = host.response_header("retry-after").unwrap_or(None)?;
    parse_retry_after(&value)
}

/// A numeric property; `None` where it is absent or cannot be read.
fn number(host: &mut impl Host, path: &[&str]) -> Option<u64> {
    let bytes = host.property(path).unwrap_or(None)?;
    Some(little_endian(&bytes))
}

/// Envoy gives integers as eight little-endian bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    let places = bytes.iter().take(8).enumerate();
    places.fold(0, |number, (place, byte)| {
        number | u64::from(*byte) << (8 * place)
    })
}
