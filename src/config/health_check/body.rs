//! What the body of a good answer says.

use super::super::error::Problems;
use super::super::json::Json;
use super::super::reader::Object;
use super::super::request_size::{JsonPointer, POINTER};

const VALUE: &str = "a string, a number, true, false or null";

/// A value that a JSON body has at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyCheck {
    pointer: JsonPointer,
    equals: Json,
    /// What it equals, as text: all of it, unlike in an error.
    text: String,
}

impl BodyCheck {
    /// Whether the body is JSON and has the value at the place. Of names that an
    /// object repeats the last counts.
    #[must_use]
    pub fn holds(&self, body: &[u8]) -> bool {
        let Ok(json) = serde_json::from_slice::<Json>(body) else {
            return false;
        };
        let mut here = Some(&json);
        for token in self.pointer.tokens() {
            here = match here {
                Some(Json::Object(entries)) => {
                    let mut named = entries.iter().rev().filter(|(name, _)| name == token);
                    named.next().map(|(_, value)| value)
                }
                Some(Json::Array(items)) => token.parse().ok().and_then(|at: usize| items.get(at)),
                _ => None,
            };
        }
        here.is_some_and(|here| are_equal(here, &self.equals))
    }

    /// Adds what tells it apart from other checks.
    pub(super) fn extend_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        names.extend(self.pointer.tokens().iter().map(String::as_str));
        names.push(match &self.equals {
            Json::String(_) => "text",
            _ => "value",
        });
        names.push(&self.text);
    }
}

/// Equal values; 1 and 1.0 are.
fn are_equal(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// Reads `json_pointer` and `equals`, which need each other.
pub(super) fn read(object: &Object<'_>, problems: &mut Problems) -> Option<BodyCheck> {
    let (pointer, equals) = match (object.get("json_pointer"), object.get("equals")) {
        (None, None) => return None,
        (Some(pointer), Some(equals)) => (pointer, equals),
        (Some(alone), None) => {
            problems.add(&alone.path, &"needs equals beside it, the value there");
            return None;
        }
        (None, Some(alone)) => {
            problems.add(
                &alone.path,
                &"needs json_pointer beside it, the place of the value",
            );
            return None;
        }
    };
    if matches!(equals.json, Json::Array(_) | Json::Object(_)) {
        equals.refuse(&VALUE, problems);
    }
    let parsed = JsonPointer::parse(pointer.text(POINTER, problems)?);
    if parsed.is_none() {
        pointer.refuse(&POINTER, problems);
    }
    let text = match equals.json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(BodyCheck {
        pointer: parsed?,
        equals: equals.json.clone(),
        text,
    })
}
