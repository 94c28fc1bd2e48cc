//! Where each policy sends requests.
//!
//! Counts are exact where the policy is, and bounded with stated odds where it
//! draws at random. What a policy has learned is read from where it sends
//! requests that are held, so that nothing depends on how fast the machine is.

use std::time::Duration;

use lab::gateway::Balancing;
use serde_json::{Value, json};

use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::upstream::Behaviour;
use crate::support::{SOON, eventually};

/// With how many workers each policy is tried.
const WORKERS: [u32; 2] = [1, 2];

/// Sends so many requests, from each worker in turn.
async fn send_in_turn(fleet: &Fleet, count: usize) {
    let mut connections = fleet.connect_to_each_worker().await;
    let workers = connections.len();
    for request in 0..count {
        assert_eq!(connections[request % workers].get().await.status, 200);
    }
}

/// How many of the next requests each upstream holds.
async fn hold_and_count(fleet: &mut Fleet, count: usize) -> Vec<usize> {
    let before = fleet.counts();
    fleet.set(Behaviour::Hold);
    let _held = fleet.hold(count).await;
    fleet
        .counts()
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect()
}

/// Each worker takes turns by itself, so each may be one request ahead.
fn expect_shares(fleet: &Fleet, shares: [usize; 3], workers: u32) {
    let counts = fleet.counts();
    for (count, share) in counts.iter().zip(shares) {
        let off = count.abs_diff(share);
        assert!(off < workers as usize, "{counts:?}, not {shares:?}");
    }
}

#[tokio::test]
async fn round_robin_takes_turns() {
    for workers in WORKERS {
        let config = one_pool(3, "round_robin");
        let fleet = Fleet::start_on(workers, 3, Behaviour::OK, &config).await;
        let mut connection = fleet.connect().await;
        let mut order = Vec::new();
        for _ in 0..9 {
            order.push(connection.get().await.served_by().to_owned());
        }
        assert_eq!(order[..3], order[3..6]);
        assert_eq!(order[..3], order[6..]);
        send_in_turn(&fleet, 21).await;
        expect_shares(&fleet, [10, 10, 10], workers);
    }
}

#[tokio::test]
async fn weighted_round_robin_follows_the_weights() {
    for workers in WORKERS {
        let mut config = one_pool(3, "weighted_round_robin");
        config["upstreams"][0]["weight"] = json!(5);
        let fleet = Fleet::start_on(workers, 3, Behaviour::OK, &config).await;
        send_in_turn(&fleet, 70).await;
        expect_shares(&fleet, [50, 10, 10], workers);
    }
}

#[tokio::test]
async fn random_picks_all_alike() {
    for workers in WORKERS {
        let fleet = Fleet::start_on(workers, 3, Behaviour::OK, &one_pool(3, "random")).await;
        send_in_turn(&fleet, 600).await;
        // Binomial, mean 200, deviation 11.5: outside of the bounds with
        // probability 2e-7 for each.
        for count in fleet.counts() {
            assert!((140..=260).contains(&count), "{:?}", fleet.counts());
        }
    }
}

#[tokio::test]
async fn least_request_evens_out_what_is_in_flight() {
    for workers in WORKERS {
        let config = one_pool(3, "least_request");
        let mut fleet = Fleet::start_on(workers, 3, Behaviour::Hold, &config).await;
        let held = fleet.hold(9).await;
        assert_eq!(fleet.counts(), [3, 3, 3]);
        let (at_b, _others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|held| held.upstream() == "b");
        at_b.into_iter().for_each(|held| held.arrival.answer(200));
        fleet.expect_in_flight(6, SOON).await;
        assert_eq!(hold_and_count(&mut fleet, 3).await, [0, 3, 0]);
    }
}

#[tokio::test]
async fn least_request_fills_by_weight() {
    let mut config = one_pool(2, "least_request");
    config["upstreams"][0]["weight"] = json!(3);
    let mut fleet = Fleet::start(2, Behaviour::Hold, &config).await;
    assert_eq!(hold_and_count(&mut fleet, 8).await, [6, 2]);
}

#[tokio::test]
async fn least_request_draws_different_choices() {
    let policy = json!({ "name": "least_request", "choice_count": 2 });
    let mut fleet = Fleet::start(2, Behaviour::Hold, &one_pool(2, policy)).await;
    assert_eq!(
        hold_and_count(&mut fleet, 20).await,
        [10, 10],
        "both are always compared"
    );
}

/// Upstream `a` answers at once and the others after a while.
async fn with_one_fast(workers: u32, config: &Value) -> Fleet {
    let fleet = Fleet::start_on(workers, 3, Behaviour::OK, config).await;
    for slow in &fleet.upstreams[1..] {
        slow.set(Behaviour::after(Duration::from_millis(600)));
    }
    fleet
}

#[tokio::test]
async fn policies_by_latency_prefer_the_fast() {
    for policy in ["least_response_time", "peak_ewma"] {
        for workers in WORKERS {
            // Three of three are compared, or chance would have a say.
            let policy = match policy {
                "peak_ewma" => json!({ "name": policy, "choice_count": 100 }),
                _ => json!(policy),
            };
            let fleet = with_one_fast(workers, &one_pool(3, policy.clone())).await;
            // The fast one is not known at first. That it is not tried among
            // the first 20 has a probability of 2e-6.
            send_in_turn(&fleet, 60).await;
            let counts = fleet.counts();
            assert!(counts[0] >= 40, "{policy} on {workers} workers: {counts:?}");
        }
    }
}

#[tokio::test]
async fn shortest_expected_delay_fills_in_proportion_to_speed() {
    for workers in WORKERS {
        let policy = json!({ "name": "shortest_expected_delay", "exploration": 0 });
        let mut fleet = Fleet::start_on(workers, 2, Behaviour::OK, &one_pool(2, policy)).await;
        fleet.upstreams[0].set(Behaviour::serving(Duration::from_millis(20)));
        fleet.upstreams[1].set(Behaviour::serving(Duration::from_millis(80)));
        fleet.load(4, 30).await;
        // Four times slower: ten requests that wait in line are done soonest 8
        // to 2, give or take one for noise in what was measured.
        let counts = hold_and_count(&mut fleet, 10).await;
        assert!(
            (7..=9).contains(&counts[0]),
            "{workers} workers: {counts:?}"
        );
    }
}

#[tokio::test]
async fn shortest_expected_delay_treats_equals_alike() {
    for workers in WORKERS {
        let config = one_pool(4, "shortest_expected_delay");
        let each = Duration::from_millis(20);
        let mut fleet = Fleet::start_on(workers, 4, Behaviour::serving(each), &config).await;
        fleet.load(6, 25).await;
        let counts = hold_and_count(&mut fleet, 12).await;
        assert!(
            counts.iter().all(|count| (2..=4).contains(count)),
            "{counts:?}"
        );
    }
}

/// The scores of the best and the second best, as the decision header has them.
fn scores(decision: &str) -> Option<(f64, f64)> {
    let (_, rest) = decision.split_once("; score=")?;
    let (best, rest) = rest.split_once("; runner_up=")?;
    let (_, rest) = rest.split_once(" (")?;
    let (second, _) = rest.split_once(')')?;
    Some((best.parse().ok()?, second.parse().ok()?))
}

#[tokio::test]
async fn latency_percentile_prefers_the_better_tail_and_does_not_herd() {
    for workers in WORKERS {
        let policy = json!({ "name": "latency_percentile", "min_samples": 5, "exploration": 0 });
        let mut config = one_pool(2, policy);
        config["explain"] = json!(true);
        let mut fleet = Fleet::start_on(workers, 2, Behaviour::OK, &config).await;
        fleet.upstreams[0].set(Behaviour::after(Duration::from_millis(50)));
        fleet.upstreams[1].set(Behaviour::after(Duration::from_millis(400)));
        fleet.load(8, 25).await;
        // What was measured last is shared by a tick, and read by the next.
        for connection in &mut fleet.connect_to_each_worker().await {
            eventually("a worker to tell the tails apart", SOON, async || {
                let decision = connection
                    .get()
                    .await
                    .header("x-paceline-decision")
                    .to_owned();
                match scores(&decision) {
                    Some((best, second)) if second > 3.0 * best => Ok(()),
                    _ => Err(decision),
                }
            })
            .await;
        }
        let counts = hold_and_count(&mut fleet, 18).await;
        // Eight times slower at about the same load: 16 to 2, give or take the
        // noise of the machine in a high quantile. Both get some.
        assert!(
            (12..=17).contains(&counts[0]),
            "{workers} workers: {counts:?}"
        );
    }
}

/// How many of 160 requests fail, where one of four servers answers 503 at once
/// and the others take a while.
async fn failures(balancing: Balancing) -> usize {
    let behaviour = Behaviour::after(Duration::from_millis(20));
    let fleet = Fleet::start_with(4, behaviour, balancing, |_| {}).await;
    fleet.upstreams[0].set(Behaviour::failing(503));
    let statuses = fleet.load(4, 40).await;
    statuses.iter().filter(|status| **status != 200).count()
}

#[tokio::test]
async fn errors_never_look_fast() {
    let envoys = failures(Balancing::LeastRequestFullScan).await;
    assert!(
        envoys >= 40,
        "a server that fails at once draws more than its share: {envoys}"
    );
    for policy in [
        "shortest_expected_delay",
        "least_request",
        "least_response_time",
        "peak_ewma",
        "latency_percentile",
    ] {
        let failed = failures(paceline(&one_pool(4, policy))).await;
        println!("{policy}: {failed} failed, and {envoys} without the filter");
        assert!(
            failed * 2 <= envoys,
            "{policy}: {failed} failed, and {envoys} without the filter"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_time_gets_it() {
    let fleet = Fleet::start(2, Behaviour::OK, &one_pool(2, "shortest_expected_delay")).await;
    fleet.upstreams[0].set(Behaviour::Answer {
        status: 429,
        after: Duration::ZERO,
        retry_after: Some(3600),
    });
    let statuses = fleet.load(1, 60).await;
    let rejected = statuses.iter().filter(|status| **status == 429).count();
    assert!((1..=3).contains(&rejected), "{rejected} of 60 rejected");
}
