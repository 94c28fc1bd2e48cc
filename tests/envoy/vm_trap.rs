//! A trap in the module ends the requests of one worker, and no more.
//!
//! Envoy drops a VM that traps with all that it was doing: nothing in it is
//! told that its requests have ended. Their counts end with the lease.

use std::time::Duration;

use hyper::body::Bytes;
use lab::gateway::Balancing;
use serde_json::json;

use crate::support::client::{Connection, post};
use crate::support::fleet::Fleet;
use crate::support::trap::trapping_in;
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

const LEASE: Duration = Duration::from_secs(2);

/// Until when counts of a VM that is gone must have ended: a lease, and as much
/// again for the tick that shows it on a busy machine.
const LEASE_OVER: Duration = Duration::from_secs(4);

/// Two upstreams behind the real filter with a trap in one of its functions.
async fn fleet_with_trap(workers: u32, function: &str, behaviour: Behaviour) -> Fleet {
    let module = trapping_in(function);
    let config = json!({
        "upstreams": [{ "cluster": "a" }, { "cluster": "b" }],
        "policy": "least_request",
        "lease": format!("{}s", LEASE.as_secs()),
    });
    let balancing = Balancing::Filter {
        module: module.path().to_owned(),
        config: config.to_string(),
    };
    Fleet::start_with(2, behaviour, balancing, |topology| {
        topology.workers = workers
    })
    .await
}

/// A request with a body makes the VM of the connection's worker trap.
async fn trap(connection: &mut Connection) {
    let (mut body, request) = post();
    let response = connection.start(request);
    body.send_data(Bytes::from_static(b"some")).await.unwrap();
    assert_eq!(response.answer().await.status, 503);
}

/// Waits for the worker of this connection to have a fresh VM.
async fn expect_recovery(fleet: &Fleet, connection: &mut Connection) {
    eventually("a fresh VM", SOON, async || {
        let status = connection.get().await.status;
        if status == 200 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let reloads = fleet
        .gateway
        .stats()
        .await
        .unwrap()
        .total("wasm.paceline.vm_reload_success");
    assert!(reloads > 0);
}

#[tokio::test]
async fn a_fresh_vm_takes_over_and_counts_end_with_the_lease() {
    let mut fleet = fleet_with_trap(1, "proxy_on_request_body", Behaviour::Hold).await;
    let held = fleet.hold(3).await;
    fleet.expect_in_flight(3, SOON).await;

    trap(&mut fleet.connect().await).await;
    for held in held {
        held.arrival.answer(200);
        assert_eq!(
            held.response.answer().await.status,
            503,
            "its filter is gone"
        );
    }
    fleet.expect_in_flight(0, LEASE_OVER).await;

    fleet.set(Behaviour::OK);
    let mut connection = fleet.connect().await;
    expect_recovery(&fleet, &mut connection).await;
    assert!(!connection.get().await.served_by().is_empty());
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn the_other_worker_goes_on_and_keeps_its_counts() {
    let mut fleet = fleet_with_trap(2, "proxy_on_request_body", Behaviour::Hold).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        for connection in fleet.connect_to_each_worker().await {
            held.push(fleet.hold_on(connection).await);
        }
    }
    fleet.expect_in_flight(4, SOON).await;
    let mut connections = fleet.connect_to_each_worker().await;
    let (mut other, mut trapped) = (connections.pop().unwrap(), connections.pop().unwrap());

    trap(&mut trapped).await;
    // The counts of the first worker end with its lease; those of the second
    // worker do not.
    fleet.expect_in_flight(2, LEASE_OVER).await;
    fleet.set(Behaviour::OK);
    assert_eq!(other.get().await.status, 200);

    for (number, held) in held.into_iter().enumerate() {
        held.arrival.answer(200);
        let expected = if number % 2 == 0 { 503 } else { 200 };
        assert_eq!(
            held.response.answer().await.status,
            expected,
            "request {number}"
        );
    }
    fleet.expect_in_flight(0, SOON).await;

    let mut connection = fleet.connect_to_each_worker().await.remove(0);
    expect_recovery(&fleet, &mut connection).await;
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn a_trap_at_the_end_of_a_request_leaks_nothing() {
    for workers in [1, 2] {
        let fleet = fleet_with_trap(workers, "proxy_on_log", Behaviour::OK).await;
        // The answer has left before the trap. Later ones may meet a worker
        // that has no VM for a moment.
        assert_eq!(fleet.get_in_turn(1).await[0].status, 200);
        let stats = fleet.gateway.stats().await.unwrap();
        assert_eq!(stats.total("paceline_picks_total"), 1);
        assert_eq!(
            stats.total("paceline_outcomes_total"),
            0,
            "its end was never told"
        );
        fleet.expect_in_flight(0, LEASE_OVER).await;
        let mut connection = fleet.connect().await;
        eventually("a fresh VM", SOON, async || {
            let status = connection.get().await.status;
            if status == 200 {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
        fleet.expect_in_flight(0, LEASE_OVER).await;
    }
}
