//! Pools whose upstreams fail, as several workers see them.

use proptest::prelude::*;

use super::super::{Balancer, Condition, Demand, Finished};
use crate::config::Config;
use crate::host::memory::Memory;
use crate::outcome::End;
use crate::outlier::Phase;
use crate::pool::MemberIndex;
use crate::time::Timestamp;

/// Two workers that share a store, and their upstreams.
struct Pool {
    shared: Memory,
    workers: [Balancer; 2],
    now: f64,
    turn: usize,
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

impl Pool {
    fn new(upstreams: usize, policy: &str, most: u32) -> Self {
        Pool {
            shared: Memory::default(),
            workers: Pool::workers(upstreams, policy, most),
            now: 1.0,
            turn: 0,
        }
    }

    /// Workers that can pick the first so many upstreams.
    fn workers(upstreams: usize, policy: &str, most: u32) -> [Balancer; 2] {
        let upstreams: Vec<String> = (0..upstreams)
            .map(|number| format!(r#"{{"cluster": "gpu-{number}"}}"#))
            .collect();
        let json = format!(
            r#"{{"upstreams": [{}], "policy": "{policy}", "slow_start": {{}},
                "outlier_detection": {{"max_ejection_percent": {most}}}}}"#,
            upstreams.join(", ")
        );
        let config = Config::parse(Some(json.as_bytes())).unwrap();
        [1, 2].map(|seed| Balancer::new(&config, "test".to_owned(), seed))
    }

    /// One request, to whose upstream `status` belongs. Returns where it went.
    fn request(&mut self, status: impl Fn(usize) -> u16) -> usize {
        self.turn += 1;
        let worker = &mut self.workers[self.turn % 2];
        let decision = worker.decide(&mut self.shared, &Demand::default(), at(self.now));
        let route = decision.routed().expect("some upstream always takes it");
        self.now += 0.05;
        let finished = Finished {
            end: End {
                status: Some(status(route.member.0)),
                attempts: 1,
                request_complete: true,
                response_complete: true,
                ..End::default()
            },
            ..Finished::default()
        };
        let released = worker.release(&mut self.shared, route.reservation, &finished, at(self.now));
        released.unwrap();
        route.member.0
    }

    /// The workers' ticks come.
    fn tick(&mut self) {
        for worker in &mut self.workers {
            worker.renew(&mut self.shared, at(self.now)).unwrap();
        }
        for worker in &mut self.workers {
            worker.watch(&mut self.shared, at(self.now));
        }
    }

    /// Where the upstreams stand, as each worker knows it.
    fn conditions(&self) -> [Vec<Condition>; 2] {
        let of = |worker: &Balancer| {
            let all = worker.conditions(at(self.now));
            all.map(|(_, condition)| condition).collect()
        };
        [of(&self.workers[0]), of(&self.workers[1])]
    }

    fn out(&self) -> [usize; 2] {
        let out = |all: Vec<Condition>| all.iter().filter(|it| it.phase != Phase::In).count();
        self.conditions().map(out)
    }
}

fn policy() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "round_robin",
        "least_request",
        "shortest_expected_delay",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn never_too_many_are_out_and_all_come_back(
        policy in policy(),
        most in 1u32..=100,
        // What each upstream answers in each stretch of time.
        stretches in (1usize..7).prop_flat_map(|upstreams| {
            let statuses = prop::sample::select(vec![200u16, 200, 500, 503, 404, 429]);
            prop::collection::vec(prop::collection::vec(statuses, upstreams), 1..6)
        }),
    ) {
        let upstreams = stretches[0].len();
        let mut pool = Pool::new(upstreams, policy, most);
        let limit = (upstreams * most as usize / 100).max(1).min(upstreams - 1);
        for statuses in stretches {
            for request in 0..150 {
                pool.request(|upstream| statuses[upstream]);
                if request % 5 == 0 {
                    pool.tick();
                }
                let out = pool.out();
                prop_assert!(out.iter().all(|out| *out <= limit), "{:?} of {}", out, limit);
            }
        }
        // Now all are well. The longest ejection lasts five minutes.
        for _ in 0..700 {
            pool.request(|_| 200);
            pool.now += 0.5;
            pool.tick();
        }
        prop_assert_eq!(pool.out(), [0, 0]);
    }

    #[test]
    fn where_too_many_are_out_all_are_used_until_they_are_back(
        (upstreams, bad, kept) in (3usize..8).prop_flat_map(|all| (Just(all), 1..all, 1..all)),
        most in 1u32..=100,
    ) {
        let mut pool = Pool::new(upstreams, "round_robin", most);
        for request in 0..300 {
            pool.request(|upstream| if upstream < bad { 500 } else { 200 });
            if request % 5 == 0 {
                pool.tick();
            }
        }
        // The others are taken out. The ejections have some seconds to go.
        pool.workers = Pool::workers(kept, "round_robin", most);
        pool.tick();
        let picks = |pool: &mut Pool| {
            let mut counts = vec![0; kept];
            for _ in 0..4 * kept {
                counts[pool.request(|_| 200)] += 1;
            }
            counts
        };
        let first = pool.request(|_| 200);
        prop_assert!(first < kept);
        pool.tick();
        let limit = (kept * most as usize / 100).max(1).min(kept - 1);
        let [out, _] = pool.out();
        if out > limit {
            let counts = picks(&mut pool);
            prop_assert!(counts.iter().all(|count| *count > 0), "{:?}", counts);
        }
        for _ in 0..700 {
            pool.request(|_| 200);
            pool.now += 0.5;
            pool.tick();
        }
        prop_assert_eq!(pool.out(), [0, 0]);
        let counts = picks(&mut pool);
        prop_assert!(counts.iter().all(|count| *count >= 3), "{:?}", counts);
    }
}

#[test]
fn who_becomes_ready_again_is_in_and_cold_and_nothing_is_held_against_it() {
    let mut pool = Pool::new(4, "round_robin", 50);
    let one_fails = |upstream| if upstream == 2 { 500 } else { 200 };
    for _ in 0..200 {
        pool.request(one_fails);
    }
    pool.tick();
    assert_eq!(pool.out(), [1, 1]);
    pool.workers[0].restart(&[MemberIndex(2)]);
    pool.tick();
    // The other worker reads it at its next tick.
    pool.now += 0.25;
    pool.tick();
    for all in pool.conditions() {
        assert_eq!(all[2].phase, Phase::In);
        assert!(all[2].warmth < 1.0, "{all:?}");
    }
    let count = |pool: &mut Pool| (0..400).filter(|_| pool.request(|_| 200) == 2).count();
    let first = count(&mut pool);
    pool.now += 30.0;
    let then = count(&mut pool);
    assert!((4..=90).contains(&first), "it is cold: {first}");
    assert!((60..=140).contains(&then), "it has its share: {then}");
}
