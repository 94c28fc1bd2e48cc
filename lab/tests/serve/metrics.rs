use std::collections::BTreeMap;

use crate::support::{LLM, Lab};

/// The samples of a page by name and labels; fails on what is not the Prometheus text format.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut typed = Vec::new();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            typed.push(name.to_owned());
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap();
            assert!(labels.contains("model_name=\"tiny\"") && labels.ends_with('}'));
            assert!(typed.iter().any(|typed| name.starts_with(typed)), "{name}");
            let value = value.parse().unwrap();
            let twice = samples.insert(series.to_owned(), value);
            assert!(twice.is_none(), "{series} twice");
        }
    }
    samples
}

#[test]
fn metrics_have_vllms_names() {
    let lab = Lab::start(&[LLM], 1000.0);
    let sizes = [("x-prompt-tokens", "100"), ("x-output-tokens", "11")];
    for _ in 0..3 {
        lab.post("/infer", &sizes, "");
    }
    lab.control(r#"{"mode": "stop"}"#);
    let running = lab.begin("/infer", "x-prompt-tokens: 5000\r\n", "");
    lab.wait_for(|status| status.load.running == 1);
    let waiting = lab.begin("/infer", "x-prompt-tokens: 6000\r\n", "");
    lab.wait_for(|status| status.load.waiting == 1);

    let answer = lab.get("/metrics");
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let samples = samples(&answer.body);
    let value = |name: &str| samples[&format!("vllm:{name}{{engine=\"0\",model_name=\"tiny\"}}")];
    assert_eq!(value("num_requests_running"), 1.0);
    assert_eq!(value("num_requests_waiting"), 1.0);
    assert_eq!(value("kv_cache_usage_perc"), 0.5);
    assert_eq!(value("prompt_tokens_total"), 300.0);
    assert_eq!(value("generation_tokens_total"), 33.0);
    assert_eq!(value("num_preemptions_total"), 0.0);
    assert_eq!(value("request_success_total"), 3.0);

    // First token after 10 + 100 ms, the last 10 x (10 + 1) ms later.
    let bucket = |name: &str, bound: &str| {
        let labels = format!("engine=\"0\",model_name=\"tiny\",le=\"{bound}\"");
        samples[&format!("vllm:{name}_bucket{{{labels}}}")]
    };
    let first = "time_to_first_token_seconds";
    assert_eq!((bucket(first, "0.1"), bucket(first, "0.25")), (0.0, 3.0));
    assert_eq!(bucket(first, "+Inf"), 3.0);
    assert_eq!(value("time_to_first_token_seconds_count"), 3.0);
    let latency = "e2e_request_latency_seconds";
    assert_eq!((bucket(latency, "0.3"), bucket(latency, "1.0")), (3.0, 3.0));
    let sum = value("e2e_request_latency_seconds_sum");
    assert!((sum - 3.0 * 0.22).abs() < 1e-6, "{sum}");
    drop((running, waiting));
}
