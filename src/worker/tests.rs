//! Workers on a host in memory.

use super::*;
use crate::decision::Demand;
use crate::host::fake::{Call, Fake};
use crate::request::Unknown;

const TWO: &str = r#"{"upstreams": [{"cluster": "gpu-a"}, {"cluster": "gpu-b"}]}"#;
const LEASE: Duration = Duration::from_secs(10);
const IN_FLIGHT: &str = "paceline_in_flight;upstream=";

fn worker(host: &mut Fake) -> Worker {
    Worker::new(Config::parse(Some(TWO.as_bytes())).unwrap(), host).unwrap()
}

/// A request that is sent somewhere.
fn pick(worker: &mut Worker, host: &mut Fake) -> Reservation {
    let now = worker.now(host);
    let decision = worker.balancer.decide(host, &Demand::default(), now);
    decision.routed().unwrap().reservation
}

fn finish(worker: &mut Worker, host: &mut Fake, reservation: Reservation) {
    let now = worker.now(host);
    worker.finish(host, reservation, &Finished::default(), now);
}

/// What the gauges add up to after a tick of this worker.
fn in_flight(worker: &mut Worker, host: &mut Fake) -> u64 {
    assert_eq!(worker.tick(host), []);
    host.values(IN_FLIGHT).values().sum()
}

#[test]
fn a_worker_asks_for_ticks_and_takes_no_part_before_its_first_request() {
    let mut host = Fake::new();
    let mut idle = worker(&mut host);
    idle.ask_for_ticks(&mut host);
    assert_eq!(host.tick_millis(), Some(250));
    assert_eq!(in_flight(&mut idle, &mut host), 0);
    let mut busy = worker(&mut host);
    let open = pick(&mut busy, &mut host);
    // It claimed the first lane.
    let key = format!("paceline/{FORMAT}/test/lane/0");
    assert!(
        crate::host::SharedData::get(&mut host, &key)
            .unwrap()
            .is_some()
    );
    assert_eq!(in_flight(&mut idle, &mut host), 1, "it sees the other's");
    finish(&mut busy, &mut host, open);
    assert_eq!(in_flight(&mut idle, &mut host), 0);
}

#[test]
fn without_a_clock_or_a_name_there_is_no_worker() {
    for call in [Call::Now, Call::Property] {
        let mut host = Fake::new();
        host.fail(call);
        let config = Config::parse(Some(TWO.as_bytes())).unwrap();
        assert!(Worker::new(config, &mut host).is_err(), "{call:?}");
    }
}

#[test]
fn whatever_else_fails_a_worker_starts_and_counts_later() {
    let calls = [
        Call::Random,
        Call::Get,
        Call::Set,
        Call::TickEvery,
        Call::DefineMetric,
        Call::WriteMetric,
    ];
    for call in calls {
        let mut host = Fake::new();
        host.fail(call);
        let mut worker = worker(&mut host);
        worker.ask_for_ticks(&mut host);
        host.heal();
        let open = [(); 3].map(|()| pick(&mut worker, &mut host));
        assert_eq!(in_flight(&mut worker, &mut host), 3, "{call:?}");
        for reservation in open {
            finish(&mut worker, &mut host, reservation);
        }
        assert_eq!(in_flight(&mut worker, &mut host), 0, "{call:?}");
    }
}

#[test]
fn ticks_keep_a_lease_and_without_them_it_ends() {
    let mut host = Fake::new();
    let [mut quiet, mut other] = [(); 2].map(|()| worker(&mut host));
    let open = pick(&mut quiet, &mut host);
    for _ in 0..20 {
        host.advance(LEASE / 4);
        assert_eq!(in_flight(&mut quiet, &mut host), 1);
        assert_eq!(in_flight(&mut other, &mut host), 1);
    }
    host.advance(LEASE / 2);
    assert_eq!(in_flight(&mut other, &mut host), 1, "half a lease later");
    host.advance(LEASE);
    assert_eq!(in_flight(&mut other, &mut host), 0, "it is taken for dead");
    assert_eq!(in_flight(&mut quiet, &mut host), 1, "it is back");
    assert_eq!(in_flight(&mut other, &mut host), 1);
    finish(&mut quiet, &mut host, open);
    assert_eq!(in_flight(&mut other, &mut host), 0);
}

#[test]
fn a_release_that_fails_is_counted_and_made_good_by_a_tick() {
    let mut host = Fake::new();
    let [mut worker, mut other] = [(); 2].map(|()| worker(&mut host));
    let open = pick(&mut worker, &mut host);
    host.fail(Call::Set);
    finish(&mut worker, &mut host, open);
    host.heal();
    assert_eq!(host.value("paceline_state_errors_total"), 1);
    assert_eq!(in_flight(&mut other, &mut host), 1, "it does not know yet");
    assert_eq!(in_flight(&mut worker, &mut host), 0);
    assert_eq!(in_flight(&mut other, &mut host), 0);
}

#[test]
fn time_stands_still_where_the_clock_fails() {
    let mut host = Fake::new();
    let mut worker = worker(&mut host);
    let before = worker.now(&mut host);
    host.advance(Duration::from_secs(1));
    host.fail(Call::Now);
    assert_eq!(worker.now(&mut host), before);
    host.heal();
    let after = worker.now(&mut host);
    assert_eq!(after.since(before), Duration::from_secs(1));
}

#[test]
fn ticks_are_frequent_only_while_requests_wait_in_doubt() {
    let mut host = Fake::new();
    let mut worker = worker(&mut host);
    worker.ask_for_ticks(&mut host);
    host.begin(7, &[]);
    worker.park(7, &mut host);
    assert_eq!(host.tick_millis(), Some(10));
    // Frequent ticks look after those that wait, and renew as seldom as others.
    let version = |host: &mut Fake| {
        let key = format!("paceline/{FORMAT}/test/lane/0");
        let lane = crate::host::SharedData::get(host, &key).unwrap();
        lane.map(|lane| lane.version)
    };
    let open = pick(&mut worker, &mut host);
    host.advance(Worker::TICK);
    assert_eq!(worker.tick(&mut host), []);
    let renewed = version(&mut host);
    for _ in 0..20 {
        host.advance(Duration::from_millis(10));
        assert_eq!(worker.tick(&mut host), []);
        worker.rest(&mut host);
    }
    assert_eq!(host.tick_millis(), Some(10), "it still waits");
    assert_eq!(version(&mut host), renewed);
    host.advance(Duration::from_millis(50));
    assert_eq!(worker.tick(&mut host), []);
    assert_ne!(version(&mut host), renewed);

    // Past its time it is due, at every tick until it has gone on.
    host.advance(Duration::from_secs(5));
    for _ in 0..2 {
        let due = worker.tick(&mut host);
        let expected = Due {
            context: 7,
            reason: Unknown::NotShown,
        };
        assert_eq!(due, [expected]);
    }
    worker.waiting.leave(7);
    worker.rest(&mut host);
    assert_eq!(host.tick_millis(), Some(250));
    finish(&mut worker, &mut host, open);
}

#[test]
fn a_worker_that_ends_gives_its_lane_to_the_next() {
    let mut host = Fake::new();
    let mut number = 0;
    for _ in 0..3 {
        let mut worker = worker(&mut host);
        let open = pick(&mut worker, &mut host);
        finish(&mut worker, &mut host, open);
        worker.end(&mut host);
        let lane = |number| format!("paceline/{FORMAT}/test/lane/{number}");
        while crate::host::SharedData::get(&mut host, &lane(number))
            .unwrap()
            .is_some()
        {
            number += 1;
        }
    }
    assert_eq!(number, 1, "lanes that were ever written");
}
