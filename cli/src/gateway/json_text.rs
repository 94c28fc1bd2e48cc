//! JSON as people write it: what fits on a line stays on one.

use serde_json::Value;

/// The widest line.
const WIDTH: usize = 90;

/// The value over as many lines as it needs, the first of which begins where the
/// text is put.
pub(crate) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, 0, &mut text);
    text
}

/// `before` is how much already stands on the line.
fn write(value: &Value, depth: usize, before: usize, text: &mut String) {
    let line = on_one_line(value);
    // A comma may follow.
    let fits = before + line.len() < WIDTH;
    let indent = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        Value::Array(items) if !fits && !items.is_empty() => {
            text.push_str("[\n");
            for (number, item) in items.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { ",\n" });
                text.push_str(&indent);
                write(item, depth + 1, indent.len(), text);
            }
            text.push_str(&format!("\n{end}]"));
        }
        Value::Object(entries) if !fits && !entries.is_empty() => {
            text.push_str("{\n");
            for (number, (key, item)) in entries.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { ",\n" });
                let key = Value::from(key.as_str()).to_string();
                text.push_str(&format!("{indent}{key}: "));
                write(item, depth + 1, indent.len() + key.len() + 2, text);
            }
            text.push_str(&format!("\n{end}}}"));
        }
        _ => text.push_str(&line),
    }
}

fn on_one_line(value: &Value) -> String {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let items: Vec<_> = items.iter().map(on_one_line).collect();
            format!("[ {} ]", items.join(", "))
        }
        Value::Object(entries) if !entries.is_empty() => {
            let entries = entries
                .iter()
                .map(|(key, item)| format!("{}: {}", Value::from(key.as_str()), on_one_line(item)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_where_they_must() {
        for text in [
            r#"{ "upstreams": [ { "cluster": "gpu-a" } ], "explain": true, "empty": [], "none": {} }"#,
            "{\n  \"upstreams\": [ { \"cluster\": \"gpu-a\" }, { \"cluster\": \"gpu-b\", \"weight\": 2.5 } ],\n  \
             \"include_attempt_count_in_response\": true\n}",
            "[\n  \"0123456789012345678901234567890123456789012345\",\n  \
             [ \"0123456789012345678901234567890123456789\" ]\n]",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(pretty(&value), text);
        }
    }
}
