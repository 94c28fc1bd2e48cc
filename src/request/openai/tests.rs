use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

fn parse(body: &str) -> OpenAi {
    OpenAi::parse(body.as_bytes()).unwrap()
}

fn chars(body: &str) -> Option<u64> {
    parse(body).prompt_chars
}

#[test]
fn every_form_of_a_prompt_is_counted() {
    for (body, expected) in [
        (r#"{"messages": [{"role": "user", "content": "four"}]}"#, 4),
        (
            r#"{"messages": [{"role": "system", "content": "a"}, {"content": "bc", "name": "ignored"}]}"#,
            3,
        ),
        (
            r#"{"messages": [{"content": [
                {"type": "text", "text": "abc"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "text", "text": "de"}]}]}"#,
            5,
        ),
        (
            r#"{"messages": [{"content": null, "tool_calls": [{"x": "y"}]}]}"#,
            0,
        ),
        (r#"{"prompt": "héé\n\u00e9"}"#, 5),
        (r#"{"prompt": ["ab", "c"]}"#, 3),
        (r#"{"prompt": [1, 2, 3]}"#, 12),
        (r#"{"prompt": [[1, 2], [3]]}"#, 12),
        (r#"{"input": "abc"}"#, 3),
        (r#"{"input": ["abc", "de"]}"#, 5),
        (r#"{"input": [1, 2]}"#, 8),
        (
            r#"{"instructions": "ab", "input": [{"role": "user", "content": [{"type": "input_text", "text": "cde"}]}]}"#,
            5,
        ),
        (r#"{"system": "ab", "messages": []}"#, 2),
        (r#"{"prompt": 5.5}"#, 0),
        (r#"{"prompt": true}"#, 0),
    ] {
        assert_eq!(chars(body), Some(expected), "{body}");
    }
    assert_eq!(chars(r#"{"model": "m"}"#), None);
}

#[test]
fn the_other_members_are_read_whatever_their_order() {
    let facts = parse(
        r#"{"stream": true, "max_completion_tokens": 9, "max_tokens": 30, "n": 2,
            "tools": [{"function": {"name": "f"}}], "prompt": "abcd", "model": "llama"}"#,
    );
    let expected = OpenAi {
        model: Some("llama".to_owned()),
        prompt_chars: Some(4),
        max_tokens: Some(9.0),
        choices: Some(2.0),
        stream: true,
    };
    assert_eq!(facts, expected);
}

#[test]
fn members_of_another_type_count_as_absent() {
    let body = r#"{"model": ["a"], "max_tokens": "9", "n": {}, "stream": "true", "input": {}}"#;
    let expected = OpenAi {
        prompt_chars: Some(0),
        ..OpenAi::default()
    };
    assert_eq!(parse(body), expected);
    assert_eq!(
        parse(r#"{"model": null, "max_tokens": null}"#),
        OpenAi::default()
    );
}

#[test]
fn of_repeated_members_the_last_model_counts() {
    assert_eq!(
        parse(r#"{"model": "a", "model": "b"}"#).model.as_deref(),
        Some("b")
    );
    assert_eq!(parse(r#"{"mod\u0065l": "c"}"#).model.as_deref(), Some("c"));
}

#[test]
fn what_is_no_object_is_malformed() {
    let bad: [&[u8]; 9] = [
        b"",
        b"[]",
        b"\"model\"",
        b"{",
        b"{} {}",
        b"{\"model\": \"\xff\"}",
        b"{\"prompt\": \"a}",
        b"null",
        b"{\"a\" 1}",
    ];
    for body in bad {
        assert_eq!(OpenAi::parse(body), Err(Unknown::Malformed), "{body:?}");
    }
}

#[test]
fn deep_nesting_costs_no_stack() {
    let nested = |member: &str, depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        OpenAi::parse(format!("{{\"model\": \"m\", \"{member}\": {open}{close}}}").as_bytes())
    };
    // What is skipped may be as deep as it likes.
    assert!(nested("tools", 1_000_000).is_ok());
    assert!(nested("messages", 100).is_ok());
    assert_eq!(nested("messages", 1_000_000), Err(Unknown::Malformed));
    let unclosed = "{\"messages\":[".repeat(500_000);
    assert_eq!(OpenAi::parse(unclosed.as_bytes()), Err(Unknown::Malformed));
}

#[test]
fn a_size_is_what_will_be_generated_and_an_eighth_of_the_prompt() {
    let size = |body: &str| parse(body).size();
    assert_eq!(size(r#"{"prompt": ""}"#), Some(256.0));
    assert_eq!(
        size(&format!(r#"{{"prompt": "{}"}}"#, "x".repeat(3200))),
        Some(356.0)
    );
    assert_eq!(size(r#"{"prompt": "", "n": 3}"#), Some(768.0));
    assert_eq!(size(r#"{"prompt": "", "max_tokens": 0}"#), Some(0.0));
    assert_eq!(size(r#"{"prompt": "", "max_tokens": -4}"#), Some(0.0));
    let short = size(r#"{"prompt": "", "max_tokens": 16}"#).unwrap();
    assert!((15.0..16.0).contains(&short), "{short}");
    let long = size(r#"{"prompt": "", "max_tokens": 4096}"#).unwrap();
    assert!((255.0..256.0).contains(&long), "{long}");
    assert_eq!(size(r#"{"max_tokens": 4096}"#), None);
    assert_eq!(
        size(r#"{"prompt": "", "n": 1e300, "max_tokens": 1e300}"#),
        Some(32768.0)
    );
}

fn repeatable() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(repeatable())]

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = OpenAi::parse(&bytes);
    }

    #[test]
    fn text_that_resembles_a_request_gives_a_finite_size(
        body in "\\{(\"(model|messages|prompt|input|n|max_tokens|stream)\": ?(-?[0-9]{1,3}(e[0-9]{1,3})?|\"[a-z\\\\\"]{0,4}\"|[\\[\\]{}\"a,:1]{0,8}|null|true),?){0,5}\\}?",
    ) {
        if let Ok(facts) = OpenAi::parse(body.as_bytes())
            && let Some(size) = facts.size()
        {
            prop_assert!(size.is_finite() && size >= 0.0, "{}", size);
        }
    }

    #[test]
    fn counts_are_those_of_a_tree(
        texts in prop::collection::vec(".{0,20}", 0..5),
        model in ".{0,10}",
    ) {
        let messages: Vec<_> = texts
            .iter()
            .map(|text| serde_json::json!({"role": "user", "content": text}))
            .collect();
        let body = serde_json::json!({"messages": messages, "model": model}).to_string();
        let facts = OpenAi::parse(body.as_bytes()).unwrap();
        let expected: usize = texts.iter().map(|text| text.chars().count()).sum();
        prop_assert_eq!(facts.prompt_chars, Some(expected as u64));
        prop_assert_eq!(facts.model, Some(model));
    }
}
