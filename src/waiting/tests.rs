//! Waits for bodies, and what is found out about the proxy.

use super::*;
use crate::host::fake::{Call, Fake};

fn waiting(contexts: u32) -> Waiting {
    let mut waiting = Waiting::default();
    for context in 0..contexts {
        let parked = Parked {
            since: Timestamp::from_nanos(0),
            received: None,
            grown_at: None,
            kept: 0,
        };
        waiting.keep(context, parked);
    }
    waiting
}

#[test]
fn bodies_that_wait_share_a_room() {
    let mut waiting = waiting(4);
    for context in 0..3 {
        assert!(waiting.keeps(context, ROOM / 4));
    }
    assert!(!waiting.keeps(3, ROOM / 4 + 1));
    assert!(waiting.keeps(0, ROOM / 4 + 1), "it grows");
    assert!(!waiting.keeps(3, ROOM / 4));
    // What has gone leaves its room.
    waiting.leave(1);
    assert!(waiting.keeps(3, ROOM / 4));
    for context in 0..4 {
        waiting.leave(context);
    }
    assert_eq!(waiting.kept, 0);
}

#[test]
fn a_single_body_always_has_room() {
    let mut waiting = waiting(2);
    assert!(waiting.keeps(0, 2 * ROOM));
    assert!(!waiting.keeps(1, 1));
    assert!(waiting.keeps(0, 3 * ROOM));
}

const TIMEOUT: Duration = Duration::from_secs(5);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

/// A request waits, for which the proxy has received so much.
fn park(waiting: &mut Waiting, host: &mut Fake, context: u32, received: u64, now: u64) {
    host.begin(context, &[]);
    receive(host, context, received);
    waiting.park(context, host, at(now));
}

fn receive(host: &mut Fake, context: u32, bytes: u64) {
    let stream = host.stream(context);
    stream.set_number(attributes::REQUEST_TOTAL_SIZE, bytes);
}

/// The requests that are due now, and why.
fn due(waiting: &mut Waiting, host: &mut Fake, now: u64) -> Vec<(u32, Unknown)> {
    let due = waiting.due(host, TIMEOUT, at(now));
    due.iter().map(|due| (due.context, due.reason)).collect()
}

#[test]
fn a_body_that_the_proxy_has_and_does_not_show_is_given_up_a_second_later() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    park(&mut waiting, &mut host, 1, 200, 0);
    assert!(waiting.is_urgent());
    assert_eq!(due(&mut waiting, &mut host, 100), []);
    receive(&mut host, 1, 900);
    assert_eq!(due(&mut waiting, &mut host, 200), [], "it may be shown yet");
    assert_eq!(due(&mut waiting, &mut host, 1_100), []);
    let not_shown = [(1, Unknown::NotShown)];
    assert_eq!(due(&mut waiting, &mut host, 1_200), not_shown);
    waiting.leave(1);
    assert!(!waiting.is_urgent());
    assert_eq!(due(&mut waiting, &mut host, 9_000), []);
}

#[test]
fn a_slow_client_is_not_taken_for_a_blind_filter() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    park(&mut waiting, &mut host, 1, 200, 0);
    assert_eq!(due(&mut waiting, &mut host, 4_999), []);
    assert_eq!(due(&mut waiting, &mut host, 5_000), [(1, Unknown::Late)]);
    assert!(waiting.may_begin(at(5_001)), "others may still wait");
}

#[test]
fn a_proxy_that_is_blind_is_tried_again_from_time_to_time() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    park(&mut waiting, &mut host, 1, 200, 0);
    receive(&mut host, 1, 900);
    due(&mut waiting, &mut host, 1_000);
    assert_eq!(due(&mut waiting, &mut host, 2_000).len(), 1);
    waiting.leave(1);
    assert!(!waiting.may_begin(at(2_001)));
    assert!(!waiting.may_begin(at(61_999)));
    assert!(waiting.may_begin(at(62_000)));
    assert!(!waiting.may_begin(at(62_001)), "one at a time");
    // It shows that one's.
    park(&mut waiting, &mut host, 2, 200, 62_000);
    waiting.body_shown();
    assert!(waiting.may_begin(at(62_002)));
    assert!(!waiting.is_urgent());
}

#[test]
fn once_bodies_are_shown_only_the_time_counts() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    waiting.body_shown();
    park(&mut waiting, &mut host, 1, 200, 0);
    receive(&mut host, 1, 900);
    assert_eq!(due(&mut waiting, &mut host, 4_000), []);
    assert_eq!(due(&mut waiting, &mut host, 5_000), [(1, Unknown::Late)]);
    assert!(waiting.may_begin(at(5_000)));
}

#[test]
fn silence_is_blindness_where_the_proxy_does_not_tell_what_it_has() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    host.fail(Call::Property);
    park(&mut waiting, &mut host, 1, 200, 0);
    assert_eq!(due(&mut waiting, &mut host, 4_999), []);
    let not_shown = [(1, Unknown::NotShown)];
    assert_eq!(due(&mut waiting, &mut host, 5_000), not_shown);
    assert!(!waiting.may_begin(at(5_001)));
}

#[test]
fn a_request_that_the_proxy_cannot_turn_to_is_due_when_it_can() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    park(&mut waiting, &mut host, 1, 200, 0);
    host.fail(Call::Attend);
    assert_eq!(due(&mut waiting, &mut host, 6_000), []);
    host.heal();
    assert_eq!(due(&mut waiting, &mut host, 6_000), [(1, Unknown::Late)]);
}

#[test]
fn what_does_not_go_on_when_told_is_told_again() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    for context in [1, 2, 3] {
        host.begin(context, &[]);
        host.fail(Call::ResumeRequest);
        waiting.resume(context, &mut host);
    }
    assert!(waiting.is_urgent());
    waiting.resume_stuck(&mut host);
    host.heal();
    // One is gone, and one goes on by itself.
    host.forget(2);
    waiting.goes_on(3);
    for _ in 0..2 {
        waiting.resume_stuck(&mut host);
        assert_eq!(host.stream(1).resumed, 1);
        assert_eq!(host.stream(3).resumed, 0);
    }
    assert!(!waiting.is_urgent());
}

#[test]
fn a_request_that_nobody_knows_to_wait_has_waited_enough() {
    let (mut waiting, mut host) = (Waiting::default(), Fake::new());
    park(&mut waiting, &mut host, 1, 200, 0);
    assert!(!waiting.is_overdue(1, TIMEOUT, at(4_999)));
    assert!(waiting.is_overdue(1, TIMEOUT, at(5_000)));
    assert!(waiting.is_overdue(2, TIMEOUT, at(0)));
}
