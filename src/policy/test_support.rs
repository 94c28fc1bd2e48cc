//! Members as tests describe them, and picks among them.

use super::*;
use crate::pool::{MemberIndex, UpstreamIndex};
use crate::state::{DecodedMember, MemberState, Outstanding};

/// A member, what is known of it, and what is outstanding there.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) weight: f64,
    pub(crate) in_flight: u64,
    pub(crate) outstanding_work: f64,
    /// Of all that is in flight together, in seconds.
    pub(crate) ages: f64,
    pub(crate) tail_pace: Option<f64>,
    /// Beside that for failures.
    pub(crate) refusal_penalty: f64,
    pub(crate) turn: i64,
    pub(crate) state: MemberState,
}

/// Members with these numbers in flight, weight 1, unknown.
pub(crate) fn candidates(in_flight: &[u64]) -> Vec<Member> {
    let member = |in_flight: &u64| Member {
        weight: 1.0,
        in_flight: *in_flight,
        outstanding_work: *in_flight as f64,
        ages: 0.0,
        tail_pace: None,
        turn: 0,
        refusal_penalty: 1.0,
        state: MemberState::default(),
    };
    in_flight.iter().map(member).collect()
}

/// Ten seconds after the origin of the clock.
pub(crate) const NOW: Timestamp = Timestamp::from_nanos(10_000_000_000);

/// What is outstanding at each of them.
pub(crate) fn outstanding(members: &[Member], now: Timestamp) -> Vec<Outstanding> {
    let of = |it: &Member| Outstanding::of(it.in_flight, it.outstanding_work, it.ages, now);
    members.iter().map(of).collect()
}

/// How they stand, by the policy's own appraisal.
pub(crate) fn standings(
    policy: &dyn Policy,
    members: &[Member],
    pool: &PoolState,
    now: Timestamp,
) -> Vec<Standing> {
    let standing = |(number, member): (usize, &Member)| {
        let (index, upstream) = (MemberIndex(number), UpstreamIndex(number));
        let mut standing = Standing::new(index, upstream, member.weight);
        standing.follow(&member.state, now, &Tuning::DEFAULT);
        standing.penalize(member.refusal_penalty);
        standing
    };
    let mut standings: Vec<Standing> = members.iter().enumerate().map(standing).collect();
    let decoded = members.iter().map(|it| DecodedMember::new(it.state));
    let known = Known {
        pool,
        members: &decoded.collect::<Vec<_>>(),
        outstanding: &outstanding(members, now),
        now,
    };
    policy.appraise(&known, &mut standings);
    standings
}

/// One pick after so many turns, by the policy's own appraisal.
pub(crate) fn decide(
    policy: &dyn Policy,
    members: &mut [Member],
    pool: &PoolState,
    taken: &mut i64,
    now: Timestamp,
    rng: &mut Rng,
) -> Option<Picked> {
    let mut turns = Turns {
        taken: *taken,
        of: members.iter().map(|it| it.turn).collect(),
    };
    let tail_paces: Option<Vec<f64>> = members.iter().map(|it| it.tail_pace).collect();
    let mut places: Vec<Place> = (0..members.len()).map(Place).collect();
    let picked = policy.pick(&mut Choice {
        candidates: &mut places,
        members: Members {
            standings: &standings(policy, members, pool, now),
            outstanding: &outstanding(members, now),
            tail_paces: &tail_paces.unwrap_or_default(),
        },
        pool,
        turns: &mut turns,
        work: 1.0,
        now,
        rng,
    });
    *taken = turns.taken;
    for (member, turn) in members.iter_mut().zip(turns.of) {
        member.turn = turn;
    }
    picked
}

/// One pick; the place of the member that got it.
pub(crate) fn pick(
    policy: &dyn Policy,
    members: &mut [Member],
    pool: &PoolState,
    rng: &mut Rng,
) -> usize {
    pick_in_turn(policy, members, pool, &mut 0, rng)
}

/// One pick, after so many turns; the place of the member that got it.
pub(crate) fn pick_in_turn(
    policy: &dyn Policy,
    members: &mut [Member],
    pool: &PoolState,
    taken: &mut i64,
    rng: &mut Rng,
) -> usize {
    let picked = decide(policy, members, pool, taken, NOW, rng);
    picked.expect("there are candidates").best.place.0
}

/// How often each member was picked in `rounds` picks, where nothing is sent
/// or answered in between.
pub(crate) fn shares(policy: &dyn Policy, members: &[Member], rounds: usize) -> Vec<usize> {
    let (mut rng, pool) = (Rng::new(42), PoolState::default());
    let mut taken = 0;
    let mut shares = vec![0; members.len()];
    let mut members = members.to_vec();
    for _ in 0..rounds {
        shares[pick_in_turn(policy, &mut members, &pool, &mut taken, &mut rng)] += 1;
    }
    shares
}
