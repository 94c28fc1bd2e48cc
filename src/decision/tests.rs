mod drained;
mod refusals;
mod told;

use super::*;
use crate::host::memory::Memory;
use crate::outcome::End;
use crate::policy::Reason;

const KEY: &str = "test";

/// A request of which nothing is known.
const ANY: Demand = Demand {
    pool: PoolIndex(0),
    size: None,
    due: None,
    waiting: 0,
    waited: std::time::Duration::ZERO,
};

fn balancer(json: &str, seed: u64) -> Balancer {
    let config = Config::parse(Some(json.as_bytes())).unwrap();
    Balancer::new(&config, KEY.to_owned(), seed)
}

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

fn answered(status: u16) -> Finished {
    Finished {
        end: End {
            status: Some(status),
            attempts: 1,
            request_complete: true,
            response_complete: true,
            ..End::default()
        },
        ..Finished::default()
    }
}

/// A closed loop of `clients`: a server takes `seconds(server)` per request and
/// per request that it has. Returns how often each server was picked.
fn closed_loop(
    balancer: &mut Balancer,
    clients: usize,
    rounds: usize,
    finished: impl Fn(usize) -> Finished,
    seconds: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let mut shared = Memory::default();
    let servers = balancer.topology().members.len();
    let mut shares = vec![0; servers];
    let mut open: Vec<(f64, usize, Reservation)> = Vec::new();
    let mut now = 1.0;
    for _ in 0..rounds {
        while open.len() < clients {
            let route = balancer
                .decide(&mut shared, &ANY, at(now))
                .routed()
                .unwrap();
            let server = route.member.0;
            shares[server] += 1;
            let took = seconds(server) * route.in_flight as f64;
            open.push((now + took, server, route.reservation));
        }
        open.sort_by(|(one, ..), (other, ..)| other.total_cmp(one));
        let (end, server, reservation) = open.pop().unwrap();
        now = end;
        let finished = finished(server);
        balancer
            .release(&mut shared, reservation, &finished, at(now))
            .unwrap();
    }
    shares
}

#[test]
fn a_pick_is_counted_and_a_release_uncounts_it() {
    let mut shared = Memory::default();
    let mut one = balancer(r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#, 1);
    let mut two = balancer(r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#, 2);
    let first = one.decide(&mut shared, &ANY, at(1.0)).routed().unwrap();
    let second = two.decide(&mut shared, &ANY, at(1.0)).routed().unwrap();
    assert_ne!(
        first.reservation.member, second.reservation.member,
        "the other is idle"
    );
    assert_eq!(one.renew(&mut shared, at(1.0)).unwrap(), [1, 1]);
    for (balancer, route) in [(&mut one, first), (&mut two, second)] {
        balancer
            .release(&mut shared, route.reservation, &answered(200), at(2.0))
            .unwrap();
    }
    assert_eq!(two.renew(&mut shared, at(2.0)).unwrap(), [0, 0]);
}

#[test]
fn the_default_gives_each_server_its_share() {
    let upstreams = r#"{"upstreams": [{"cluster": "fast"}, {"cluster": "slow"}]}"#;
    let seconds = |server| if server == 0 { 0.1 } else { 0.3 };
    let shares = closed_loop(
        &mut balancer(upstreams, 1),
        12,
        4_000,
        |_| answered(200),
        seconds,
    );
    let ratio = shares[0] as f64 / shares[1] as f64;
    assert!(
        (2.4..4.2).contains(&ratio),
        "three times as fast: {shares:?}"
    );
}

#[test]
fn equal_servers_get_equal_shares() {
    let upstreams = r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}, {"cluster": "c"}]}"#;
    let shares = closed_loop(
        &mut balancer(upstreams, 5),
        9,
        3_000,
        |_| answered(200),
        |_| 0.1,
    );
    assert!(
        shares.iter().all(|n| (900..1_110).contains(n)),
        "{shares:?}"
    );
}

#[test]
fn a_server_that_fails_at_once_draws_few_requests() {
    for policy in [
        "shortest_expected_delay",
        "least_request",
        "least_response_time",
        "peak_ewma",
        "latency_percentile",
    ] {
        let json = format!(
            r#"{{"policy": "{policy}", "upstreams": [{{"cluster": "ok"}}, {{"cluster": "ok2"}}, {{"cluster": "broken"}}]}}"#
        );
        let finished = |server| answered(if server == 2 { 503 } else { 200 });
        let seconds = |server| if server == 2 { 0.001 } else { 0.1 };
        let shares = closed_loop(&mut balancer(&json, 3), 6, 4_000, finished, seconds);
        // A least-request balancer that does not see errors would send nearly
        // every request there.
        assert!(shares[2] < 800, "{policy}: {shares:?}");
    }
}

/// The policies that heed what was learned.
const LEARNING: [&str; 5] = [
    "shortest_expected_delay",
    "least_request",
    "least_response_time",
    "peak_ewma",
    "latency_percentile",
];

fn pool_of(policy: &str, count: usize) -> Balancer {
    let upstreams: Vec<_> = (0..count)
        .map(|n| format!(r#"{{"cluster": "c{n}"}}"#))
        .collect();
    let upstreams = upstreams.join(",");
    let json = format!(r#"{{"policy": "{policy}", "upstreams": [{upstreams}]}}"#);
    balancer(&json, 3)
}

#[test]
fn a_listener_with_other_sizes_learns_for_itself() {
    let of_source = |source: &str| {
        format!(
            r#"{{"upstreams": [{{"cluster": "a"}}, {{"cluster": "b"}}], "request_size": {source}}}"#
        )
    };
    let mut shared = Memory::default();
    let mut bytes = balancer(&of_source(r#""content_length""#), 1);
    let mut steps = balancer(&of_source(r#"{"header": "x-steps"}"#), 2);
    let mut pick = |balancer: &mut Balancer| {
        let size = Some(1_000.0);
        balancer
            .decide(&mut shared, &Demand { size, ..ANY }, at(1.0))
            .routed()
    };
    let (one, other) = (pick(&mut bytes).unwrap(), pick(&mut steps).unwrap());
    assert_ne!(one.member, other.member, "what is in flight is shared");
    for (balancer, route) in [(&mut bytes, one), (&mut steps, other)] {
        let member = route.member;
        balancer
            .release(&mut shared, route.reservation, &answered(200), at(2.0))
            .unwrap();
        balancer.renew(&mut shared, at(3.0)).unwrap();
        let is_known = |it| balancer.estimates.member(it).unwrap().pace.is_known();
        let members = [MemberIndex(0), MemberIndex(1)];
        assert_eq!(members.map(is_known), members.map(|it| it == member));
    }
}

#[test]
fn in_turn_each_gets_large_requests_that_may_take_them() {
    let json = r#"{"policy": "round_robin", "upstreams": [
        {"cluster": "a", "accepts": {"max_size": 10}}, {"cluster": "b", "accepts": {"max_size": 10}},
        {"cluster": "c"}, {"cluster": "d"}]}"#;
    let mut shared = Memory::default();
    let mut workers = [balancer(json, 1), balancer(json, 2)];
    let mut shares = [[0; 4]; 2];
    for request in 0..400 {
        let is_large = request % 2;
        let demand = Demand {
            pool: PoolIndex(0),
            size: Some([1.0, 100.0][is_large]),
            ..ANY
        };
        let worker = &mut workers[request / 2 % 2];
        let route = worker
            .decide(&mut shared, &demand, at(1.0))
            .routed()
            .unwrap();
        shares[is_large][route.member.0] += 1;
    }
    // Each worker goes round by itself, so each may be one request ahead.
    let even = |some: &[usize]| some.iter().all(|n| n.abs_diff(100) <= 2);
    assert_eq!(shares[1][..2], [0, 0]);
    assert!(even(&shares[1][2..]) && even(&shares[0][..2]), "{shares:?}");
}

#[test]
fn long_answers_do_not_make_a_server_look_slow() {
    // Both servers take a second per 1000 bytes and request; one happens to
    // get the long answers.
    let mut shared = Memory::default();
    let mut balancer = balancer(
        r#"{"policy": "round_robin", "upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#,
        1,
    );
    let mut rng = Rng::new(8);
    let mut now = 1.0;
    for _ in 0..2_000 {
        let route = balancer
            .decide(&mut shared, &ANY, at(now))
            .routed()
            .unwrap();
        let base = if route.member == MemberIndex(0) {
            500
        } else {
            1_500
        };
        let response_bytes = base + rng.below(1_000) as u64;
        now += response_bytes as f64 / 1_000.0;
        let finished = Finished {
            response_bytes,
            ..answered(200)
        };
        balancer
            .release(&mut shared, route.reservation, &finished, at(now))
            .unwrap();
    }
    let [a, b] = [0, 1].map(|member| {
        balancer
            .estimates
            .member(MemberIndex(member))
            .unwrap()
            .pace
            .mean_log()
    });
    assert!(
        (a - b).abs() < 0.25,
        "{a} {b}: the raw latencies differ by ln 2 = 0.69"
    );
}

#[test]
fn what_is_nobodys_fault_teaches_nothing() {
    let mut shared = Memory::default();
    let mut balancer = balancer(r#"{"upstreams": [{"cluster": "a"}]}"#, 1);
    for status in [404, 200] {
        let route = balancer
            .decide(&mut shared, &ANY, at(1.0))
            .routed()
            .unwrap();
        let mut finished = answered(status);
        finished.end.flags = u64::from(status == 200) << 14;
        balancer
            .release(&mut shared, route.reservation, &finished, at(2.0))
            .unwrap();
    }
    balancer.renew(&mut shared, at(3.0)).unwrap();
    let state = balancer.estimates.member(MemberIndex(0)).unwrap();
    assert!(!state.pace.is_known());
    assert_eq!(state.errors.penalty(at(3.0), 0.0, &Tuning::DEFAULT), 1.0);
}

#[test]
fn a_large_pool_is_sampled_and_every_member_is_reached() {
    let upstreams: Vec<String> = (0..600)
        .map(|n| format!(r#"{{"cluster": "c{n}"}}"#))
        .collect();
    let json = format!(
        r#"{{"policy": "least_request", "upstreams": [{}]}}"#,
        upstreams.join(",")
    );
    let (mut shared, mut balancer) = (Memory::default(), balancer(&json, 1));
    let mut in_flight = vec![0; 600];
    for _ in 0..1_800 {
        let route = balancer
            .decide(&mut shared, &ANY, at(1.0))
            .routed()
            .unwrap();
        in_flight[route.member.0] += 1;
    }
    assert_eq!(balancer.renew(&mut shared, at(1.0)).unwrap(), in_flight);
    // Three each on average; the least loaded of 64 is never far above.
    assert!(
        in_flight.iter().all(|n| (1..=4).contains(n)),
        "{in_flight:?}"
    );
}

#[test]
fn a_pool_that_does_not_exist_is_passed_through() {
    let mut balancer = balancer(r#"{"upstreams": [{"cluster": "a"}]}"#, 1);
    assert_eq!(
        balancer
            .decide(
                &mut Memory::default(),
                &Demand {
                    pool: PoolIndex(7),
                    ..ANY
                },
                at(1.0)
            )
            .routed()
            .unwrap_err(),
        PassThrough::NoPool
    );
}

#[test]
fn clients_that_go_away_blame_an_upstream_that_hangs_and_no_healthy_one() {
    let two = r#"{"upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#;
    let gone = Finished {
        end: End {
            flags: 1 << 14,
            attempts: 1,
            request_complete: true,
            ..End::default()
        },
        ..Finished::default()
    };
    // Answers take a second for each request that is there. Of server 1, clients get none
    // and wait for half a minute.
    let hangs = closed_loop(
        &mut balancer(two, 5),
        8,
        2_000,
        |server| if server == 1 { gone } else { answered(200) },
        |server| if server == 1 { 30.0 } else { 1.0 },
    );
    assert!(hangs[1] * 20 < hangs[0], "{hangs:?}");
    // All clients of server 1 go away sooner than an answer was to be expected.
    let impatient = closed_loop(
        &mut balancer(two, 5),
        8,
        2_000,
        |server| if server == 1 { gone } else { answered(200) },
        |_| 1.0,
    );
    assert!(impatient[1] * 3 > impatient[0], "{impatient:?}");
}
