//! What the body of a request to an OpenAI-style API says about its size.
//!
//! One pass over the bytes, without a tree: it skips what is not needed, and
//! counts text in place. Members of an unexpected type count as
//! absent, because rejecting them is up to the server.

mod scalar;
mod text;

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Unknown;
pub(super) use scalar::Scalar;
use text::Text;

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
        let body = serde_json::from_slice(body).map_err(|_| Unknown::Malformed)?;
        let Body(facts) = body;
        facts.ok_or(Unknown::Malformed)
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

/// What a body says; nothing where it is no object.
struct Body(Option<OpenAi>);

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor)
    }
}

/// Takes every kind of value: errors of `serde` with words of their own bring 20 KB of
/// formatting and of looking for places in text along.
struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_unit<E>(self) -> Result<Body, E> {
        Ok(Body(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Body, A::Error> {
        IgnoredAny.visit_seq(items)?;
        Ok(Body(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Body, A::Error> {
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
        Ok(Body(Some(facts)))
    }
}

#[cfg(test)]
mod tests;
