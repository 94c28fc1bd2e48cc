//! Who really serves a request, which may not be the upstream that was picked.
//!
//! There are two reasons. Another route may have taken the request: it went
//! to another cluster, and what happened there says nothing about the pick. And
//! an aggregate cluster silently skips its first cluster if the
//! proxy's health checks have found it unhealthy: then the answer comes from a
//! neighbour, which is another upstream of the pool.
//!
//! The name identifies the cluster, and the address that answered the upstream.
//! The proxy does not name the cluster inside an aggregate, so [`Owners`] knows
//! which addresses belong to which upstream: from the endpoint's metadata if the
//! proxy's configuration names the upstream there, otherwise from earlier
//! answers.

mod owners;
#[cfg(test)]
mod tests;

pub use owners::{Owner, Owners};

use crate::pool::PoolIndex;

/// So many answers from elsewhere, and none from the cluster that a pool of
/// endpoints names, are worth a line in the log.
const SUSPICIOUS: u32 = 100;

/// Where the answers to one worker's requests come from.
#[derive(Debug, Default)]
pub struct Serving {
    /// Which addresses belong to which upstream.
    pub owners: Owners,
    /// By the pool's number.
    pools: Vec<Named>,
}

/// Whether the cluster that serves a pool's requests has the name that was
/// picked.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    /// It has had, at least once.
    is_known: bool,
    /// Answers of other clusters before that.
    others: u32,
}

/// What the name of the cluster that serves says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is the picked one.
    Picked,
    /// Another route has taken the request.
    Other,
    /// The pool's clusters may have other names than its upstreams: routes that
    /// match the routing header can lead anywhere.
    Unclear,
}

impl Serving {
    /// What it means that the cluster `serving` has a request of the pool with
    /// this number, for which `picked` was named. Names that differ are unclear
    /// until they have once been the same; never for `endpoints`, which are
    /// those of the one cluster that the pool names.
    pub fn route(
        &mut self,
        pool: PoolIndex,
        picked: &str,
        serving: &str,
        endpoints: bool,
    ) -> Route {
        if self.pools.len() <= pool.0 {
            self.pools.resize(pool.0 + 1, Named::default());
        }
        let Some(named) = self.pools.get_mut(pool.0) else {
            return Route::Unclear;
        };
        if is_named(serving, picked) {
            if !std::mem::replace(&mut named.is_known, true) {
                // What was learned until now may be another route's.
                self.owners.forget();
            }
            return Route::Picked;
        }
        if named.is_known {
            return Route::Other;
        }
        named.others = named.others.saturating_add(1);
        if endpoints && named.others == SUSPICIOUS {
            log::warn!(
                "paceline: answers come from cluster {serving}, and none from {picked}, whose \
                 endpoints the pool is to balance: is that the name of the route's cluster?"
            );
        }
        match endpoints {
            true => Route::Other,
            false => Route::Unclear,
        }
    }
}

/// Whether the cluster is the one that was picked: by its name, or by the subset
/// in the name that Istio gives it (`outbound|8000|h100|llama.models.svc`).
pub(crate) fn is_named(cluster: &str, picked: &str) -> bool {
    cluster == picked || cluster.split('|').nth(2) == Some(picked)
}
