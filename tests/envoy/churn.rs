//! Upstreams that come and go while requests are under way.

use std::time::Duration;

use lab::gateway::{ENDPOINTS_CLUSTER, Upstream as Server};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::health::checked;
use crate::support::fleet::{Fleet, one_pool, paceline};
use crate::support::load::Load;
use crate::support::upstream::{Behaviour, Health};
use crate::support::{SOON, eventually};

const BUSY: Behaviour = Behaviour::after(Duration::from_millis(20));
/// As the first answers of a server whose caches are empty.
const COLD: Behaviour = Behaviour::after(Duration::from_millis(100));
const CLIENTS: usize = 12;
const WINDOW: Duration = Duration::from_secs(3);
/// In the first ten seconds of a pool all upstreams are as new as those that join it.
const BEGINNING: Duration = Duration::from_secs(11);
/// By which shares are counted.
const BIN: Duration = Duration::from_millis(500);

async fn start(count: usize, config: &Value) -> Fleet {
    Fleet::start_with(count, BUSY, paceline(config), |topology| {
        topology.workers = 2;
        topology.reloadable = true;
    })
    .await
}

impl Fleet {
    async fn reconfigure_with(&mut self, config: &Value) {
        self.topology.balancing = paceline(config);
        self.gateway.reconfigure(&self.topology).await.unwrap();
    }

    /// How many requests each upstream has got since it had these counts.
    fn grown_since(&self, before: &[usize]) -> Vec<usize> {
        let now = self.counts();
        now.iter().zip(before).map(|(now, was)| now - was).collect()
    }

    /// The share of the upstream at `place` among the requests of a while.
    async fn share_of(&self, place: usize) -> f64 {
        let before = self.counts();
        tokio::time::sleep(BIN).await;
        let grown = self.grown_since(&before);
        grown[place] as f64 / grown.iter().sum::<usize>() as f64
    }

    /// Waits until so many upstreams are said to be cold.
    async fn expect_warming(&self, count: u64) {
        eventually("upstreams to be cold or warm", SOON, async || {
            let stats = self.gateway.stats().await.unwrap();
            let warming = stats.total("paceline_warming");
            (warming == count)
                .then_some(())
                .ok_or(format!("{warming} of {count}"))
        })
        .await;
    }

    /// Nothing is in flight, and each pick has ended once.
    async fn expect_all_counted(&self, answered: usize) {
        self.expect_in_flight(0, SOON).await;
        eventually("every request to be counted", SOON, async || {
            let stats = self.gateway.stats().await.unwrap();
            let counts = [
                stats.total("paceline_picks_total"),
                stats.total("paceline_outcomes_total"),
            ];
            let all = counts.iter().all(|it| *it == answered as u64);
            all.then_some(())
                .ok_or(format!("{counts:?}, {answered} answered"))
        })
        .await;
        let passed = self.counter("paceline_pass_through_total", &[]).await;
        assert_eq!(passed, 0);
    }
}

/// What users get of a cold replica: nothing while it loads, then a growing share.
#[tokio::test]
async fn a_cold_replica_reaches_its_share_within_the_window() {
    for policy in ["least_request", "shortest_expected_delay"] {
        let config = |count| {
            let mut config = checked(count, policy);
            config["slow_start"] = json!({ "window": format!("{}s", WINDOW.as_secs()) });
            // A busy machine must not make the others cold.
            config["health_check"]["timeout"] = json!("5s");
            config
        };
        let mut fleet = start(3, &config(2)).await;
        let cold = &fleet.upstreams[2];
        cold.set(Behaviour::Hold);
        cold.set_health(Health::LOADING);
        fleet.expect_ready(&["a", "b"]).await;
        // Without requests they stay cold. Where all are, as after a start, none is spared.
        fleet.expect_warming(2).await;
        let load = Load::start(&fleet, CLIENTS);
        fleet.expect_warming(0).await;
        fleet.reconfigure_with(&config(3)).await;
        fleet.expect_probes("body", "c").await;
        assert_eq!(fleet.upstreams[2].count(), 0, "while it loads");

        fleet.upstreams[2].set(BUSY);
        fleet.upstreams[2].set_health(Health::READY);
        eventually("its first request", SOON, async || {
            (fleet.upstreams[2].count() > 0)
                .then_some(())
                .ok_or(String::new())
        })
        .await;
        let begin = Instant::now();
        let first = fleet.share_of(2).await;
        let is_early = begin.elapsed() < WINDOW / 3;
        let mut shares = vec![first];
        while shares.last().is_none_or(|share| *share < 0.3) {
            assert!(begin.elapsed() < WINDOW + SOON, "{policy}: {shares:?}");
            shares.push(fleet.share_of(2).await);
        }
        println!("{policy}: {shares:?} in {:?}", begin.elapsed());
        // A tenth to a quarter of a third; the rest is chance. On a machine that is too slow
        // to look early this shows nothing.
        assert!(first < 0.25 || !is_early, "{policy}: {shares:?}");
        let statuses = load.stop().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        fleet.expect_all_counted(statuses.len()).await;
    }
}

#[tokio::test]
async fn upstreams_added_and_removed_under_load_lose_no_count() {
    for policy in ["shortest_expected_delay", "least_request", "round_robin"] {
        let mut fleet = start(10, &one_pool(3, policy)).await;
        let load = Load::start(&fleet, CLIENTS);
        let begin = Instant::now();
        load.goes_on(200).await;
        // Others make nothing of how new an upstream is.
        while policy == "shortest_expected_delay" && begin.elapsed() < BEGINNING {
            load.goes_on(100).await;
        }
        let newcomers = &fleet.upstreams[3..];
        newcomers.iter().for_each(|it| it.set(COLD));
        fleet.reconfigure_with(&one_pool(10, policy)).await;
        // Connections of the old configuration end with their next answer.
        load.goes_on(CLIENTS * 3).await;
        let newcomers = &fleet.upstreams[3..];
        newcomers.iter().for_each(|it| it.set(BUSY));
        let before = fleet.counts();
        load.goes_on(1000).await;
        let grown = fleet.grown_since(&before);
        println!("{policy}: {grown:?}");
        // A hundred each, with a deviation of ten if they were drawn.
        let is_fair = |it: &usize| (40..250).contains(it);
        assert!(grown.iter().all(is_fair), "{policy}: {grown:?}");
        let newcomers = &fleet.upstreams[3..];
        let most: Vec<_> = newcomers.iter().map(|it| it.most_open()).collect();
        assert!(
            most.iter().all(|it| *it <= CLIENTS / 2),
            "{policy}: {most:?}"
        );

        fleet.reconfigure_with(&one_pool(3, policy)).await;
        load.goes_on(CLIENTS * 3).await;
        let before = fleet.counts();
        load.goes_on(200).await;
        assert_eq!(fleet.counts()[3..], before[3..], "{policy}: they are gone");
        let statuses = load.stop().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        fleet.expect_all_counted(statuses.len()).await;
    }
}

#[tokio::test]
async fn endpoints_scale_from_3_to_30_and_back_under_load() {
    let config = json!({ "cluster": ENDPOINTS_CLUSTER, "lease": "5m" });
    let mut fleet = Fleet::start_with(30, BUSY, paceline(&config), |topology| {
        topology.workers = 2;
        topology.endpoints = true;
        topology.upstreams.truncate(3);
    })
    .await;
    let load = Load::start(&fleet, 30);
    load.goes_on(300).await;
    let servers: Vec<_> = fleet
        .upstreams
        .iter()
        .map(|it| Server {
            name: it.name.clone(),
            address: it.address,
        })
        .collect();
    fleet.gateway.set_endpoints(&servers).await.unwrap();
    eventually("all to be found", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        let known = stats.by_label("paceline_picks_total", "upstream");
        let known = known.values().filter(|picks| **picks > 0).count();
        (known == 30).then_some(()).ok_or(format!("{known}"))
    })
    .await;
    let before = fleet.counts();
    load.goes_on(3000).await;
    let grown = fleet.grown_since(&before);
    println!("{grown:?}");
    // A hundred each.
    assert!(grown.iter().all(|it| (30..300).contains(it)), "{grown:?}");
    let most: Vec<_> = fleet.upstreams[3..]
        .iter()
        .map(|it| it.most_open())
        .collect();
    println!("{most:?}");
    assert!(most.iter().all(|it| *it <= 10), "a stampede: {most:?}");

    fleet.gateway.set_endpoints(&servers[..3]).await.unwrap();
    load.goes_on(300).await;
    let before = fleet.counts();
    load.goes_on(300).await;
    assert_eq!(fleet.counts()[3..], before[3..], "they are gone");
    let statuses = load.stop().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    fleet.expect_in_flight(0, SOON).await;
    let stats = fleet.gateway.stats().await.unwrap();
    let counted = stats.total("paceline_picks_total") + stats.total("paceline_adoptions_total");
    assert_eq!(stats.total("paceline_outcomes_total"), counted);
    assert_eq!(stats.total("paceline_pass_through_total"), 0);
    assert_eq!(stats.total("paceline_state_errors_total"), 0);
}
