//! What servers do when they are told to misbehave.

use super::*;

fn told(server: &mut Server, at: Time, json: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let control = Control::from_json(json.as_bytes()).unwrap();
    server.control(at, &control, &mut events).unwrap();
    events
}

fn arrive(server: &mut Server, at: Time, id: u64) -> Result<(), Refusal> {
    server.arrive(at, Job::of_service(JobId(id), SECOND), &mut Vec::new())
}

#[test]
fn a_slow_down_stretches_what_is_left_of_the_work_at_hand() {
    let mut server = slot_server(1, 1.0, None);
    arrive(&mut server, Time::ZERO, 1).unwrap();
    told(&mut server, millis(400.0), r#"{"speed": 0.25}"#);
    let events = run_out(&mut server);
    assert_eq!(at_of(&events, 1, EventKind::Done), millis(400.0 + 2400.0));
    assert!(server.condition(Time::ZERO).healthy);
}

#[test]
fn a_stopped_server_accepts_and_does_nothing_until_it_goes_on() {
    let mut server = batching_server(427_000, 256, 2048);
    let mut events = Vec::new();
    let job = |id| Job::of_tokens(JobId(id), 1000, 1);
    server.arrive(Time::ZERO, job(1), &mut events).unwrap();
    told(&mut server, millis(70.0), r#"{"mode": "stop"}"#);
    assert_eq!(server.next_event(), None);
    server.arrive(millis(500.0), job(2), &mut events).unwrap();
    server.advance(millis(9000.0), &mut events);
    assert_eq!(events, []);
    assert!(!server.condition(millis(9000.0)).healthy);
    told(&mut server, millis(10_000.0), r#"{"mode": "normal"}"#);
    let events = run_out(&mut server);
    assert_eq!(at_of(&events, 1, EventKind::Done), millis(10_006.8));
    assert_eq!(at_of(&events, 2, EventKind::Done), millis(10_083.6));
}

#[test]
fn an_idle_server_that_is_stopped_takes_what_comes_later_up_when_it_goes_on() {
    let mut server = batching_server(427_000, 256, 2048);
    told(&mut server, millis(5.0), r#"{"mode": "stop"}"#);
    let job = Job::of_tokens(JobId(1), 1000, 1);
    server.arrive(millis(20.0), job, &mut Vec::new()).unwrap();
    told(&mut server, millis(100.0), r#"{"normal": true}"#);
    assert_eq!(
        at_of(&run_out(&mut server), 1, EventKind::Done),
        millis(176.8)
    );
}

#[test]
fn a_stopped_server_does_not_even_do_work_of_no_length() {
    let mut server = slot_server(1, 1.0, None);
    told(&mut server, Time::ZERO, r#"{"mode": "stop"}"#);
    let mut events = Vec::new();
    let job = Job::of_service(JobId(1), Duration::ZERO);
    server.arrive(millis(1.0), job, &mut events).unwrap();
    assert_eq!(events, []);
    told(&mut server, millis(9.0), r#"{"mode": "normal"}"#);
    let events = run_out(&mut server);
    assert_eq!(at_of(&events, 1, EventKind::Done), millis(9.0));
}

#[test]
fn failing_refuses_the_new_and_finishes_the_old() {
    let mut server = slot_server(1, 1.0, None);
    arrive(&mut server, Time::ZERO, 1).unwrap();
    let fail = r#"{"mode": {"fail": {"status": 429, "retry_after_seconds": 7}}}"#;
    told(&mut server, millis(1.0), fail);
    let expected = Refusal::Failing {
        status: 429,
        retry_after_seconds: Some(7),
    };
    assert_eq!(arrive(&mut server, millis(2.0), 2), Err(expected));
    at_of(&run_out(&mut server), 1, EventKind::Done);
}

#[test]
fn a_reload_loses_all_and_refuses_until_it_is_over() {
    let mut server = batching_server(1000, 256, 2048);
    arrive(&mut server, Time::ZERO, 1).unwrap();
    arrive(&mut server, millis(5.0), 2).unwrap();
    let events = told(&mut server, millis(6.0), r#"{"reload_seconds": 2}"#);
    at_of(&events, 1, EventKind::Lost(LossReason::Reload));
    at_of(&events, 2, EventKind::Lost(LossReason::Reload));
    assert_eq!(
        server.load(),
        Load {
            kv_tokens: 1000,
            ..Load::default()
        }
    );
    assert_eq!(
        arrive(&mut server, millis(2005.0), 3),
        Err(Refusal::Loading)
    );
    let condition = server.condition(millis(1006.0));
    assert!(!condition.healthy);
    assert_eq!(condition.loading_seconds, 1.0);
    assert!(server.condition(millis(2006.0)).healthy);
    assert_eq!(arrive(&mut server, millis(2006.0), 4), Ok(()));
    at_of(&run_out(&mut server), 4, EventKind::Done);
    assert_eq!(server.counters().lost, 2);
}

#[test]
fn dropping_loses_all_and_normal_ends_it() {
    let mut server = slot_server(1, 1.0, None);
    arrive(&mut server, Time::ZERO, 1).unwrap();
    let events = told(&mut server, millis(5.0), r#"{"mode": "drop"}"#);
    at_of(&events, 1, EventKind::Lost(LossReason::Dropped));
    assert_eq!(arrive(&mut server, millis(6.0), 2), Err(Refusal::Dropping));
    told(&mut server, millis(7.0), r#"{"normal": true}"#);
    assert_eq!(arrive(&mut server, millis(8.0), 3), Ok(()));
}

#[test]
fn errors_come_at_the_rate_that_was_asked_for() {
    let mut server = slot_server(1, 1000.0, None);
    told(
        &mut server,
        Time::ZERO,
        r#"{"error_rate": 0.2, "error_status": 400}"#,
    );
    let refused = (0..10_000)
        .filter(|id| {
            arrive(&mut server, Time::ZERO, *id) == Err(Refusal::RandomError { status: 400 })
        })
        .count();
    // Four standard deviations of the binomial.
    assert!((1840..=2160).contains(&refused), "{refused}");
}

#[test]
fn normal_takes_everything_back_and_counters_can_be_reset() {
    let mut server = slot_server(1, 1.0, None);
    let bad = r#"{"speed": 0.1, "mode": "stop", "ready": false, "error_rate": 1, "reload_seconds": 100,
            "loading": "hang"}"#;
    told(&mut server, Time::ZERO, bad);
    assert!(arrive(&mut server, Time::ZERO, 1).is_err());
    let good = r#"{"normal": true, "reset_counters": true}"#;
    told(&mut server, millis(1.0), good);
    let expected = Condition {
        healthy: true,
        speed: 1.0,
        mode: Mode::Normal,
        ready: true,
        error_rate: 0.0,
        loading_seconds: 0.0,
        loading: crate::model::Loading::Unavailable,
    };
    assert_eq!(server.condition(millis(1.0)), expected);
    assert_eq!(server.counters(), &Counters::default());
    assert_eq!(arrive(&mut server, millis(1.0), 1), Ok(()));
    assert_eq!(
        at_of(&run_out(&mut server), 1, EventKind::Done),
        millis(1001.0)
    );
}

#[test]
fn a_control_out_of_range_changes_nothing() {
    let mut server = slot_server(1, 1.0, None);
    let control = Control {
        speed: Some(-1.0),
        ready: Some(false),
        ..Control::default()
    };
    assert!(
        server
            .control(Time::ZERO, &control, &mut Vec::new())
            .is_err()
    );
    assert!(server.condition(Time::ZERO).ready);
}
