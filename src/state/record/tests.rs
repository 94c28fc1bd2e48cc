use super::super::outstanding::Work;
use super::*;
use proptest::prelude::*;

fn rows(pools: &[u64], members: &[u64], upstreams: &[u64]) -> Rows {
    Rows {
        pools: pools.iter().map(|id| (*id, PoolState::default())).collect(),
        members: members
            .iter()
            .map(|id| (*id, MemberState::default()))
            .collect(),
        upstreams: upstreams
            .iter()
            .map(|id| (*id, Timestamp::from_nanos(*id)))
            .collect(),
    }
}

fn some(requests: u32, work: f64) -> Outstanding {
    let mut outstanding = Outstanding::default();
    for _ in 0..requests {
        outstanding.add(Work::of_requests(work));
    }
    outstanding
}

fn sample() -> Record {
    let mut record = Record::new(&rows(&[11], &[21, 22], &[31, 32]));
    let lane = record.add_lane();
    record.hold_lane(lane, 77, Timestamp::from_nanos(1_000));
    record.set_lane_outstanding(lane, [(1, some(5, 0.5))]);
    record
}

#[test]
fn survives_the_round_trip() {
    let record = sample();
    let read = Record::parse(record.as_bytes().to_vec()).unwrap();
    assert_eq!(read, record);
    assert_eq!(read.pool_identities().collect::<Vec<_>>(), [11]);
    assert_eq!(read.member_identities().collect::<Vec<_>>(), [21, 22]);
    assert_eq!(read.upstream_identities().collect::<Vec<_>>(), [31, 32]);
    assert_eq!(read.upstream_named_at(1), Timestamp::from_nanos(32));
    assert_eq!(read.lane_owner(0), 77);
    assert!(read.lane_outstanding(0, 0).is_nothing());
    assert_eq!(read.lane_outstanding(0, 1), some(5, 0.5));
}

#[test]
fn a_lane_can_be_added_and_cleared_without_touching_its_neighbours() {
    let mut record = sample();
    let second = record.add_lane();
    record.hold_lane(second, 88, Timestamp::ZERO);
    record.set_lane_outstanding(second, [(0, some(3, 2.0))]);
    record.clear_lane(0);
    assert!(record.lane_outstanding(0, 1).is_nothing());
    assert_eq!(record.lane_owner(0), 77);
    assert_eq!(record.lane_outstanding(second, 0), some(3, 2.0));
    assert!(Record::parse(record.as_bytes().to_vec()).is_ok());
}

#[test]
fn a_lane_lives_for_its_lease_and_no_garbage_keeps_it_alive() {
    let lease = Duration::from_secs(10);
    let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
    let mut record = sample();
    record.hold_lane(0, 1, at(100));
    assert!(record.lane_is_live(0, at(100), lease));
    assert!(record.lane_is_live(0, at(110), lease));
    assert!(!record.lane_is_live(0, at(111), lease));
    assert!(
        record.lane_is_live(0, at(99), lease),
        "another worker's clock read a moment earlier"
    );
    record.hold_lane(0, 1, Timestamp::from_nanos(u64::MAX));
    assert!(!record.lane_is_live(0, at(100), lease));
    record.hold_lane(0, 0, at(100));
    assert!(!record.lane_is_live(0, at(100), lease), "nobody holds it");
}

#[test]
fn rows_that_do_not_exist_read_as_nothing_and_write_nowhere() {
    let mut record = sample();
    let before = record.clone();
    record.set_member(2, &MemberState::default());
    record.set_lane_outstanding(0, [(2, some(1, 1.0))]);
    record.set_lane_outstanding(1, [(0, some(1, 1.0))]);
    record.hold_lane(1, 5, Timestamp::ZERO);
    record.clear_lane(9);
    assert_eq!(record, before);
    assert!(record.lane_outstanding(1, 0).is_nothing());
    assert_eq!(record.lane_owner(9), 0);
}

#[test]
fn the_fingerprint_tells_order_and_kind() {
    let print = |p: &[u64], m: &[u64], u: &[u64]| Record::new(&rows(p, m, u)).fingerprint();
    let prints = [
        print(&[1], &[2, 3], &[4]),
        print(&[1], &[3, 2], &[4]),
        print(&[1, 2], &[3], &[4]),
        print(&[1], &[2], &[3, 4]),
        print(&[1], &[2], &[4]),
    ];
    for (i, a) in prints.iter().enumerate() {
        assert!(prints.iter().skip(i + 1).all(|b| a != b));
    }
}

proptest! {
    #[test]
    fn no_blob_is_misread(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(Record::parse(bytes), Err(Malformed));
    }

    #[test]
    fn a_cut_or_lengthened_record_is_refused(cut in 0usize..400, longer in 1usize..50) {
        let bytes = sample().as_bytes().to_vec();
        let mut short = bytes.clone();
        short.truncate(cut.min(bytes.len() - 1));
        prop_assert_eq!(Record::parse(short), Err(Malformed));
        let mut long = bytes;
        long.extend(std::iter::repeat_n(0, longer));
        prop_assert_eq!(Record::parse(long), Err(Malformed));
    }

    #[test]
    fn a_record_with_flipped_bytes_is_refused_or_read_without_harm(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = sample().as_bytes().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(record) = Record::parse(bytes) {
            for row in 0..3 {
                prop_assert!(record.member(row).pace.mean_log().is_finite());
                prop_assert!(record.pool(row).books.requests.residuals.get().is_finite());
            }
        }
    }
}
