//! The harness itself, on Envoy's own balancing: were it wrong, every other
//! test would be too.

use std::path::PathBuf;
use std::time::Duration;

use lab::gateway::{Balancing, Gateway, GatewayError, Topology};

use crate::support::fleet::Fleet;
use crate::support::place::place;
use crate::support::upstream::Behaviour;

#[tokio::test]
async fn envoys_round_robin_serves_all_alike() {
    let fleet = Fleet::start_with(3, Behaviour::OK, Balancing::RoundRobin, |_| {}).await;
    let answers = fleet.get_in_turn(30).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(fleet.counts(), [10, 10, 10]);
}

#[tokio::test]
async fn every_built_in_balancing_is_accepted_and_serves() {
    let all = [
        Balancing::RoundRobin,
        Balancing::Random,
        Balancing::LeastRequest { choice_count: 3 },
        Balancing::LeastRequestFullScan,
    ];
    for balancing in all {
        let fleet = Fleet::start_with(2, Behaviour::OK, balancing.clone(), |_| {}).await;
        let answers = fleet.get_in_turn(4).await;
        assert!(
            answers.iter().all(|answer| answer.status == 200),
            "{balancing:?}"
        );
        assert_eq!(fleet.counts().iter().sum::<usize>(), 4, "{balancing:?}");
    }
}

#[tokio::test]
async fn a_full_scan_never_picks_a_busier_server() {
    let mut fleet =
        Fleet::start_with(3, Behaviour::Hold, Balancing::LeastRequestFullScan, |_| {}).await;
    // One after the other: Envoy counts a request once it has a connection.
    let _held = fleet.hold(9).await;
    assert_eq!(fleet.counts(), [3, 3, 3]);
}

#[tokio::test]
async fn a_module_that_is_missing_is_named() {
    let balancing = Balancing::Filter {
        module: "/nowhere.wasm".into(),
        config: "{}".to_owned(),
    };
    let topology = Topology::new([("a", ([127, 0, 0, 1], 1).into())], balancing);
    let error = Gateway::start_in(place(), &topology).await.unwrap_err();
    assert!(
        matches!(error, GatewayError::ModuleMissing { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("make build"), "{error}");
}

#[tokio::test]
async fn envoy_ends_with_its_gateway() {
    let fleet = Fleet::start_with(1, Behaviour::OK, Balancing::RoundRobin, |_| {}).await;
    assert!(fleet.gateway.cpu_time().unwrap() > Duration::ZERO);
    let process = PathBuf::from(format!("/proc/{}", fleet.gateway.process_id()));
    assert!(process.exists());
    drop(fleet);
    assert!(!process.exists());
}

#[tokio::test]
async fn a_fixed_listener_is_not_reconfigured() {
    let mut fleet = Fleet::start_with(1, Behaviour::OK, Balancing::RoundRobin, |_| {}).await;
    let error = fleet.gateway.reconfigure(&fleet.topology).await;
    assert!(
        matches!(error, Err(GatewayError::NotReloadable)),
        "{error:?}"
    );
}
