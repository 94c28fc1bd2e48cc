use std::time::{Duration, Instant};

use crate::support::{LLM, Lab, SLOT, agent, get};

/// The one value of a metric.
fn metric(lab: &Lab, name: &str) -> f64 {
    let page = lab.get("/metrics").body;
    let line = page.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn headers_say_how_much_work_it_is() {
    let lab = Lab::start(&[LLM], 20.0);
    let headers = [("x-prompt-tokens", "100"), ("x-output-tokens", "5")];
    let answer = lab.post("/infer", &headers, "whatever");
    assert_eq!((answer.status, answer.body.len()), (200, 20));
    assert_eq!(answer.header("x-served-by"), "llm");
    assert_eq!(lab.counters().prompt_tokens, 100);
    // A prefill of 10 + 100 ms, four decodes of 10 + 1 ms: to the nanosecond, however late it was told.
    let latency = metric(&lab, "vllm:e2e_request_latency_seconds_sum");
    assert!((latency - 0.154).abs() < 1e-9, "{latency}");
    let first = metric(&lab, "vllm:time_to_first_token_seconds_sum");
    assert!((first - 0.110).abs() < 1e-9, "{first}");
}

#[test]
fn fields_of_a_json_body_say_it_and_headers_win() {
    let lab = Lab::start(&[LLM], 1000.0);
    let body = r#"{"prompt_tokens": 50, "output_tokens": 7, "pixels": [1, 2]}"#;
    assert_eq!(lab.post_json("/infer", body).body.len(), 28);
    assert_eq!(lab.counters().prompt_tokens, 50);
    let json = ("content-type", "application/json; charset=utf-8");
    let answer = lab.post("/infer", &[json, ("x-output-tokens", "3")], body);
    assert_eq!(answer.body.len(), 12);
    assert_eq!(lab.counters().prompt_tokens, 100);
}

#[test]
fn without_either_the_body_is_the_prompt() {
    let lab = Lab::start(&[LLM], 1000.0);
    let answer = lab.post("/infer", &[], &"x".repeat(4001));
    assert_eq!(answer.body.len(), 128 * 4);
    assert_eq!(lab.counters().prompt_tokens, 1001);
}

#[test]
fn long_answers_are_as_long_as_their_tokens() {
    let lab = Lab::start(&[SLOT], 1000.0);
    let headers = [("x-output-tokens", "100000"), ("x-service-ms", "1")];
    assert_eq!(lab.post("/infer", &headers, "").body.len(), 400_000);
}

#[test]
fn errors_name_the_header_or_field() {
    let lab = Lab::start(&[LLM], 1000.0);
    let blamed = |headers: &[(&str, &str)], body: &str| {
        let answer = lab.post("/infer", headers, body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(answer.header("x-served-by"), "llm");
        answer.error()
    };
    let (message, param) = blamed(&[("x-prompt-tokens", "many")], "");
    assert_eq!(param, "x-prompt-tokens");
    assert!(message.contains("\"many\""), "{message}");
    assert_eq!(
        blamed(&[("x-output-tokens", "-1")], "").1,
        "x-output-tokens"
    );
    assert_eq!(
        blamed(&[("x-output-tokens", "10000001")], "").1,
        "x-output-tokens"
    );
    assert_eq!(blamed(&[("x-service-ms", "NaN")], "").1, "x-service-ms");
    let json = [("content-type", "application/json")];
    assert_eq!(
        blamed(&json, r#"{"prompt_tokens": "9"}"#).1,
        "prompt_tokens"
    );
    assert_eq!(blamed(&json, r#"{"service_ms": -1}"#).1, "service_ms");
    assert_eq!(blamed(&json, "{").1, "top level");
    let (message, _) = blamed(&[("x-prompt-tokens", "10001")], "");
    assert!(
        message.contains("10129 tokens") && message.contains("10000"),
        "{message}"
    );
    assert_eq!(lab.counters().accepted, 0);
}

#[test]
fn unknown_paths_and_methods_are_told() {
    let lab = Lab::start(&[LLM], 1000.0);
    let answer = lab.get("/nowhere");
    assert_eq!(answer.status, 404);
    assert!(answer.error().0.contains("/v1/chat/completions"));
    assert_eq!(lab.get("/infer").status, 405);
    assert_eq!(lab.post("/health", &[], "").status, 405);
}

#[test]
fn a_full_queue_is_503_or_429() {
    for (full, status) in [("", 503), (r#", "full_status": 429"#, 429)] {
        let bounded = format!(r#"{{ "name": "slot", "kind": "slots", "max_waiting": 0{full} }}"#);
        let lab = Lab::start(&[bounded.as_str()], 1.0);
        let first = lab.begin("/infer", "x-service-ms: 1e8\r\n", "");
        lab.wait_for(|status| status.load.running == 1);
        let answer = lab.post("/infer", &[("x-service-ms", "1")], "");
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["error"]["code"], "queue_full");
        drop(first);
    }
}

#[test]
fn a_client_that_goes_away_frees_what_it_held() {
    let lab = Lab::start(&[LLM], 1.0);
    let headers = "x-prompt-tokens: 1000\r\nx-output-tokens: 9000\r\n";
    let gone = lab.begin("/infer", headers, "");
    lab.wait_for(|status| status.load.running == 1 && status.load.kv_used >= 1000);
    drop(gone);
    lab.wait_for(|status| status.load.running == 0 && status.load.kv_used == 0);
    assert_eq!(lab.counters().cancelled, 1);
}

#[test]
fn a_client_that_waits_in_the_queue_can_go_too() {
    let lab = Lab::start(&[SLOT], 1.0);
    let first = lab.begin("/infer", "x-service-ms: 1e8\r\n", "");
    lab.wait_for(|status| status.load.running == 1);
    let second = lab.begin("/infer", "x-service-ms: 1e8\r\n", "");
    lab.wait_for(|status| status.load.waiting == 1);
    drop(second);
    lab.wait_for(|status| status.load.waiting == 0);
    assert_eq!(lab.status().load.running, 1);
    drop(first);
}

#[test]
fn requests_on_one_connection_follow_each_other() {
    let lab = Lab::start(&[SLOT], 1000.0);
    let answers: Vec<_> = (0..50)
        .map(|_| lab.post("/infer", &[("x-service-ms", "1")], "").status)
        .collect();
    assert_eq!(answers, [200; 50]);
    assert_eq!(lab.counters().done, 50);
}

#[test]
fn every_server_has_a_port_and_a_name() {
    let three = r#"{ "name": "gpu", "count": 3, "kind": "batching", "gpu": "h100" }"#;
    let lab = Lab::start(&[three, SLOT], 1.0);
    let endpoints = lab.servers.endpoints();
    let names: Vec<_> = endpoints.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["gpu-1", "gpu-2", "gpu-3", "slot"]);
    for endpoint in endpoints {
        let answer = get(&agent(), &format!("http://{}/health", endpoint.address));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-served-by"), endpoint.name);
    }
}

#[test]
fn dropped_servers_are_gone() {
    let lab = Lab::start(&[SLOT], 1.0);
    let address = lab.address();
    let pending = lab.begin("/infer", "x-service-ms: 1e8\r\n", "");
    lab.wait_for(|status| status.load.running == 1);
    drop(lab);
    assert!(pending.end().is_ok_and(|bytes| bytes == 0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// Real time: 10 ms of sleep, of which the best of twenty is the sleeper's own lateness.
#[test]
fn the_time_scale_divides_real_time() {
    let lab = Lab::start(&[SLOT], 100.0);
    let took = (0..20).map(|_| {
        let start = Instant::now();
        lab.post("/infer", &[("x-service-ms", "1000")], "");
        start.elapsed()
    });
    let fastest = took.min().unwrap();
    assert!(fastest >= Duration::from_millis(10), "{fastest:?}");
    assert!(fastest < Duration::from_millis(14), "{fastest:?}");
}

/// A thousand steps of 0.55 ms each: if the lateness of a step put off the next, a tenth of a millisecond a step would show.
#[test]
fn lateness_does_not_add_up() {
    let lab = Lab::start(&[LLM], 20.0);
    let body = r#"{"prompt": "x", "max_tokens": 1001, "stream": true}"#;
    let took = (0..3).map(|_| {
        let start = Instant::now();
        assert_eq!(lab.post_json("/v1/completions", body).status, 200);
        start.elapsed()
    });
    let fastest = took.min().unwrap();
    let expected = Duration::from_micros(1001 * 550);
    assert!(fastest >= expected, "{fastest:?}");
    assert!(
        fastest < expected + Duration::from_millis(50),
        "{fastest:?}"
    );
}
