//! The part of an exchange that a pool of endpoints adds: the picked endpoint is
//! the proxy's first choice and no promise, so where the request is counted
//! follows who answers.

use super::{Exchange, number};
use crate::decision::{Finished, PassThrough, Route};
use crate::host::{Host, HostError};
use crate::outcome::{End, Outcome};
use crate::state::Work;
use crate::time::Timestamp;
use crate::worker::Worker;

/// A request to the endpoints of a cluster.
#[derive(Debug)]
pub(super) struct Way {
    pool: usize,
    picked_at: Timestamp,
    /// Who answers is known.
    is_located: bool,
    /// It is served by another endpoint than the first that was tried.
    pub(super) is_moved: bool,
}

/// Names the picked upstream in the headers that the proxy follows.
pub(super) fn name(worker: &Worker, host: &mut impl Host, route: &Route) -> Result<(), HostError> {
    let topology = worker.balancer.topology();
    let Some(upstream) = topology.upstream_of(route.member) else {
        return Ok(());
    };
    let config = &worker.config;
    host.set_request_header(&config.route_header, &upstream.cluster)?;
    if !worker.balances_endpoints {
        return Ok(());
    }
    let members = [route.member]
        .into_iter()
        .chain(route.alternatives.iter().copied());
    let endpoints = members.filter_map(|member| topology.upstream_of(member)?.endpoint.as_deref());
    let list = endpoints.collect::<Vec<_>>().join(",");
    if list.is_empty() {
        host.remove_request_header(&config.endpoint_header)
    } else {
        host.set_request_header(&config.endpoint_header, &list)
    }
}

impl Exchange {
    /// The request goes to the pool's endpoints.
    pub(super) fn goes_to_endpoints(&mut self, pool: usize, picked_at: Timestamp) {
        self.way = Some(Way {
            pool,
            picked_at,
            is_located: false,
            is_moved: false,
        });
    }

    /// Leaves it to the proxy which endpoint of the pool's cluster gets the
    /// request, to learn which there are.
    pub(super) fn explore(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        (pool, cluster): (usize, &str),
        now: Timestamp,
    ) -> Result<(), PassThrough> {
        let config = &worker.config;
        let named = host.set_request_header(&config.route_header, cluster);
        let open = host.remove_request_header(&config.endpoint_header);
        named.and(open).map_err(|_| PassThrough::HostError)?;
        self.goes_to_endpoints(pool, now);
        if config.explain {
            self.explanation = Some(format!("cluster={cluster}; reason=discovery"));
        }
        worker.metrics.explored(host, pool);
        Ok(())
    }

    /// The answer has begun: counts the request at the endpoint that gives it.
    pub(super) fn locate(&mut self, worker: &mut Worker, host: &mut impl Host) {
        let Some(way) = &mut self.way else { return };
        if way.is_located {
            return;
        }
        let Ok(Some(address)) = host.property(&["upstream", "address"]) else {
            return;
        };
        let Ok(address) = String::from_utf8(address) else {
            return;
        };
        let reservation = self.reservation.as_ref();
        let picked = reservation.and_then(|it| worker.endpoint_of(it));
        if picked
            .as_ref()
            .is_some_and(|(_, picked)| *picked == address)
        {
            way.is_located = true;
            return;
        }
        // An answer of the proxy itself tells who was tried last, not who serves.
        let details = host.property(&["response", "code_details"]);
        if !matches!(details, Ok(Some(details)) if details == b"via_upstream") {
            return;
        }
        way.is_located = true;
        let attempts = number(host, &["upstream", "request_attempt_count"]).unwrap_or(1);
        let (pool, picked_at) = (way.pool, way.picked_at);
        // The time that was lost on others is no sample.
        way.is_moved = attempts > 1;
        let mut work = Work::MEAN;
        let now = worker.now(host);
        if let Some(reservation) = self.reservation.take() {
            work = reservation.work();
            let end = match attempts {
                0 | 1 => End::unavailable(),
                _ => End {
                    attempts,
                    ..End::default()
                },
            };
            let finished = Finished {
                end,
                ..Finished::default()
            };
            if let Some(member) = worker.release(host, reservation, &finished, now) {
                worker.metrics.ended(host, member, end.outcome());
            }
            if let Some((cluster, picked)) = picked {
                // At the first try the proxy passes over those that it does not
                // know.
                match attempts {
                    0 | 1 => worker.absent(host, &cluster, &picked),
                    _ => worker.failed(host, &cluster, &picked),
                }
            }
        }
        if let Some(explanation) = &mut self.explanation {
            explanation.push_str("; served_by=");
            explanation.push_str(&address);
        }
        worker.found(host, pool, &address, now);
        match worker
            .balancer
            .adopt(host, pool, &address, work, picked_at, now)
        {
            Ok(Some((reservation, in_flight))) => {
                worker.adopted(host, &reservation, in_flight);
                self.reservation = Some(reservation);
            }
            // Not one of the pool's.
            Ok(None) => {}
            Err(error) => worker.metrics.state_failed(host, error),
        }
    }

    /// The request has ended like this at the endpoint where it is counted.
    pub(super) fn tell_discovery(
        &self,
        worker: &mut Worker,
        host: &mut impl Host,
        endpoint: Option<(String, String)>,
        outcome: Outcome,
        now: Timestamp,
    ) {
        let (Some(way), Some((cluster, address))) = (&self.way, endpoint) else {
            return;
        };
        match outcome {
            Outcome::Success
            | Outcome::ClientError
            | Outcome::UpstreamError
            | Outcome::Rejected => worker.discovery.answered(&cluster, &address, now),
            Outcome::Retried | Outcome::Reset | Outcome::Unavailable if !way.is_located => {
                worker.failed(host, &cluster, &address);
            }
            _ => {}
        }
    }
}
