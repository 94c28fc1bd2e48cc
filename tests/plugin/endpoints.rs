//! A pool of discovered endpoints: what is found in place of their list, what the
//! host says of who answered, and host calls that fail.

use crate::corruption::{blobs, recovers, seasoned};
use crate::faults::{STATUSES, life};
use crate::fleet::{GET, In, picks, serve, total_in_flight};
use crate::host::{HeaderMap, Process, Property, Root, VM_ID, Vm, Which};

const DISCOVERING: &str = r#"{ "cluster": "gpus" }"#;
const ENDPOINT_HEADER: &[u8] = b"x-gateway-destination-endpoint";

/// The endpoint that answers in these tests.
const ANSWERS: &str = "10.0.0.1:8000";

fn named(sent: &HeaderMap) -> Option<String> {
    let list = sent.get_all(ENDPOINT_HEADER).next()?;
    Some(String::from_utf8(list.to_vec()).unwrap())
}

/// Serves until an endpoint is picked. That 60 requests are all left to Envoy
/// has probability 4^-60.
fn expect_pick(process: &Process, root: &Root, context: &str) {
    let before = picks(process);
    for _ in 0..60 {
        serve(process, root).in_case(context);
        if picks(process) > before {
            return;
        }
    }
    panic!("{context}: nothing is picked");
}

#[test]
fn what_has_answered_is_picked_and_the_others_are_told() {
    let process = Process::new();
    let root = Vm::start(&process, DISCOVERING).unwrap();
    let mut headers = HeaderMap::new(GET);
    headers.add(ENDPOINT_HEADER, b"10.9.9.9:1");
    let first = root.stream().unwrap();
    first.request_headers(headers, true).unwrap();
    assert_eq!(
        named(&first.sent_headers()),
        None,
        "the client's own choice"
    );
    first.end().unwrap();
    serve(&process, &root).unwrap();
    expect_pick(&process, &root, "the worker that found it");
    // No tick comes in between: a reload waits for none.
    let other = Vm::start(&process, DISCOVERING).unwrap();
    let lists = (0..60).find_map(|_| {
        let stream = other.request(GET).unwrap();
        let list = named(&stream.sent_headers());
        stream.end().unwrap();
        list
    });
    assert_eq!(lists.as_deref(), Some(ANSWERS));
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_damaged_list_is_written_again() {
    let (process, root, records) = seasoned(DISCOVERING);
    let lists: Vec<_> = records
        .into_iter()
        .filter(|(key, _)| String::from_utf8_lossy(key).contains("/endpoints/"))
        .collect();
    assert_eq!(lists.len(), 1);
    for (key, list) in lists {
        for (damage, blob) in blobs(&list) {
            process.write(VM_ID, &key, &blob);
            root.tick().in_case(&damage);
            recovers(&process, &root, &damage);
            expect_pick(&process, &root, &damage);
        }
        for (damage, blob) in blobs(&list).into_iter().step_by(17) {
            let process = Process::new();
            process.write(VM_ID, &key, &blob);
            let root = Vm::start(&process, DISCOVERING).unwrap();
            recovers(&process, &root, &damage);
            expect_pick(&process, &root, &damage);
        }
    }
}

#[test]
fn who_answered_may_be_anything() {
    let odd = [
        Property::Value(Vec::new()),
        Property::Value(vec![0xff; 40]),
        Property::text("/run/model.sock"),
        Property::text("10.0.0.1:8000,10.0.0.2:8000"),
        Property::text(&"9".repeat(100_000)),
        Property::Failing(STATUSES[2]),
    ];
    let (process, root, _) = seasoned(DISCOVERING);
    for address in odd {
        for _ in 0..20 {
            let stream = root.request(GET).unwrap();
            stream.set_property(&["upstream", "address"], address.clone());
            let details = Property::text("via_upstream");
            stream.set_property(&["response", "code_details"], details);
            let headers = HeaderMap::new([(":status", "200")]);
            stream.response_headers(headers, true).unwrap();
            stream.end().unwrap();
        }
        root.tick().unwrap();
        assert_eq!(total_in_flight(&process), 0);
        serve(&process, &root).unwrap();
        expect_pick(&process, &root, &format!("{address:?}"));
    }
}

#[test]
fn each_host_call_may_fail_in_each_way() {
    for is_seasoned in [false, true] {
        let worker = |process: &Process| {
            let root = Vm::start(process, DISCOVERING).unwrap();
            for _ in 0..3 * usize::from(is_seasoned) {
                serve(process, &root).unwrap();
            }
            root.vm.take_calls();
            root
        };
        let process = Process::new();
        let root = worker(&process);
        life(&process, &root).unwrap();
        root.tick().unwrap();
        // Which calls there are depends on what is explored; some more do no harm.
        let calls = root.vm.take_calls().len() + 4;
        for (index, status) in (0..calls).flat_map(|at| STATUSES.map(|status| (at, status))) {
            let context = format!("call {index} failing with {status:?}, {is_seasoned}");
            let process = Process::new();
            let root = worker(&process);
            root.vm.fail(Which::At(index), status);
            life(&process, &root).in_case(&context);
            root.tick().in_case(&context);
            root.vm.clear_plans();
            root.tick().in_case(&context);
            assert_eq!(total_in_flight(&process), 0, "{context}");
            serve(&process, &root).in_case(&context);
            expect_pick(&process, &root, &context);
            assert_eq!(total_in_flight(&process), 0, "{context}");
        }
    }
}
