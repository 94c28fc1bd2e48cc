//! One worker's view of which members are ready.

use std::time::Duration;

use super::targets::{Checks, Target, targets};
use super::{RECORD, VOUCHED};
use crate::config::Config;
use crate::host::{SharedData, Version};
use crate::map::Map;
use crate::pool::{MemberIndex, PoolIndex, Topology};
use crate::state::StateError;
use crate::state::health_record::{HealthRecord, Readiness, Row};
use crate::time::Timestamp;

/// How old the view may be at a pick.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// Which members are ready, as this worker last read it. A worker has one only if
/// some pool has a health check.
#[derive(Debug)]
pub struct View {
    key: String,
    checks: Checks,
    targets: Vec<Target>,
    version: Option<Version>,
    record: HealthRecord,
    read_at: Option<Timestamp>,
    /// By member; members of pools without a check are ready.
    members: Vec<State>,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It takes requests.
    pub is_ready: bool,
    /// Since when it does, or does not; `None` where that is not known.
    pub since: Option<Timestamp>,
}

impl State {
    const UNCHECKED: State = State {
        is_ready: true,
        since: None,
    };
}

impl View {
    /// Nothing is known yet; `None` where no pool has a health check. `key` is that
    /// of the workers' record.
    #[must_use]
    pub fn new(config: &Config, topology: &Topology, key: &str) -> Option<Self> {
        let mut view = View {
            key: format!("{key}{RECORD}"),
            checks: Checks::of(config)?,
            targets: Vec::new(),
            version: None,
            record: HealthRecord::default(),
            read_at: None,
            members: Vec::new(),
        };
        view.set_topology(topology);
        Some(view)
    }

    /// Follows a change of what can be chosen from.
    pub fn set_topology(&mut self, topology: &Topology) {
        self.targets = targets(&self.checks, topology);
        self.members = vec![State::UNCHECKED; topology.members.len()];
        self.follow(self.read_at.unwrap_or_default());
        self.read_at = None;
    }

    /// Reads what the probers have found out, if what this worker knows is too old
    /// for a pick.
    ///
    /// # Errors
    /// The host failed; what was known before holds.
    pub fn refresh(
        &mut self,
        shared: &mut impl SharedData,
        now: Timestamp,
    ) -> Result<(), StateError> {
        if self.read_at.is_some_and(|at| now.since(at) < STALE_AFTER) {
            return Ok(());
        }
        self.read(shared, now)
    }

    /// Reads what the probers have found out.
    ///
    /// # Errors
    /// The host failed; what was known before holds.
    pub fn read(&mut self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), StateError> {
        self.read_at = Some(now);
        let found = shared.get(&self.key)?;
        let version = found.as_ref().map(|found| found.version);
        if version != self.version || version.is_none() {
            self.version = version;
            let record = found.and_then(|found| HealthRecord::parse(&found.value));
            self.record = record.unwrap_or_default();
        }
        self.follow(now);
        Ok(())
    }

    /// What is known of a member.
    #[must_use]
    pub fn of(&self, member: MemberIndex) -> State {
        self.members
            .get(member.0)
            .copied()
            .unwrap_or(State::UNCHECKED)
    }

    /// Whether the pool with this number has a health check.
    #[must_use]
    pub fn checks(&self, pool: PoolIndex) -> bool {
        self.checks.of_pool(pool.0).is_some()
    }

    /// Takes over what the record says of each target at this moment.
    fn follow(&mut self, now: Timestamp) {
        let record = &self.record;
        let rows = record.rows.iter();
        let fresh = rows.filter(|row| record.is_fresh(row, VOUCHED, now));
        let fresh: Vec<&Row> = fresh.collect();
        let mut places: Map<u64, usize> = Map::default();
        for (place, row) in fresh.iter().enumerate() {
            places.insert(row.target, place);
        }
        for target in &self.targets {
            // What another check has found out of it is better than nothing.
            let place = places.get(&target.identity);
            let row = place.and_then(|place| fresh.get(*place)).copied();
            let row = row.or_else(|| heir(&fresh, target));
            let state = State {
                is_ready: row.is_some_and(|row| row.readiness == Readiness::Ready),
                since: row.map(|row| row.changed_at),
            };
            for member in &target.members {
                if let Some(place) = self.members.get_mut(member.0) {
                    *place = state;
                }
            }
        }
    }
}

/// What a check that is new takes over of the upstream's other checks.
pub(super) fn heir<'a>(fresh: &[&'a Row], target: &Target) -> Option<&'a Row> {
    let is_it = |row: &&&Row| row.upstream == target.upstream;
    fresh.iter().find(is_it).copied()
}
