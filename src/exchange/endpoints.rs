//! The part of an exchange that a pool of endpoints adds: a list of them in a
//! header, requests without one, and news of who is there.

use super::Exchange;
use super::phase::{Location, Sent};
use super::served::is_upstreams_answer;
use crate::decision::{PassThrough, Route};
use crate::host::{Host, HostError};
use crate::outcome::Outcome;
use crate::pool::PoolIndex;
use crate::time::Timestamp;
use crate::worker::Worker;

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
    /// Leaves it to the proxy which endpoint of the pool's cluster gets the
    /// request, to learn which there are.
    pub(super) fn explore(
        &mut self,
        worker: &mut Worker,
        host: &mut impl Host,
        (pool, cluster): (PoolIndex, &str),
        now: Timestamp,
    ) -> Result<Sent, PassThrough> {
        self.log(worker, host, "discovering", "discovery");
        let config = &worker.config;
        let named = host.set_request_header(&config.route_header, cluster);
        let open = host.remove_request_header(&config.endpoint_header);
        named.and(open).map_err(|_| PassThrough::HostError)?;
        if worker.explains(true) {
            let text = format!("cluster={cluster}; reason=discovery");
            self.explain(worker, Some(pool), true, text);
        }
        worker.metrics.explored(host, pool);
        Ok(Sent::new(pool, true, now))
    }
}

impl Sent {
    /// The request has ended like this at the endpoint where it is counted: that
    /// of a cluster with an address.
    pub(super) fn tell_discovery(
        &self,
        worker: &mut Worker,
        host: &mut impl Host,
        (cluster, address): &(String, String),
        outcome: Outcome,
        now: Timestamp,
    ) {
        match outcome {
            Outcome::Success
            | Outcome::ClientError
            | Outcome::UpstreamError
            | Outcome::Rejected => worker.discovery.answered(cluster, address, now),
            // What the endpoint has begun to answer is no sign that it is gone;
            // what the proxy answers in its place is.
            Outcome::Retried | Outcome::Reset | Outcome::Unavailable
                if self.location == Location::Open || !is_upstreams_answer(host) =>
            {
                worker.failed(host, cluster, address);
            }
            _ => {}
        }
    }
}
