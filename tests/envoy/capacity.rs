//! Caps on a real Envoy: servers count themselves how many requests they have at the
//! same time, and never see more than they may.

use std::time::Duration;

use lab::gateway::Topology;
use serde_json::{Value, json};

use crate::support::client::{Connection, Pending, get, post};
use crate::support::fleet::{Fleet, paceline};
use crate::support::upstream::{Behaviour, Upstream};
use crate::support::{SOON, eventually};

/// Upstreams `a`, `b`, ... that take so many requests.
fn capped(caps: &[u32]) -> Value {
    let upstreams: Vec<Value> = ["a", "b", "c", "d"]
        .iter()
        .zip(caps)
        .map(|(name, cap)| json!({ "cluster": name, "max_in_flight": cap }))
        .collect();
    json!({ "upstreams": upstreams, "lease": "5m", "explain": true })
}

async fn fleet(workers: u32, behaviour: Behaviour, config: &Value) -> Fleet {
    let count = config["upstreams"].as_array().unwrap().len();
    Fleet::start_on(workers, count, behaviour, config).await
}

fn most_open(fleet: &Fleet) -> Vec<usize> {
    fleet.upstreams.iter().map(Upstream::most_open).collect()
}

/// Nothing is in flight and nothing waits.
async fn expect_rest(fleet: &Fleet) {
    fleet.expect_in_flight(0, SOON).await;
    eventually("nobody to wait", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        match stats.total("paceline_held") {
            0 => Ok(()),
            held => Err(format!("{held} held")),
        }
    })
    .await;
    let stats = fleet.gateway.stats().await.unwrap();
    assert_eq!(stats.total("paceline_pass_through_total"), 0);
}

#[tokio::test]
async fn servers_never_see_more_than_their_caps_and_everyone_is_served() {
    for workers in [1, 2] {
        let caps = [2, 3, 1];
        let config = capped(&caps);
        let fleet = fleet(workers, Behaviour::after(Duration::from_millis(2)), &config).await;
        let statuses = fleet.load(60, 50).await;
        assert_eq!(statuses, vec![200; 3000]);
        let most = most_open(&fleet);
        assert_eq!(most, caps.map(|cap| cap as usize), "{workers} workers");
        expect_rest(&fleet).await;
        let stats = fleet.gateway.stats().await.unwrap();
        assert_eq!(stats.total("paceline_picks_total"), 3000);
        assert_eq!(stats.total("paceline_rejections_total"), 0);
    }
}

/// A request on a connection of its own.
async fn begin(fleet: &Fleet) -> (Connection, Pending) {
    let mut connection = fleet.connect().await;
    let response = connection.start(get());
    (connection, response)
}

async fn expect_held(fleet: &Fleet, expected: u64) {
    eventually("requests to wait", SOON, async || {
        let stats = fleet.gateway.stats().await.unwrap();
        match stats.total("paceline_held") {
            held if held == expected => Ok(()),
            held => Err(format!("{held} held")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_waits_on_one_worker_starts_when_another_has_room() {
    let mut fleet = fleet(2, Behaviour::Hold, &capped(&[1])).await;
    for first in [0, 1] {
        let mut connections = fleet.connect_to_each_worker().await;
        let (mut one, mut other) = (connections.remove(first), connections.remove(0));
        let running = one.start(get());
        let arrival = fleet.arrival().await;
        let waiting = other.start(get());
        expect_held(&fleet, 1).await;
        arrival.answer(200);
        assert_eq!(running.answer().await.status, 200);
        fleet.arrival().await.answer(200);
        let answer = waiting.answer().await;
        assert_eq!(answer.status, 200);
        let decision = answer.header("x-paceline-decision");
        assert!(decision.contains("; held_for=room"), "{decision}");
    }
    assert_eq!(most_open(&fleet), [1]);
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn a_body_goes_to_the_upstream_whole_after_a_wait() {
    let mut fleet = fleet(1, Behaviour::Hold, &capped(&[1])).await;
    let (_first, running) = begin(&fleet).await;
    let arrival = fleet.arrival().await;
    let mut connection = fleet.connect().await;
    let (mut body, request) = post();
    let waiting = connection.start(request);
    body.send_data("before ".into()).await.unwrap();
    expect_held(&fleet, 1).await;
    body.send_data("while ".into()).await.unwrap();
    arrival.answer(200);
    assert_eq!(running.answer().await.status, 200);
    let mut arrival = fleet.arrival().await;
    body.send_data("after".into()).await.unwrap();
    drop(body);
    let mut seen = Vec::new();
    while seen.len() < "before while after".len() {
        seen.extend(arrival.next_piece().await);
    }
    assert_eq!(seen, b"before while after");
    arrival.ended().await;
    arrival.answer(200);
    assert_eq!(waiting.answer().await.status, 200);
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn clients_that_leave_while_they_wait_are_forgotten() {
    let mut fleet = fleet(2, Behaviour::Hold, &capped(&[1])).await;
    let (_first, running) = begin(&fleet).await;
    let arrival = fleet.arrival().await;
    let mut gone = Vec::new();
    for _ in 0..6 {
        gone.push(begin(&fleet).await);
    }
    expect_held(&fleet, 6).await;
    for (connection, response) in gone {
        connection.cut();
        response.none().await;
    }
    expect_held(&fleet, 0).await;
    let (_last, waiting) = begin(&fleet).await;
    expect_held(&fleet, 1).await;
    arrival.answer(200);
    assert_eq!(running.answer().await.status, 200);
    fleet.arrival().await.answer(200);
    assert_eq!(waiting.answer().await.status, 200);
    assert_eq!(fleet.counts(), [2], "nobody else came");
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn what_fits_nowhere_is_refused_with_the_reason() {
    let config = json!({
        "devices": [{ "name": "gpu-0", "memory": 1000 }],
        "upstreams": [
            { "cluster": "a", "device": "gpu-0", "memory": { "base": 100, "per_size": 1 } },
            { "cluster": "b", "device": "gpu-0", "memory": { "base": 200, "per_size": 1 } },
        ],
    });
    let fleet = fleet(1, Behaviour::OK, &config).await;
    let mut connection = fleet.connect().await;
    let answer = connection.upload(&[], &[b'x'; 901], true).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("x-paceline-reject-reason"), "too_large");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["error"]["pool"], "default", "{body}");
    let mut connection = fleet.connect().await;
    for _ in 0..3 {
        let answer = connection.upload(&[], &[b'x'; 850], true).await;
        assert_eq!((answer.status.as_u16(), answer.served_by()), (200, "a"));
    }
    assert_eq!(fleet.counts(), [3, 0]);
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn caps_hold_while_the_configuration_changes() {
    let behaviour = Behaviour::after(Duration::from_millis(3));
    let config = capped(&[2, 1]);
    let adjust = |topology: &mut Topology| {
        topology.workers = 2;
        topology.reloadable = true;
    };
    let mut fleet = Fleet::start_with(2, behaviour, paceline(&config), adjust).await;
    let gateway = fleet.gateway.address();
    let clients: Vec<_> = (0..24)
        .map(|_| {
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..60 {
                    // An old listener closes its connections as it drains.
                    let mut connection = Connection::open(gateway).await;
                    statuses.push(connection.get().await.status.as_u16());
                }
                statuses
            })
        })
        .collect();
    for turn in 1..=3 {
        let mut next = config.clone();
        next["lease"] = json!(format!("{}m", 5 - turn));
        fleet.topology.balancing = paceline(&next);
        fleet.gateway.reconfigure(&fleet.topology).await.unwrap();
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), vec![200; 60]);
    }
    let most = most_open(&fleet);
    assert!(most[0] <= 2 && most[1] <= 1, "{most:?}");
    expect_rest(&fleet).await;
}

/// Clients that come, leave at any moment or stay, while servers fail and the
/// configuration changes: all is answered, no cap is exceeded, nothing remains.
#[tokio::test]
async fn chaos_ends_with_nothing_in_flight_and_nobody_waiting() {
    let caps = [2, 3, 1];
    let config = capped(&caps);
    let adjust = |topology: &mut Topology| {
        topology.workers = 2;
        topology.reloadable = true;
    };
    let behaviour = Behaviour::after(Duration::from_millis(4));
    let mut fleet = Fleet::start_with(3, behaviour, paceline(&config), adjust).await;
    let gateway = fleet.gateway.address();
    let clients: Vec<_> = (0..30)
        .map(|number: u64| {
            let mut rng = fastrand::Rng::with_seed(number);
            tokio::spawn(async move {
                let mut answers = 0;
                for _ in 0..40 {
                    let mut connection = Connection::open(gateway).await;
                    let response = connection.start(get());
                    if rng.u8(..3) == 0 {
                        tokio::time::sleep(Duration::from_millis(rng.u64(..12))).await;
                        connection.cut();
                    } else {
                        let status = response.answer().await.status.as_u16();
                        assert!([200, 500].contains(&status), "{status}");
                        answers += 1;
                    }
                }
                answers
            })
        })
        .collect();
    for turn in 1..=4 {
        let failing = Behaviour::failing(500);
        fleet.upstreams[turn % 3].set(failing);
        let mut next = config.clone();
        next["lease"] = json!(format!("{}m", 5 - turn));
        fleet.topology.balancing = paceline(&next);
        fleet.gateway.reconfigure(&fleet.topology).await.unwrap();
        fleet.set(Behaviour::after(Duration::from_millis(4)));
    }
    let mut answers = 0;
    for client in clients {
        answers += client.await.unwrap();
    }
    assert!(answers > 600, "{answers}");
    expect_rest(&fleet).await;
    // A server hears of a client that left when its connection is reset, which is a
    // moment after the place is free. How many can be in that moment is not known here.
    let statuses = fleet.load(20, 20).await;
    assert_eq!(statuses, vec![200; 400]);
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn a_trap_loses_the_waiters_of_its_worker_and_no_place_for_long() {
    let module = crate::support::trap::trapping_in("proxy_on_request_body");
    let mut config = capped(&[1]);
    config["lease"] = json!("2s");
    let balancing = lab::gateway::Balancing::Filter {
        module: module.path().to_owned(),
        config: config.to_string(),
    };
    let adjust = |topology: &mut Topology| topology.workers = 2;
    let mut fleet = Fleet::start_with(1, Behaviour::Hold, balancing, adjust).await;
    let mut connections = fleet.connect_to_each_worker().await;
    let (mut other, mut trapped) = (connections.pop().unwrap(), connections.pop().unwrap());
    let running = trapped.start(get());
    let lost = fleet.arrival().await;
    let mut second = fleet.connect_to_each_worker().await.remove(0);
    let waits_there = second.start(get());
    let waits_here = other.start(get());
    expect_held(&fleet, 2).await;

    let (mut body, request) = post();
    let mut third = fleet.connect_to_each_worker().await.remove(0);
    let trap = third.start(request);
    body.send_data("some".into()).await.unwrap();
    assert_eq!(trap.answer().await.status, 503);
    lost.answer(200);
    assert_eq!(running.answer().await.status, 503, "its filter is gone");
    // The place of the lost request is free when the lease has ended.
    fleet.arrival().await.answer(200);
    assert_eq!(waits_here.answer().await.status, 200);
    drop((second, waits_there));
    fleet.set(Behaviour::OK);
    eventually("a fresh VM", SOON, async || {
        let mut connection = fleet.connect_to_each_worker().await.remove(0);
        match connection.get().await.status.as_u16() {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    fleet.expect_in_flight(0, SOON).await;
    let most = most_open(&fleet);
    assert!(most[0] <= 1, "{most:?}");
}

/// The cap that Envoy's metrics show.
async fn shown_cap(fleet: &Fleet) -> u64 {
    let stats = fleet.gateway.stats().await.unwrap();
    stats.total("paceline_max_in_flight")
}

/// One server, which does one request after the other, behind a cap that is learned.
async fn learning(reports: bool) -> Fleet {
    let config = json!({
        "upstreams": [{ "cluster": "a", "max_in_flight": "auto" }], "lease": "5m",
        "admission": { "queue": { "max_wait": "5m" } },
    });
    let each = Duration::from_millis(2);
    fleet(2, Behaviour::Serve { each, reports }, &config).await
}

#[tokio::test]
async fn a_learned_cap_follows_what_the_server_can_do() {
    let fleet = learning(false).await;
    eventually(
        "a cap for a server that does one at a time",
        2 * SOON,
        async || {
            // How its latency changes with its load shows only while the load changes.
            for clients in [2, 6, 24] {
                let answered = fleet.load(clients, 10).await;
                assert_eq!(answered, vec![200; 10 * clients]);
            }
            match shown_cap(&fleet).await {
                cap @ 1..=4 => Ok(cap),
                cap => Err(format!("{cap}")),
            }
        },
    )
    .await;
    // Now it does all at once.
    fleet.upstreams[0].set(Behaviour::after(Duration::from_millis(5)));
    eventually(
        "a cap for a server that does all at once",
        2 * SOON,
        async || {
            assert_eq!(fleet.load(24, 20).await, vec![200; 480]);
            match shown_cap(&fleet).await {
                cap @ 10.. => Ok(cap),
                cap => Err(format!("{cap}")),
            }
        },
    )
    .await;
    expect_rest(&fleet).await;
}

#[tokio::test]
async fn a_reported_queue_lowers_a_learned_cap() {
    let fleet = learning(true).await;
    // The load is always the same: only the reports tell anything.
    eventually("a cap that leaves no queue", SOON, async || {
        assert_eq!(fleet.load(24, 10).await, vec![200; 240]);
        match shown_cap(&fleet).await {
            cap @ 1..=4 => Ok(cap),
            cap => Err(format!("{cap}")),
        }
    })
    .await;
    expect_rest(&fleet).await;
}
