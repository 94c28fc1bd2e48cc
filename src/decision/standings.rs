//! How the members of a pool stand, kept for some milliseconds.
//!
//! What a pick multiplies counts by, a member's pace and penalty, depends only on what
//! was learned and on time. So it is worked out again when something else was learned,
//! which in dense traffic is once in [`Tuning::merge_seconds`](crate::estimate::Tuning::merge_seconds), and otherwise when it
//! is as old as that: failures fade, silence grows, and so do the ages of what is
//! outstanding. In traffic so thin that a pick comes later than that, every pick works
//! with the state of that moment.
//!
//! This is the place for everything else that depends on a member's row and on time
//! alone: a factor on the delay to expect is one more [`Standing::penalize`] in
//! [`Standings::renew`], and a reason to leave a member out is one more field of
//! [`Standing`], set there, with a rule in [`eligible`](super::eligible) that asks for it.
//! What depends on counts, such as a cap, is a rule alone.

use std::time::Duration;

use super::blame::blame;
use super::phases::{Phases, Rules, assess};
use crate::policy::{Known, Policy, Standing};
use crate::pool::{Pool, Topology};
use crate::time::Timestamp;

/// How the members of one pool stand, by their places.
#[derive(Debug)]
pub(super) struct Standings {
    all: Vec<Standing>,
    /// What their phases come to.
    phases: Phases,
    /// What they were worked out from: a revision of the estimates, and when.
    made_from: Option<(u64, Timestamp)>,
    /// For how long they hold.
    interval: Duration,
}

impl Standings {
    /// Of no members. They are worked out again when they are as old as `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Standings {
            all: Vec::new(),
            phases: Phases::default(),
            made_from: None,
            interval,
        }
    }

    /// Takes the members that `pool` has in `topology`.
    pub(super) fn set_members(&mut self, topology: &Topology, pool: &Pool) {
        let members = pool.member_indexes().filter_map(|index| {
            let member = topology.member(index)?;
            Some(Standing::new(index, member.upstream, member.weight))
        });
        self.all = members.collect();
        self.made_from = None;
    }

    /// How the members stand.
    pub(super) fn all(&self) -> &[Standing] {
        &self.all
    }

    /// What their phases come to.
    pub(super) fn phases(&self) -> &Phases {
        &self.phases
    }

    /// Whether they may be used at `now`, where the estimates have this revision.
    #[inline]
    pub(super) fn hold(&self, revision: u64, now: Timestamp) -> bool {
        self.made_from.is_some_and(|(made, at)| {
            made == revision && now >= at && now.since(at) < self.interval
        })
    }

    /// Works out how the members stand, from what is known in this revision of the
    /// estimates.
    // Not inlined: most picks do without it.
    #[inline(never)]
    pub(super) fn renew(
        &mut self,
        policy: &dyn Policy,
        known: &Known<'_>,
        revision: u64,
        rules: &Rules<'_>,
    ) {
        let tuning = rules.tuning;
        for (standing, member) in self.all.iter_mut().zip(known.members) {
            standing.follow(member.state(), known.now, tuning);
        }
        blame(&mut self.all, known, tuning);
        self.phases = assess(&mut self.all, known, rules);
        policy.appraise(known, &mut self.all);
        self.made_from = Some((revision, known.now));
    }
}

#[cfg(test)]
mod tests;
