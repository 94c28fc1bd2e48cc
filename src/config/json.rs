//! A JSON document as its author wrote it.
//!
//! `serde_json::Value` keeps the last of repeated keys and drops the rest in
//! silence. This tree keeps them all, so that the reader can refuse them.

use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// How many characters of a string are shown.
const SHOWN_CHARS: usize = 40;

/// A JSON value. Its depth is bounded, by the limit of `serde_json`'s parser.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    /// In the order written, repeated keys included.
    Object(Vec<(String, Json)>),
}

/// JSON has no number for infinities and NaN: they become `null`.
impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Number::from_f64(number).map_or(Self::Null, Self::Number)
    }
}

/// The value as an error shows it: on one line, in ASCII, shortened when long.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(true) => f.write_str("true"),
            Self::Bool(false) => f.write_str("false"),
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::String(text) => fmt::Display::fmt(&Quoted(text), f),
            Self::Array(items) if items.is_empty() => f.write_str("an empty array"),
            Self::Array(_) => f.write_str("an array"),
            Self::Object(entries) if entries.is_empty() => f.write_str("an empty object"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

/// Text from outside, in quotes, shortened when long. What is not visible ASCII
/// is escaped: it could not be seen, or would break the line it stands on.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = match self.0.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => (self.0.get(..end).unwrap_or_default(), "..."),
            None => (self.0, ""),
        };
        f.write_str("\"")?;
        for shown in shown.chars() {
            // Each by itself: the escapes of a whole text are more code.
            fmt::Display::fmt(&shown.escape_default(), f)?;
        }
        write!(f, "{rest}\"")
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> String {
        serde_json::from_str::<Json>(json).unwrap().to_string()
    }

    #[test]
    fn every_kind_of_value_is_shown_on_one_line() {
        assert_eq!(shown("null"), "null");
        assert_eq!(shown("true"), "true");
        assert_eq!(shown("-3"), "-3");
        assert_eq!(shown("18446744073709551615"), "18446744073709551615");
        assert_eq!(shown("0.25"), "0.25");
        assert_eq!(shown(r#""a""#), r#""a""#);
        assert_eq!(shown("[]"), "an empty array");
        assert_eq!(shown("[1]"), "an array");
        assert_eq!(shown("{}"), "an empty object");
        assert_eq!(shown(r#"{"a": 1}"#), "an object");
    }

    #[test]
    fn text_is_escaped_and_shortened_without_splitting_a_character() {
        assert_eq!(shown(r#""a\nb\u0000ä""#), r#""a\nb\u{0}\u{e4}""#);
        let long = format!("\"{}\"", "é".repeat(41));
        let expected = format!("\"{}...\"", r"\u{e9}".repeat(40));
        assert_eq!(shown(&long), expected);
    }

    #[test]
    fn repeated_keys_are_kept() {
        let json = serde_json::from_str::<Json>(r#"{"a": 1, "a": null}"#).unwrap();
        let entries = vec![
            ("a".to_owned(), Json::Number(1.into())),
            ("a".to_owned(), Json::Null),
        ];
        assert_eq!(json, Json::Object(entries));
    }
}
