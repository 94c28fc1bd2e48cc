//! What a decision is made on: the request's pool and size, and its body as far
//! as they depend on it.

use crate::config::SizeSource;
use crate::decision::{Demand, PassThrough};
use crate::host::Host;
use crate::request::{Body, Length, NeedsBody, Request, Unknown};
use crate::worker::Worker;

/// What a decision is made on.
pub(super) struct Facts {
    pub(super) pool: Result<usize, PassThrough>,
    /// `None` where nothing depends on it.
    size: Option<Result<f64, Unknown>>,
    pub(super) model_unknown: Option<Unknown>,
    /// For people; empty unless asked for.
    pub(super) description: String,
}

impl Facts {
    pub(super) fn read(
        worker: &Worker,
        host: &mut impl Host,
        body: &Body,
    ) -> Result<Self, NeedsBody> {
        let config = &worker.config;
        let mut request = Request::new(host, &config.model, body);
        let pool = request.pool(config)?;
        let configured = pool.ok().and_then(|number| config.pools.get(number));
        let size = match configured {
            Some(pool) if pool.heeds_size() => Some(request.size(&pool.request_size)?),
            _ => None,
        };
        Ok(Facts {
            pool,
            size,
            model_unknown: request.model_unknown(),
            description: match config.explain {
                true => request.describe(),
                false => String::new(),
            },
        })
    }

    /// The demand; a size that is configured and not known is counted. That a
    /// request has no content-length is nothing unusual.
    pub(super) fn demand(
        &self,
        worker: &mut Worker,
        host: &mut impl Host,
    ) -> Result<Demand, PassThrough> {
        let pool = self.pool?;
        if let Some(Err(reason)) = self.size {
            let source = worker.config.pools.get(pool).map(|pool| &pool.request_size);
            if source != Some(&SizeSource::ContentLength) {
                worker.metrics.size_unknown(host, pool, reason);
            }
        }
        let size = self.size.and_then(Result::ok);
        Ok(Demand { pool, size })
    }
}

/// Whether there will be a body worth waiting for.
pub(super) fn body_to_wait_for(worker: &Worker, host: &mut impl Host) -> Result<Length, Unknown> {
    let mut request = Request::new(host, &worker.config.model, &Body::ToCome);
    request.awaits_json(max_bytes(worker))
}

/// The largest body to wait for.
pub(super) fn max_bytes(worker: &Worker) -> u32 {
    let configured = worker.config.request_body.max_bytes;
    worker.waiting.max_bytes(configured)
}

/// All of the body, which has come to its end.
pub(super) fn read_body(host: &mut impl Host, bytes: usize) -> Body {
    match host.request_body(bytes) {
        Ok(Some(bytes)) => Body::Whole(bytes),
        Ok(None) => Body::Unread(Unknown::Missing),
        Err(_) => Body::Unread(Unknown::HostError),
    }
}

/// All of the body, if that has come and only the news of its end is missing:
/// over HTTP/1 a body without a length never ends with its last part.
pub(super) fn read_early(host: &mut impl Host, bytes: usize) -> Option<Body> {
    Body::if_complete(host.request_body(bytes).ok()??)
}
