//! Upstreams that fail, hang or are full: what clients see of them.

use std::time::Duration;

use lab::gateway::Balancing;
use serde_json::json;

use crate::support::client::Connection;
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::load::Load;
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// Clients, each of which sends one request after the other.
const CLIENTS: usize = 8;

/// How many of 800 requests fail, where one of four servers does this and the others
/// take a while.
async fn failures(balancing: Balancing, one_does: &Behaviour) -> usize {
    let behaviour = Behaviour::after(Duration::from_millis(20));
    let fleet = Fleet::start_with(4, behaviour, balancing, |_| {}).await;
    fleet.upstreams[1].set(one_does.clone());
    let statuses = fleet.load(CLIENTS, 100).await;
    statuses.iter().filter(|status| **status != 200).count()
}

/// Without retries, which would hide most of it.
async fn costs_a_tenth_of_the_errors(one_does: Behaviour) {
    let envoys = failures(Balancing::LeastRequestFullScan, &one_does).await;
    assert!(
        envoys >= 200,
        "a server that fails at once draws more than its share: {envoys}"
    );
    for policy in ["shortest_expected_delay", "least_request"] {
        let failed = failures(paceline(&one_pool(4, policy)), &one_does).await;
        println!("{policy}: {failed} failed, and {envoys} without the filter");
        assert!(
            failed * 10 <= envoys,
            "{policy}: {failed} failed, and {envoys} without the filter"
        );
    }
}

#[tokio::test]
async fn a_server_that_answers_503_at_once_costs_a_tenth_of_the_errors() {
    costs_a_tenth_of_the_errors(Behaviour::failing(503)).await;
}

#[tokio::test]
async fn a_server_that_answers_404_at_once_costs_a_tenth_of_the_errors() {
    costs_a_tenth_of_the_errors(Behaviour::failing(404)).await;
}

#[tokio::test]
async fn a_server_that_answers_401_at_once_costs_a_tenth_of_the_errors() {
    costs_a_tenth_of_the_errors(Behaviour::failing(401)).await;
}

#[tokio::test]
async fn a_server_that_resets_at_once_costs_a_tenth_of_the_errors() {
    costs_a_tenth_of_the_errors(Behaviour::Reset).await;
}

/// Sends so many requests from each client, which gives each up after a second.
async fn impatient_load(fleet: &Fleet, requests: usize) {
    let gateway = fleet.gateway.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(async move {
                let mut connection = Connection::open(gateway).await;
                for _ in 0..requests {
                    let answered = tokio::time::timeout(Duration::from_secs(1), connection.get());
                    if answered.await.is_err() {
                        connection = Connection::open(gateway).await;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_hangs_gets_hardly_any_request_while_clients_give_up() {
    for policy in ["shortest_expected_delay", "least_request"] {
        let behaviour = Behaviour::after(Duration::from_millis(20));
        let fleet = Fleet::start(8, behaviour, &one_pool(8, policy)).await;
        impatient_load(&fleet, 20).await;
        fleet.upstreams[3].set(Behaviour::Hold);
        impatient_load(&fleet, 100).await;
        let before = fleet.upstreams[3].count();
        impatient_load(&fleet, 150).await;
        let came = fleet.upstreams[3].count() - before;
        println!("{policy}: {came} of {}", CLIENTS * 150);
        assert!(came * 100 < CLIENTS * 150, "{policy}: {came}");
    }
}

#[tokio::test]
async fn servers_that_are_all_full_stay_in_the_pool() {
    for policy in ["shortest_expected_delay", "least_request", "round_robin"] {
        let full = Behaviour::Answer {
            status: 429,
            after: Duration::from_millis(5),
            retry_after: None,
        };
        let fleet = Fleet::start(4, full, &one_pool(4, policy)).await;
        let statuses = fleet.load(CLIENTS, 50).await;
        assert!(statuses.iter().all(|status| *status == 429), "{policy}");
        let counts = fleet.counts();
        assert_eq!(counts.iter().sum::<usize>(), statuses.len(), "{policy}");
        assert!(
            counts.iter().all(|count| *count > 0),
            "{policy}: {counts:?}"
        );
        let ejections = fleet.counter("paceline_ejections_total", &[]).await;
        assert_eq!(ejections, 0, "{policy}");
        // What has room again serves all.
        fleet.set(Behaviour::OK);
        let statuses = fleet.load(CLIENTS, 10).await;
        assert!(statuses.iter().all(|status| *status == 200), "{policy}");
    }
}

/// It has room for one request at a time, and says 503 to more while it answers that one.
#[tokio::test]
async fn a_server_that_is_full_goes_on_serving_and_users_see_no_503() {
    for policy in ["shortest_expected_delay", "least_request", "round_robin"] {
        let each = Duration::from_millis(20);
        let balancing = paceline(&one_pool(3, policy));
        let fleet = Fleet::start_with(3, Behaviour::after(each), balancing, |topology| {
            topology.workers = 2;
            topology.retries = true;
        })
        .await;
        fleet.upstreams[0].set(Behaviour::Limited { slots: 1, each });
        let statuses = fleet.load(CLIENTS, 50).await;
        assert!(statuses.iter().all(|status| *status == 200), "{policy}");
        let refused = [("upstream", "a"), ("outcome", "retried")];
        let refused = fleet.counter("paceline_outcomes_total", &refused).await;
        assert!(refused >= 5, "{policy}: it was full {refused} times");
        let served = [("upstream", "a"), ("outcome", "success")];
        let before = fleet.counter("paceline_outcomes_total", &served).await;
        let statuses = fleet.load(CLIENTS, 50).await;
        assert!(statuses.iter().all(|status| *status == 200), "{policy}");
        let now = fleet.counter("paceline_outcomes_total", &served).await;
        assert!(now > before, "{policy}: it serves no more");
        let ejections = fleet.counter("paceline_ejections_total", &[]).await;
        assert_eq!(ejections, 0, "{policy}");
        fleet.expect_in_flight(0, SOON).await;
    }
}

/// Each server's own cluster has Envoy's outlier detection, and the pool has Paceline's.
#[tokio::test]
async fn both_outlier_detections_together_do_no_harm() {
    let mut config = one_pool(4, "shortest_expected_delay");
    config["outlier_detection"] = json!({ "base_ejection_time": "1s" });
    let balancing = paceline(&config);
    let busy = Behaviour::after(Duration::from_millis(5));
    let fleet = Fleet::start_with(4, busy.clone(), balancing, |topology| {
        topology.workers = 2;
        topology.retries = true;
        for server in 0..4 {
            let place = format!(
                "/static_resources/clusters/{}/outlier_detection",
                server * 2 + 1
            );
            let detection = json!({
                "consecutive_5xx": 3,
                "interval": "0.1s",
                "base_ejection_time": "1s",
                "max_ejection_percent": 100,
            });
            topology.amendments.push((place, detection));
        }
    })
    .await;
    let load = Load::start(&fleet, CLIENTS);
    load.goes_on(200).await;
    for failing in [Behaviour::failing(500), Behaviour::Reset] {
        fleet.upstreams[1].set(failing);
        eventually("both to eject it", SOON, async || {
            let stats = fleet.gateway.stats().await.unwrap();
            let ejections = [
                stats.total("paceline_ejections_total"),
                stats.total("cluster.b-servers.outlier_detection.ejections_enforced_total"),
            ];
            let both = ejections.iter().all(|it| *it > 0);
            both.then_some(()).ok_or(format!("{ejections:?}"))
        })
        .await;
        load.goes_on(200).await;
        fleet.upstreams[1].set(busy.clone());
        let before = fleet.upstreams[1].count();
        eventually("it to be back", SOON, async || {
            let now = fleet.upstreams[1].count() - before;
            (now >= 50).then_some(()).ok_or(format!("{now}"))
        })
        .await;
    }
    let statuses = load.stop().await;
    // 500 is not retried: what users see of it is what it takes to eject it.
    let failed = statuses.iter().filter(|status| **status != 200).count();
    println!("{failed} of {} failed", statuses.len());
    assert!(failed <= 20, "{failed} of {}", statuses.len());
    fleet.expect_in_flight(0, SOON).await;
    let passed = fleet.counter("paceline_pass_through_total", &[]).await;
    assert_eq!(passed, 0);
}
