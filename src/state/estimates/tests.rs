use super::*;
use crate::config::Config;
use crate::estimate::Tuning;
use crate::host::SetError;
use crate::host::memory::Memory;

const KEY: &str = "test";

fn topology(clusters: &[&str]) -> Rc<Topology> {
    topology_with(clusters, "")
}

fn topology_with(clusters: &[&str], more: &str) -> Rc<Topology> {
    let upstreams: Vec<String> = clusters
        .iter()
        .map(|cluster| format!(r#"{{"cluster": "{cluster}"{more}}}"#))
        .collect();
    let json = format!(r#"{{"upstreams": [{}]}}"#, upstreams.join(","));
    Rc::new(Topology::new(
        &Config::parse(Some(json.as_bytes())).unwrap(),
    ))
}

fn estimates(clusters: &[&str]) -> Estimates {
    Estimates::new(topology(clusters), KEY, Duration::from_millis(10))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

/// Learns that a member takes so many seconds.
fn learn(
    estimates: &mut Estimates,
    shared: &mut impl SharedData,
    now: u64,
    member: usize,
    seconds: f64,
) -> Result<(), StateError> {
    estimates.merge(shared, at(now), |estimates| {
        estimates.change_member(MemberIndex(member), |state, pool| {
            state.pace.observe(seconds, 0.0, &Tuning::DEFAULT);
            state.outcome_at = at(now);
            pool.used_at = at(now);
        });
    })
}

/// The mean pace of a member as it is known, in seconds.
fn known(estimates: &Estimates, member: usize) -> Option<f64> {
    let pace = estimates.member(MemberIndex(member))?.pace;
    pace.is_known()
        .then(|| (pace.mean_log().exp() * 1e3).round() / 1e3)
}

#[test]
fn what_one_worker_learns_the_others_know_when_they_read_again() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (estimates(&["a", "b"]), estimates(&["a", "b"]));
    two.read(&mut shared, at(1)).unwrap();
    learn(&mut one, &mut shared, 1, 1, 0.25).unwrap();
    assert_eq!(known(&one, 1), Some(0.25));
    let soon = at(1).after(Duration::from_millis(9));
    two.read(&mut shared, soon).unwrap();
    assert_eq!(known(&two, 1), None);
    two.read(&mut shared, at(2)).unwrap();
    assert_eq!((known(&two, 0), known(&two, 1)), (None, Some(0.25)));
}

#[test]
fn a_merge_that_another_gets_before_learns_nothing_and_can_be_repeated() {
    let mut shared = Rival::default();
    let mut one = estimates(&["a"]);
    learn(&mut one, &mut shared.0, 1, 0, 2.0).unwrap();
    let contended = learn(&mut one, &mut shared, 2, 0, 4.0);
    assert_eq!(contended, Err(StateError::Contended));
    one.read(&mut shared, at(2)).unwrap();
    assert_eq!(known(&one, 0), Some(2.0));
    learn(&mut one, &mut shared.0, 2, 0, 4.0).unwrap();
    assert!(known(&one, 0) > Some(2.5));
}

#[test]
fn a_damaged_record_is_replaced_by_what_is_learned_now() {
    let mut shared = Memory::default();
    let mut one = estimates(&["a"]);
    learn(&mut one, &mut shared, 1, 0, 2.0).unwrap();
    for (now, damage) in [(2, &b"not a record"[..]), (4, b"PACE"), (6, &[0xff; 500])] {
        shared.set("test/learned", damage).unwrap();
        one.read(&mut shared, at(now)).unwrap();
        assert_eq!(known(&one, 0), None);
        let learned = learn(&mut one, &mut shared, now + 1, 0, 4.0);
        assert_eq!(learned, Err(StateError::Malformed));
        let mut two = estimates(&["a"]);
        two.read(&mut shared, at(1)).unwrap();
        assert_eq!(known(&two, 0), Some(4.0));
    }
}

#[test]
fn what_was_learned_survives_a_change_of_upstreams() {
    let mut shared = Memory::default();
    let mut one = estimates(&["a", "b", "c"]);
    learn(&mut one, &mut shared, 1, 1, 0.25).unwrap();
    one.set_topology(topology(&["d", "b"]));
    assert_eq!((known(&one, 0), known(&one, 1)), (None, Some(0.25)));
    learn(&mut one, &mut shared, 2, 0, 8.0).unwrap();
    let mut before = estimates(&["a", "b", "c"]);
    before.read(&mut shared, at(3)).unwrap();
    assert_eq!(known(&before, 1), Some(0.25));
}

#[test]
fn a_learned_cap_survives_workers_that_learn_none() {
    let mut shared = Memory::default();
    let mut plain = estimates(&["a", "b"]);
    learn(&mut plain, &mut shared, 1, 0, 0.25).unwrap();
    let before = shared.get("test/learned").unwrap().unwrap().value.len();
    learn(&mut plain, &mut shared, 2, 0, 0.25).unwrap();
    let learning = topology_with(&["a", "b"], r#", "max_in_flight": "auto""#);
    let mut learning = Estimates::new(learning, KEY, Duration::from_millis(10));
    let overload = |estimates: &mut Estimates, shared: &mut Memory, now| {
        estimates.merge(shared, at(now), |estimates| {
            estimates.change_member(MemberIndex(1), |state, _| {
                state.limit.overload(2.0, at(now), at(now));
            });
        })
    };
    overload(&mut learning, &mut shared, 3).unwrap();
    let limit = learning.member(MemberIndex(1)).unwrap().limit;
    assert_eq!(limit.base(), 2);
    assert_eq!(known(&learning, 0), Some(0.25), "what was there stays");
    // The other learns of the same row, and takes in another upstream.
    learn(&mut plain, &mut shared, 4, 1, 0.5).unwrap();
    plain.set_topology(topology(&["a", "b", "c"]));
    learn(&mut plain, &mut shared, 5, 2, 0.5).unwrap();
    learning.read(&mut shared, at(6)).unwrap();
    assert_eq!(learning.member(MemberIndex(1)).unwrap().limit, limit);
    assert_eq!(known(&learning, 1), Some(0.5));
    let after = shared.get("test/learned").unwrap().unwrap().value.len();
    assert!(after > before + 3 * 36, "{before} bytes, {after} later");
}

#[test]
fn what_nobody_names_is_forgotten_after_an_hour() {
    let mut shared = Memory::default();
    learn(&mut estimates(&["old"]), &mut shared, 1, 0, 1.0).unwrap();
    learn(&mut estimates(&["new"]), &mut shared, 3_600, 0, 1.0).unwrap();
    let rows = |shared: &mut Memory| {
        let record = shared.get("test/learned").unwrap().unwrap();
        Learned::parse(record.value)
            .unwrap()
            .member_identities()
            .count()
    };
    assert_eq!(rows(&mut shared), 2);
    learn(&mut estimates(&["newer"]), &mut shared, 3_602, 0, 1.0).unwrap();
    assert_eq!(rows(&mut shared), 2, "the old one is gone");
}

/// Somebody else is always quicker.
#[derive(Default)]
struct Rival(Memory);

impl SharedData for Rival {
    fn get(&mut self, key: &str) -> Result<Option<crate::host::Versioned>, crate::host::HostError> {
        self.0.get(key)
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), crate::host::HostError> {
        self.0.set(key, value)
    }

    fn compare_and_set(&mut self, _: &str, _: &[u8], _: Option<Version>) -> Result<(), SetError> {
        Err(SetError::Conflict)
    }
}

/// Whether a worker that can pick these finds that `b`, the second, has started anew.
fn is_anew(shared: &mut Memory, now: u64) -> bool {
    let mut worker = estimates(&["a", "b"]);
    worker.read(shared, at(now)).unwrap();
    !worker.member(MemberIndex(1)).unwrap().health.is_plain()
}

#[test]
fn a_member_that_was_away_while_its_pool_was_in_use_starts_anew() {
    let mut shared = Memory::default();
    let mut with = estimates(&["a", "b"]);
    learn(&mut with, &mut shared, 100, 1, 0.25).unwrap();
    let mut without = estimates(&["a"]);
    for now in [101, 105, 109] {
        learn(&mut without, &mut shared, now, 0, 0.25).unwrap();
    }
    assert!(!is_anew(&mut shared, 110), "it was hardly away");
    learn(&mut without, &mut shared, 130, 0, 0.25).unwrap();
    assert!(is_anew(&mut shared, 131));
    // What the first worker writes, the others read; what was learned holds.
    let mut back = estimates(&["a", "b"]);
    learn(&mut back, &mut shared, 132, 0, 0.25).unwrap();
    let mut other = estimates(&["a", "b"]);
    other.read(&mut shared, at(160)).unwrap();
    let health = other.member(MemberIndex(1)).unwrap().health;
    assert!(!health.is_plain());
    assert_eq!(health.out_until(), Moment::of(at(132)).time(), "since when");
    assert_eq!(known(&other, 1), Some(0.25));
}

#[test]
fn a_member_that_only_had_nothing_to_do_was_not_away() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (estimates(&["a", "b"]), estimates(&["a", "b"]));
    learn(&mut one, &mut shared, 100, 1, 0.25).unwrap();
    for now in 101..200 {
        learn(&mut two, &mut shared, now, 0, 0.25).unwrap();
        assert!(!is_anew(&mut shared, now));
    }
    // Nobody used the pool for long.
    assert!(!is_anew(&mut shared, 3_000));
    learn(&mut one, &mut shared, 3_000, 0, 0.25).unwrap();
    assert!(!is_anew(&mut shared, 3_001));
}

#[test]
fn where_others_use_a_pool_without_a_member_its_worker_says_that_it_is_there() {
    let mut shared = Memory::default();
    let (mut with, mut without) = (estimates(&["a", "b"]), estimates(&["a"]));
    with.read(&mut shared, at(99)).unwrap();
    assert!(!with.is_overlooked(), "nobody uses it");
    learn(&mut with, &mut shared, 100, 1, 0.25).unwrap();
    for now in 101..200 {
        learn(&mut without, &mut shared, now, 0, 0.25).unwrap();
        with.read(&mut shared, at(now)).unwrap();
        if with.is_overlooked() {
            with.merge(&mut shared, at(now), |_| {}).unwrap();
        }
        assert!(!is_anew(&mut shared, now));
    }
}
