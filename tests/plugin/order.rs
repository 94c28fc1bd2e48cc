//! Callbacks in orders that Envoy does not promise to keep.

use crate::fleet::{GET, Response, TWO, in_flight, picked, respond, serve, total_in_flight};
use crate::host::{Action, HeaderMap, Plugin, Process, Root, VM_ID, Vm};

fn worker() -> (Process, Root) {
    let process = Process::new();
    let root = Vm::start(&process, TWO).unwrap();
    (process, root)
}

fn ok() -> HeaderMap {
    HeaderMap::new([(":status", "200")])
}

#[test]
fn a_stream_whose_headers_never_came_is_counted_nowhere() {
    let (process, root) = worker();
    let stream = root.stream().unwrap();
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    let stream = root.stream().unwrap();
    stream.response_headers(ok(), true).unwrap();
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_request_is_released_once_by_whichever_end_comes_first() {
    let (process, root) = worker();
    let other = root.request(GET).unwrap();
    let still_open = in_flight(&process);

    let no_log = root.request(GET).unwrap();
    no_log.done().unwrap();
    no_log.delete().unwrap();
    assert_eq!(in_flight(&process), still_open, "deleted without log");

    let log_first = root.request(GET).unwrap();
    log_first.log().unwrap();
    assert_eq!(in_flight(&process), still_open, "log");
    log_first.log().unwrap();
    log_first.done().unwrap();
    log_first.done().unwrap();
    log_first.log().unwrap();
    log_first.delete().unwrap();
    assert_eq!(in_flight(&process), still_open, "all ends, some twice");

    other.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn a_stream_that_is_only_deleted_is_released() {
    let (process, root) = worker();
    let stream = root.request(GET).unwrap();
    assert_eq!(total_in_flight(&process), 1);
    stream.delete().unwrap();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn headers_that_come_twice_are_one_request() {
    let (process, root) = worker();
    let stream = root.request(GET).unwrap();
    stream.request_headers(HeaderMap::new(GET), true).unwrap();
    assert_eq!(total_in_flight(&process), 1, "request headers twice");
    for _ in 0..2 {
        assert_eq!(
            stream.response_headers(ok(), false).unwrap(),
            Action::Continue
        );
    }
    assert_eq!(total_in_flight(&process), 1, "response headers twice");
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn bodies_and_trailers_before_any_headers_do_no_harm() {
    let (process, root) = worker();
    let stream = root.stream().unwrap();
    let actions = [
        stream.request_body(b"early", false).unwrap(),
        stream.request_trailers(HeaderMap::default()).unwrap(),
        stream.response_trailers(HeaderMap::default()).unwrap(),
        stream.response_body(b"early", true).unwrap(),
        stream.response_headers(ok(), false).unwrap(),
        stream.request_headers(HeaderMap::new(GET), false).unwrap(),
    ];
    assert_eq!(actions, [Action::Continue; 6]);
    stream.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn callbacks_before_the_configuration_do_no_harm() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let root = vm.create_root(Plugin::new(TWO)).unwrap();
    root.tick().unwrap();
    let early = root.request(GET).unwrap();
    assert_eq!(picked(&early), None);
    assert!(root.configure().unwrap());
    respond(&process, &early, &Response::OK).unwrap();
    early.end().unwrap();
    assert!(serve(&process, &root).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn requests_pass_through_a_root_that_refused_its_configuration() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let root = vm.create_root(Plugin::new("{ \"upstreams\": 1 }")).unwrap();
    assert!(!root.configure().unwrap());
    root.tick().unwrap();
    assert_eq!(serve(&process, &root).unwrap(), None);
    root.tick().unwrap();
}

#[test]
fn a_configuration_that_comes_again_keeps_the_counts_of_open_requests() {
    let (process, root) = worker();
    let open = root.request(GET).unwrap();
    assert!(root.configure().unwrap());
    root.tick().unwrap();
    assert!(serve(&process, &root).unwrap().is_some());
    open.end().unwrap();
    root.tick().unwrap();
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn two_plugins_in_one_vm_do_not_mix() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let plugin = |name: &str, cluster: &str| {
        let config = format!(r#"{{ "upstreams": [ {{ "cluster": "{cluster}" }} ] }}"#);
        let root = vm.create_root(Plugin::new(config).named(name)).unwrap();
        assert!(root.configure().unwrap());
        root
    };
    let [first, second] = [plugin("ns.first", "gpu-a"), plugin("ns.second", "gpu-b")];
    let a = first.request(GET).unwrap();
    let b = second.request(GET).unwrap();
    let c = first.request(GET).unwrap();
    assert_eq!(picked(&a).as_deref(), Some("gpu-a"));
    assert_eq!(picked(&b).as_deref(), Some("gpu-b"));
    assert_eq!(picked(&c).as_deref(), Some("gpu-a"));
    assert_eq!(
        in_flight(&process),
        [("gpu-a".into(), 2), ("gpu-b".into(), 1)].into()
    );
    b.end().unwrap();
    second.tick().unwrap();
    assert_eq!(
        in_flight(&process),
        [("gpu-a".into(), 2), ("gpu-b".into(), 0)].into()
    );
    second.shut_down().unwrap();
    a.end().unwrap();
    c.end().unwrap();
    assert_eq!(total_in_flight(&process), 0);
    assert!(serve(&process, &first).unwrap().is_some());
}

#[test]
fn a_root_that_shuts_down_with_requests_open_leaves_nothing_behind() {
    let (process, root) = worker();
    let open = root.request(GET).unwrap();
    let next = Vm::start(&process, TWO).unwrap();
    let vm = root.vm.clone();
    root.shut_down().unwrap();
    open.end().unwrap();
    drop(vm);
    process.advance(crate::fleet::LEASE * 2);
    next.tick().unwrap();
    assert!(serve(&process, &next).unwrap().is_some());
    assert_eq!(total_in_flight(&process), 0);
}

#[test]
fn neither_a_start_nor_a_tick_before_the_first_request_writes_shared_state() {
    let (process, root) = worker();
    for _ in 0..3 {
        root.tick().unwrap();
    }
    assert_eq!(
        process.keys(VM_ID),
        [b""; 0],
        "a canary or the main thread would count as a worker"
    );
    assert!(root.tick_period().is_some());
}
