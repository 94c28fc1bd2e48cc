use proptest::prelude::*;

use super::super::directory::{Directory, Holder};
use super::super::outstanding::Work;
use super::*;
use crate::config::Config;
use crate::host::memory::Memory;
use crate::host::{HostError, SetError, Versioned};

const KEY: &str = "test";
const LEASE: Duration = Duration::from_secs(10);

fn topology(clusters: &[&str]) -> Topology {
    let upstreams: Vec<String> = clusters
        .iter()
        .map(|cluster| format!(r#"{{"cluster": "{cluster}"}}"#))
        .collect();
    let json = format!(r#"{{"upstreams": [{}]}}"#, upstreams.join(","));
    Topology::new(&Config::parse(Some(json.as_bytes())).unwrap())
}

fn worker(owner: u64, clusters: &[&str]) -> Lanes {
    Lanes::new(&topology(clusters), KEY, owner, LEASE, Duration::ZERO)
}

fn job(picked_at: Timestamp) -> Job {
    Job {
        work: Work::MEAN,
        picked_at,
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// Counts a request; what is in flight at the upstream then.
fn reserve(
    lanes: &mut Lanes,
    shared: &mut impl SharedData,
    now: Timestamp,
    upstream: usize,
) -> u64 {
    lanes.begin(shared, now).unwrap();
    lanes
        .reserve(shared, UpstreamIndex(upstream), job(now), now)
        .unwrap();
    lanes.outstanding(UpstreamIndex(upstream)).requests()
}

fn release(lanes: &mut Lanes, shared: &mut impl SharedData, now: Timestamp, upstream: usize) {
    // All here were picked at once.
    lanes
        .release(shared, UpstreamIndex(upstream), job(now), now)
        .unwrap();
}

fn seen(lanes: &mut Lanes, shared: &mut impl SharedData, now: Timestamp) -> Vec<u64> {
    lanes.renew(shared, now).unwrap();
    lanes.in_flight()
}

/// What a worker sees that takes no part.
fn observed(shared: &mut Memory, clusters: &[&str], now: Timestamp) -> Vec<u64> {
    seen(&mut worker(99, clusters), shared, now)
}

fn lanes_listed(shared: &mut Memory) -> usize {
    let list = shared.get("test/lanes").unwrap().unwrap();
    Directory::parse(&list.value).unwrap().holders().count()
}

#[test]
fn workers_see_each_others_requests() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (worker(1, &["a", "b"]), worker(2, &["a", "b"]));
    assert_eq!(reserve(&mut one, &mut shared, at(1), 0), 1);
    assert_eq!(reserve(&mut two, &mut shared, at(1), 0), 2);
    assert_eq!(reserve(&mut two, &mut shared, at(1), 1), 1);
    assert_eq!(seen(&mut one, &mut shared, at(1)), [2, 1]);
    release(&mut one, &mut shared, at(1), 0);
    release(&mut two, &mut shared, at(1), 0);
    release(&mut two, &mut shared, at(1), 1);
    assert_eq!(observed(&mut shared, &["a", "b"], at(1)), [0, 0]);
}

#[test]
fn what_others_have_is_read_again_when_it_is_stale() {
    let mut shared = Memory::default();
    let mut other = worker(2, &["a"]);
    let pause = Duration::from_millis(1);
    let mut one = Lanes::new(&topology(&["a"]), KEY, 1, LEASE, pause);
    let begin = |one: &mut Lanes, shared: &mut Memory, nanos| {
        one.begin(shared, Timestamp::from_nanos(nanos)).unwrap();
        one.outstanding(UpstreamIndex(0)).requests()
    };
    assert_eq!(begin(&mut one, &mut shared, 1_000_000_000), 0);
    reserve(&mut other, &mut shared, at(1), 0);
    assert_eq!(begin(&mut one, &mut shared, 1_000_999_999), 0);
    assert_eq!(begin(&mut one, &mut shared, 1_001_000_000), 1);
}

#[test]
fn a_dead_workers_requests_count_until_its_lease_ends_and_its_lane_is_used_again() {
    let mut shared = Memory::default();
    let (mut dead, mut alive) = (worker(1, &["a"]), worker(2, &["a"]));
    reserve(&mut dead, &mut shared, at(100), 0);
    reserve(&mut alive, &mut shared, at(105), 0);
    assert_eq!(observed(&mut shared, &["a"], at(110)), [2]);
    assert_eq!(observed(&mut shared, &["a"], at(111)), [1]);
    assert_eq!(reserve(&mut worker(3, &["a"]), &mut shared, at(112), 0), 2);
    assert_eq!(lanes_listed(&mut shared), 2);
}

#[test]
fn a_lane_that_was_claimed_and_not_written_yet_is_taken() {
    let mut shared = Memory::default();
    let mut dead = worker(1, &["a"]);
    reserve(&mut dead, &mut shared, at(100), 0);
    let mut list = Directory::default();
    let claimed = Holder {
        owner: 2,
        claimed_at: at(120),
    };
    assert!(list.set(0, claimed));
    shared.set("test/lanes", &list.into_bytes()).unwrap();
    assert_eq!(
        reserve(&mut worker(3, &["a"]), &mut shared, at(121), 0),
        1,
        "what is in the lane is the dead one's"
    );
    assert_eq!(lanes_listed(&mut shared), 2);
}

#[test]
fn a_worker_that_was_only_stalled_counts_again_though_its_lane_was_taken() {
    let mut shared = Memory::default();
    let (mut stalled, mut other) = (worker(1, &["a"]), worker(2, &["a"]));
    for _ in 0..3 {
        reserve(&mut stalled, &mut shared, at(100), 0);
    }
    assert_eq!(reserve(&mut other, &mut shared, at(150), 0), 1);
    release(&mut stalled, &mut shared, at(151), 0);
    assert_eq!(
        observed(&mut shared, &["a"], at(151)),
        [3],
        "two of its own and one"
    );
    release(&mut other, &mut shared, at(151), 0);
    assert_eq!(observed(&mut shared, &["a"], at(151)), [2]);
}

#[test]
fn who_writes_a_lane_that_it_has_lost_does_no_harm() {
    let mut shared = Memory::default();
    let (mut stalled, mut heir) = (worker(1, &["a"]), worker(2, &["a"]));
    reserve(&mut stalled, &mut shared, at(100), 0);
    let late = {
        let lane = shared.get("test/lane/0").unwrap().unwrap();
        lane.value
    };
    reserve(&mut heir, &mut shared, at(150), 0);
    // The stalled worker was on its way to write this.
    shared.set("test/lane/0", &late).unwrap();
    assert_eq!(observed(&mut shared, &["a"], at(151)), [0]);
    seen(&mut heir, &mut shared, at(151));
    assert_eq!(observed(&mut shared, &["a"], at(151)), [1]);
    seen(&mut stalled, &mut shared, at(152));
    assert_eq!(observed(&mut shared, &["a"], at(152)), [2]);
}

#[test]
fn a_release_that_failed_is_made_good_by_the_next_write() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a", "b"]);
    reserve(&mut one, &mut shared, at(1), 0);
    let released = one.release(&mut Broken, UpstreamIndex(0), job(at(1)), at(1));
    assert_eq!(released, Err(StateError::Host(HostError(10))));
    assert_eq!(one.in_flight(), [0, 0]);
    assert_eq!(observed(&mut shared, &["a", "b"], at(1)), [1, 0]);
    seen(&mut one, &mut shared, at(2));
    assert_eq!(observed(&mut shared, &["a", "b"], at(2)), [0, 0]);
}

#[test]
fn a_reservation_that_failed_counts_nothing() {
    let (mut shared, mut one) = (Memory::default(), worker(1, &["a"]));
    assert!(one.begin(&mut Broken, at(1)).is_err());
    one.begin(&mut shared, at(1)).unwrap();
    let reserved = one.reserve(&mut Broken, UpstreamIndex(0), job(at(1)), at(1));
    assert_eq!(reserved, Err(StateError::Host(HostError(10))));
    assert_eq!(one.in_flight(), [0]);
}

#[test]
fn damage_is_made_good_by_those_who_know() {
    for damage in [&b"neither a lane nor a list"[..], b"", b"PACL", b"PACD"] {
        let mut shared = Memory::default();
        let (mut one, mut two) = (worker(1, &["a"]), worker(2, &["a"]));
        reserve(&mut one, &mut shared, at(1), 0);
        reserve(&mut two, &mut shared, at(1), 0);
        for key in shared.keys() {
            shared.set(&key, damage).unwrap();
        }
        // The first to meet the damaged list replaces it and says so.
        let _ = one.begin(&mut shared, at(2));
        for lanes in [&mut one, &mut two, &mut worker(3, &["a"])] {
            lanes.renew(&mut shared, at(3)).unwrap();
        }
        assert_eq!(observed(&mut shared, &["a"], at(3)), [2], "{damage:?}");
    }
}

#[test]
fn a_list_that_is_lost_is_made_anew_from_the_lanes() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (worker(1, &["a"]), worker(2, &["a"]));
    reserve(&mut one, &mut shared, at(1), 0);
    reserve(&mut two, &mut shared, at(1), 0);
    shared.set("test/lanes", b"").unwrap();
    assert_eq!(reserve(&mut worker(3, &["a"]), &mut shared, at(2), 0), 3);
    assert_eq!(seen(&mut one, &mut shared, at(2)), [3]);
    assert_eq!(lanes_listed(&mut shared), 3);
}

#[test]
fn configurations_that_differ_see_each_others_requests() {
    let mut shared = Memory::default();
    let mut before = worker(1, &["a", "b"]);
    reserve(&mut before, &mut shared, at(1), 1);
    let mut after = worker(2, &["b", "c", "a"]);
    assert_eq!(reserve(&mut after, &mut shared, at(2), 0), 2);
    assert_eq!(seen(&mut before, &mut shared, at(2)), [0, 2]);
    before.set_topology(&topology(&["c", "b"]));
    assert_eq!(seen(&mut before, &mut shared, at(2)), [0, 2]);
    release(&mut before, &mut shared, at(3), 1);
    assert_eq!(seen(&mut after, &mut shared, at(3)), [1, 0, 0]);
}

#[test]
fn a_worker_that_leaves_frees_its_lane_unless_it_has_requests() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a"]);
    reserve(&mut one, &mut shared, at(1), 0);
    one.leave(&mut shared).unwrap();
    assert_eq!(observed(&mut shared, &["a"], at(1)), [1]);
    release(&mut one, &mut shared, at(1), 0);
    one.leave(&mut shared).unwrap();
    assert_eq!(one.number(), None);
    reserve(&mut worker(2, &["a"]), &mut shared, at(1), 0);
    assert_eq!(lanes_listed(&mut shared), 1);
    assert_eq!(reserve(&mut one, &mut shared, at(1), 0), 2, "it may return");
}

#[test]
fn contention_without_end_is_given_up() {
    let mut shared = Contended(Memory::default());
    let mut one = worker(1, &["a"]);
    assert_eq!(one.begin(&mut shared, at(1)), Err(StateError::Contended));
    assert_eq!(one.in_flight(), [0]);
}

#[test]
fn no_request_writes_a_key_that_another_worker_writes() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a"]);
    reserve(&mut one, &mut shared, at(1), 0);
    // From here on every compare-and-swap fails.
    let mut shared = Contended(shared);
    for _ in 0..10 {
        reserve(&mut one, &mut shared, at(2), 0);
        release(&mut one, &mut shared, at(2), 0);
    }
    assert_eq!(one.take_retries(), 0);
}

/// Every call fails.
struct Broken;

impl SharedData for Broken {
    fn get(&mut self, _: &str) -> Result<Option<Versioned>, HostError> {
        Err(HostError(10))
    }

    fn set(&mut self, _: &str, _: &[u8]) -> Result<(), HostError> {
        Err(HostError(10))
    }

    fn compare_and_set(&mut self, _: &str, _: &[u8], _: Option<Version>) -> Result<(), SetError> {
        Err(SetError::Host(HostError(10)))
    }
}

/// Somebody else is always quicker.
struct Contended(Memory);

impl SharedData for Contended {
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
        self.0.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError> {
        self.0.set(key, value)
    }

    fn compare_and_set(&mut self, _: &str, _: &[u8], _: Option<Version>) -> Result<(), SetError> {
        Err(SetError::Conflict)
    }
}

/// What may befall the workers of a process.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        worker: usize,
        member: usize,
        work: Work,
    },
    Release {
        worker: usize,
    },
    /// The host fails at the release.
    LoseRelease {
        worker: usize,
    },
    /// The worker's VM is gone with all it had in flight.
    Die {
        worker: usize,
    },
    /// Every key, or one of them, is damaged.
    Damage {
        key: Option<usize>,
    },
    Pass {
        seconds: u64,
    },
    Renew,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, 0..4usize, 0.0f64..3.0).prop_map(|(worker, member, requests)| {
            Step::Reserve { worker, member, work: Work::of_requests(requests) }
        }),
        6 => (0..3usize).prop_map(|worker| Step::Release { worker }),
        1 => (0..3usize).prop_map(|worker| Step::LoseRelease { worker }),
        1 => (0..3usize).prop_map(|worker| Step::Die { worker }),
        1 => proptest::option::of(0..6usize).prop_map(|key| Step::Damage { key }),
        2 => (1..25u64).prop_map(|seconds| Step::Pass { seconds }),
        2 => Just(Step::Renew),
    ]
}

proptest! {
    /// Whatever happens: once the living workers have renewed and the leases
    /// of the dead have ended, the totals, in requests
    /// and in work, are what the living have outstanding.
    #[test]
    fn totals_are_what_the_living_have_outstanding(steps in proptest::collection::vec(step(), 1..120)) {
        const ALL: [&str; 4] = ["a", "b", "c", "d"];
        // Workers of one process may have different configurations.
        let configured: [&[&str]; 3] = [&ALL, &ALL, &["d", "a"]];
        let mut owner = 0;
        let mut start = |which: usize| {
            owner += 1;
            worker(owner, configured[which])
        };
        let mut shared = Memory::default();
        let mut workers: Vec<(Lanes, Vec<(usize, Job)>)> = (0..3).map(|w| (start(w), Vec::new())).collect();
        let mut now = 100;
        for step in steps {
            match step {
                Step::Reserve { worker, member, work } => {
                    let (lanes, open) = &mut workers[worker];
                    let member = member % configured[worker].len();
                    let begun = lanes.begin(&mut shared, at(now));
                    if begun.and_then(|()| lanes.reserve(&mut shared, UpstreamIndex(member), Job { work, picked_at: at(now) }, at(now))).is_ok() {
                        open.push((member, Job { work, picked_at: at(now) }));
                    }
                }
                Step::Release { worker } => {
                    let (lanes, open) = &mut workers[worker];
                    if let Some((member, job)) = open.pop() {
                        let _ = lanes.release(&mut shared, UpstreamIndex(member), job, at(now));
                    }
                }
                Step::LoseRelease { worker } => {
                    let (lanes, open) = &mut workers[worker];
                    if let Some((member, job)) = open.pop() {
                        prop_assert!(lanes.release(&mut Broken, UpstreamIndex(member), job, at(now)).is_err());
                    }
                }
                Step::Die { worker } => workers[worker] = (start(worker), Vec::new()),
                Step::Damage { key } => {
                    let keys = shared.keys();
                    for (place, name) in keys.iter().enumerate() {
                        if key.is_none_or(|key| key % keys.len() == place) {
                            shared.set(name, &[7; 100]).unwrap();
                        }
                    }
                }
                Step::Pass { seconds } => now += seconds,
                Step::Renew => {
                    for (lanes, _) in &mut workers {
                        let _ = lanes.renew(&mut shared, at(now));
                    }
                }
            }
        }
        now += LEASE.as_secs() + 1;
        for (lanes, _) in &mut workers {
            // The first to meet a damaged list replaces it and is told so.
            let _ = lanes.renew(&mut shared, at(now));
        }
        for (lanes, _) in &mut workers {
            prop_assert!(lanes.renew(&mut shared, at(now)).is_ok());
        }
        let mut expected = [Outstanding::default(); 4];
        for (worker, (_, open)) in workers.iter().enumerate() {
            for (member, job) in open {
                let name = configured[worker][*member];
                expected[ALL.iter().position(|c| *c == name).unwrap()].add(*job);
            }
        }
        let (first, _) = &mut workers[0];
        first.renew(&mut shared, at(now)).unwrap();
        let seen = [0, 1, 2, 3].map(|upstream| first.outstanding(UpstreamIndex(upstream)));
        prop_assert_eq!(seen, expected);
    }
}
