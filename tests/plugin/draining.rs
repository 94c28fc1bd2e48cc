//! An upstream whose weight becomes 0 while requests are under way.

use crate::fleet::{GET, Response, in_flight, pass_throughs, picked, respond, serve};
use crate::host::{Plugin, Process, Root, VM_ID, Vm};

fn weighted(weights: [u32; 2]) -> String {
    let [a, b] = weights;
    format!(
        r#"{{ "upstreams": [ {{ "cluster": "gpu-a", "weight": {a} }}, {{ "cluster": "gpu-b", "weight": {b} }} ] }}"#
    )
}

#[test]
fn what_is_in_flight_ends_in_peace_and_nothing_new_comes() {
    let process = Process::new();
    let vm = Vm::boot(&process, VM_ID).unwrap();
    let configured = |weights| -> Root {
        let root = vm.create_root(Plugin::new(weighted(weights))).unwrap();
        assert!(root.configure().unwrap());
        root
    };
    let before = configured([1, 1]);
    let held = [(); 2].map(|()| before.request(GET).unwrap());
    let after = configured([0, 1]);
    for _ in 0..20 {
        let upstream = serve(&process, &after).unwrap();
        assert_eq!(upstream.as_deref(), Some("gpu-b"));
    }
    after.tick().unwrap();
    assert_eq!(in_flight(&process)["gpu-a"], 1, "still there");
    for stream in held {
        respond(&process, &stream, &Response::OK).unwrap();
        stream.end().unwrap();
    }
    assert_eq!(in_flight(&process)["gpu-a"], 0);
    let good = process.counters("paceline_outcomes_total;pool=default;upstream=gpu-a;");
    assert_eq!(good.values().sum::<u64>(), 1);
    assert!(
        good.keys().all(|name| name.ends_with("success")),
        "{good:?}"
    );
    assert_eq!(pass_throughs(&process), [].into());

    let none = configured([0, 0]);
    let stream = none.request(GET).unwrap();
    assert_eq!(picked(&stream), None);
    stream.end().unwrap();
    assert_eq!(pass_throughs(&process), [("drained".into(), 1)].into());
}
