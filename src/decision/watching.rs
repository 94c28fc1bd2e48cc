//! Upstreams that take requests and do not answer: nothing ends there that could be
//! learned from, so the worker looks for them from time to time.

use std::time::Duration;

use super::Balancer;
use super::judging::Suspect;
use crate::config::OutlierDetection;
use crate::estimate::Basis;
use crate::host::SharedData;
use crate::outlier::{Event, Phase, Reason};
use crate::pool::{MemberHandle, MemberIndex};
use crate::state::{MemberState, Outstanding, PoolState};
use crate::time::Timestamp;

/// One request may take as long as it likes.
const FEWEST: u64 = 2;

/// How long silences are cannot be known before a pool has been in use for a while.
const ACQUAINTANCE: Duration = Duration::from_secs(60);

/// A member's phase, and what is left of its warming.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Whether it is in.
    pub phase: Phase,
    /// The part of its weight that it gets: 1 once it is warm.
    pub warmth: f64,
}

impl Condition {
    /// In, and warm.
    pub const GOOD: Condition = Condition {
        phase: Phase::In,
        warmth: 1.0,
    };
}

impl Balancer {
    /// Ejects the upstreams that have not answered anything for long, though they have
    /// requests. To be called about as often as [`Balancer::renew`].
    pub fn watch(&mut self, shared: &mut impl SharedData, now: Timestamp) {
        // Who takes no part in the shared state shows nothing of it, either.
        if self.lanes.number().is_none() || self.estimates.read(shared, now).is_err() {
            return;
        }
        let suspects = self.hanging(now);
        if !suspects.is_empty() {
            self.merge(shared, now, &suspects);
        }
    }

    fn hanging(&self, now: Timestamp) -> Vec<Suspect> {
        let pools = self.topology.pools.iter().zip(&self.pools);
        let watched = pools.filter_map(|(pool, balanced)| {
            let detection = balanced.detection.as_ref();
            Some((pool, detection.filter(|it| it.latency_factor > 0.0)?))
        });
        let members = watched.flat_map(|(pool, detection)| {
            pool.member_indexes().map(move |member| (member, detection))
        });
        let hangs = |member: MemberIndex, detection: &OutlierDetection| {
            let configured = self.topology.member(member)?;
            let outstanding = self.lanes.outstanding(configured.upstream);
            if outstanding.requests() < FEWEST {
                return None;
            }
            let pool = self.estimates.pool(configured.pool)?;
            let state = self.estimates.member(member)?;
            Some(hangs(state, pool, outstanding, detection, now))
        };
        members
            .filter(|(member, detection)| hangs(*member, detection) == Some(true))
            .map(|(member, _)| Suspect {
                member,
                of: Some(Reason::NoAnswer),
                is_certain: true,
            })
            .collect()
    }

    /// Members whose phase has changed by what this worker has merged since this was
    /// last asked.
    pub fn take_events(&mut self) -> Vec<(MemberHandle, Event)> {
        std::mem::take(&mut self.events)
    }

    /// The condition of each member that a pool can pick, as this worker knows it.
    pub fn conditions(&self, now: Timestamp) -> impl Iterator<Item = (MemberIndex, Condition)> {
        let pools = self.topology.pools.iter().zip(&self.pools);
        pools.flat_map(move |(pool, balanced)| {
            pool.member_indexes().filter_map(move |member| {
                let health = &self.estimates.member(member)?.health;
                let phase = match balanced.detection {
                    Some(_) => health.phase(now),
                    None => Phase::In,
                };
                let slow_start = balanced.slow_start.as_ref();
                let warmth = slow_start.map_or(1.0, |it| health.warmth(it, now));
                Some((member, Condition { phase, warmth }))
            })
        })
    }

    /// These members have started anew, or have only now become ready: they are cold. What
    /// was learned of their failures and their slowness is forgotten, and an ejection
    /// ends, with the next merge.
    pub fn restart(&mut self, members: &[MemberIndex]) {
        let handles = members
            .iter()
            .filter_map(|it| self.topology.member_handle(*it));
        self.restarted.extend(handles);
    }
}

/// Whether the member hangs, with so much outstanding: nothing has come from it for as
/// long as what is outstanding is old, and that is both many times the latency to expect
/// and longer than any upstream of the pool was ever silent.
fn hangs(
    state: &MemberState,
    pool: &PoolState,
    outstanding: Outstanding,
    detection: &OutlierDetection,
    now: Timestamp,
) -> bool {
    let requests = outstanding.requests() as f64;
    let age = outstanding.ages(now) / requests;
    let silence = now.seconds_since(state.outcome_at).min(age);
    if now.since(pool.began_at.time()) < ACQUAINTANCE
        || state.health.phase(now) != Phase::In
        || !pool.typical.is_silence_strange(silence, requests)
    {
        return false;
    }
    let work = match pool.books.basis() {
        Basis::Requests => 1.0,
        Basis::Work => outstanding.work() / requests,
    };
    silence > detection.latency_factor * pool.typical.expected(state.health.slowness) * work
}
