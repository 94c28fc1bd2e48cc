//! Which endpoints a cluster has, learned from who answers.
//!
//! The filter does not see the proxy's host list. But a request without a picked
//! endpoint goes where the proxy's own balancing sends it, and the answer shows
//! where that was. So the filter leaves a share of the requests to the proxy: all of
//! them while it knows no endpoint, and fewer the more it knows. If no endpoint has
//! come or gone for a while, it leaves one request per period, independent of the
//! number of requests. It picks every endpoint that has answered from then on.
//!
//! The filter forgets an endpoint in three cases: the proxy does not know it (it
//! served a request elsewhere at the first attempt); it has failed [`STRIKES`] times
//! without an answer; or it has not answered for [`SILENCE`] while others have and
//! nothing is in flight there. A mistake costs little in all three: a live endpoint
//! is found again.
//!
//! The workers share one list per cluster. A worker picks what it finds and
//! publishes it at once, because the worker that replaces it may be configured at any
//! moment; the others know it after their next tick.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::{Config, endpoint_address};
use crate::host::{SetError, SharedData, Version};
use crate::map::Map;
use crate::pool::identity;
use crate::random::Rng;
use crate::state::endpoints::{self, CAPACITY, Known};
use crate::time::Timestamp;

/// Failures in a row, without an answer, after which an endpoint is forgotten.
pub const STRIKES: u32 = 3;
/// How long an endpoint may be silent while others answer.
pub const SILENCE: Duration = Duration::from_secs(300);
/// The least share of requests that is left to the proxy.
const LEAST_SHARE: f64 = 0.01;
/// How much of it one known endpoint would get: with n known, 1 / 4n.
const SHARE_OF_ONE: f64 = 0.25;
/// For so long after a find more are looked for: they come in groups.
const EXCITEMENT: Duration = Duration::from_secs(5);
/// The share of requests left to the proxy during that time.
const EXCITED_SHARE: f64 = 0.1;
/// Later the time between two that are left to the proxy is this part of the time
/// since endpoints came or went, within the two bounds.
const PART_OF_REST: u32 = 8;
const LEAST_PERIOD: Duration = Duration::from_secs(1);
const MOST_PERIOD: Duration = Duration::from_secs(10);
/// How stale the list may be in when an endpoint last answered.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a write is tried before it waits for the next tick.
const ATTEMPTS: u32 = 4;

/// What one worker knows of the endpoints of the clusters that are left to
/// discovery.
#[derive(Debug, Default)]
pub struct Discovery {
    clusters: Vec<Cluster>,
}

#[derive(Debug)]
struct Cluster {
    name: String,
    key: String,
    version: Option<Version>,
    known: Vec<Known>,
    /// By the identity of the endpoint's address: no other table here is by names, and
    /// hashing those is code of its own.
    heard: Map<u64, Heard>,
    found_at: Option<Timestamp>,
    /// When endpoints last came or went here, as far as this worker has seen.
    changed_at: Option<Timestamp>,
    explored_at: Option<Timestamp>,
}

/// What this worker has heard of an endpoint.
#[derive(Debug, Default)]
struct Heard {
    /// What the others perhaps do not know yet.
    news: Option<News>,
    /// When it last answered, since the list was last taken over.
    answered_at: Option<Timestamp>,
    /// Its failures without an answer since.
    strikes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Found,
    Gone,
}

impl Discovery {
    /// Nothing is known of the clusters that `config` leaves to discovery.
    /// `key` is that of the workers' record.
    #[must_use]
    pub fn new(config: &Config, key: &str) -> Self {
        let mut discovery = Discovery::default();
        for discovered in config.pools.iter().filter_map(|it| it.endpoints.as_ref()) {
            let name = &discovered.cluster;
            // Two pools may balance one cluster.
            if discovered.fixed.is_some() || discovery.cluster(name).is_some() {
                continue;
            }
            let version = endpoints::VERSION;
            discovery.clusters.push(Cluster {
                name: name.clone(),
                key: format!("{key}/endpoints/{version}/{name}"),
                version: None,
                known: Vec::new(),
                heard: Map::default(),
                found_at: None,
                changed_at: None,
                explored_at: None,
            });
        }
        discovery
    }

    /// Whether there is anything to discover.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.clusters.is_empty()
    }

    /// The endpoints of a cluster, those that answered first before others.
    #[must_use]
    pub fn endpoints(&self, cluster: &str) -> Vec<String> {
        let known = self.cluster(cluster).map(|it| &*it.known);
        let known = known.unwrap_or_default().iter();
        known.map(|endpoint| endpoint.address.clone()).collect()
    }

    /// Whether the next request to `cluster` is left to the proxy, to see where
    /// it goes; then it is counted as one. Never where there is nothing to
    /// discover.
    pub fn explores(&mut self, cluster: &str, now: Timestamp, rng: &mut Rng) -> bool {
        let Some(cluster) = self.cluster_mut(cluster) else {
            return false;
        };
        let known = cluster.known.len();
        if known == 0 {
            return true;
        }
        let excited = cluster
            .found_at
            .is_some_and(|at| now.since(at) < EXCITEMENT);
        if !excited && !cluster.is_due(now) {
            return false;
        }
        let least = if excited { EXCITED_SHARE } else { LEAST_SHARE };
        let explores = rng.unit() < (SHARE_OF_ONE / known as f64).max(least);
        if explores {
            cluster.explored_at = Some(now);
        }
        explores
    }

    /// The endpoint has answered a request that was not sent to it by name.
    /// Returns whether that is news.
    pub fn found(&mut self, cluster: &str, address: &str, now: Timestamp) -> bool {
        let Some(cluster) = self.cluster_mut(cluster) else {
            return false;
        };
        let is_known = cluster.known.iter().any(|it| it.address == address);
        if is_known || cluster.known.len() >= CAPACITY {
            return false;
        }
        // What the proxy connects to may be no IP address: a pipe, say.
        let Some(address) = endpoint_address(address) else {
            return false;
        };
        let heard = cluster.heard_of(&address);
        heard.strikes = 0;
        heard.news = Some(News::Found);
        cluster.found_at = Some(now);
        cluster.changed_at = Some(now);
        cluster.known.push(Known {
            address,
            seen_at: now,
        });
        true
    }

    /// The endpoint has answered.
    pub fn answered(&mut self, cluster: &str, address: &str, now: Timestamp) {
        if let Some(cluster) = self.cluster_mut(cluster) {
            let heard = cluster.heard_of(address);
            heard.strikes = 0;
            heard.answered_at = Some(now);
        }
    }

    /// Requests are in flight at the endpoint, which so is not silent. Whether it
    /// will ever answer them is another question.
    pub fn works(&mut self, cluster: &str, address: &str, now: Timestamp) {
        if let Some(cluster) = self.cluster_mut(cluster) {
            cluster.heard_of(address).answered_at = Some(now);
        }
    }

    /// A request to the endpoint has failed before it was answered. Returns
    /// whether the endpoint is forgotten.
    pub fn failed(&mut self, cluster: &str, address: &str, now: Timestamp) -> bool {
        let Some(known) = self.cluster_mut(cluster) else {
            return false;
        };
        let heard = known.heard_of(address);
        heard.strikes += 1;
        heard.strikes >= STRIKES && self.absent(cluster, address, now)
    }

    /// The proxy does not know the endpoint. Returns whether it is forgotten.
    pub fn absent(&mut self, cluster: &str, address: &str, now: Timestamp) -> bool {
        let Some(cluster) = self.cluster_mut(cluster) else {
            return false;
        };
        let before = cluster.known.len();
        cluster.known.retain(|it| it.address != address);
        let was_known = cluster.known.len() < before;
        if was_known {
            cluster.changed_at = Some(now);
        }
        let heard = cluster.heard_of(address);
        heard.strikes = 0;
        heard.answered_at = None;
        if was_known {
            heard.news = Some(News::Gone);
        }
        was_known
    }

    /// Tells the other workers what this one has found or forgotten and they may
    /// not know. A list that cannot be written now is written by the next tick.
    pub fn tell(&mut self, shared: &mut impl SharedData, now: Timestamp) {
        for cluster in &mut self.clusters {
            if cluster.has_news() {
                cluster.tick(shared, now);
            }
        }
    }

    /// Exchanges news with the other workers. Returns whether endpoints have
    /// come or gone. A list that cannot be read or written now is so at the next
    /// tick.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: Timestamp) -> bool {
        let mut changed = false;
        for cluster in &mut self.clusters {
            changed |= cluster.tick(shared, now);
        }
        changed
    }

    /// Takes over what the other workers know, without telling them anything.
    pub fn read(&mut self, shared: &mut impl SharedData) {
        for cluster in &mut self.clusters {
            let stored = shared.get(&cluster.key).unwrap_or(None);
            let listed = stored.and_then(|stored| endpoints::decode(&stored.value));
            cluster.adopt(listed.unwrap_or_default());
        }
    }

    fn cluster(&self, name: &str) -> Option<&Cluster> {
        self.clusters.iter().find(|it| it.name == name)
    }

    fn cluster_mut(&mut self, name: &str) -> Option<&mut Cluster> {
        self.clusters.iter_mut().find(|it| it.name == name)
    }
}

impl Cluster {
    /// Whether it is time to look for others again.
    fn is_due(&self, now: Timestamp) -> bool {
        let Some(explored_at) = self.explored_at else {
            return true;
        };
        let rest = self
            .changed_at
            .map_or(MOST_PERIOD, |at| now.since(at) / PART_OF_REST);
        now.since(explored_at) >= rest.clamp(LEAST_PERIOD, MOST_PERIOD)
    }

    fn tick(&mut self, shared: &mut impl SharedData, now: Timestamp) -> bool {
        for _ in 0..ATTEMPTS {
            let Ok(stored) = shared.get(&self.key) else {
                return false;
            };
            let version = stored.as_ref().map(|stored| stored.version);
            let is_read = version.is_some() && version == self.version;
            if is_read && !self.has_news() && !self.is_stale() {
                return false;
            }
            let listed = stored.and_then(|stored| endpoints::decode(&stored.value));
            let merged = self.merge(listed.as_deref(), now);
            if merged.is_empty() && listed.is_none() {
                return false;
            }
            if listed.as_ref() == Some(&merged) {
                self.version = version;
                return self.adopt_at(merged, now);
            }
            let bytes = endpoints::encode(&merged);
            match shared.compare_and_set(&self.key, &bytes, version) {
                Ok(()) => {
                    // Its new version is not told; the next tick reads it.
                    self.version = None;
                    return self.adopt_at(merged, now);
                }
                Err(SetError::Conflict) => {}
                Err(SetError::Host(_)) => return false,
            }
        }
        false
    }

    #[inline(never)]
    fn heard_of(&mut self, address: &str) -> &mut Heard {
        self.heard.entry(identity(&[address])).or_default()
    }

    #[inline(never)]
    fn heard(&self, endpoint: &Known) -> Option<&Heard> {
        self.heard.get(&identity(&[&endpoint.address]))
    }

    fn news_of(&self, endpoint: &Known) -> Option<News> {
        self.heard(endpoint)?.news
    }

    fn answered_at(&self, endpoint: &Known) -> Option<Timestamp> {
        self.heard(endpoint)?.answered_at
    }

    /// Whether the list may lack what was found or forgotten here.
    fn has_news(&self) -> bool {
        self.heard.values().any(|heard| heard.news.is_some())
    }

    /// Whether the list says of something that answers that it is silent.
    fn is_stale(&self) -> bool {
        self.known.iter().any(|it| {
            let answered_at = self.answered_at(it);
            answered_at.is_some_and(|at| at.since(it.seen_at) > REFRESH)
        })
    }

    /// The list with this worker's news; what this worker knows where there is
    /// no list.
    fn merge(&self, listed: Option<&[Known]>, now: Timestamp) -> Vec<Known> {
        let mut merged = listed.unwrap_or(&self.known).to_vec();
        merged.retain(|it| self.news_of(it) != Some(News::Gone));
        for own in &self.known {
            let is_new = self.news_of(own) == Some(News::Found);
            if is_new && !merged.iter().any(|it| it.address == own.address) {
                merged.push(own.clone());
            }
        }
        for it in &mut merged {
            // One from the future would make all others look silent.
            it.seen_at = it.seen_at.min(now);
            if let Some(at) = self.answered_at(it)
                && at.since(it.seen_at) > REFRESH
            {
                it.seen_at = at;
            }
        }
        let latest = merged.iter().map(|it| it.seen_at).max();
        let latest = latest.unwrap_or(Timestamp::ZERO);
        merged.retain(|it| latest.since(it.seen_at) <= SILENCE);
        merged.truncate(CAPACITY);
        merged
    }

    fn adopt_at(&mut self, list: Vec<Known>, now: Timestamp) -> bool {
        let changed = self.adopt(list);
        if changed {
            self.changed_at = Some(now);
        }
        changed
    }

    /// Takes the list over, in which this worker's news is; whether endpoints have
    /// come or gone.
    fn adopt(&mut self, list: Vec<Known>) -> bool {
        let addresses =
            |list: &[Known]| -> Vec<String> { list.iter().map(|it| it.address.clone()).collect() };
        let changed = addresses(&list) != addresses(&self.known);
        // What was heard is in the list now, but for failures so far.
        let is_listed = |key: u64| list.iter().any(|it| identity(&[&it.address]) == key);
        self.heard.retain(|key, heard| {
            heard.news = None;
            heard.answered_at = None;
            heard.strikes > 0 && is_listed(*key)
        });
        self.known = list;
        changed
    }
}
