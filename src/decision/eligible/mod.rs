//! Which candidates may take a request at all, before a policy ranks them: one file
//! a rule.
//!
//! A pool has the rules that its configuration needs, and where all upstreams are well
//! most pools' rules rest: these pay nothing. Rules apply in the order of the list, each to what the one
//! before it has left.

mod cold;
mod deadline;
mod draining;
mod ejected;
mod patience;
mod ready;
mod reserve;
mod room;
mod size;

use crate::config::{Accepts, DeadlineMode, MaxInFlight};
use crate::decision::capacity::DeviceRoom;
use crate::decision::pass_through::PassThrough;
use crate::estimate::Basis;
#[cfg(doc)]
use crate::estimate::Tuning;
use crate::health::View;
use crate::policy::{Members, Place};
use crate::pool::{Member, Pool};
use crate::time::Timestamp;

use super::phases::Phases;
use cold::Cold;
use deadline::InTime;
use draining::Draining;
use ejected::Ejected;
use ready::Ready;
use reserve::Reserved;
use room::Room;
use size::SizeLimits;

/// Says which candidates may take a request.
pub(super) trait Rule {
    /// Removes the candidates that may not take the request. At least one is
    /// there before.
    ///
    /// # Errors
    /// None is left: why the request is passed through.
    fn apply(&self, request: &Request<'_>, candidates: &mut Vec<Place>) -> Result<(), PassThrough>;

    /// Whether the rule leaves every candidate to every request as long as the pool's
    /// phases come to this.
    fn rests(&self, _phases: &Phases) -> bool {
        false
    }

    /// Whether the rule must see every member, however large the pool: because it may
    /// leave only a few.
    fn needs_all(&self) -> bool {
        true
    }
}

/// What rules may ask about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// Its size in the pool's unit, if it is known.
    pub(super) size: Option<f64>,
    /// The pool's members: how they stand, and what is outstanding there.
    pub(super) members: Members<'a>,
    /// All members of all pools, as they are configured.
    pub(super) configured: &'a [Member],
    /// Which members are ready, if any pool has a health check.
    pub(super) health: Option<&'a View>,
    /// How many requests upstreams take at once, where that is learned.
    pub(super) learned: &'a [u64],
    /// All devices, to which members refer.
    pub(super) devices: &'a [DeviceRoom],
    /// What the phases of the pool's members come to.
    pub(super) phases: Phases,
    /// The work expected of it, in mean requests.
    pub(super) work: f64,
    /// The present.
    pub(super) now: Timestamp,
    /// Whether it may be the one that tries an upstream that is half-open.
    pub(super) may_try: bool,
    /// A number between 0 and 1, drawn at random where some upstream is cold.
    pub(super) draw: f64,
    /// How much time is left, if it has a deadline.
    pub(super) time: Option<TimeLeft<'a>>,
    /// How many requests of its pool wait, itself included; 0 where none does.
    pub(super) waiting: u32,
    /// Seconds that it has waited.
    pub(super) waited: f64,
    /// What the policy measures load in, if its paces are expected seconds.
    pub(super) basis: Option<Basis>,
    /// See [`Tuning::patience`].
    pub(super) patience: f64,
}

/// How much time is left for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLeft<'a> {
    /// Seconds.
    pub(super) left: f64,
    /// Seconds that it should take at each member, by places; 0 where nothing is known.
    pub(super) expected: &'a [f64],
}

impl<'a> Request<'a> {
    /// How the member at a place is configured.
    fn member(&self, place: Place) -> Option<&'a Member> {
        let standing = self.members.get(place)?.standing;
        self.configured.get(standing.member.0)
    }
}

/// What a pool's configuration asks for beyond its members.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Upstreams may be ejected.
    pub(super) ejection: bool,
    /// Upstreams may be cold, and the policy would leave them so.
    pub(super) cold: bool,
}

/// The rules that `pool` needs, in the order in which they apply. What an upstream cannot
/// do comes first, then what it should not: health alone never leaves a request without
/// an upstream.
pub(super) fn rules(pool: &Pool, members: &[Member], needs: Needs) -> Vec<Box<dyn Rule>> {
    let members = members.get(pool.members.clone()).unwrap_or_default();
    let mut rules: Vec<Box<dyn Rule>> = Vec::new();
    if members.iter().any(|member| member.weight == 0.0) {
        rules.push(Box::new(Draining));
    }
    if members.iter().any(|member| member.accepts != Accepts::ALL) {
        rules.push(Box::new(SizeLimits));
    }
    if pool.is_checked {
        rules.push(Box::new(Ready));
    }
    if needs.ejection {
        rules.push(Box::new(Ejected));
    }
    if needs.cold {
        rules.push(Box::new(Cold));
    }
    if let Some(reserve) = pool.reserve {
        rules.push(Box::new(Reserved { reserve }));
    }
    if pool.deadline != DeadlineMode::Off {
        let mode = pool.deadline;
        rules.push(Box::new(InTime { mode }));
    }
    // The last one: who may not use an upstream that has room waits for others.
    let is_limited =
        |it: &Member| it.max_in_flight != MaxInFlight::Unlimited || it.memory.is_some();
    if members.iter().any(is_limited) {
        rules.push(Box::new(Room));
    }
    rules
}

/// Applies all `rules`.
///
/// # Errors
/// No candidate is left, because of the rule that removed the last one. Without any
/// before the first rule, the pool has no upstream.
pub(super) fn apply(
    rules: &[Box<dyn Rule>],
    request: &Request<'_>,
    candidates: &mut Vec<Place>,
) -> Result<(), PassThrough> {
    if candidates.is_empty() {
        return Err(PassThrough::NoPool);
    }
    rules
        .iter()
        .try_for_each(|rule| rule.apply(request, candidates))
}

/// `reason`, if no candidate is left.
fn some_are_left(candidates: &[Place], reason: PassThrough) -> Result<(), PassThrough> {
    if candidates.is_empty() {
        Err(reason)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod test_support {
    use super::*;
    use crate::config::Config;
    use crate::policy::Standing;
    pub(super) use crate::policy::test_support::{Member, NOW, candidates, outstanding};
    use crate::pool::{self, MemberIndex, Topology, UpstreamIndex};
    use crate::state::Outstanding;

    /// What this configuration can choose from.
    pub(super) fn topology(json: &str) -> Topology {
        Topology::new(&Config::parse(Some(json.as_bytes())).unwrap())
    }

    /// The places that are left of `members`, which are configured so, after what
    /// `apply` does.
    pub(super) fn left_by(
        configured: &[pool::Member],
        size: Option<f64>,
        members: &[Member],
        apply: impl FnOnce(&Request<'_>, &mut Vec<Place>) -> Result<(), PassThrough>,
    ) -> Result<Vec<usize>, PassThrough> {
        let (standings, outstanding) = (standings_of(members), outstanding(members, NOW));
        let request = Request {
            size,
            configured,
            ..request(&standings, &outstanding)
        };
        left_of(&request, |places| apply(&request, places))
    }

    /// How members stand about which nothing is known.
    pub(super) fn standings_of(members: &[Member]) -> Vec<Standing> {
        let weights = members.iter().map(|it| it.weight).enumerate();
        weights
            .map(|(n, weight)| Standing::new(MemberIndex(n), UpstreamIndex(n), weight))
            .collect()
    }

    /// An ordinary request to these members.
    pub(super) fn request<'a>(
        standings: &'a [Standing],
        outstanding: &'a [Outstanding],
    ) -> Request<'a> {
        Request {
            size: None,
            members: Members {
                standings,
                outstanding,
                tail_paces: &[],
            },
            configured: &[],
            phases: Phases::default(),
            work: 1.0,
            now: NOW,
            may_try: true,
            draw: 1.0,
            health: None,
            learned: &[],
            devices: &[DeviceRoom {
                memory: 100,
                free: 50,
            }],
            time: None,
            waiting: 0,
            waited: 0.0,
            basis: None,
            patience: 1.0,
        }
    }

    /// The places that are left to the request after what `apply` does.
    pub(super) fn left_of(
        request: &Request<'_>,
        apply: impl FnOnce(&mut Vec<Place>) -> Result<(), PassThrough>,
    ) -> Result<Vec<usize>, PassThrough> {
        let members = request.members.standings.len();
        let mut places = (0..members).map(Place).collect();
        apply(&mut places)?;
        Ok(places.iter().map(|place| place.0).collect())
    }

    /// The places that `rule` leaves.
    pub(super) fn left(
        rule: &dyn Rule,
        configured: &[pool::Member],
        size: Option<f64>,
        members: &[Member],
    ) -> Result<Vec<usize>, PassThrough> {
        left_by(configured, size, members, |request, places| {
            rule.apply(request, places)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::test_support::{Member, candidates, left_by, topology};
    use super::*;

    const NEEDS: Needs = Needs {
        ejection: true,
        cold: false,
    };

    fn count_of(json: &str) -> usize {
        let topology = topology(json);
        rules(&topology.pools[0], &topology.members, NEEDS).len()
    }

    #[test]
    fn a_pool_has_the_rules_that_it_needs() {
        let plain = r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b", "weight": 3}]}"#;
        let draining = r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b", "weight": 0}]}"#;
        let all = r#"{"upstreams": [{"cluster": "a", "weight": 0},
            {"cluster": "b", "accepts": {"max_size": 9}}, {"cluster": "c", "max_in_flight": 1},
            {"cluster": "d"}], "reserve": {"share": 0.5, "max_size": 9}, "health_check": "vllm"}"#;
        assert_eq!([plain, draining, all].map(count_of), [1, 2, 6]);
    }

    #[test]
    fn the_rule_that_leaves_none_says_why() {
        let topology = topology(
            r#"{"upstreams": [{"cluster": "a", "weight": 0},
                {"cluster": "b", "accepts": {"max_size": 9}}]}"#,
        );
        let rules = rules(&topology.pools[0], &topology.members, NEEDS);
        let apply_to = |mut members: Vec<Member>| {
            for (member, configured) in members.iter_mut().zip(&topology.members) {
                member.weight = configured.weight;
            }
            left_by(
                &topology.members,
                Some(10.0),
                &members,
                |request, places| apply(&rules, request, places),
            )
        };
        assert_eq!(apply_to(candidates(&[])), Err(PassThrough::NoPool));
        assert_eq!(apply_to(candidates(&[0])), Err(PassThrough::Drained));
        assert_eq!(
            apply_to(candidates(&[0, 0])),
            Err(PassThrough::SizeNotAccepted)
        );
    }
}
