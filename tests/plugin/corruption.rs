//! The shared record is damaged: the filter starts afresh, routes on, says so.

use crate::fleet::{
    GET, In, LEASE, TWO, config, in_flight, pass_throughs, picked, serve, total_in_flight,
};
use crate::host::{Action, Process, Root, VM_ID, Vm};

/// What may be found in place of the record: noise, the record itself cut,
/// lengthened, flipped or overwritten, and extremes.
pub(crate) fn blobs(record: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut blobs = vec![
        ("empty".into(), Vec::new()),
        ("one byte".into(), vec![0]),
        ("zeros".into(), vec![0; record.len()]),
        ("ones".into(), vec![0xff; record.len()]),
        ("text".into(), b"{\"not\": \"ours\"}".to_vec()),
        ("a megabyte of ones".into(), vec![0xff; 1 << 20]),
    ];
    for length in [1, 7, 8, 64, record.len(), 2 * record.len()] {
        let mut noise = vec![0; length];
        rng.fill(&mut noise);
        blobs.push((format!("{length} bytes of noise"), noise));
    }
    for cut in 1..record.len() {
        blobs.push((format!("the first {cut} bytes"), record[..cut].to_vec()));
    }
    let longer = [record, &[0; 16]].concat();
    blobs.push(("16 bytes more".into(), longer));
    for at in 0..record.len() {
        for byte in [0, 0xff, record[at] ^ 0x01, record[at] ^ 0x80] {
            let mut flipped = record.to_vec();
            flipped[at] = byte;
            blobs.push((format!("byte {at} set to {byte:#04x}"), flipped));
        }
        let mut tail = record.to_vec();
        tail[at..].fill(0xff);
        blobs.push((format!("ones from byte {at} on"), tail));
    }
    blobs
}

/// Keys and values of the shared data.
pub(crate) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// A worker that has served, and every key that it has written.
pub(crate) fn seasoned(configuration: &str) -> (Process, Root, Records) {
    let process = Process::new();
    let root = Vm::start(&process, configuration).unwrap();
    for _ in 0..4 {
        serve(&process, &root).unwrap();
    }
    root.tick().unwrap();
    let keys = process.keys(VM_ID).into_iter();
    let records: Records = keys
        .map(|key| (key.clone(), process.read(VM_ID, &key).unwrap()))
        .collect();
    assert!(!records.is_empty(), "the filter shares its state");
    (process, root, records)
}

/// The filter must go on routing at once or, having said why, with the next
/// request; and what the damage added to the counts must end with the leases.
pub(crate) fn recovers(process: &Process, root: &Root, context: &str) {
    let before: u64 = pass_throughs(process).values().sum();
    let first = root.request(GET).in_case(context);
    let routed = picked(&first).is_some();
    let after: u64 = pass_throughs(process).values().sum();
    assert!(
        routed || after == before + 1,
        "{context}: passed through uncounted"
    );
    first.end().in_case(context);
    let second = serve(process, root).in_case(context);
    assert!(
        second.is_some(),
        "{context}: the second request was not routed"
    );
    process.advance(LEASE * 3);
    root.tick().in_case(context);
    assert_eq!(
        total_in_flight(process),
        0,
        "{context}: {:?}",
        in_flight(process)
    );
}

#[test]
fn a_damaged_record_is_replaced_while_a_worker_serves() {
    let (process, root, records) = seasoned(TWO);
    for (key, record) in records {
        for (damage, blob) in blobs(&record) {
            process.write(VM_ID, &key, &blob);
            recovers(&process, &root, &damage);
        }
    }
}

#[test]
fn a_damaged_record_is_replaced_by_a_worker_that_starts() {
    let (_, _, records) = seasoned(TWO);
    for (key, record) in records {
        // Every start is a VM of its own, so a sample of the damages.
        for (damage, blob) in blobs(&record).into_iter().step_by(7) {
            let process = Process::new();
            process.write(VM_ID, &key, &blob);
            let root = Vm::start(&process, TWO).unwrap();
            recovers(&process, &root, &damage);
        }
    }
}

#[test]
fn a_record_of_another_configuration_is_no_obstacle() {
    let (_, _, records) = seasoned(&config(5, "round_robin"));
    for (key, record) in records {
        let process = Process::new();
        process.write(VM_ID, &key, &record);
        let root = Vm::start(&process, TWO).unwrap();
        recovers(&process, &root, "five upstreams' record");
    }
}

#[test]
fn damage_while_requests_are_open_leaves_no_count_behind() {
    let (process, root, records) = seasoned(TWO);
    for (key, record) in records {
        for (damage, blob) in blobs(&record).into_iter().step_by(3) {
            let open: Vec<_> = (0..3).map(|_| root.request(GET).unwrap()).collect();
            process.write(VM_ID, &key, &blob);
            let body = open[0].request_body(b"late", true).unwrap();
            assert_eq!(body, Action::Continue, "{damage}");
            for stream in open {
                stream.end().unwrap();
            }
            recovers(&process, &root, &damage);
        }
    }
}

#[test]
fn a_malformed_record_is_counted_with_its_reason() {
    let (process, root, records) = seasoned(TWO);
    let before = process.counters("paceline_");
    for (key, _) in &records {
        process.write(VM_ID, key, b"not ours");
    }
    serve(&process, &root).unwrap();
    let after = process.counters("paceline_");
    let risen = |(name, value): &(&String, &u64)| before.get(*name).copied().unwrap_or(0) < **value;
    let risen: Vec<&String> = after.iter().filter(risen).map(|(name, _)| name).collect();
    assert!(
        risen.iter().any(|name| name.contains("reason=")),
        "no counter names a reason: {risen:?}"
    );
}
