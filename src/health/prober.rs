//! The worker that asks for all.

use std::time::Duration;

use super::opinion::Opinion;
use super::targets::{Checks, Target, identity_of_all, targets};
use super::verdict::Verdict;
use super::view::heir;
use super::{LEASE, RECORD, VOUCHED};
use crate::config::{Config, HealthCheck};
use crate::host::{CallId, Calls};
use crate::map::Map;
use crate::pool::{MemberIndex, Topology};
use crate::random::Rng;
use crate::state::StateError;
use crate::state::cell::{self, Change};
use crate::state::health_record::{self, HealthRecord, Readiness, Row};
use crate::time::{Timestamp, seconds};

/// The most probes under way at once. Those that are due beyond wait until others
/// have ended.
pub(super) const MOST_AT_ONCE: usize = 64;

/// The record is looked at so often. Ticks may come more often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A lease is renewed when it is so old.
const RENEW_AFTER: Duration = Duration::from_millis(500);
/// How long after its timeout a call may end before it is forgotten.
const GRACE: Duration = Duration::from_secs(5);
/// How often a write is tried before it waits for the next tick.
const ATTEMPTS: u32 = 4;

/// One worker's part in probing: it probes if no other worker does.
#[derive(Debug)]
pub struct Prober {
    key: String,
    checks: Checks,
    /// What tells them apart from those of another configuration.
    identity: u64,
    id: u64,
    endpoint_header: String,
    targets: Vec<Tracked>,
    /// This worker holds the lease, as far as it knows.
    leads: bool,
    /// It is about to end, and others are to take over.
    leaves: bool,
    /// A target has become ready or ceased to be, and the others do not know.
    has_news: bool,
    looked_at: Option<Timestamp>,
    /// Calls under way.
    calls: Vec<Call>,
    /// Which target is looked at first, so that each has its turn.
    next: usize,
    ended: Vec<Probed>,
    /// Those that have become ready, since this was last asked.
    became_ready: Vec<MemberIndex>,
    rng: Rng,
}

/// A probe that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// A member that the probe was about.
    pub member: MemberIndex,
    /// How it ended.
    pub verdict: Verdict,
}

/// A target as this worker knows it.
#[derive(Debug)]
struct Tracked {
    target: Target,
    /// This worker asks it; else another does, or nobody.
    is_own: bool,
    opinion: Opinion,
    changed_at: Timestamp,
    due_at: Timestamp,
    /// A probe of it is under way.
    is_asked: bool,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    target: u64,
    sent_at: Timestamp,
    /// When it must have ended; else it is forgotten.
    forgotten_at: Timestamp,
}

/// What a worker is to know of a target after it has looked at the record.
struct Taken {
    opinion: Opinion,
    changed_at: Timestamp,
}

/// What a look at the record came to.
struct Looked {
    leads: bool,
    wrote: bool,
    /// In the order of the targets; `None` for those that another asks.
    taken: Vec<Option<Taken>>,
}

impl Prober {
    /// Asks nobody yet; `None` where no pool has a health check. `key` is that of the
    /// workers' record; `id` tells this worker apart from all others.
    #[must_use]
    pub fn new(config: &Config, topology: &Topology, key: &str, id: u64) -> Option<Self> {
        let mut prober = Prober {
            key: format!("{key}{RECORD}"),
            checks: Checks::of(config)?,
            identity: identity_of_all(config).max(1),
            id: id.max(1),
            endpoint_header: config.endpoint_header.clone(),
            targets: Vec::new(),
            leads: false,
            leaves: false,
            has_news: false,
            looked_at: None,
            calls: Vec::new(),
            next: 0,
            ended: Vec::new(),
            became_ready: Vec::new(),
            rng: Rng::new(id),
        };
        prober.set_topology(topology);
        Some(prober)
    }

    /// Follows a change of what can be chosen from.
    pub fn set_topology(&mut self, topology: &Topology) {
        let old = std::mem::take(&mut self.targets);
        let mut places: Map<u64, usize> = Map::default();
        for (place, tracked) in old.iter().enumerate() {
            places.insert(tracked.target.identity, place);
        }
        let tracked = targets(&self.checks, topology).into_iter().map(|target| {
            let place = places.get(&target.identity);
            let known = place.and_then(|place| old.get(*place));
            Tracked {
                is_own: known.is_some_and(|it| it.is_own),
                is_asked: known.is_some_and(|it| it.is_asked),
                opinion: known.map(|it| it.opinion).unwrap_or_default(),
                changed_at: known.map(|it| it.changed_at).unwrap_or_default(),
                due_at: known.map(|it| it.due_at).unwrap_or_default(),
                target,
            }
        });
        self.targets = tracked.collect();
        // Answers about what is gone are nobody's.
        let targets = &self.targets;
        self.calls
            .retain(|call| targets.iter().any(|it| it.target.identity == call.target));
        // What is new is to be asked at the next tick.
        self.looked_at = None;
    }

    /// Takes over where nobody probes; if this worker does, asks those that are due.
    /// To be called several times within [`LEASE`], from the plugin's root context.
    ///
    /// # Errors
    /// The record could not be read or written; the next call makes up for it.
    pub fn tick(&mut self, host: &mut impl Calls, now: Timestamp) -> Result<(), StateError> {
        self.forget_lost_calls(now);
        let is_due = self
            .looked_at
            .is_none_or(|at| now.since(at) >= LOOK_EVERY || at > now);
        let looked = match is_due || self.has_news {
            true => self.look(host, now),
            false => Ok(()),
        };
        self.ask_all_that_are_due(host, now);
        looked
    }

    /// A call has ended, and `host` is at its answer, which has a body of so many
    /// bytes; without headers there is none. Calls that are not known are ignored.
    ///
    /// # Errors
    /// The others could not be told; the next tick makes up for it.
    pub fn hear(
        &mut self,
        host: &mut impl Calls,
        call: CallId,
        has_headers: bool,
        body_size: usize,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let Some(known) = self.calls.iter().position(|it| it.id == call) else {
            return Ok(());
        };
        let call = self.calls.swap_remove(known);
        let place = self.place_of(call.target);
        let check = place.and_then(|place| check_at(&self.checks, &self.targets, place));
        let (Some(place), Some(check)) = (place, check) else {
            return Ok(());
        };
        let verdict = match has_headers {
            true => Verdict::of_answer(check, host, body_size),
            // The proxy's own timeout, or a connection that broke.
            false if now.since(call.sent_at) >= check.timeout => Verdict::Timeout,
            false => Verdict::Unreachable,
        };
        self.conclude(place, verdict, call.sent_at, now);
        self.ask_all_that_are_due(host, now);
        self.tell_if_settled(host, now)
    }

    /// The probes that have ended since this was last asked.
    pub fn take_ended(&mut self) -> Vec<Probed> {
        std::mem::take(&mut self.ended)
    }

    /// The members that were found to be ready, and were not before, since this was last
    /// asked. Only the worker that asks them has any.
    pub fn take_ready(&mut self) -> Vec<MemberIndex> {
        std::mem::take(&mut self.became_ready)
    }

    /// Whether this worker probes.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Leaves probing to the others; what this worker has found out still holds.
    ///
    /// # Errors
    /// The others were not told; they take over when the lease ends.
    pub fn leave(&mut self, host: &mut impl Calls, now: Timestamp) -> Result<(), StateError> {
        if !self.leads {
            return Ok(());
        }
        self.leaves = true;
        self.look(host, now)?;
        self.leads = false;
        Ok(())
    }

    /// Reads the record, takes over what nobody else asks, and tells what is new.
    fn look(&mut self, host: &mut impl Calls, now: Timestamp) -> Result<(), StateError> {
        self.looked_at = Some(now);
        let this = &*self;
        let looked = cell::change(host, &this.key, ATTEMPTS, |_, found| {
            let record = found.bytes.and_then(HealthRecord::parse);
            Ok(this.join(record.unwrap_or_default(), now))
        })?;
        let looked = looked.value;
        self.leads = looked.leads;
        if looked.wrote || !looked.leads {
            self.has_news = false;
        }
        for (tracked, taken) in self.targets.iter_mut().zip(looked.taken) {
            let was_own = std::mem::replace(&mut tracked.is_own, taken.is_some());
            let Some(taken) = taken.filter(|_| !was_own) else {
                continue;
            };
            tracked.opinion = taken.opinion;
            tracked.changed_at = taken.changed_at;
            // What is not known is asked at once, and the others some time within an
            // interval, so that they do not come together.
            tracked.due_at = match (
                taken.opinion.readiness,
                self.checks.of_pool(tracked.target.pool),
            ) {
                (Readiness::Unknown, _) | (_, None) => now,
                (_, Some(check)) => {
                    now.after(seconds(check.interval.as_secs_f64() * self.rng.unit()))
                }
            };
        }
        Ok(())
    }

    /// What becomes of the record, and of this worker by it.
    fn join(&self, mut record: HealthRecord, now: Timestamp) -> Change<Looked> {
        let is_rival = |it: &health_record::Prober| {
            it.checks == self.identity && it.id != self.id && it.is_alive(LEASE, now)
        };
        if record.probers.iter().any(is_rival) {
            return Change::Keep(Looked {
                leads: false,
                wrote: false,
                taken: self.targets.iter().map(|_| None).collect(),
            });
        }
        let was_told = record
            .prober(self.id)
            .is_some_and(|it| it.checks == self.identity && it.is_alive(RENEW_AFTER, now));
        let old = std::mem::take(&mut record.rows);
        let vouched: Vec<&Row> = old
            .iter()
            .filter(|row| record.is_fresh(row, VOUCHED, now))
            .collect();
        let mut places: Map<u64, usize> = Map::default();
        for (place, row) in vouched.iter().enumerate() {
            places.insert(row.target, place);
        }
        let is_probed = |row: &Row| {
            let prober = record.prober(row.prober);
            row.prober != self.id
                && prober.is_some_and(|it| it.checks != RELEASED && it.is_alive(LEASE, now))
        };
        let mut is_new = false;
        // Rows of others stay as long as they are vouched for.
        let mut stays: Vec<bool> = vouched.iter().map(|row| row.prober != self.id).collect();
        let mut taken = Vec::with_capacity(self.targets.len());
        let mut rows = Vec::with_capacity(old.len());
        for tracked in &self.targets {
            let target = &tracked.target;
            let place = places.get(&target.identity).copied();
            let row = place.and_then(|place| vouched.get(place)).copied();
            if row.is_some_and(is_probed) {
                taken.push(None);
                continue;
            }
            if let Some(stays) = place.and_then(|place| stays.get_mut(place)) {
                *stays = false;
            }
            let mut opinion = tracked.opinion;
            let mut changed_at = tracked.changed_at;
            if !tracked.is_own {
                is_new = true;
                let row = row.or_else(|| heir(&vouched, target));
                opinion = row.map_or_else(Opinion::default, |row| Opinion {
                    readiness: row.readiness,
                    streak: row.streak,
                });
                changed_at = row.map_or(now, |row| row.changed_at);
            }
            rows.push(Row {
                target: target.identity,
                upstream: target.upstream,
                prober: self.id,
                changed_at,
                readiness: opinion.readiness,
                streak: opinion.streak,
            });
            taken.push(Some(Taken {
                opinion,
                changed_at,
            }));
        }
        let others = vouched.iter().zip(stays);
        rows.extend(others.filter_map(|(row, stays)| stays.then_some(**row)));
        record.probers.retain(|it| {
            let has_rows = rows.iter().any(|row| row.prober == it.id);
            it.id != self.id && (it.is_alive(LEASE, now) || has_rows)
        });
        record.probers.push(health_record::Prober {
            id: self.id,
            heartbeat: now,
            checks: match self.leaves {
                true => RELEASED,
                false => self.identity,
            },
        });
        record.rows = rows;
        let wrote =
            !was_told || is_new || self.has_news || self.leaves || old.len() != record.rows.len();
        let looked = Looked {
            leads: true,
            wrote,
            taken,
        };
        match wrote {
            true => Change::Write(record.encode(), looked),
            false => Change::Keep(looked),
        }
    }

    /// Asks those whose time has come, as far as not too many are asked already.
    fn ask_all_that_are_due(&mut self, host: &mut impl Calls, now: Timestamp) {
        let count = self.targets.len();
        if !self.leads || count == 0 {
            return;
        }
        let start = self.next;
        for step in 0..count {
            if self.calls.len() >= MOST_AT_ONCE {
                return;
            }
            let place = (start + step) % count;
            let is_due = self
                .targets
                .get(place)
                .is_some_and(|it| it.is_own && !it.is_asked && it.due_at <= now);
            if is_due {
                self.next = (place + 1) % count;
                self.ask(host, place, now);
            }
        }
    }

    fn ask(&mut self, host: &mut impl Calls, place: usize, now: Timestamp) {
        let Some(check) = check_at(&self.checks, &self.targets, place) else {
            return;
        };
        let Some(tracked) = self.targets.get_mut(place) else {
            return;
        };
        let target = &tracked.target;
        let mut headers = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", &*target.host),
            (":path", &*check.path),
            ("user-agent", "paceline-health-check"),
        ];
        if let Some(endpoint) = &target.endpoint {
            headers.push((&self.endpoint_header, endpoint));
        }
        match host.call(&target.cluster, &headers, check.timeout) {
            Ok(id) => {
                tracked.is_asked = true;
                self.calls.push(Call {
                    id,
                    target: target.identity,
                    sent_at: now,
                    forgotten_at: now.after(check.timeout.saturating_add(GRACE)),
                });
            }
            Err(error) => self.conclude(place, Verdict::of_refusal(error), now, now),
        }
    }

    /// A probe that began at `sent_at` has ended.
    fn conclude(&mut self, place: usize, verdict: Verdict, sent_at: Timestamp, now: Timestamp) {
        let Some(check) = check_at(&self.checks, &self.targets, place) else {
            return;
        };
        let Some(tracked) = self.targets.get_mut(place) else {
            return;
        };
        tracked.is_asked = false;
        if let Some(member) = tracked.target.members.first() {
            self.ended.push(Probed {
                member: *member,
                verdict,
            });
        }
        // Those that were asked together at first are spread over the interval; later
        // each keeps its time, but for a tenth.
        let is_first = tracked.opinion.readiness == Readiness::Unknown;
        let (from, part) = match is_first {
            true => (now, 0.1 + 0.9 * self.rng.unit()),
            false => (sent_at, 0.9 + 0.2 * self.rng.unit()),
        };
        tracked.due_at = from.after(seconds(check.interval.as_secs_f64() * part));
        if tracked.is_own && tracked.opinion.hear(verdict == Verdict::Success, check) {
            tracked.changed_at = now;
            self.has_news = true;
            if tracked.opinion.readiness == Readiness::Ready {
                self.became_ready.extend(&tracked.target.members);
            }
        }
    }

    /// Tells the others at once what has changed. But as long as some are asked for
    /// the first time, the next tick does: if the others knew of one that is ready
    /// before they knew of the rest, it would get all requests.
    fn tell_if_settled(&mut self, host: &mut impl Calls, now: Timestamp) -> Result<(), StateError> {
        let is_unsettled = |it: &Tracked| it.is_asked && it.opinion.readiness == Readiness::Unknown;
        if !self.has_news || self.targets.iter().any(is_unsettled) {
            return Ok(());
        }
        self.look(host, now)
    }

    /// Forgets calls of which the proxy has said nothing for long after it should.
    fn forget_lost_calls(&mut self, now: Timestamp) {
        let is_lost = |call: &Call| call.forgotten_at <= now;
        while let Some(lost) = self.calls.iter().position(is_lost) {
            let call = self.calls.swap_remove(lost);
            if let Some(place) = self.place_of(call.target) {
                self.conclude(place, Verdict::Timeout, call.sent_at, now);
            }
        }
    }

    fn place_of(&self, target: u64) -> Option<usize> {
        let mut targets = self.targets.iter();
        targets.position(|it| it.target.identity == target)
    }
}

/// In the place of [`health_record::Prober::checks`]: it probes no more, but what it
/// has found out holds.
const RELEASED: u64 = 0;

/// How the target at this place is checked.
fn check_at<'a>(checks: &'a Checks, targets: &[Tracked], place: usize) -> Option<&'a HealthCheck> {
    checks.of_pool(targets.get(place)?.target.pool)
}
