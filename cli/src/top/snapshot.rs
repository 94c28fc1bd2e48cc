//! The metrics of a moment, and what happens between two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lab::gateway::{Sample, Stats};

use super::told::Told;

/// Outcomes that are the upstream's failures.
const FAILURES: [&str; 5] = [
    "upstream_error",
    "rejected",
    "timeout",
    "reset",
    "unavailable",
];

/// The counts of one moment.
pub(super) struct Snapshot {
    at: Instant,
    pools: BTreeMap<String, Pool>,
    /// By upstream, over all pools.
    in_flight: BTreeMap<String, u64>,
    /// By upstream, those that have one.
    caps: BTreeMap<String, u64>,
    devices: BTreeMap<String, Device>,
    passed_through: BTreeMap<String, u64>,
    /// What the status page tells, if it is asked.
    pub(super) told: Option<Told>,
}

#[derive(Clone, Default)]
struct Pool {
    weighs: bool,
    capacity: Capacity,
    /// Requests placed among all upstreams because too many are ejected.
    panics: u64,
    rejections: BTreeMap<String, u64>,
    upstreams: BTreeMap<String, Upstream>,
}

/// What a pool may have in flight, and what waits for that.
#[derive(Clone, Copy, Default)]
pub(super) struct Capacity {
    /// None without a cap of the pool.
    pub(super) cap: Option<u64>,
    pub(super) in_flight: u64,
    pub(super) held: u64,
}

/// The memory of a device, in bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Device {
    pub(super) used: u64,
    pub(super) memory: u64,
}

/// What keeps an upstream from its share, if anything does.
#[derive(Clone, Default)]
pub(super) struct Health {
    /// None without a health check.
    pub(super) ready: Option<bool>,
    /// The reasons for which it is ejected.
    pub(super) ejected: BTreeSet<String>,
    pub(super) warming: bool,
}

#[derive(Clone, Default)]
struct Upstream {
    health: Health,
    picks: u64,
    /// Requests that it served without being picked.
    adoptions: u64,
    outcomes: BTreeMap<String, u64>,
    /// In milliseconds, by name.
    quantiles: BTreeMap<String, u64>,
}

impl Snapshot {
    pub(super) fn of(stats: &Stats, at: Instant) -> Self {
        let mut this = Self {
            at,
            pools: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            caps: BTreeMap::new(),
            devices: BTreeMap::new(),
            passed_through: BTreeMap::new(),
            told: None,
        };
        for sample in stats.iter() {
            this.take(sample);
        }
        this
    }

    fn take(&mut self, sample: &Sample) {
        let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        let value = sample.value;
        match sample.name.as_str() {
            // Of several plugins each counts its own.
            "paceline_in_flight" => *self.in_flight.entry(label("upstream")).or_default() += value,
            "paceline_pass_through_total" => {
                *self.passed_through.entry(label("reason")).or_default() += value;
            }
            "paceline_max_in_flight" => *self.caps.entry(label("upstream")).or_default() += value,
            "paceline_device_memory_bytes" => self.device(label("device")).memory += value,
            "paceline_device_memory_used_bytes" => self.device(label("device")).used += value,
            "paceline_held" => self.pool(&label("pool")).capacity.held += value,
            "paceline_pool_in_flight" => self.pool(&label("pool")).capacity.in_flight += value,
            "paceline_pool_max_in_flight" => {
                *self.pool(&label("pool")).capacity.cap.get_or_insert(0) += value;
            }
            "paceline_panic_picks_total" => self.pool(&label("pool")).panics += value,
            "paceline_rejections_total" => {
                let rejections = &mut self.pool(&label("pool")).rejections;
                *rejections.entry(label("reason")).or_default() += value;
            }
            "paceline_ready" => {
                let ready = &mut self.upstream(&label).health.ready;
                *ready = Some(ready.unwrap_or(false) || value > 0);
            }
            "paceline_ejected" if value > 0 => {
                self.upstream(&label).health.ejected.insert(label("reason"));
            }
            "paceline_warming" => self.upstream(&label).health.warming |= value > 0,
            "paceline_weighs" => self.pool(&label("pool")).weighs |= value > 0,
            "paceline_picks_total" => self.upstream(&label).picks += value,
            "paceline_adoptions_total" => self.upstream(&label).adoptions += value,
            "paceline_outcomes_total" => {
                let outcomes = &mut self.upstream(&label).outcomes;
                *outcomes.entry(label("outcome")).or_default() += value;
            }
            "paceline_latency_quantile_milliseconds" => {
                let quantiles = &mut self.upstream(&label).quantiles;
                let most = quantiles.entry(label("quantile")).or_default();
                *most = (*most).max(value);
            }
            _ => {}
        }
    }

    fn device(&mut self, name: String) -> &mut Device {
        self.devices.entry(name).or_default()
    }

    fn pool(&mut self, name: &str) -> &mut Pool {
        self.pools.entry(name.to_owned()).or_default()
    }

    fn upstream(&mut self, label: &dyn Fn(&str) -> String) -> &mut Upstream {
        let pool = self.pool(&label("pool"));
        pool.upstreams.entry(label("upstream")).or_default()
    }
}

/// What happens: counts per second, and gauges.
pub(super) struct Rates {
    pub(super) picks: f64,
    pub(super) in_flight: u64,
    pub(super) passed_through: Vec<Reason>,
    pub(super) devices: Vec<(String, Device)>,
    pub(super) pools: Vec<PoolRates>,
}

/// How often something happens for a reason, without reasons that never were.
pub(super) struct Reason {
    pub(super) name: String,
    pub(super) per_second: f64,
    pub(super) in_all: u64,
}

pub(super) struct PoolRates {
    pub(super) name: String,
    /// Whether requests are weighed by size.
    pub(super) weighs: bool,
    pub(super) capacity: Capacity,
    pub(super) picks: f64,
    pub(super) panics: f64,
    pub(super) rejections: Vec<Reason>,
    pub(super) upstreams: Vec<UpstreamRates>,
}

pub(super) struct UpstreamRates {
    pub(super) name: String,
    pub(super) health: Health,
    pub(super) in_flight: u64,
    pub(super) cap: Option<u64>,
    pub(super) picks: f64,
    pub(super) adoptions: f64,
    pub(super) successes: f64,
    pub(super) failures: f64,
    pub(super) retried: f64,
    /// p50, p90 and p99 in milliseconds; 0 where nothing was measured.
    pub(super) quantiles: [u64; 3],
}

impl Rates {
    /// Between two moments. A counter that is lower than before began anew.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
        let rate = |before: u64, now: u64| {
            let grown = now.checked_sub(before).unwrap_or(now);
            grown as f64 / seconds
        };
        let reasons = |before: Option<&BTreeMap<String, u64>>, now: &BTreeMap<String, u64>| {
            let happened = now.iter().filter(|(_, count)| **count > 0);
            let reason = |(name, count): (&String, &u64)| Reason {
                name: name.clone(),
                per_second: rate(
                    before.and_then(|it| it.get(name)).copied().unwrap_or(0),
                    *count,
                ),
                in_all: *count,
            };
            happened.map(reason).collect::<Vec<_>>()
        };
        let none = Upstream::default();
        let mut pools = Vec::new();
        for (name, pool) in &now.pools {
            let earlier = before.pools.get(name);
            let upstreams = pool.upstreams.iter().map(|(name, it)| {
                let earlier = earlier
                    .and_then(|pool| pool.upstreams.get(name))
                    .unwrap_or(&none);
                let outcome = |outcome: &str| {
                    let count =
                        |of: &Upstream| of.outcomes.get(outcome).copied().unwrap_or_default();
                    rate(count(earlier), count(it))
                };
                UpstreamRates {
                    name: name.clone(),
                    health: it.health.clone(),
                    cap: now.caps.get(name).copied(),
                    in_flight: now.in_flight.get(name).copied().unwrap_or_default(),
                    picks: rate(earlier.picks, it.picks),
                    adoptions: rate(earlier.adoptions, it.adoptions),
                    successes: outcome("success"),
                    failures: FAILURES.into_iter().map(outcome).sum(),
                    retried: outcome("retried"),
                    quantiles: ["0.5", "0.9", "0.99"]
                        .map(|it_is| it.quantiles.get(it_is).copied().unwrap_or_default()),
                }
            });
            let upstreams: Vec<_> = upstreams.collect();
            pools.push(PoolRates {
                name: name.clone(),
                weighs: pool.weighs,
                capacity: pool.capacity,
                panics: rate(earlier.map_or(0, |pool| pool.panics), pool.panics),
                rejections: reasons(earlier.map(|pool| &pool.rejections), &pool.rejections),
                picks: upstreams.iter().map(|it| it.picks).sum(),
                upstreams,
            });
        }
        Self {
            picks: pools.iter().map(|it| it.picks).sum(),
            in_flight: now.in_flight.values().sum(),
            passed_through: reasons(Some(&before.passed_through), &now.passed_through),
            devices: now.devices.clone().into_iter().collect(),
            pools,
        }
    }
}
