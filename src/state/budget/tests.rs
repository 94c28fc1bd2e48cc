//! Workers that share an amount, in memory.

use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::host::memory::Memory;
use crate::pool::Topology;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(10);
const KEY: &str = "test/budget";

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 + millis * 1_000_000)
}

struct Worker {
    lanes: Lanes,
    budget: Budget,
}

impl Worker {
    fn new(owner: u64) -> Self {
        let config = Config::parse(Some(br#"{"upstreams": [{"cluster": "a"}]}"#)).unwrap();
        let topology = Topology::new(&config);
        Worker {
            lanes: Lanes::new(&topology, "test", owner, LEASE, Duration::from_millis(1)),
            budget: Budget::new(KEY.to_owned()),
        }
    }

    fn take(&mut self, shared: &mut Memory, amount: u64, now: Timestamp) -> bool {
        self.lanes.begin(shared, now).unwrap();
        let Worker { lanes, budget } = self;
        budget.take(shared, lanes, (amount, 10), now).unwrap()
    }

    fn give_back(&mut self, shared: &mut Memory, amount: u64) {
        let Worker { lanes, budget } = self;
        budget.give_back(shared, lanes, amount).unwrap();
    }

    fn renew(&mut self, shared: &mut Memory, now: Timestamp) -> u64 {
        self.lanes.renew(shared, now).unwrap();
        let Worker { lanes, budget } = self;
        budget.renew(shared, lanes, now).unwrap()
    }
}

#[test]
fn no_more_is_out_than_the_limit() {
    let mut shared = Memory::default();
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    assert!(one.take(&mut shared, 6, at(0)));
    assert!(!other.take(&mut shared, 5, at(0)));
    assert!(other.take(&mut shared, 4, at(0)));
    assert!(!one.take(&mut shared, 1, at(0)));
    one.give_back(&mut shared, 6);
    assert!(other.take(&mut shared, 6, at(1)));
    assert_eq!((one.budget.own(), other.budget.own()), (0, 10));
    other.give_back(&mut shared, 10);
    assert_eq!(one.renew(&mut shared, at(2)), 0);
}

#[test]
fn what_a_worker_held_that_is_gone_is_free_after_its_lease_and_not_before() {
    let mut shared = Memory::default();
    let (mut gone, mut other) = (Worker::new(1), Worker::new(2));
    assert!(gone.take(&mut shared, 10, at(0)));
    assert!(!other.take(&mut shared, 1, at(9_000)));
    assert!(other.take(&mut shared, 1, at(10_500)));
    // It only stood still: what it has, it still has, though it is too much.
    assert_eq!(gone.renew(&mut shared, at(11_000)), 11);
    assert!(!other.take(&mut shared, 1, at(11_000)));
}

#[test]
fn the_share_of_a_worker_that_has_just_come_is_not_taken_for_a_dead_ones() {
    let mut shared = Memory::default();
    let (mut old, mut new) = (Worker::new(1), Worker::new(2));
    assert!(old.take(&mut shared, 1, at(0)));
    // The first does not look at the lanes again within a millisecond.
    assert!(new.take(&mut shared, 9, at(0)));
    assert!(!old.take(&mut shared, 1, at(0)));
}

#[test]
fn a_damaged_value_is_restored_by_those_who_hold_something() {
    let mut shared = Memory::default();
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    assert!(one.take(&mut shared, 3, at(0)) && other.take(&mut shared, 4, at(0)));
    shared.set(KEY, b"garbage").unwrap();
    let Worker { lanes, budget } = &mut one;
    let taken = budget.take(&mut shared, lanes, (1, 10), at(1));
    assert_eq!(taken, Err(StateError::Malformed));
    assert_eq!(budget.own(), 3);
    assert_eq!(other.renew(&mut shared, at(2)), 7);
    shared.set(KEY, b"").unwrap();
    assert_eq!(other.renew(&mut shared, at(3)), 4);
    assert_eq!(one.renew(&mut shared, at(3)), 7);
}

#[test]
fn a_request_that_is_there_counts_beyond_the_limit() {
    let mut shared = Memory::default();
    let mut one = Worker::new(1);
    assert!(one.take(&mut shared, 10, at(0)));
    let Worker { lanes, budget } = &mut one;
    budget.take_anyway(&mut shared, lanes, 2).unwrap();
    assert_eq!(budget.total(&mut shared), Ok(12));
    one.give_back(&mut shared, 2);
    assert!(!one.take(&mut shared, 1, at(1)));
}

proptest! {
    /// Takes and returns of four workers in any order.
    #[test]
    fn what_is_out_is_what_was_taken_and_never_too_much(
        steps in proptest::collection::vec((0usize..4, any::<bool>(), 1u64..5), 0..80),
    ) {
        let mut shared = Memory::default();
        let mut workers: Vec<Worker> = (1..5).map(Worker::new).collect();
        for (number, takes, amount) in steps {
            let out: u64 = workers.iter().map(|it| it.budget.own()).sum();
            let worker = &mut workers[number];
            if takes {
                let taken = worker.take(&mut shared, amount, at(0));
                prop_assert_eq!(taken, out + amount <= 10);
            } else if worker.budget.own() >= amount {
                worker.give_back(&mut shared, amount);
            }
            let out: u64 = workers.iter().map(|it| it.budget.own()).sum();
            prop_assert!(out <= 10);
            prop_assert_eq!(workers[0].budget.total(&mut shared), Ok(out));
        }
    }
}
