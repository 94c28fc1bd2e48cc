use super::*;
use crate::config::Config;
use proptest::prelude::*;

fn topology(clusters: &[&str]) -> Topology {
    topology_with(clusters, "")
}

/// The same with learned caps.
fn learning_caps(clusters: &[&str]) -> Topology {
    topology_with(clusters, r#", "max_in_flight": "auto""#)
}

fn topology_with(clusters: &[&str], more: &str) -> Topology {
    let upstreams: Vec<String> = clusters
        .iter()
        .map(|cluster| format!(r#"{{"cluster": "{cluster}"{more}}}"#))
        .collect();
    let json = format!(r#"{{"upstreams": [{}]}}"#, upstreams.join(","));
    Topology::new(&Config::parse(Some(json.as_bytes())).unwrap())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn state(now: Timestamp) -> MemberState {
    let mut state = MemberState::new(now);
    state
        .pace
        .observe(0.5, 0.0, &crate::estimate::Tuning::DEFAULT);
    state
}

/// The same, and what an upstream takes at once.
fn capped(now: Timestamp) -> MemberState {
    let mut state = state(now);
    state.limit.succeed(4.0, 5.0, 0.5, at(1));
    state
}

fn sample() -> Learned {
    let mut record = Learned::default().extended(&topology(&["a", "b"]), at(5));
    record.set_member(1, &state(at(6)).encode());
    record
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let record = sample();
    let read = Learned::parse(record.as_bytes().to_vec()).unwrap();
    assert_eq!(read, record);
    assert!(read.has(fields_for(&topology(&["a"]))));
    assert_eq!(
        MemberState::decode(&read.member(0)),
        MemberState::new(at(5))
    );
    assert_eq!(MemberState::decode(&read.member(1)), state(at(6)));
    assert_eq!(
        MemberState::decode(&read.member(2)),
        MemberState::default(),
        "there is no such row"
    );
    assert_eq!(PoolState::decode(&read.pool(0)), PoolState::new(at(5)));
    let identities: Vec<u64> = read.member_identities().collect();
    let members = topology(&["a", "b"]).members;
    assert_eq!(identities, [members[0].identity, members[1].identity]);
}

#[test]
fn the_fingerprint_follows_what_is_in_the_record() {
    let record = sample();
    let mut learned = record.clone();
    learned.set_member(0, &state(at(9)).encode());
    assert_eq!(learned.fingerprint(), record.fingerprint());
    let more = record.extended(&topology(&["a", "b", "c"]), at(7));
    assert_ne!(more.fingerprint(), record.fingerprint());
    assert_eq!(MemberState::decode(&more.member(1)), state(at(6)));
}

/// A record of another version, whose members have these fields.
fn other_version(fields: &[Field], member: &[u8]) -> Learned {
    let record = sample();
    let identities: Vec<u64> = record.member_identities().collect();
    let mut bytes = header();
    let pool = record.pool_identities().next().unwrap();
    let pools = Rows {
        fields: PoolState::FIELDS.to_vec(),
        rows: vec![(pool, record.pool(0).to_vec())],
    };
    append(&mut bytes, &pools);
    let members = Rows {
        fields: fields.to_vec(),
        rows: identities.iter().map(|it| (*it, member.to_vec())).collect(),
    };
    append(&mut bytes, &members);
    put(&mut bytes, FINGERPRINT_AT, 7u64.to_le_bytes());
    Learned::parse(bytes).unwrap()
}

#[test]
fn a_later_versions_fields_are_kept() {
    let later = Field::new(999, 2);
    let fields = [&[later], MemberState::FIELDS].concat();
    let row = [&b"unknown."[..], &state(at(6)).encode()].concat();
    let record = other_version(&fields, &row);
    assert!(record.has(MemberState::FIELDS));
    assert_eq!(MemberState::decode(&record.member(1)), state(at(6)));
    // Also where the record is made anew, with a row more.
    let mut record = record.extended(&topology(&["a", "b", "c"]), at(7));
    record.set_member(0, &MemberState::new(at(8)).encode());
    assert_eq!(
        MemberState::decode(&record.member(0)),
        MemberState::new(at(8))
    );
    assert_eq!(MemberState::decode(&record.member(1)), state(at(6)));
    let bytes = record.as_bytes();
    let kept = bytes.windows(8).filter(|window| window == b"unknown.");
    assert_eq!(kept.count(), 2);
}

#[test]
fn an_earlier_versions_rows_get_the_new_fields() {
    let (first, rest) = MemberState::FIELDS.split_first().unwrap();
    let encoded = state(at(6)).encode();
    let record = other_version(rest, &encoded[usize::from(first.words) * 4..]);
    let topology = topology(&["a", "b"]);
    assert!(!record.has(fields_for(&topology)));
    let extended = record.extended(&topology, at(7));
    assert!(extended.has(fields_for(&topology)));
    let read = MemberState::decode(&extended.member(1));
    assert!(!read.pace.is_known(), "an earlier version did not know it");
    assert_eq!(read.outcome_at, at(6));
}

#[test]
fn a_learned_cap_takes_room_only_where_somebody_learns_it() {
    let (without, with) = (topology(&["a", "b"]), learning_caps(&["a", "b"]));
    let plain = Learned::default().extended(&without, at(5));
    let learning = Learned::default().extended(&with, at(5));
    assert!(plain.has(fields_for(&without)) && !plain.has(fields_for(&with)));
    assert!(learning.has(fields_for(&without)) && learning.has(fields_for(&with)));
    let more = learning.as_bytes().len() - plain.as_bytes().len();
    assert_eq!(more, 4 + 2 * 36, "the field's description, and two fields");
}

#[test]
fn who_does_not_learn_caps_keeps_what_others_have_learned_of_them() {
    let mut record = Learned::default().extended(&topology(&["a", "b"]), at(5));
    record.set_member(1, &state(at(6)).encode());
    // Another configuration begins to learn them: the row stays, and gets the field.
    let mut record = record.extended(&learning_caps(&["b", "c"]), at(7));
    assert_eq!(MemberState::decode(&record.member(1)), state(at(6)));
    record.set_member(1, &capped(at(7)).encode());
    // The first takes in another upstream, and learns of the same one.
    let mut record = record.extended(&topology(&["a", "b", "d"]), at(8));
    let mut member = MemberState::decode(&record.member(1));
    assert_eq!(member, capped(at(7)));
    member.outcome_at = at(9);
    record.set_member(1, &member.encode());
    assert!(record.has(fields_for(&learning_caps(&["a"]))));
    let read = Learned::parse(record.as_bytes().to_vec()).unwrap();
    assert_eq!(MemberState::decode(&read.member(1)), capped(at(9)));
    assert_eq!(
        MemberState::decode(&read.member(0)).limit,
        MemberState::default().limit
    );
}

#[test]
fn a_cap_between_other_fields_is_found_as_an_earlier_version_wrote_it() {
    let state = capped(at(6));
    let mut fields = MemberState::FIELDS.to_vec();
    let last = fields.len() - 1;
    fields.swap(last - 1, last);
    let row = converter(&fields, MemberState::FIELDS)(&state.encode());
    let mut record = other_version(&fields, &row);
    assert_eq!(MemberState::decode(&record.member(1)), state);
    record.set_member(1, &capped(at(7)).encode());
    assert_eq!(MemberState::decode(&record.member(1)), capped(at(7)));
    assert_eq!(MemberState::decode(&record.member(0)), state);
    let anew = record.extended(&topology(&["a", "b", "c"]), at(8));
    assert_eq!(MemberState::decode(&anew.member(1)), capped(at(7)));
}

proptest! {
    #[test]
    fn damaged_bytes_are_refused_or_decode_soundly(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample().as_bytes().to_vec();
        for (place, byte) in flips {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if let Some(record) = Learned::parse(bytes) {
            let record = record.extended(&topology(&["a", "c"]), at(9));
            for row in 0..3 {
                prop_assert!(MemberState::decode(&record.member(row)).pace.mean_log().is_finite());
            }
        }
    }
}
