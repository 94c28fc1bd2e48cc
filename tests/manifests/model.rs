//! Structural schemas as Kubernetes has them, held to the letter: what a schema
//! does not name is refused.

use serde_json::Value;

/// What is wrong with `value` under `schema`; nothing if all is right.
pub(crate) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, "", true, &mut found);
    found
}

/// `strict` is off inside of `oneOf` and its kin, whose parts name only what
/// they are about.
fn check(schema: &Value, value: &Value, path: &str, strict: bool, found: &mut Vec<String>) {
    let mut wrong = |what: String| found.push(format!("{path}: {value} {what}"));
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_string() && !value.is_i64() {
            wrong("is neither a whole number nor a string".to_owned());
        }
        return;
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{path}: unknown type {other} in the schema"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        wrong(format!("is not of type {}", schema["type"]));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong(format!("is none of {}", schema["enum"]));
    }
    let size = match value {
        Value::String(text) => Some(("Length", text.chars().count() as f64)),
        Value::Array(items) => Some(("Items", items.len() as f64)),
        Value::Number(number) => Some(("imum", number.as_f64().unwrap())),
        _ => None,
    };
    if let Some((limit, size)) = size {
        let bound = |side: &str| schema[format!("{side}{limit}")].as_f64();
        if bound("min").is_some_and(|least| size < least)
            || bound("max").is_some_and(|most| size > most)
        {
            wrong("is out of range".to_owned());
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.get(key.as_str().unwrap()).is_none() {
            wrong(format!("lacks {key}"));
        }
    }
    check_choices(schema, value, path, found);
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            check(
                &schema["items"],
                item,
                &format!("{path}[{index}]"),
                strict,
                found,
            );
        }
    }
    for (key, field) in value.as_object().into_iter().flatten() {
        let place = format!("{path}.{key}");
        if let Some(property) = schema["properties"].get(key) {
            check(property, field, &place, strict, found);
        } else if schema["additionalProperties"].is_object() {
            check(
                &schema["additionalProperties"],
                field,
                &place,
                strict,
                found,
            );
        } else if strict && !is_open(schema) {
            found.push(format!("{place}: unknown field"));
        }
    }
}

/// Whether fields that the schema does not name are meant to be there.
fn is_open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["additionalProperties"] == true
        // What an object of no described fields means.
        || schema["type"] == "object" && schema["properties"].is_null()
        || schema["type"].is_null()
}

fn check_choices(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let fits = |part: &Value| {
        let mut against = Vec::new();
        check(part, value, path, false, &mut against);
        against.is_empty()
    };
    let fitting = |key: &str| {
        let parts = schema[key].as_array()?;
        Some((parts.iter().filter(|part| fits(part)).count(), parts.len()))
    };
    let mut require = |holds: bool, rule: &str| {
        if !holds {
            found.push(format!("{path}: {value} breaks {rule}: {}", schema[rule]));
        }
    };
    require(fitting("oneOf").is_none_or(|(fit, _)| fit == 1), "oneOf");
    require(fitting("anyOf").is_none_or(|(fit, _)| fit > 0), "anyOf");
    require(fitting("allOf").is_none_or(|(fit, of)| fit == of), "allOf");
    require(schema["not"].is_null() || !fits(&schema["not"]), "not");
}
