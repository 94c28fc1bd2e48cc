//! Workers that show each other who waits, on a host in memory.

use super::*;
use crate::config::Config;
use crate::host::fake::{Call, Fake};

const LEASE: Duration = Duration::from_secs(10);
const POOL: PoolIndex = PoolIndex(0);

struct Worker {
    lanes: Lanes,
    wake: Wake,
}

impl Worker {
    fn new(owner: u64) -> Self {
        let config = Config::parse(Some(br#"{"upstreams": [{"cluster": "a"}]}"#)).unwrap();
        let topology = Topology::new(&config);
        Worker {
            lanes: Lanes::new(&topology, "test", owner, LEASE, Duration::from_millis(1)),
            wake: Wake::new(&topology, "test"),
        }
    }

    fn show(&mut self, host: &mut Fake, notice: Option<&[u8]>) -> Result<(), StateError> {
        let now = host.now().unwrap();
        self.lanes.begin(host, now).unwrap();
        self.lanes.renew(host, now).unwrap();
        let Worker { lanes, wake } = self;
        wake.check(host, lanes, POOL)?;
        wake.show(host, lanes, POOL, notice)
    }

    fn others(&mut self, host: &mut Fake) -> Vec<Vec<u8>> {
        let now = host.now().unwrap();
        let Worker { lanes, wake } = self;
        let others = wake.others(host, lanes, POOL, now).unwrap();
        others.into_iter().map(|other| other.notice).collect()
    }
}

#[test]
fn who_waits_is_seen_by_the_others_for_as_long_as_it_waits() {
    let mut host = Fake::new();
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    assert_eq!(other.others(&mut host), Vec::<Vec<u8>>::new());
    one.show(&mut host, Some(b"first")).unwrap();
    assert_eq!(one.others(&mut host), Vec::<Vec<u8>>::new(), "not itself");
    assert_eq!(other.others(&mut host), [b"first"]);
    one.show(&mut host, Some(b"second")).unwrap();
    assert_eq!(other.others(&mut host), [b"second"]);
    one.show(&mut host, None).unwrap();
    assert_eq!(other.others(&mut host), Vec::<Vec<u8>>::new());
}

#[test]
fn each_worker_is_called_through_its_own_queue() {
    let mut host = Fake::new();
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    one.show(&mut host, Some(b"a")).unwrap();
    other.show(&mut host, Some(b"b")).unwrap();
    let queues = [&one, &other].map(|worker| worker.wake.queue().unwrap());
    assert_ne!(queues[0], queues[1]);
    let now = host.now().unwrap();
    let Worker { lanes, wake } = &mut other;
    let others = wake.others(&mut host, lanes, POOL, now).unwrap();
    assert_eq!(others[0].queue, queues[0]);
    host.enqueue(others[0].queue).unwrap();
    assert_eq!(host.dequeue(queues[1]), Ok(false));
    assert_eq!(host.dequeue(queues[0]), Ok(true));
}

#[test]
fn one_that_is_silent_is_taken_off_and_enters_again_when_it_was_only_slow() {
    let mut host = Fake::new();
    let (mut slow, mut other) = (Worker::new(1), Worker::new(2));
    slow.show(&mut host, Some(b"waits")).unwrap();
    host.advance(Duration::from_millis(900));
    assert_eq!(other.others(&mut host), [b"waits"]);
    host.advance(Duration::from_millis(200));
    assert_eq!(other.others(&mut host), Vec::<Vec<u8>>::new());
    slow.show(&mut host, Some(b"waits")).unwrap();
    assert_eq!(other.others(&mut host), [b"waits"]);
}

#[test]
fn a_damaged_list_is_made_anew_by_those_who_wait() {
    let mut host = Fake::new();
    let (mut one, mut other) = (Worker::new(1), Worker::new(2));
    one.show(&mut host, Some(b"waits")).unwrap();
    let list = one.wake.pools[0].list_key.clone();
    for damage in [&b"garbage"[..], b""] {
        host.set(&list, damage).unwrap();
        assert_eq!(other.others(&mut host), Vec::<Vec<u8>>::new());
        one.show(&mut host, Some(b"waits")).unwrap();
        assert_eq!(other.others(&mut host), [b"waits"]);
    }
}

#[test]
fn what_could_not_be_shown_is_shown_with_the_next_call() {
    for call in [Call::OwnQueue, Call::Set] {
        let mut host = Fake::new();
        let (mut one, mut other) = (Worker::new(1), Worker::new(2));
        let now = host.now().unwrap();
        one.lanes.begin(&mut host, now).unwrap();
        host.fail(call);
        let Worker { lanes, wake } = &mut one;
        assert!(wake.show(&mut host, lanes, POOL, Some(b"waits")).is_err());
        host.heal();
        assert_eq!(other.others(&mut host), Vec::<Vec<u8>>::new(), "{call:?}");
        one.show(&mut host, Some(b"waits")).unwrap();
        assert_eq!(other.others(&mut host), [b"waits"], "{call:?}");
    }
}
