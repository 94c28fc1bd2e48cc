//! Picks from kept standings are those that working everything out at every pick would
//! have made, with rows, ages and time as they were when the standings were made.

use super::super::{Balancer, Demand, Route};
use crate::config::Config;
use crate::estimate::{Answers, Basis, Credit, Prior, ResidualVariance, Sample, Tuning};
use crate::host::memory::Memory;
use crate::pool::{PoolIndex, UpstreamIndex};
use crate::random::Rng;
use crate::state::{Job, MemberState, Outstanding, PoolState, Work};
use crate::time::Timestamp;
use std::time::Duration;

const TUNING: Tuning = Tuning::DEFAULT;
/// That of the default policy.
const EXTERNALITY: f64 = 0.2;

/// A member as the definition of the score sees it.
struct Seen {
    state: MemberState,
    weight: f64,
    /// When the standings were made.
    then: Outstanding,
    now: Outstanding,
}

/// The scores by their definition, where standings were made at `at`, and the seconds
/// that the request should take; infinite at a member that gets no request.
fn scores(members: &[Seen], pool: &PoolState, at: Timestamp, work: f64) -> Vec<(f64, f64)> {
    let basis = pool.books.basis();
    let residual = pool.books.variance(basis);
    let pool_mean = pool.latency.get();
    let pace = |it: &Seen| match basis {
        Basis::Requests => it.state.pace,
        Basis::Work => it.state.pace_of_work,
    };
    let load = |it: &Seen| match basis {
        Basis::Requests => it.now.requests() as f64 + 1.0,
        Basis::Work => it.now.work() + work,
    };
    let estimate = |it: &Seen| {
        let silence = at.seconds_since(it.state.sampled_at);
        let noise = residual * pace(it).uncertainty(silence, &TUNING);
        let doubt = it.state.evidence.doubt(TUNING.evidence_needed, pool_mean);
        let in_doubt = residual.max(f64::from(ResidualVariance::ASSUMED)) * doubt;
        let untold = (it.then.ages(at) / f64::from(it.state.evidence.seconds())).ln_1p();
        let untold = if untold.is_finite() { untold } else { 0.0 };
        (pace(it).mean_log() + untold, noise.max(in_doubt))
    };
    let usable = || members.iter().filter(|it| it.weight > 0.0);
    let prior = Prior::from_means(usable().map(estimate));
    let mean_load = usable().map(load).sum::<f64>() / usable().count() as f64;
    let answers = members.iter().map(|it| it.state.refusals.answers());
    let answers = answers.fold(Answers::default(), |sum, it| sum + it);
    let score = |it: &Seen| {
        let (mean, variance) = estimate(it);
        let seconds = prior.shrink(mean, variance).exp() * load(it);
        let elapsed = at.seconds_since(it.state.outcome_at);
        let penalty = it.state.errors.penalty(at, elapsed, &TUNING)
            * it.state.refusals.penalty(answers, elapsed, &TUNING);
        let added = 1.0 + EXTERNALITY * load(it) / mean_load;
        (seconds * added * penalty / it.weight, seconds)
    };
    members.iter().map(score).collect()
}

/// Makes up what is known about a member and its pool.
fn invent(member: &mut MemberState, pool: &mut PoolState, rng: &mut Rng, now: Timestamp) {
    let before = |rng: &mut Rng| {
        let age = (rng.unit() * 20e9) as u64;
        Timestamp::from_nanos(now.as_nanos().saturating_sub(age))
    };
    *member = MemberState::new(before(rng));
    if rng.below(8) == 0 {
        return;
    }
    let speed = (rng.unit() * 4.0).exp() / 20.0;
    for _ in 0..rng.below(30) {
        let latency = speed * (0.5 + rng.unit());
        let sample = Sample {
            per_request: latency,
            per_work: latency * (0.9 + 0.2 * rng.unit()),
            bytes: rng.next_u64() % 10_000,
            silence: rng.unit(),
            credit: Credit::FULL,
        };
        let (pace, pace_of_work) = (&mut member.pace, &mut member.pace_of_work);
        pool.books
            .observe(pace, pace_of_work, &sample, &Tuning::DEFAULT);
        pool.latency.observe(latency);
        let mean = pool.latency.get();
        member.evidence.observe(latency, mean, 1e4);
        match rng.below(20) {
            0 => member.errors.fail(now, 0.1, None, &TUNING),
            1 => {
                let wait = Some(Duration::from_millis(5));
                member.errors.fail(now, 0.1, wait, &TUNING);
            }
            _ => member.errors.succeed(0.1, &TUNING),
        }
        member.refusals.serve(0.1, &TUNING);
    }
    if rng.below(6) == 0 {
        for _ in 0..20 {
            member.refusals.refuse(0.1, &TUNING);
        }
    }
    (member.sampled_at, member.outcome_at) = (before(rng), before(rng));
}

struct Fleet {
    balancer: Balancer,
    shared: Memory,
    rng: Rng,
    open: Vec<(UpstreamIndex, Job)>,
    /// What was outstanding, and when, at the moment from which the standings are.
    made: (Vec<Outstanding>, Timestamp),
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let upstreams: Vec<String> = (0..2 + rng.below(40))
            .map(|n| {
                // One in eleven drains, but never all.
                let weight = if n == 0 { 1 } else { rng.below(11) };
                format!(r#"{{"cluster": "c{n}", "weight": {weight}}}"#)
            })
            .collect();
        // No exploration: it goes by chance alone.
        let json = format!(
            r#"{{"policy": {{"name": "shortest_expected_delay", "exploration": 0,
                "externality": {EXTERNALITY}}}, "upstreams": [{}]}}"#,
            upstreams.join(",")
        );
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        Fleet {
            balancer: Balancer::new(&config, "test".to_owned(), seed),
            shared: Memory::default(),
            rng,
            open: Vec::new(),
            made: (Vec::new(), Timestamp::ZERO),
        }
    }

    /// Something else is known about every member.
    fn learn(&mut self, now: Timestamp) {
        let members: Vec<_> = self.balancer.topology.pools[0].member_indexes().collect();
        let rng = &mut self.rng;
        let learned = self.balancer.estimates.merge(&mut self.shared, now, |all| {
            for member in members {
                all.change_member(member, |member, pool| invent(member, pool, rng, now));
            }
        });
        learned.unwrap();
    }

    /// Requests come and go beside those that are checked.
    fn stir(&mut self, now: Timestamp) {
        let lanes = &mut self.balancer.lanes;
        lanes.begin(&mut self.shared, now).unwrap();
        for _ in 0..self.rng.below(20) {
            let upstream = UpstreamIndex(self.rng.below(lanes.totals().len()));
            let job = Job {
                work: Work::of_requests(3.0 * self.rng.unit()),
                picked_at: now,
            };
            lanes.reserve(&mut self.shared, upstream, job, now).unwrap();
            self.open.push((upstream, job));
        }
        for _ in 0..self.rng.below(20).min(self.open.len()) {
            let (upstream, job) = self.open.swap_remove(self.rng.below(self.open.len()));
            lanes.release(&mut self.shared, upstream, job, now).unwrap();
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let Balancer {
            topology,
            estimates,
            lanes,
            ..
        } = &self.balancer;
        let members = topology.pools[0].member_indexes().map(|index| {
            let member = topology.member(index).unwrap();
            Seen {
                state: *estimates.member(index).unwrap(),
                weight: member.weight,
                then: self.made.0[member.upstream.0],
                now: lanes.outstanding(member.upstream),
            }
        });
        members.collect()
    }

    /// Picks, and checks the pick; `renews` says that standings have to be made for it.
    fn check(&mut self, now: Timestamp, renews: bool) {
        // What a pick does before it looks.
        self.balancer.lanes.begin(&mut self.shared, now).unwrap();
        self.balancer.estimates.read(&mut self.shared, now).unwrap();
        if renews {
            self.made = (self.balancer.lanes.totals().to_vec(), now);
        }
        let pool = *self.balancer.estimates.pool(PoolIndex(0)).unwrap();
        let members = self.seen();
        let scores = scores(&members, &pool, self.made.1, 1.0);
        let Route {
            reservation,
            member,
            explanation,
            ..
        } = self
            .balancer
            .decide(&mut self.shared, &Demand::default(), now)
            .routed()
            .unwrap();
        let about = |one: f64, other: f64| (one - other).abs() <= 1e-3 * one.abs();
        let (score, seconds) = scores[member.0];
        assert!(about(explanation.score, score), "{explanation:?}, {score}");
        let expected = explanation.expected;
        assert!(expected.is_none_or(|it| about(it, seconds)), "{seconds}");
        let usable = scores.iter().zip(&members).enumerate();
        let usable = usable.filter(|(_, (_, it))| it.weight > 0.0);
        let mut ranked: Vec<_> = usable.map(|(n, ((score, _), _))| (n, *score)).collect();
        ranked.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        assert!(about(ranked[0].1, score), "the best is {:?}", ranked[0]);
        match explanation.runner_up {
            Some((_, second)) => assert!(about(ranked[1].1, second), "{:?}", ranked[1]),
            None => assert_eq!(ranked.len(), 1),
        }
        let upstream = self.balancer.topology.member(member).unwrap().upstream;
        self.open.push((upstream, reservation.job()));
    }
}

#[test]
fn kept_standings_pick_what_exact_scores_pick() {
    for seed in 0..60 {
        let mut fleet = Fleet::new(seed);
        let mut now = Timestamp::from_nanos(100_000_000_000);
        for _ in 0..10 {
            fleet.stir(now);
            fleet.learn(now);
            fleet.check(now, true);
            // Less than the interval later, counts are new and standings are not.
            for _ in 0..4 {
                now = now.after(Duration::from_micros(2_400));
                fleet.stir(now);
                fleet.check(now, false);
            }
            // As old as that, they are made again: for what is outstanding is older.
            now = now.after(Duration::from_micros(400));
            fleet.check(now, true);
            // And at once where something else was learned.
            now = now.after(Duration::from_micros(400));
            fleet.learn(now);
            fleet.check(now, true);
            now = now.after(Duration::from_millis(1_500));
        }
    }
}

#[test]
fn standings_do_not_outlive_a_clock_that_went_back() {
    let mut fleet = Fleet::new(7);
    let now = Timestamp::from_nanos(100_000_000_000);
    fleet.stir(now);
    fleet.learn(now);
    fleet.check(now.after(Duration::from_secs(3_600)), true);
    fleet.check(now, true);
}
