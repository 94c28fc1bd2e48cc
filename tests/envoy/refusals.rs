//! Answers of 4xx: whether the client is wrong or the upstream, the pool's other
//! upstreams tell.

use std::time::Duration;

use crate::support::fleet::{Fleet, one_pool};
use crate::support::upstream::Behaviour;

/// What each upstream gets of requests that come when a few have been seen.
async fn shares(fleet: &Fleet, clients: usize, requests: usize) -> Vec<f64> {
    fleet.load(clients, 10).await;
    let before = fleet.counts();
    fleet.load(clients, requests).await;
    let counts = fleet.counts().into_iter().zip(before);
    let all = (clients * requests) as f64;
    counts
        .map(|(now, before)| (now - before) as f64 / all)
        .collect()
}

#[tokio::test]
async fn an_upstream_that_alone_answers_404_at_once_gets_hardly_any_request() {
    for (policy, workers) in [("shortest_expected_delay", 1), ("least_request", 2)] {
        let behaviour = Behaviour::after(Duration::from_millis(300));
        let fleet = Fleet::start_on(workers, 4, behaviour, &one_pool(4, policy)).await;
        fleet.upstreams[1].set(Behaviour::failing(404));
        let shares = shares(&fleet, 12, 20).await;
        println!("{policy}: {shares:?}");
        assert!(shares[1] <= 0.05, "{policy}: {shares:?}");
    }
}

#[tokio::test]
async fn requests_that_are_wrong_for_all_upstreams_leave_the_shares_even() {
    let wrong = Behaviour::Answer {
        status: 400,
        after: Duration::from_millis(20),
        retry_after: None,
    };
    let config = one_pool(4, "shortest_expected_delay");
    let fleet = Fleet::start(4, wrong, &config).await;
    let shares = shares(&fleet, 8, 60).await;
    println!("{shares:?}");
    assert!(
        shares.iter().all(|share| (0.2..=0.3).contains(share)),
        "{shares:?}"
    );
}
