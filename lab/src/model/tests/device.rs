//! Servers that share memory: who takes what, and who crashes.

use super::*;

const GPU: &str = r#"{
    "devices": [ { "name": "gpu-0", "memory": 1000, "reload_seconds": 7 }, { "name": "gpu-1", "memory": 1000 } ],
    "servers": [
        { "name": "a", "kind": "slots", "slots": 4, "device": "gpu-0", "memory": { "base": 100, "per_size": 0.5 } },
        { "name": "b", "kind": "batching", "gpu": "a40", "device": "gpu-0", "memory": { "per_size": 1.5 } },
        { "name": "c", "kind": "slots", "device": "gpu-1", "memory": { "base": 1 } },
        { "name": "d", "kind": "slots" }
    ] }"#;

fn of_size(id: u64, size: Option<u64>) -> Job {
    Job {
        size,
        ..Job::of_tokens(JobId(id), 200, 50)
    }
}

#[test]
fn a_running_job_takes_memory_by_its_size_or_its_prompt() {
    let fleet = Fleet::from_json(GPU).unwrap();
    for (server, bytes) in [(0, [266, 466]), (1, [499, 799])] {
        let mut server = Server::new(&fleet.servers()[server], 1);
        let mut events = Vec::new();
        for ((id, size), bytes) in [(1, Some(333)), (2, None)].into_iter().zip(bytes) {
            let job = of_size(id, size);
            let arrival = 100.0 * (id as f64);
            server.arrive(millis(arrival), job, &mut events).unwrap();
            // In a batch it begins with the next step; none has ended by then.
            server.advance(millis(arrival + 99.0), &mut events);
            assert_eq!(server.load().device_memory, bytes);
        }
        run_out(&mut server);
        assert_eq!(server.load().device_memory, 0);
    }
}

#[test]
fn all_servers_of_a_device_crash_together_and_no_others() {
    let fleet = Fleet::from_json(GPU).unwrap();
    let mut devices = Devices::new(fleet.devices(), fleet.placements());
    assert!(devices.take(0, 600).is_empty());
    assert!(devices.take(2, 1000).is_empty());
    assert!(devices.take(3, 5000).is_empty(), "it has no device");
    assert!(devices.take(1, 400).is_empty(), "just as much as there is");
    assert_eq!(devices.take(1, 401), [0, 1]);
    assert!(devices.take(0, 2000).is_empty(), "it does not know yet");
    for server in [0, 1] {
        assert_eq!(devices.crash(server), Some(Duration::from_secs(7)));
        assert_eq!(devices.crash(server), None, "it was told");
    }
    assert_eq!((devices.crash(2), devices.crash(3)), (None, None));
    assert!(devices.take(0, 1000).is_empty(), "all was freed");
    let crashes: Vec<_> = devices.crashes().collect();
    assert_eq!(crashes, [("gpu-0", 1), ("gpu-1", 0)]);
}

#[test]
fn a_crash_loses_all_jobs_and_the_model_is_loaded_again() {
    let mut server = slot_server(1, 1.0, None);
    let mut events = Vec::new();
    for id in [1, 2] {
        let job = Job::of_service(JobId(id), SECOND);
        server.arrive(Time::ZERO, job, &mut events).unwrap();
    }
    server.run_out_of_memory(millis(500.0), 20 * SECOND, &mut events);
    let lost = EventKind::Lost(LossReason::OutOfMemory);
    for id in [1, 2] {
        assert_eq!(at_of(&events, id, lost), millis(500.0));
    }
    assert_eq!(server.load(), Load::default());
    let job = Job::of_service(JobId(3), SECOND);
    let refused = server.arrive(millis(20_499.0), job, &mut events);
    assert_eq!(refused, Err(Refusal::Loading));
    assert!(!server.condition(millis(20_499.0)).healthy);
    server.arrive(millis(20_500.0), job, &mut events).unwrap();
    assert_eq!(server.counters().crashes, 1);
    assert_eq!(server.counters().lost, 2);
}

#[test]
fn copies_of_a_fleet_have_devices_of_their_own() {
    let fleet = Fleet::from_json(GPU).unwrap();
    let copies = fleet.repeated(NonZeroUsize::new(6).unwrap());
    let device = |server: &ServerSpec| {
        let placement = server.placement?;
        Some(copies.devices()[placement.device].name.as_str())
    };
    let placed: Vec<_> = copies.servers().iter().map(device).collect();
    let [first, second, other, next] = ["1-gpu-0", "1-gpu-0", "1-gpu-1", "2-gpu-0"].map(Some);
    assert_eq!(placed, [first, second, other, None, next, next]);
    assert_eq!(fleet.repeated(NonZeroUsize::MIN).devices().len(), 2);
}
