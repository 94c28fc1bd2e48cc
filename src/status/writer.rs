//! JSON text, without a tree of values and without code for each type.

use std::fmt::Write as _;

use crate::decimal::Decimal;

/// Writes one JSON value from start to end.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
}

impl Writer {
    /// Begins an entry with this key; within an array, where the key is empty, an item.
    pub(super) fn key(&mut self, key: &str) {
        if !self.text.is_empty() && !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        if !key.is_empty() {
            self.quote(key);
            self.text.push(':');
        }
    }

    /// Begins an object or an array, `{` or `[`.
    pub(super) fn open(&mut self, key: &str, bracket: char) {
        self.key(key);
        self.text.push(bracket);
    }

    /// Ends an object or an array.
    pub(super) fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// A string, or `null`.
    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        self.key(key);
        match value {
            Some(value) => self.quote(value),
            None => self.text.push_str("null"),
        }
    }

    /// A number that is not negative, to six decimals, or `null`.
    pub(super) fn number(&mut self, key: &str, value: Option<f64>) {
        self.key(key);
        match value {
            Some(value) => Decimal(value).add_to(&mut self.text),
            None => self.text.push_str("null"),
        }
    }

    /// `true`, `false` or `null`.
    pub(super) fn truth(&mut self, key: &str, value: Option<bool>) {
        self.key(key);
        self.text.push_str(match value {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        });
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn quote(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' | '\\' => {
                    self.text.push('\\');
                    self.text.push(character);
                }
                '\0'..='\x1f' => {
                    // Writing to a String cannot fail.
                    let _ = write!(self.text, "\\u{:04x}", character as u32);
                }
                _ => self.text.push(character),
            }
        }
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let mut writer = Writer::default();
        writer.open("", '{');
        writer.text("name", Some("a"));
        writer.number("number", Some(1.25));
        writer.open("list", '[');
        writer.open("", '{');
        writer.truth("is", Some(true));
        writer.close('}');
        writer.open("", '{');
        writer.truth("is", None);
        writer.close('}');
        writer.number("", Some(3.0));
        writer.close(']');
        writer.open("empty", '[');
        writer.close(']');
        writer.text("nothing", None);
        writer.close('}');
        let read: Value = serde_json::from_str(&writer.into_text()).unwrap();
        let meant = json!({"name": "a", "number": 1.25, "list": [{"is": true}, {"is": null}, 3],
            "empty": [], "nothing": null});
        assert_eq!(read, meant);
    }

    proptest! {
        #[test]
        fn every_text_and_number_is_valid(text in any::<String>(), number in any::<f64>()) {
            let mut writer = Writer::default();
            writer.open("", '[');
            writer.text("", Some(&text));
            writer.number("", Some(number));
            writer.close(']');
            let read: Value = serde_json::from_str(&writer.into_text()).unwrap();
            prop_assert_eq!(&read[0], &json!(text));
            prop_assert!(read[1].is_number());
        }
    }
}
