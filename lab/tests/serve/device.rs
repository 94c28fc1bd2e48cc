//! Servers that share a GPU's memory.

use std::io::ErrorKind;

use lab::model::Control;

use crate::support::{Lab, Pending};

/// Two servers on one device, and one beside it. They load for longer than the test takes.
const FLEET: &str = r#"{
    "devices": [ { "name": "gpu", "memory": 1000, "reload_seconds": 1000 } ],
    "servers": [
        { "name": "chat", "kind": "slots", "slots": 20, "device": "gpu", "memory": { "base": 50, "per_size": 1 } },
        { "name": "images", "kind": "slots", "slots": 20, "device": "gpu", "memory": { "base": 100 } },
        { "name": "other", "kind": "slots", "slots": 20 }
    ] }"#;
const CHAT: usize = 0;
const IMAGES: usize = 1;
const OTHER: usize = 2;

/// A request that does not end, once it runs there as the so-manieth.
fn begin(lab: &Lab, server: usize, size: &str, running: usize) -> Pending {
    let headers = format!("x-service-ms: 1e8\r\nx-request-size: {size}\r\n");
    let pending = lab.begin_at(server, "/infer", &headers, "");
    lab.wait_for_at(server, |status| status.load.running == running);
    pending
}

#[test]
fn a_device_without_memory_takes_all_its_servers_down() {
    let lab = Lab::start_fleet(FLEET, 1.0);
    let mut running = vec![begin(&lab, CHAT, "450", 1)];
    running.extend((1..=5).map(|number| begin(&lab, IMAGES, "7", number)));
    let other = begin(&lab, OTHER, "1000000", 1);
    let metrics = lab.get_at(IMAGES, "/metrics").body;
    assert!(
        metrics
            .contains("lab:device_memory_used_bytes{engine=\"0\",model_name=\"paceline-lab\"} 500")
    );
    assert_eq!(lab.servers.crashes(), [("gpu".to_owned(), 0)], "just full");

    // It does not matter at which of the servers it ends.
    let headers = "x-service-ms: 1\r\nx-request-size: 1\r\n";
    running.push(lab.begin_at(CHAT, "/infer", headers, ""));
    for request in running {
        let error = request.end().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(lab.servers.crashes(), [("gpu".to_owned(), 1)]);
    for server in [CHAT, IMAGES] {
        assert_eq!(lab.get_at(server, "/health").status, 503);
        assert_eq!(lab.begin_at(server, "/infer", headers, "").status(), 503);
        let metrics = lab.get_at(server, "/metrics").body;
        assert!(metrics.contains(
            "lab:out_of_memory_crashes_total{engine=\"0\",model_name=\"paceline-lab\"} 1"
        ));
        lab.servers
            .control(
                ["chat", "images"][server],
                &Control {
                    normal: true,
                    ..Control::default()
                },
            )
            .unwrap();
        assert_eq!(lab.begin_at(server, "/infer", headers, "").status(), 200);
    }
    lab.wait_for_at(OTHER, |status| {
        status.load.running == 1 && status.counters.lost == 0
    });
    drop(other);
}
