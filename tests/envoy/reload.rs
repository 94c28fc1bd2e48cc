//! A new configuration, as a control plane brings it, loses nothing: not what
//! was learned, not what is in flight.

use std::time::Duration;

use lab::gateway::GatewayError;
use serde_json::{Value, json};

use crate::support::client;
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually, soon};

/// Counts that were forgotten with the lease would show.
const LEASE: &str = "5m";

async fn reloadable(workers: u32, count: usize, behaviour: Behaviour, config: &Value) -> Fleet {
    Fleet::start_with(count, behaviour, paceline(config), |topology| {
        topology.workers = workers;
        topology.reloadable = true;
    })
    .await
}

impl Fleet {
    async fn reconfigure(&mut self, config: &Value) -> Result<(), GatewayError> {
        self.topology.balancing = paceline(config);
        self.gateway.reconfigure(&self.topology).await
    }
}

fn with_lease(mut config: Value) -> Value {
    config["lease"] = json!(LEASE);
    config
}

#[tokio::test]
async fn the_new_configuration_applies() {
    for workers in [1, 2] {
        let one = json!({ "upstreams": [{ "cluster": "a" }] });
        let mut fleet = reloadable(workers, 2, Behaviour::OK, &one).await;
        fleet.get_in_turn(5).await;
        assert_eq!(fleet.counts(), [5, 0]);
        let other = json!({ "upstreams": [{ "cluster": "b" }], "explain": true });
        fleet.reconfigure(&other).await.unwrap();
        let answers = fleet.get_in_turn(5).await;
        assert_eq!(fleet.counts(), [5, 5]);
        assert!(
            answers[0]
                .header("x-paceline-decision")
                .starts_with("upstream=b")
        );
    }
}

#[tokio::test]
async fn what_was_learned_is_kept() {
    for workers in [1, 2] {
        let policy = json!({ "name": "shortest_expected_delay", "exploration": 0 });
        let mut config = one_pool(2, policy);
        let mut fleet = reloadable(workers, 2, Behaviour::OK, &config).await;
        let (fast, slow) = (Duration::from_millis(5), Duration::from_millis(100));
        fleet.upstreams[0].set(Behaviour::serving(fast));
        fleet.upstreams[1].set(Behaviour::serving(slow));
        fleet.load(4, 40).await;

        config["explain"] = json!(true);
        fleet.reconfigure(&config).await.unwrap();
        let before = fleet.counts();
        fleet.set(Behaviour::Hold);
        // Twenty times slower, so the first requests all go to the fast one.
        // With nothing known they would go both ways, two and two.
        let _held = fleet.hold(4).await;
        assert_eq!(
            fleet.counts()[1],
            before[1],
            "the slow upstream is still known as slow"
        );
    }
}

#[tokio::test]
async fn streams_of_the_old_configuration_stay_counted_until_they_end() {
    for workers in [1, 2] {
        let mut config = with_lease(one_pool(2, "least_request"));
        let mut fleet = reloadable(workers, 2, Behaviour::Hold, &config).await;
        let old = fleet.hold(6).await;
        assert_eq!(fleet.counts(), [3, 3]);

        config["explain"] = json!(true);
        fleet.reconfigure(&config).await.unwrap();
        fleet.expect_in_flight(6, SOON).await;
        // All that `a` has ends; the new configuration knows that `b` is busy.
        let (at_a, at_b): (Vec<_>, Vec<_>) =
            old.into_iter().partition(|held| held.upstream() == "a");
        for held in at_a {
            held.arrival.answer(200);
            assert_eq!(held.response.answer().await.status, 200);
        }
        fleet.expect_in_flight(3, SOON).await;
        let new = fleet.hold(3).await;
        assert_eq!(fleet.counts(), [6, 3]);
        fleet.expect_in_flight(6, SOON).await;

        for held in at_b.into_iter().chain(new) {
            held.arrival.answer(200);
            assert_eq!(held.response.answer().await.status, 200);
        }
        fleet.expect_in_flight(0, SOON).await;
        let stats = fleet.gateway.stats().await.unwrap();
        assert_eq!(stats.total("paceline_outcomes_total"), 9);
    }
}

#[tokio::test]
async fn streams_that_are_cut_when_draining_ends_are_counted_off() {
    let mut config = with_lease(one_pool(2, "least_request"));
    let balancing = paceline(&config);
    let mut fleet = Fleet::start_with(2, Behaviour::Hold, balancing, |topology| {
        topology.reloadable = true;
        topology.drain_time = Duration::from_secs(1);
    })
    .await;
    let old = fleet.hold(4).await;
    fleet.expect_in_flight(4, SOON).await;
    config["explain"] = json!(true);
    fleet.reconfigure(&config).await.unwrap();
    for mut held in old {
        held.arrival.given_up().await;
    }
    fleet.expect_in_flight(0, SOON).await;
    fleet.set(Behaviour::OK);
    assert_eq!(fleet.get_in_turn(1).await[0].status, 200);
}

#[tokio::test]
async fn upstreams_that_are_no_longer_named_are_counted_off_too() {
    let both = with_lease(one_pool(2, "round_robin"));
    let mut fleet = reloadable(2, 2, Behaviour::Hold, &both).await;
    let old = fleet.hold(4).await;
    let one = with_lease(json!({ "upstreams": [{ "cluster": "b" }], "policy": "round_robin" }));
    fleet.reconfigure(&one).await.unwrap();
    fleet.expect_in_flight(4, SOON).await;
    for held in old {
        held.arrival.answer(200);
    }
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_and_the_old_one_serves_on() {
    let good = with_lease(one_pool(2, "round_robin"));
    let mut fleet = reloadable(2, 2, Behaviour::Hold, &good).await;
    let held = fleet.hold(2).await;
    let bad = json!({ "upstreams": [{ "cluster": "a" }], "policy": "fastest" });
    let error = fleet.reconfigure(&bad).await.unwrap_err();
    assert!(matches!(error, GatewayError::Refused { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("policy: \"fastest\" is not a policy"),
        "{error}"
    );

    fleet.expect_in_flight(2, SOON).await;
    for held in held {
        held.arrival.answer(200);
    }
    fleet.set(Behaviour::OK);
    let answers = fleet.get_in_turn(4).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    // Two of them went out before; each worker takes turns by itself.
    let counts = fleet.counts();
    assert_eq!(counts.iter().sum::<usize>(), 6);
    assert!(
        counts.iter().all(|count| (2..=4).contains(count)),
        "{counts:?}"
    );
    fleet.expect_in_flight(0, SOON).await;
}

#[tokio::test]
async fn many_changes_under_load_lose_no_request_and_no_count() {
    let mut config = with_lease(one_pool(2, "least_request"));
    let mut fleet = reloadable(2, 2, Behaviour::after(Duration::from_millis(5)), &config).await;
    let gateway = fleet.gateway.address();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut served = 0;
                while !*stopped.borrow() {
                    // Envoy asks clients of an old configuration to reconnect.
                    let mut connection = client::Connection::open(gateway).await;
                    assert_eq!(connection.get().await.status, 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    for round in 0..6 {
        config["upstreams"][0]["weight"] = json!(1 + round % 2);
        fleet.reconfigure(&config).await.unwrap();
    }
    stop.send(true).unwrap();
    let mut served = 0;
    for client in clients {
        served += soon("a client", client).await.unwrap();
    }
    fleet.expect_in_flight(0, SOON).await;
    eventually("every request to be counted", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let (picks, outcomes) = (
            stats.total("paceline_picks_total"),
            stats.total("paceline_outcomes_total"),
        );
        if picks == served && outcomes == served {
            Ok(())
        } else {
            Err(format!("{served} served, {picks} picked, {outcomes} ended"))
        }
    })
    .await;
}
