//! What a decision is made on: the request's pool and size, and its body as far
//! as they depend on it.

use std::time::Duration;

use crate::config::{self, SizeSource};
use crate::decision::{Demand, PassThrough};
use crate::host::Host;
use crate::pool::PoolIndex;
use crate::request::{Body, NeedsBody, Request, Unknown};
use crate::worker::Worker;

/// What a decision is made on.
pub(super) struct Facts {
    pub(super) pool: Result<PoolIndex, PassThrough>,
    /// `None` where nothing depends on it.
    size: Option<Result<f64, Unknown>>,
    pub(super) model_unknown: Option<Unknown>,
    /// What decides about its admission, where the pool asks.
    pub(super) admission: Admission,
    /// For people; empty unless asked for.
    pub(super) description: String,
}

/// What a request says about its admission.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Admission {
    /// Its priority class, 0 for the most important.
    pub(super) class: usize,
    /// Tells its tenant apart.
    pub(super) tenant: u64,
    /// How long it may take, if that is limited.
    pub(super) allowed: Option<Duration>,
    /// Headers that could not be read.
    pub(super) invalid: u32,
}

impl Admission {
    fn read<H: Host>(&mut self, request: &mut Request<'_, H>, pool: &config::Pool) {
        let asked = &pool.admission;
        if let Some(priority) = &asked.priority {
            let said = request.class(priority);
            self.class = said.value;
            self.invalid += u32::from(said.is_invalid);
        }
        if let Some(fairness) = &asked.fairness {
            self.tenant = request.tenant(fairness);
        }
        if let Some(deadline) = &asked.deadline {
            let said = request.time_allowed(deadline, pool.latency.signal);
            self.allowed = said.value;
            self.invalid += u32::from(said.is_invalid);
        }
    }
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
        let configured = pool.ok().and_then(|number| config.pools.get(number.0));
        let size = match configured {
            Some(pool) if pool.heeds_size() => Some(request.size(&pool.request_size)?),
            _ => None,
        };
        let mut admission = Admission::default();
        if let Some(pool) = configured {
            admission.read(&mut request, pool);
        }
        Ok(Facts {
            pool,
            size,
            admission,
            model_unknown: request.model_unknown(),
            description: match worker.explains(true) {
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
            let source = worker
                .config
                .pools
                .get(pool.0)
                .map(|pool| &pool.request_size);
            if source != Some(&SizeSource::ContentLength) {
                worker.metrics.size_unknown(host, pool, reason);
            }
        }
        let size = self.size.and_then(Result::ok);
        let allowed = self.admission.allowed;
        let due = allowed.map(|allowed| worker.now(host).after(allowed));
        Ok(Demand {
            pool,
            size,
            due,
            ..Demand::default()
        })
    }
}

/// Whether there will be a body worth waiting for.
pub(super) fn body_to_wait_for(worker: &Worker, host: &mut impl Host) -> Result<(), Unknown> {
    let mut request = Request::new(host, &worker.config.model, &Body::ToCome);
    request.awaits_json(worker.config.request_body.max_bytes)
}
