use crate::estimate::Tuning;
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::host::memory::Memory;
use crate::host::{HostError, SetError, Version, Versioned};

const KEY: &str = "test";
const LEASE: Duration = Duration::from_secs(10);

fn topology(clusters: &[&str]) -> Rc<Topology> {
    let upstreams: Vec<String> = clusters
        .iter()
        .map(|cluster| format!(r#"{{"cluster": "{cluster}"}}"#))
        .collect();
    let json = format!(r#"{{"upstreams": [{}]}}"#, upstreams.join(","));
    Rc::new(Topology::new(
        &Config::parse(Some(json.as_bytes())).unwrap(),
    ))
}

fn worker(owner: u64, clusters: &[&str]) -> Ledger {
    Ledger::new(topology(clusters), KEY.to_owned(), owner, LEASE)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn peek(shared: &mut impl SharedData) -> Result<Option<Record>, StateError> {
    Store::new(KEY.to_owned()).peek(shared)
}

fn reserve(
    ledger: &mut Ledger,
    shared: &mut impl SharedData,
    now: Timestamp,
    member: usize,
) -> u64 {
    let committed = ledger.update(shared, now, |view| {
        view.reserve(member, Work::MEAN);
        view.in_flight(member)
    });
    committed.unwrap().value
}

fn release(
    ledger: &mut Ledger,
    shared: &mut impl SharedData,
    now: Timestamp,
    member: usize,
) -> u64 {
    let committed = ledger.update(shared, now, |view| {
        view.release(member, Work::MEAN);
        view.in_flight(member)
    });
    committed.unwrap().value
}

#[test]
fn workers_see_each_others_requests() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (worker(1, &["a", "b"]), worker(2, &["a", "b"]));
    assert_eq!(reserve(&mut one, &mut shared, at(1), 0), 1);
    assert_eq!(reserve(&mut two, &mut shared, at(1), 0), 2);
    assert_eq!(reserve(&mut two, &mut shared, at(1), 1), 1);
    assert_eq!(one.observe(&mut shared, at(1)).unwrap(), [2, 1]);
    assert_eq!(release(&mut one, &mut shared, at(1), 0), 1);
    assert_eq!(release(&mut two, &mut shared, at(1), 0), 0);
    assert_eq!(release(&mut two, &mut shared, at(1), 1), 0);
}

#[test]
fn a_dead_workers_requests_count_until_its_lease_ends_and_its_lane_is_used_again() {
    let mut shared = Memory::default();
    let (mut dead, mut alive) = (worker(1, &["a"]), worker(2, &["a"]));
    reserve(&mut dead, &mut shared, at(100), 0);
    reserve(&mut alive, &mut shared, at(105), 0);
    assert_eq!(alive.observe(&mut shared, at(110)).unwrap(), [2]);
    assert_eq!(alive.observe(&mut shared, at(111)).unwrap(), [1]);
    let mut heir = worker(3, &["a"]);
    assert_eq!(reserve(&mut heir, &mut shared, at(112), 0), 2);
    let record = peek(&mut shared).unwrap().unwrap();
    assert_eq!(
        record.lanes(),
        2,
        "the third worker took the dead one's lane"
    );
}

#[test]
fn a_worker_that_was_only_stalled_counts_again_though_its_lane_was_taken() {
    let mut shared = Memory::default();
    let (mut stalled, mut other) = (worker(1, &["a"]), worker(2, &["a"]));
    for _ in 0..3 {
        reserve(&mut stalled, &mut shared, at(100), 0);
    }
    assert_eq!(
        reserve(&mut other, &mut shared, at(150), 0),
        1,
        "the lease has ended"
    );
    assert_eq!(
        release(&mut stalled, &mut shared, at(151), 0),
        3,
        "two of its own and one"
    );
    assert_eq!(release(&mut other, &mut shared, at(151), 0), 2);
}

#[test]
fn a_release_that_failed_is_made_good_by_the_next_transaction() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a", "b"]);
    reserve(&mut one, &mut shared, at(1), 0);
    assert!(
        one.update(&mut Broken, at(1), |view| view.release(0, Work::MEAN))
            .is_err()
    );
    one.forget(0, Work::MEAN);
    assert_eq!(
        one.observe(&mut shared, at(1)).unwrap(),
        [1, 0],
        "not published yet"
    );
    one.update(&mut shared, at(2), |_| ()).unwrap();
    assert_eq!(one.observe(&mut shared, at(2)).unwrap(), [0, 0]);
}

#[test]
fn a_transaction_that_failed_counts_nothing() {
    let mut one = worker(1, &["a"]);
    assert_eq!(
        one.update(&mut Broken, at(1), |view| view.reserve(0, Work::MEAN)),
        Err(StateError::Host(HostError(10)))
    );
    assert_eq!(one.own_in_flight(), 0);
}

#[test]
fn a_damaged_record_is_replaced_and_filled_again() {
    let mut shared = Memory::default();
    let (mut one, mut two) = (worker(1, &["a"]), worker(2, &["a"]));
    reserve(&mut one, &mut shared, at(1), 0);
    reserve(&mut two, &mut shared, at(1), 0);
    shared.set(KEY, b"not a record".to_vec());
    assert_eq!(
        one.update(&mut shared, at(2), |view| view.reserve(0, Work::MEAN)),
        Err(StateError::Malformed)
    );
    assert_eq!(
        reserve(&mut one, &mut shared, at(3), 0),
        2,
        "its own are there again"
    );
    assert_eq!(
        reserve(&mut two, &mut shared, at(3), 0),
        4,
        "and the other's"
    );
}

#[test]
fn what_was_learned_survives_a_change_of_upstreams() {
    let mut shared = Memory::default();
    let mut before = worker(1, &["a", "b", "c"]);
    let learn = |view: &mut View<'_>| {
        let mut state = view.member(1);
        state.pace.observe(0.25, 0.0, &Tuning::DEFAULT);
        view.set_member(1, &state);
        view.reserve(1, Work::MEAN);
    };
    before.update(&mut shared, at(1), learn).unwrap();
    let mut after = worker(2, &["d", "b"]);
    let (pace, in_flight) = after
        .update(&mut shared, at(2), |view| {
            (view.member(1).pace, view.in_flight(1))
        })
        .unwrap()
        .value;
    assert!((pace.mean_log() - 0.25f64.ln()).abs() < 1e-6);
    assert_eq!(in_flight, 1, "what the old configuration sent still counts");
    assert_eq!(release(&mut before, &mut shared, at(3), 1), 0);
    assert_eq!(after.observe(&mut shared, at(3)).unwrap(), [0, 0]);
}

#[test]
fn members_that_join_later_are_learned_of_and_known_ones_are_not_confused() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a"]);
    let learn = |ledger: &mut Ledger, shared: &mut Memory, member, seconds| {
        let committed = ledger.update(shared, at(1), |view| {
            let mut state = view.member(member);
            state.pace.observe(seconds, 0.0, &Tuning::DEFAULT);
            view.set_member(member, &state);
        });
        committed.unwrap();
    };
    learn(&mut one, &mut shared, 0, 2.0);
    one.set_topology(topology(&["c", "a", "b"]));
    learn(&mut one, &mut shared, 2, 8.0);
    let paces = one.update(&mut shared, at(1), |view| {
        [0, 1, 2].map(|member| view.member(member).pace)
    });
    let [c, a, b] = paces.unwrap().value;
    assert!(!c.is_known());
    assert!((a.mean_log() - 2f64.ln()).abs() < 1e-6);
    assert!((b.mean_log() - 8f64.ln()).abs() < 1e-6);
}

#[test]
fn a_pool_that_is_renamed_or_joined_by_another_sees_what_is_in_flight() {
    let mut shared = Memory::default();
    let mut before = worker(1, &["a", "b"]);
    reserve(&mut before, &mut shared, at(1), 1);
    let pools = r#"{"pools": [
        {"name": "small", "match": {"path_prefix": "/s"}, "upstreams": [{"cluster": "b"}]},
        {"name": "large", "upstreams": [{"cluster": "b"}, {"cluster": "a"}]}
    ]}"#;
    let topology = Rc::new(Topology::new(
        &Config::parse(Some(pools.as_bytes())).unwrap(),
    ));
    let mut after = Ledger::new(topology, KEY.to_owned(), 2, LEASE);
    assert_eq!(reserve(&mut after, &mut shared, at(2), 0), 2, "upstream b");
    assert_eq!(after.observe(&mut shared, at(2)).unwrap(), [2, 0]);
    assert_eq!(before.observe(&mut shared, at(2)).unwrap(), [0, 2]);
    assert_eq!(release(&mut before, &mut shared, at(3), 1), 1);
    assert_eq!(release(&mut after, &mut shared, at(3), 0), 0);
}

#[test]
fn what_nobody_names_is_forgotten_after_an_hour() {
    let mut shared = Memory::default();
    worker(1, &["old"])
        .update(&mut shared, at(1), |_| ())
        .unwrap();
    worker(2, &["new"])
        .update(&mut shared, at(3_600), |_| ())
        .unwrap();
    let members = |shared: &mut Memory| {
        let record = peek(shared).unwrap().unwrap();
        record.member_identities().count()
    };
    assert_eq!(members(&mut shared), 2);
    worker(3, &["newer"])
        .update(&mut shared, at(3_602), |_| ())
        .unwrap();
    assert_eq!(
        members(&mut shared),
        2,
        "the old one is gone, the newer one is there"
    );
}

#[test]
fn a_worker_that_leaves_frees_its_lane_unless_it_has_requests() {
    let mut shared = Memory::default();
    let mut one = worker(1, &["a"]);
    reserve(&mut one, &mut shared, at(1), 0);
    one.leave(&mut shared).unwrap();
    assert_eq!(one.observe(&mut shared, at(1)).unwrap(), [1]);
    release(&mut one, &mut shared, at(1), 0);
    one.leave(&mut shared).unwrap();
    assert!(!one.has_lane());
    reserve(&mut worker(2, &["a"]), &mut shared, at(1), 0);
    let record = peek(&mut shared).unwrap().unwrap();
    assert_eq!(record.lanes(), 1);
}

#[test]
fn contention_without_end_is_given_up() {
    let mut shared = Contended(Memory::default());
    let mut one = worker(1, &["a"]);
    assert_eq!(
        one.update(&mut shared, at(1), |view| view.reserve(0, Work::MEAN)),
        Err(StateError::Contended)
    );
    assert_eq!(one.own_in_flight(), 0);
}

/// Every call fails.
struct Broken;

impl SharedData for Broken {
    fn get(&mut self, _: &str) -> Result<Option<Versioned>, HostError> {
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
    /// The release's transaction fails.
    LoseRelease {
        worker: usize,
    },
    /// The worker's VM is gone with all it had in flight.
    Die {
        worker: usize,
    },
    Damage,
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
        1 => Just(Step::Damage),
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
        let mut workers: Vec<(Ledger, Vec<(usize, Work)>)> = (0..3).map(|w| (start(w), Vec::new())).collect();
        let mut now = 100;
        for step in steps {
            match step {
                Step::Reserve { worker, member, work } => {
                    let (ledger, open) = &mut workers[worker];
                    let member = member % configured[worker].len();
                    if ledger.update(&mut shared, at(now), |view| view.reserve(member, work)).is_ok() {
                        open.push((member, work));
                    }
                }
                Step::Release { worker } => {
                    let (ledger, open) = &mut workers[worker];
                    if let Some((member, work)) = open.pop()
                        && ledger.update(&mut shared, at(now), |view| view.release(member, work)).is_err()
                    {
                        ledger.forget(member, work);
                    }
                }
                Step::LoseRelease { worker } => {
                    let (ledger, open) = &mut workers[worker];
                    if let Some((member, work)) = open.pop() {
                        prop_assert!(ledger.update(&mut Broken, at(now), |view| view.release(member, work)).is_err());
                        ledger.forget(member, work);
                    }
                }
                Step::Die { worker } => workers[worker] = (start(worker), Vec::new()),
                Step::Damage => shared.set(KEY, vec![7; 100]),
                Step::Pass { seconds } => now += seconds,
                Step::Renew => {
                    for (ledger, _) in workers.iter_mut().filter(|(ledger, _)| ledger.has_lane()) {
                        let _ = ledger.update(&mut shared, at(now), |_| ());
                    }
                }
            }
        }
        now += LEASE.as_secs() + 1;
        for (ledger, _) in &mut workers {
            // The first to meet a damaged record replaces it and is told so.
            let _ = ledger.update(&mut shared, at(now), |_| ());
            prop_assert!(ledger.update(&mut shared, at(now), |_| ()).is_ok());
        }
        let mut expected = [Outstanding::default(); 4];
        for (worker, (ledger, open)) in workers.iter().enumerate() {
            prop_assert_eq!(ledger.own_in_flight(), open.len() as u64);
            for (member, work) in open {
                let name = configured[worker][*member];
                expected[ALL.iter().position(|c| *c == name).unwrap()].add(*work);
            }
        }
        prop_assert_eq!(workers[0].0.observe(&mut shared, at(now)).unwrap(), expected.map(Outstanding::requests));
        let seen = workers[0].0.update(&mut shared, at(now), |view| [0, 1, 2, 3].map(|u| view.outstanding(u)));
        prop_assert_eq!(seen.unwrap().value, expected);
    }
}
