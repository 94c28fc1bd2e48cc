//! Upstreams of weight zero.

use super::*;

/// As a configuration names them.
const EVERY_POLICY: [&str; 8] = [
    "shortest_expected_delay",
    "least_request",
    "least_response_time",
    "peak_ewma",
    "latency_percentile",
    "weighted_round_robin",
    "round_robin",
    "random",
];

#[test]
fn an_upstream_of_weight_zero_finishes_what_it_has_and_gets_no_more() {
    for policy in EVERY_POLICY {
        let json = |weight| {
            format!(
                r#"{{"policy": "{policy}", "upstreams": [{{"cluster": "a"}}, {{"cluster": "b", "weight": {weight}}}, {{"cluster": "c"}}]}}"#
            )
        };
        let mut shared = Memory::default();
        let mut before = balancer(&json(1), 1);
        let (mut held, mut others) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            let route = before.decide(&mut shared, &ANY, at(1.0)).routed().unwrap();
            match route.member {
                MemberIndex(1) => held.push(route.reservation),
                _ => others.push(route.reservation),
            }
        }
        assert!(!held.is_empty(), "{policy}");
        // The same names under another configuration.
        let mut after = balancer(&json(0), 2);
        for request in 0..200 {
            let now = at(2.0 + f64::from(request));
            before.renew(&mut shared, now).unwrap();
            let route = after.decide(&mut shared, &ANY, now).routed().unwrap();
            assert_ne!(route.member, MemberIndex(1), "{policy}");
            after
                .release(&mut shared, route.reservation, &answered(200), now)
                .unwrap();
        }
        let now = at(202.0);
        let there = after.renew(&mut shared, now).unwrap()[1];
        assert_eq!(there as usize, held.len(), "{policy}");
        for reservation in held {
            before
                .release(&mut shared, reservation, &answered(200), now)
                .unwrap();
        }
        assert_eq!(after.renew(&mut shared, now).unwrap()[1], 0, "{policy}");
        // Now it is idle, and silent for long enough to be explored, if it were a
        // candidate.
        for _ in 0..2_000 {
            let route = after.decide(&mut shared, &ANY, at(300.0)).routed().unwrap();
            assert_ne!(route.member, MemberIndex(1), "{policy}");
            after
                .release(&mut shared, route.reservation, &answered(200), at(300.0))
                .unwrap();
        }
    }
}

#[test]
fn endpoints_of_weight_zero_are_no_alternatives_either() {
    let json = r#"{"cluster": "gpus", "endpoints": [
        {"address": "10.0.0.1:80", "weight": 0}, "10.0.0.2:80", "10.0.0.3:80"]}"#;
    let (mut shared, mut balancer) = (Memory::default(), balancer(json, 1));
    for _ in 0..200 {
        let route = balancer
            .decide(&mut shared, &ANY, at(1.0))
            .routed()
            .unwrap();
        assert_ne!(route.member.0, 0);
        assert_eq!(route.alternatives, [MemberIndex(3 - route.member.0)]);
    }
}

#[test]
fn a_pool_without_any_weight_is_passed_through_and_says_why() {
    let mut shared = Memory::default();
    let json = r#"{"upstreams": [{"cluster": "a", "weight": 0}, {"cluster": "b", "weight": 0}]}"#;
    let drained = balancer(json, 1)
        .decide(&mut shared, &ANY, at(1.0))
        .routed();
    assert_eq!(drained.unwrap_err(), PassThrough::Drained);
    // One that could, but takes other sizes.
    let json = r#"{"upstreams": [{"cluster": "a", "weight": 0},
        {"cluster": "b", "accepts": {"max_size": 10}}]}"#;
    let mut balancer = balancer(json, 2);
    let mut pick = |size| {
        let size = Some(size);
        balancer
            .decide(&mut shared, &Demand { size, ..ANY }, at(1.0))
            .routed()
    };
    assert_eq!(pick(11.0).unwrap_err(), PassThrough::SizeNotAccepted);
    assert_eq!(pick(9.0).unwrap().member, MemberIndex(1));
}

#[test]
fn a_large_pool_with_most_of_it_drained_still_finds_the_rest() {
    let upstreams: Vec<String> = (0..600)
        .map(|n| {
            format!(
                r#"{{"cluster": "c{n}", "weight": {}}}"#,
                u32::from(n == 300)
            )
        })
        .collect();
    let json = format!(r#"{{"upstreams": [{}]}}"#, upstreams.join(","));
    let (mut shared, mut balancer) = (Memory::default(), balancer(&json, 1));
    for _ in 0..20 {
        let route = balancer
            .decide(&mut shared, &ANY, at(1.0))
            .routed()
            .unwrap();
        assert_eq!(route.member, MemberIndex(300));
    }
}
