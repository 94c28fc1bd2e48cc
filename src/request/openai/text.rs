//! The text of a prompt, counted.

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{CHARS_PER_TOKEN, Name};

/// Characters of text in any of the forms of a prompt: a string, tokens, an
/// array of forms, or an object with a form as its `content` or `text`.
///
/// The recursion is bounded by `serde_json`, at 128 levels.
pub(super) struct Text(pub(super) u64);

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
