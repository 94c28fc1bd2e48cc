//! What the body of a request to an OpenAI-style API says of its size.
//!
//! One pass over the bytes, without a tree: what is not needed is skipped, and
//! text is counted where it lies. Members of an unexpected type count as
//! absent, because the server is the one to refuse them.

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Unknown;

/// Characters of English text to a token, on average.
const CHARS_PER_TOKEN: u64 = 4;

/// Prompt tokens that cost as much as one generated token. A prompt is read
/// many tokens at a time, an answer is written one by one: on served models of
/// 8 to 70 billion parameters a prompt token costs a tenth to a fifth.
const PROMPT_TOKENS_PER_OUTPUT_TOKEN: f64 = 8.0;

/// Mean length of an answer that nothing limits, in tokens: public traces of
/// conversations have about 210.
const USUAL_OUTPUT_TOKENS: f64 = 256.0;

/// The most answers to one prompt that are counted: what the API allows.
const MAX_CHOICES: f64 = 128.0;

/// The facts of a completion, chat, response or embedding request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenAi {
    /// `model`.
    pub model: Option<String>,
    /// Characters of text in `messages`, `prompt`, `input`, `system` and
    /// `instructions`; a token in an array of tokens counts as four. `None`
    /// where none of them is there.
    pub prompt_chars: Option<u64>,
    /// The least of `max_tokens`, `max_completion_tokens` and
    /// `max_output_tokens`.
    pub max_tokens: Option<f64>,
    /// `n`: how many answers are asked for.
    pub choices: Option<f64>,
    /// `stream`.
    pub stream: bool,
}

impl OpenAi {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Unknown::Malformed`] where it is no JSON object, or nests its text
    /// deeper than 128 levels.
    pub fn parse(body: &[u8]) -> Result<Self, Unknown> {
        serde_json::from_slice(body).map_err(|_| Unknown::Malformed)
    }

    /// The request's size in generated tokens: what it is expected to generate,
    /// and an eighth of the prompt's tokens. `None` where there is no prompt.
    ///
    /// The limit of an answer is not its length: many clients ask for far more
    /// than they get. If the lengths of answers that nothing limits are
    /// exponentially distributed with mean `m`, a limit `L` makes the mean
    /// `m (1 - exp(-L / m))`: near `L` for a small one, near `m` for a large
    /// one or for none.
    #[must_use]
    pub fn size(&self) -> Option<f64> {
        let prompt_tokens = self.prompt_chars? as f64 / CHARS_PER_TOKEN as f64;
        let output = match self.max_tokens {
            Some(limit) => {
                USUAL_OUTPUT_TOKENS * (1.0 - (-limit.max(0.0) / USUAL_OUTPUT_TOKENS).exp())
            }
            None => USUAL_OUTPUT_TOKENS,
        };
        let choices = self.choices.unwrap_or(1.0).clamp(1.0, MAX_CHOICES);
        Some(prompt_tokens / PROMPT_TOKENS_PER_OUTPUT_TOKEN + choices * output)
    }

    fn add_prompt(&mut self, chars: u64) {
        let known = self.prompt_chars.unwrap_or(0);
        self.prompt_chars = Some(known.saturating_add(chars));
    }

    fn limit(&mut self, tokens: Option<f64>) {
        self.max_tokens = match (self.max_tokens, tokens) {
            (Some(known), Some(tokens)) => Some(known.min(tokens)),
            (known, tokens) => known.or(tokens),
        };
    }
}

/// The members that are looked at.
enum Member {
    Model,
    Prompt,
    Limit,
    Choices,
    Stream,
    Other,
}

impl Member {
    fn named(name: &str) -> Self {
        match name {
            "model" => Self::Model,
            "messages" | "prompt" | "input" | "system" | "instructions" => Self::Prompt,
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => Self::Limit,
            "n" => Self::Choices,
            "stream" => Self::Stream,
            _ => Self::Other,
        }
    }
}

/// A member's name, compared where it lies.
struct Name<T>(T);

impl<'de> Deserialize<'de> for Name<Member> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(NameVisitor(Member::named))
            .map(Name)
    }
}

/// Whether a part of a message is text.
impl<'de> Deserialize<'de> for Name<bool> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_text = |name: &str| matches!(name, "content" | "text");
        deserializer.deserialize_str(NameVisitor(is_text)).map(Name)
    }
}

struct NameVisitor<F>(F);

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for NameVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name))
    }
}

impl<'de> Deserialize<'de> for OpenAi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OpenAiVisitor)
    }
}

/// Answers every kind of value itself: what `serde` would say against a number
/// brings 15 KB of number formatting along.
struct OpenAiVisitor;

fn no_object<T, E: Error>() -> Result<T, E> {
    Err(E::custom("not an object"))
}

impl<'de> Visitor<'de> for OpenAiVisitor {
    type Value = OpenAi;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_unit<E: Error>(self) -> Result<OpenAi, E> {
        no_object()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<OpenAi, A::Error> {
        no_object()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<OpenAi, A::Error> {
        let mut facts = OpenAi::default();
        while let Some(Name(member)) = members.next_key()? {
            match member {
                // Of members that stand twice, servers take the last.
                Member::Model => facts.model = members.next_value::<Scalar>()?.text(),
                Member::Prompt => facts.add_prompt(members.next_value::<Text>()?.0),
                Member::Limit => facts.limit(members.next_value::<Scalar>()?.number()),
                Member::Choices => facts.choices = members.next_value::<Scalar>()?.number(),
                Member::Stream => {
                    facts.stream = matches!(members.next_value()?, Scalar::Flag(true));
                }
                Member::Other => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(facts)
    }
}

/// A value that should be a scalar.
pub(super) enum Scalar {
    Flag(bool),
    Number(f64),
    Text(String),
    Other,
}

impl Scalar {
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_seq(items)?;
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Scalar, A::Error> {
        IgnoredAny.visit_map(members)?;
        Ok(Scalar::Other)
    }
}

/// Characters of text in any of the forms of a prompt: a string, tokens, an
/// array of forms, or an object with a form as its `content` or `text`.
///
/// The recursion is bounded by `serde_json`, at 128 levels.
struct Text(u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.chars().count() as u64))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text(CHARS_PER_TOKEN))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Text, A::Error> {
        let mut chars: u64 = 0;
        while let Some(Text(more)) = items.next_element()? {
            chars = chars.saturating_add(more);
        }
        Ok(Text(chars))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        let mut chars: u64 = 0;
        while let Some(Name(is_text)) = members.next_key()? {
            if is_text {
                let Text(more) = members.next_value()?;
                chars = chars.saturating_add(more);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Text(chars))
    }
}

#[cfg(test)]
mod tests {
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
}
