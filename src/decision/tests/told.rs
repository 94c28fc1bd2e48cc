//! What a pick says of itself, and of how long its request should take.

use super::*;

#[test]
fn a_pick_explains_itself() {
    let json = r#"{"policy": "least_request", "upstreams": [{"cluster": "a"}, {"cluster": "b"}]}"#;
    let (mut shared, mut balancer) = (Memory::default(), balancer(json, 1));
    balancer
        .decide(&mut shared, &ANY, at(1.0))
        .routed()
        .unwrap();
    balancer
        .decide(&mut shared, &ANY, at(1.0))
        .routed()
        .unwrap();
    let route = balancer
        .decide(&mut shared, &ANY, at(1.0))
        .routed()
        .unwrap();
    let name = |member: usize| ["a", "b"][member];
    let member = route.member.0;
    assert_eq!(
        route
            .explanation
            .describe(balancer.topology(), route.member, None),
        format!(
            "upstream={}; policy=least_request; score=2; runner_up={} (2); reason=policy",
            name(member),
            name(1 - member)
        )
    );
    assert_eq!(route.explanation.reason, Reason::Policy);
}

#[test]
fn a_policy_that_predicts_says_how_long_a_request_should_take() {
    let expected_of = |policy: &str| {
        let json = format!(r#"{{"policy": "{policy}", "upstreams": [{{"cluster": "a"}}]}}"#);
        let (mut shared, mut balancer) = (Memory::default(), balancer(&json, 1));
        let mut pick = |now| {
            let decision = balancer.decide(&mut shared, &ANY, at(now));
            let route = decision.routed().unwrap();
            let expected = route.explanation.expected;
            let text = route
                .explanation
                .describe(balancer.topology(), MemberIndex(0), None);
            let (reservation, now) = (route.reservation, at(now + 0.2));
            let released = balancer.release(&mut shared, reservation, &answered(200), now);
            released.unwrap();
            balancer.renew(&mut shared, now).unwrap();
            // Latencies are shared, and ranked by, on ticks.
            let exchanged = balancer.exchange_latencies(&mut shared, now, |_, _| {});
            exchanged.unwrap();
            (expected, text)
        };
        let (first, _) = pick(1.0);
        assert_eq!(first, None, "{policy}: nothing has been measured");
        for request in 1..200 {
            pick(1.0 + f64::from(request) * 0.3);
        }
        pick(61.0)
    };
    for policy in [
        "shortest_expected_delay",
        "least_response_time",
        "peak_ewma",
        "latency_percentile",
    ] {
        let (expected, text) = expected_of(policy);
        let seconds = expected.unwrap();
        assert!((0.14..0.21).contains(&seconds), "{policy}: {seconds}");
        assert!(text.contains("; expected="), "{text}");
    }
    for policy in [
        "least_request",
        "round_robin",
        "weighted_round_robin",
        "random",
    ] {
        let (expected, text) = expected_of(policy);
        assert_eq!(expected, None, "{policy}");
        assert!(!text.contains("expected="), "{text}");
    }
}
