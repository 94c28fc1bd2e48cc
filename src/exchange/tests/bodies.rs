//! Exchanges whose requests wait for their bodies.

use super::*;
use crate::waiting::Due;

/// The pool depends on the model, and that on the body.
const BY_MODEL: &str = r#"{"pools": [{"name": "llama", "match": {"model": "llama"},
    "upstreams": [{"cluster": "gpu-a"}, {"cluster": "gpu-b"}]}]}"#;
const BODY: &[u8] = br#"{"model": "llama", "messages": []}"#;

#[test]
fn a_request_waits_for_the_body_that_decides() {
    let mut case = Case::new(BY_MODEL);
    let (mut exchange, flow) = case.request(POST, false);
    assert_eq!(flow, Flow::Pause);
    assert_eq!(case.named(&exchange), "", "the client's own is gone");
    let (first, rest) = BODY.split_at(9);
    assert_eq!(case.body(&mut exchange, first, false), Flow::Pause);
    assert_eq!(case.in_flight(), one([]));
    assert_eq!(case.body(&mut exchange, rest, true), Flow::Continue);
    let upstream = case.named(&exchange);
    assert_eq!(case.in_flight(), one([(&upstream, 1)]));
    assert_eq!(
        case.host.stream(1).resumed,
        0,
        "the callback's answer lets it go"
    );
    case.end(exchange);
    assert_eq!(case.in_flight(), one([]));
    assert_eq!(case.passed_through(), one([]));
}

#[test]
fn a_body_that_cannot_be_read_lets_its_request_pass_and_says_why() {
    let large = vec![b' '; 1_000_001];
    let cases: [(&str, &[u8], bool); 5] = [
        ("malformed", b"{\"model\" 3", false),
        ("missing", b"", false),
        ("missing", b"{}", false),
        ("too_large", &large, false),
        ("host_error", BODY, true),
    ];
    for (reason, body, fails) in cases {
        let mut case = Case::new(BY_MODEL);
        let (mut exchange, flow) = case.request(POST, false);
        assert_eq!(flow, Flow::Pause, "{reason}");
        if fails {
            case.host.fail(Call::RequestBody);
        }
        assert_eq!(case.body(&mut exchange, body, true), Flow::Continue);
        assert_eq!(case.named(&exchange), "", "{reason}");
        assert_eq!(case.passed_through(), one([("unknown_model", 1)]));
        let unknown = case.host.values("paceline_model_unknown_total;reason=");
        assert_eq!(unknown, one([(reason, 1)]));
        case.end(exchange);
        assert_eq!(case.in_flight(), one([]), "{reason}");
    }
}

#[test]
fn a_request_whose_body_does_not_come_is_due_at_a_tick_and_goes_on_without() {
    // Of a proxy that has shown a part of a body, the rest is late; of one that has
    // shown nothing and does not tell what it has, it never will.
    let cases = [("late", &BODY[..9], "late"), ("silent", b"", "not_shown")];
    for (case_name, shown, reason) in cases {
        let mut case = Case::new(BY_MODEL);
        let (mut exchange, _) = case.request(POST, false);
        if !shown.is_empty() {
            assert_eq!(case.body(&mut exchange, shown, false), Flow::Pause);
        }
        case.host.advance(Duration::from_millis(4_900));
        assert_eq!(case.worker.tick(&mut case.host), [], "{case_name}");
        case.host.advance(Duration::from_millis(200));
        let due = case.worker.tick(&mut case.host);
        let [
            Due {
                context: 1,
                reason: found,
            },
        ] = due[..]
        else {
            panic!("{case_name}: {due:?}");
        };
        assert_eq!(found.label(), reason);
        case.host.stream(1);
        exchange.give_up(&mut case.worker, &mut case.host, found);
        assert_eq!(case.host.stream(1).resumed, 1, "{case_name}");
        assert_eq!(case.passed_through(), one([("unknown_model", 1)]));
        let unknown = case.host.values("paceline_model_unknown_total;reason=");
        assert_eq!(unknown, one([(reason, 1)]));
        assert_eq!(case.worker.tick(&mut case.host), [], "once");
        // What comes now passes.
        assert_eq!(case.body(&mut exchange, BODY, true), Flow::Continue);
        case.end(exchange);
        assert_eq!(case.in_flight(), one([]));
    }
}

#[test]
fn a_request_that_does_not_go_on_when_told_is_told_again_at_the_next_tick() {
    let mut case = Case::new(BY_MODEL);
    let (mut exchange, _) = case.request(POST, false);
    case.host.fail(Call::ResumeRequest);
    exchange.give_up(&mut case.worker, &mut case.host, Unknown::Late);
    assert_eq!(case.host.stream(1).resumed, 0);
    case.host.heal();
    for _ in 0..3 {
        assert_eq!(case.worker.tick(&mut case.host), []);
        assert_eq!(case.host.stream(1).resumed, 1, "once is enough");
    }
    case.end(exchange);
}

#[test]
fn a_request_that_ends_while_it_waits_leaves_nothing_behind() {
    let mut case = Case::new(BY_MODEL);
    let (mut exchange, _) = case.request(POST, false);
    assert_eq!(case.body(&mut exchange, &BODY[..5], false), Flow::Pause);
    case.end(exchange);
    case.host.advance(Duration::from_secs(60));
    assert_eq!(case.in_flight(), one([]));
    assert_eq!(case.host.values("paceline_picks_total"), one([]));
    assert_eq!(case.passed_through(), one([]));
}
