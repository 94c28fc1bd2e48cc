use std::io::ErrorKind;
use std::time::Duration;

use lab::model::{Control, Loading, Mode};
use serde_json::json;

use crate::support::{LLM, Lab, SLOT};

const QUICK: [(&str, &str); 1] = [("x-service-ms", "1")];
const ENDLESS: &str = "x-service-ms: 1e8\r\n";

fn infer(lab: &Lab) -> u16 {
    lab.post("/infer", &QUICK, "").status
}

fn health(lab: &Lab) -> u16 {
    lab.get("/health").status
}

#[test]
fn a_stopped_server_answers_once_it_goes_on() {
    let lab = Lab::start(&[SLOT], 1000.0);
    lab.control(r#"{"mode": "stop"}"#);
    assert_eq!(health(&lab), 503);
    let pending = lab.begin("/infer", "x-service-ms: 1\r\n", "");
    lab.wait_for(|status| status.load.running == 1);
    assert!(pending.is_silent_for(Duration::from_millis(100)));
    lab.control(r#"{"mode": "normal"}"#);
    assert_eq!(pending.status(), 200);
    assert_eq!(health(&lab), 200);
}

#[test]
fn a_failing_server_fails_at_once_and_looks_healthy() {
    let lab = Lab::start(&[SLOT], 1000.0);
    lab.control(r#"{"mode": {"fail": {"status": 429, "retry_after_seconds": 7}}}"#);
    let answer = lab.post("/infer", &QUICK, "");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert_eq!(health(&lab), 200);
    lab.control(r#"{"mode": {"fail": {}}}"#);
    assert_eq!(infer(&lab), 503);
    assert_eq!(lab.counters().refused, 2);
    lab.control(r#"{"normal": true}"#);
    assert_eq!(infer(&lab), 200);
}

#[test]
fn a_dropping_server_resets_new_and_old_connections() {
    let lab = Lab::start(&[SLOT], 1.0);
    let reset = |result: std::io::Result<usize>| match result {
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        Ok(bytes) => panic!("an orderly end after {bytes} bytes"),
    };
    let old = lab.begin("/infer", ENDLESS, "");
    lab.wait_for(|status| status.load.running == 1);
    lab.control(r#"{"mode": "drop"}"#);
    reset(old.end());
    reset(lab.begin("/infer", ENDLESS, "").end());
    reset(lab.begin("/v1/completions", "", r#"{"prompt": "x"}"#).end());
    lab.control(r#"{"normal": true}"#);
    assert_eq!(infer(&lab), 200);
}

#[test]
fn dropping_resets_a_stream_in_its_midst() {
    let lab = Lab::start(&[LLM], 1.0);
    let body = r#"{"prompt": "x", "max_tokens": 9000, "stream": true}"#;
    let pending = lab.begin("/v1/completions", "", body);
    lab.wait_for(|status| status.counters.generation_tokens > 2);
    lab.control(r#"{"mode": "drop"}"#);
    assert_eq!(
        pending.end().unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_reload_is_a_cold_start() {
    let lab = Lab::start(&[SLOT], 100.0);
    let lost = lab.begin("/infer", ENDLESS, "");
    let queued = lab.begin("/infer", ENDLESS, "");
    lab.wait_for(|status| status.load.running + status.load.waiting == 2);
    // 10 s of the server's, 100 ms of ours.
    lab.control(r#"{"reload_seconds": 10}"#);
    let condition = lab.status().condition;
    assert_eq!(lost.status(), 503);
    assert_eq!(queued.status(), 503);
    assert!(!condition.healthy && condition.loading_seconds > 0.0);
    lab.wait_for(|status| status.condition.healthy);
    assert_eq!((health(&lab), infer(&lab)), (200, 200));

    lab.control(r#"{"reload_seconds": 86400}"#);
    let answer = lab.post("/infer", &QUICK, "");
    assert_eq!((health(&lab), answer.status), (503, 503));
    assert_eq!(answer.json()["error"]["code"], "model_loading");
    lab.control(r#"{"normal": true}"#);
    assert_eq!((health(&lab), infer(&lab)), (200, 200));
}

#[test]
fn a_server_that_loads_says_so_in_the_way_that_it_was_told() {
    let lab = Lab::start(&[SLOT], 1.0);
    let says = |lab: &Lab| lab.get("/health").json()["status"].clone();
    assert_eq!(says(&lab), "ready");
    lab.control(r#"{"reload_seconds": 86400, "loading": "says"}"#);
    assert_eq!(says(&lab), "loading");
    let answer = lab.post("/infer", &QUICK, "");
    assert_eq!((health(&lab), answer.status), (200, 503));
    lab.control(r#"{"loading": "unavailable"}"#);
    assert_eq!((says(&lab), health(&lab)), ("unavailable".into(), 503));
    lab.control(r#"{"loading": "hang"}"#);
    let pending = lab.begin("/infer", "x-service-ms: 1\r\n", "");
    let asked = lab.begin_get("/health");
    for silent in [&pending, &asked] {
        assert!(silent.is_silent_for(Duration::from_millis(100)));
    }
    // It is loaded, and answers all.
    lab.control(r#"{"reload_seconds": 0}"#);
    assert_eq!((pending.status(), asked.status()), (200, 200));
    assert_eq!(says(&lab), "ready");
}

#[test]
fn a_server_can_begin_by_loading() {
    let begin = Control {
        reload_seconds: Some(5.0),
        loading: Some(Loading::Says),
        ..Control::default()
    };
    let lab = Lab::start_as(&[SLOT], 10.0, begin);
    assert_eq!(lab.get("/health").json()["status"], "loading");
    lab.wait_for(|status| status.condition.healthy);
    assert_eq!(infer(&lab), 200);
}

#[test]
fn unready_is_said_and_not_done() {
    let lab = Lab::start(&[SLOT], 1000.0);
    lab.control(r#"{"ready": false}"#);
    assert_eq!((health(&lab), infer(&lab)), (503, 200));
    lab.control(r#"{"ready": true}"#);
    assert_eq!(health(&lab), 200);
}

#[test]
fn an_error_rate_fails_that_part() {
    let lab = Lab::start(&[SLOT], 1000.0);
    lab.control(r#"{"error_rate": 0.3}"#);
    let failed = (0..200).filter(|_| infer(&lab) == 500).count();
    // Four standard deviations of the binomial; the seed is fixed.
    assert!((34..=86).contains(&failed), "{failed}");
    lab.control(r#"{"error_rate": 1}"#);
    assert_eq!(infer(&lab), 500);
}

#[test]
fn a_slow_server_is_slower_from_now_on() {
    let lab = Lab::start(&[SLOT], 1.0);
    let pending = lab.begin("/infer", "x-service-ms: 1000000\r\n", "");
    lab.wait_for(|status| status.load.running == 1);
    lab.control(r#"{"speed": 0.001}"#);
    assert!(pending.is_silent_for(Duration::from_millis(50)));
    lab.control(r#"{"speed": 1000}"#);
    assert_eq!(pending.status(), 200);
}

#[test]
fn the_state_can_be_read_and_counters_reset() {
    let lab = Lab::start(&[SLOT], 1000.0);
    assert_eq!(infer(&lab), 200);
    lab.control(r#"{"speed": 0.5, "mode": {"fail": {"status": 500}}}"#);
    let state = lab.get("/control").json();
    assert_eq!(state["name"], "slot");
    assert_eq!(state["kind"], "slots");
    assert_eq!(state["speed"], 0.5);
    assert_eq!(state["mode"], json!({ "fail": { "status": 500 } }));
    assert_eq!(state["healthy"], true);
    assert_eq!(state["loading_seconds"], 0.0);
    assert_eq!(state["load"]["running"], 0);
    assert_eq!(state["counters"]["done"], 1);
    let answer = lab.post("/control", &[], r#"{"reset_counters": true}"#);
    assert_eq!(answer.json()["counters"]["done"], 0);
    let page = lab.get("/metrics").body;
    let count = "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"painter\"} 0";
    assert!(page.lines().any(|line| line == count), "{page}");
}

#[test]
fn bad_controls_name_the_field_and_change_nothing() {
    let lab = Lab::start(&[SLOT], 1000.0);
    for (body, blamed) in [
        (r#"{"speed": -1}"#, "speed: -1"),
        (r#"{"speed": "slow"}"#, "speed: invalid type"),
        (r#"{"mode": "halt"}"#, "mode: unknown variant `halt`"),
        (
            r#"{"mode": {"fail": {"status": 99}}}"#,
            "mode.fail.status: 99",
        ),
        (r#"{"ready": false, "error_rate": 2}"#, "error_rate: 2"),
        (r#"{"spead": 1}"#, "spead: unknown field"),
        ("", "top level: EOF"),
        ("{}", "nothing asked for"),
    ] {
        let answer = lab.post("/control", &[], body);
        assert_eq!(answer.status, 400);
        let (message, _) = answer.error();
        assert!(message.starts_with(blamed), "{body} gave {message:?}");
    }
    assert!(lab.status().condition.healthy);
}

#[test]
fn the_library_controls_too() {
    let lab = Lab::start(&[SLOT], 1000.0);
    let stop = Control {
        mode: Some(Mode::Stop),
        ..Control::default()
    };
    lab.tell(&stop);
    assert_eq!(health(&lab), 503);
    let error = lab.servers.control("nobody", &stop).unwrap_err();
    assert_eq!(error.to_string(), "no server is named \"nobody\"");
    let error = lab
        .servers
        .control(
            "slot",
            &Control {
                speed: Some(0.0),
                ..Control::default()
            },
        )
        .unwrap_err();
    assert!(error.to_string().starts_with("speed: 0"));
}
