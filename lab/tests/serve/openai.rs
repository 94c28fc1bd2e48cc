use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{LLM, Lab, SLOT};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn ask(lab: &Lab, path: &str, body: &Value) -> Value {
    let answer = lab.post_json(path, &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[test]
fn chat_completions() {
    let lab = Lab::start(&[LLM], 1000.0);
    let body = json!({
        "model": "tiny",
        "messages": [
            { "role": "system", "content": "12345678" },
            { "role": "user", "content": [{ "type": "text", "text": "123456789" }] },
        ],
        "max_completion_tokens": 6,
        "temperature": 0.7,
    });
    let answer = ask(&lab, CHAT, &body);
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["model"], "tiny");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"].as_str().unwrap().len(), 24);
    assert_eq!(choice["finish_reason"], "length");
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11 });
    assert_eq!(answer["usage"], usage);
    assert_eq!(lab.counters().prompt_tokens, 5);
}

#[test]
fn text_completions() {
    let lab = Lab::start(&[LLM], 1000.0);
    let body = json!({ "prompt": ["12345678", "1234"], "max_tokens": 3 });
    let answer = ask(&lab, COMPLETIONS, &body);
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().len(), 12);
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
}

#[test]
fn a_header_says_where_the_answer_ends_by_itself() {
    let lab = Lab::start(&[LLM], 1000.0);
    let completion = |natural: &str, body: &str| {
        let headers = [("x-output-tokens", natural), ("x-prompt-tokens", "70")];
        lab.post(COMPLETIONS, &headers, body).json()
    };
    let answer = completion("4", r#"{"prompt": "x", "max_tokens": 9}"#);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(answer["usage"]["prompt_tokens"], 70);
    let answer = completion("40", r#"{"prompt": "x", "max_tokens": 9}"#);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 9);
}

/// The data of the events in a body.
fn events(body: &str) -> Vec<Value> {
    let mut events = Vec::new();
    for event in body.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").unwrap();
        match data {
            "[DONE]" => events.push(Value::from("[DONE]")),
            json => events.push(serde_json::from_str(json).unwrap()),
        }
    }
    events
}

#[test]
fn a_streamed_chat_has_an_event_a_token() {
    let lab = Lab::start(&[LLM], 1000.0);
    let body = json!({
        "messages": [{ "role": "user", "content": "hello" }],
        "max_tokens": 4,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let answer = lab.post_json(CHAT, &body.to_string());
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("x-served-by"), "llm");
    let events = events(&answer.body);
    assert_eq!(events.len(), 4 + 3);
    for (number, event) in events[..4].iter().enumerate() {
        assert_eq!(event["object"], "chat.completion.chunk");
        let choice = &event["choices"][0];
        assert_eq!(choice["delta"]["content"].as_str().unwrap().len(), 4);
        assert_eq!(choice["finish_reason"], Value::Null);
        assert_eq!(choice["delta"].get("role").is_some(), number == 0);
    }
    assert_eq!(events[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[4]["choices"][0]["delta"], json!({}));
    assert_eq!(events[5]["choices"], json!([]));
    assert_eq!(events[5]["usage"]["completion_tokens"], 4);
    assert_eq!(events[6], "[DONE]");
    lab.wait_for(|status| status.counters.done == 1 && status.counters.cancelled == 0);
}

#[test]
fn a_streamed_completion_ends_in_done() {
    let lab = Lab::start(&[LLM], 1000.0);
    let answer = lab.post_json(
        COMPLETIONS,
        r#"{"prompt": [1, 2, 3], "max_tokens": 2, "stream": true}"#,
    );
    let events = events(&answer.body);
    assert_eq!(events.len(), 2 + 2);
    assert_eq!(events[1]["choices"][0]["text"].as_str().unwrap().len(), 4);
    assert_eq!(events[2]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[3], "[DONE]");
    assert_eq!(lab.counters().prompt_tokens, 3);
}

#[test]
fn a_slot_server_streams_all_of_it_at_the_end() {
    let lab = Lab::start(&[SLOT], 1000.0);
    let answer = lab.post_json(
        COMPLETIONS,
        r#"{"prompt": "x", "max_tokens": 5, "stream": true}"#,
    );
    let events = events(&answer.body);
    let texts: Vec<usize> = events[..3]
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().len())
        .collect();
    assert_eq!(texts, [4, 16, 0]);
}

#[test]
fn tokens_are_sent_when_they_are_generated() {
    let lab = Lab::start(&[LLM], 1.0);
    let body = r#"{"prompt": "x", "max_tokens": 9000, "stream": true}"#;
    let pending = lab.begin(COMPLETIONS, "", body);
    let mut lines = pending.lines().filter(|line| line.starts_with("data: "));
    for _ in 0..3 {
        lines.next().unwrap();
    }
    let generated = lab.counters().generation_tokens;
    assert!((3..9000).contains(&generated), "{generated}");
    // Gone in the midst of it.
    drop(lines);
    lab.wait_for(|status| status.counters.cancelled == 1 && status.load.kv_used == 0);
}

#[test]
fn the_head_of_a_stream_does_not_wait_for_the_first_token() {
    let lab = Lab::start(&[LLM], 1.0);
    lab.control(r#"{"mode": "stop"}"#);
    let pending = lab.begin(COMPLETIONS, "", r#"{"prompt": "x", "stream": true}"#);
    assert_eq!(pending.status(), 200);
    assert_eq!(lab.counters().generation_tokens, 0);
}

#[test]
fn a_reload_cuts_streams_off() {
    let lab = Lab::start(&[LLM], 1.0);
    let body = r#"{"prompt": "x", "max_tokens": 9000, "stream": true}"#;
    let pending = lab.begin(COMPLETIONS, "", body);
    lab.wait_for(|status| status.counters.generation_tokens > 2);
    lab.control(r#"{"reload_seconds": 100}"#);
    let text: Vec<String> = pending.lines().collect();
    assert!(text.iter().all(|line| !line.contains("[DONE]")));
    assert_ne!(text.last().unwrap(), "0", "no last chunk");
}

#[test]
fn errors_have_openais_form_and_name_the_field() {
    let lab = Lab::start(&[LLM], 1000.0);
    let refused = |path: &str, body: &str| {
        let answer = lab.post_json(path, body);
        let json = answer.json();
        assert_eq!(json["error"]["type"], "invalid_request_error");
        assert!(json["error"]["message"].is_string());
        (
            answer.status,
            json["error"]["param"].as_str().map(str::to_owned),
        )
    };
    let of = |status, param: &str| (status, Some(param.to_owned()));
    let messages = r#""messages": [{"role": "user", "content": "x"}]"#;
    let chat = |more: &str| refused(CHAT, &format!("{{{messages}, {more}}}"));
    assert_eq!(chat(r#""model": "huge""#), of(404, "model"));
    assert_eq!(chat(r#""n": 2"#), of(400, "n"));
    assert_eq!(chat(r#""max_tokens": 0"#), of(400, "max_tokens"));
    assert_eq!(
        chat(r#""max_completion_tokens": 0"#),
        of(400, "max_completion_tokens")
    );
    assert_eq!(chat(r#""max_tokens": "9""#), of(400, "max_tokens"));
    assert_eq!(chat(r#""max_tokens": 10000"#), (400, None));
    assert_eq!(refused(CHAT, "{}"), of(400, "messages"));
    assert_eq!(refused(CHAT, r#"{"messages": []}"#), of(400, "messages"));
    assert_eq!(
        refused(CHAT, r#"{"messages": [{"content": true}]}"#),
        of(400, "messages[0].content")
    );
    assert_eq!(refused(COMPLETIONS, "{}"), of(400, "prompt"));
    assert_eq!(refused(COMPLETIONS, "no json"), of(400, "top level"));
    let too_long = lab.post_json(COMPLETIONS, r#"{"prompt": "x", "max_tokens": 10000}"#);
    assert_eq!(too_long.json()["error"]["code"], "context_length_exceeded");
}

#[test]
fn models_lists_the_one_there_is() {
    let lab = Lab::start(&[LLM], 1.0);
    let models = lab.get("/v1/models").json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(models["data"][0]["max_model_len"], 10_000);
}

#[test]
fn a_client_of_a_stopped_server_hears_nothing_and_can_go() {
    let lab = Lab::start(&[LLM], 1000.0);
    lab.control(r#"{"mode": "stop"}"#);
    let pending = lab.begin(CHAT, "", r#"{"messages": [{"content": "x"}]}"#);
    lab.wait_for(|status| status.load.running == 1);
    assert!(pending.is_silent_for(Duration::from_millis(100)));
    drop(pending);
    lab.wait_for(|status| status.counters.cancelled == 1);
}
