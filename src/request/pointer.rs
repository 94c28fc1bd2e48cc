//! A number at a place in a JSON body.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Unknown;

/// The size at the place that `tokens` lead to (RFC 6901): a number itself, the
/// characters of a string, the items of an array. One pass, without a tree; of
/// members that stand twice the last counts.
///
/// # Errors
/// [`Unknown::Missing`] where nothing stands there, [`Unknown::Malformed`]
/// where the body is not JSON, or what stands there is none of these or is
/// negative.
pub(super) fn size_at(body: &[u8], tokens: &[String]) -> Result<f64, Unknown> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let place = Place(tokens);
    let found = place
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found));
    match found {
        Ok(Found::Size(size)) if size >= 0.0 => Ok(size),
        Ok(Found::Nothing) => Err(Unknown::Missing),
        Ok(Found::Size(_) | Found::Other) | Err(_) => Err(Unknown::Malformed),
    }
}

/// What stands at a place.
enum Found {
    Nothing,
    Size(f64),
    Other,
}

/// The way that is left to go.
#[derive(Clone, Copy)]
struct Place<'a>(&'a [String]);

impl Place<'_> {
    /// A value that nothing can be inside of.
    fn scalar<E>(self, here: Found) -> Result<Found, E> {
        Ok(if self.0.is_empty() {
            here
        } else {
            Found::Nothing
        })
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found, E> {
        self.scalar(Found::Size(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found, E> {
        self.scalar(Found::Size(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found, E> {
        self.scalar(Found::Size(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        self.scalar(Found::Size(text.chars().count() as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        self.scalar(Found::Other)
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        self.scalar(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found, A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            let mut count: u64 = 0;
            while items.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            return Ok(Found::Size(count as f64));
        };
        if let Some(index) = array_index(first) {
            for _ in 0..index {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(Found::Nothing);
                }
            }
            let found = items.next_element_seed(Place(rest))?;
            IgnoredAny.visit_seq(items)?;
            return Ok(found.unwrap_or(Found::Nothing));
        }
        IgnoredAny.visit_seq(items)?;
        Ok(Found::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let Some((first, rest)) = self.0.split_first() else {
            IgnoredAny.visit_map(members)?;
            return Ok(Found::Other);
        };
        let mut found = Found::Nothing;
        while let Some(is_it) = members.next_key_seed(Named(first))? {
            if is_it {
                found = members.next_value_seed(Place(rest))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// An array's index: digits without a leading zero.
fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    plain.then(|| token.parse().ok()).flatten()
}

/// Whether a member has this name.
struct Named<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use serde_json::Value;

    use super::*;
    use crate::config::JsonPointer;

    fn at(pointer: &str, body: &str) -> Result<f64, Unknown> {
        let pointer = JsonPointer::parse(pointer).unwrap();
        size_at(body.as_bytes(), pointer.tokens())
    }

    #[test]
    fn a_size_is_a_number_or_a_length() {
        let body = r#"{"parameters": {"steps": 30, "scale": 7.5, "neg": -1, "text": "hé\n",
            "list": [1, [2], {}], "nothing": null, "flag": true, "object": {"a": 1}}}"#;
        for (place, expected) in [
            ("steps", Ok(30.0)),
            ("scale", Ok(7.5)),
            ("text", Ok(3.0)),
            ("list", Ok(3.0)),
            ("list/0", Ok(1.0)),
            ("list/1/0", Ok(2.0)),
            ("neg", Err(Unknown::Malformed)),
            ("nothing", Err(Unknown::Malformed)),
            ("flag", Err(Unknown::Malformed)),
            ("object", Err(Unknown::Malformed)),
            ("absent", Err(Unknown::Missing)),
            ("steps/0", Err(Unknown::Missing)),
            ("list/3", Err(Unknown::Missing)),
            ("list/00", Err(Unknown::Missing)),
            ("list/+1", Err(Unknown::Missing)),
            ("list/-", Err(Unknown::Missing)),
        ] {
            assert_eq!(
                at(&format!("/parameters/{place}"), body),
                expected,
                "{place}"
            );
        }
        assert_eq!(at("", "17"), Ok(17.0));
        assert_eq!(at("", "[1,2]"), Ok(2.0));
    }

    #[test]
    fn names_are_unescaped_and_the_last_of_equals_counts() {
        assert_eq!(at("/a~1b/c~0d", r#"{"a/b": {"c~d": 1}}"#), Ok(1.0));
        assert_eq!(at("/ab", r#"{"a\u0062": 2}"#), Ok(2.0));
        assert_eq!(at("/", r#"{"": 3}"#), Ok(3.0));
        assert_eq!(at("/a", r#"{"a": 1, "a": 2}"#), Ok(2.0));
    }

    #[test]
    fn what_is_not_json_is_malformed_even_behind_the_place() {
        for body in [
            "",
            "{",
            r#"{"a": 1"#,
            r#"{"a": 1} x"#,
            r#"{"a": 1, }"#,
            r#"{"a": 1e999}"#,
        ] {
            assert_eq!(at("/a", body), Err(Unknown::Malformed), "{body}");
        }
        assert_eq!(
            size_at(b"{\"a\": \"\xff\"}", &["a".to_owned()]),
            Err(Unknown::Malformed)
        );
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(at("/a", &format!(r#"{{"b": {deep}, "a": 4}}"#)), Ok(4.0));
        assert_eq!(at("/a", &format!(r#"{{"a": {deep}}}"#)), Ok(1.0));
    }

    fn repeatable() -> ProptestConfig {
        ProptestConfig {
            rng_seed: RngSeed::Fixed(3),
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0_u32..9).prop_map(Value::from),
            "[ab0-2]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[ab0-2]{0,1}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(repeatable())]

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, tokens in prop::collection::vec("[a0]", 0..3)) {
            let _ = size_at(&bytes, &tokens);
        }

        #[test]
        fn it_finds_what_a_tree_has(json in any_json(), pointer in "(/[ab0-2]{0,1}){0,4}") {
            let expected = match json.pointer(&pointer) {
                None => Err(Unknown::Missing),
                Some(Value::Number(number)) => Ok(number.as_f64().unwrap()),
                Some(Value::String(text)) => Ok(text.chars().count() as f64),
                Some(Value::Array(items)) => Ok(items.len() as f64),
                Some(_) => Err(Unknown::Malformed),
            };
            prop_assert_eq!(at(&pointer, &json.to_string()), expected);
        }
    }
}
