use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::token_text::BYTES_PER_TOKEN;

/// The bytes of the text in a prompt or a message, whatever its form: a string, an array of strings or of
/// parts with a `text`, or an array of tokens (four bytes each). The text itself is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TextBytes(pub(super) u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextBytes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, an array of strings, text parts or tokens, or null")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextBytes, E> {
        Ok(TextBytes(text.len() as u64))
    }

    fn visit_u64<E>(self, _token: u64) -> Result<TextBytes, E> {
        Ok(TextBytes(BYTES_PER_TOKEN))
    }

    fn visit_unit<E>(self) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<TextBytes, A::Error> {
        let mut total = 0;
        while let Some(TextBytes(bytes)) = parts.next_element()? {
            total += bytes;
        }
        Ok(TextBytes(total))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut part: A) -> Result<TextBytes, A::Error> {
        let mut total = 0;
        while let Some(key) = part.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "text" {
                total += part.next_value::<TextBytes>()?.0;
            } else {
                part.next_value::<IgnoredAny>()?;
            }
        }
        Ok(TextBytes(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_in_all_its_forms() {
        let bytes = |json: &str| serde_json::from_str::<TextBytes>(json).unwrap().0;
        assert_eq!(bytes(r#""four""#), 4);
        assert_eq!(bytes(r#"["one", "three"]"#), 8);
        assert_eq!(bytes("[1, 2, 3]"), 12);
        assert_eq!(bytes("[[1], [2, 3]]"), 12);
        assert_eq!(bytes("null"), 0);
        let parts = r#"[{"type": "text", "text": "12345"}, {"type": "image_url", "image_url": {"url": "x"}}]"#;
        assert_eq!(bytes(parts), 5);
        assert!(serde_json::from_str::<TextBytes>("true").is_err());
    }
}
