//! What works, but perhaps not as intended: seen in a configuration alone.

use paceline::config::{Config, Pool, QueueLimits};

use super::Finding;

/// Warnings about a valid configuration.
pub(super) fn advice(config: &Config) -> Vec<Finding> {
    config.pools.iter().flat_map(of_pool).collect()
}

fn of_pool(pool: &Pool) -> Vec<Finding> {
    let mut said = Vec::new();
    let name = &pool.name;
    let fixed = pool.endpoints.as_ref().and_then(|it| it.fixed.as_ref());
    let weights: Vec<u32> = match fixed {
        Some(endpoints) => endpoints.iter().map(|it| it.weight).collect(),
        None => pool.upstreams.iter().map(|it| it.weight).collect(),
    };
    if weights.len() == 1 {
        said.push(format!(
            "pool {name:?}: has one upstream only, so there is nothing to choose and no other to retry at"
        ));
    }
    if !weights.is_empty() && weights.iter().all(|weight| *weight == 0) {
        said.push(format!(
            "pool {name:?}: every weight is 0, so all its requests take the fallback route, counted as `drained`"
        ));
    } else if !pool.policy.heeds_weights() && weights.iter().any(|weight| *weight > 1) {
        // The filter refuses weights that differ.
        said.push(format!(
            "pool {name:?}: {} ignores weights; leave them out",
            pool.policy.name()
        ));
    }
    let queue = pool.admission.queue;
    if pool.has_limits() && queue == QueueLimits::default() {
        said.push(format!(
            "pool {name:?}: has limits, and admission.queue is at its defaults: what finds no room waits, \
             up to {} requests for up to {} s each; give max_requests and max_wait to say what clients accept",
            queue.max_requests,
            queue.max_wait.as_secs()
        ));
    }
    said.into_iter().map(Finding::Warning).collect()
}
