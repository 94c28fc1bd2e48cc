//! Which requests a pool's own fallback route takes: those that its `match` takes,
//! in Envoy's words.

use std::fmt::Write as _;

use paceline::config::{HeaderMatch, HostMatch, Match, ModelMatch, ValueMatch};

use super::scalar::{quoted, scalar};

/// What Envoy's route asks of a request.
pub(super) struct RouteMatch {
    /// How the path begins.
    pub(super) prefix: String,
    /// Conditions on headers, each as YAML.
    pub(super) headers: Vec<String>,
}

/// The same conditions as the pool's, with the model in `model_header`.
pub(super) fn route_match(matcher: &Match, model_header: &str) -> RouteMatch {
    let mut headers = Vec::new();
    headers.extend(matcher.host.as_ref().map(host));
    headers.extend(matcher.headers.iter().map(header));
    headers.extend(matcher.model.as_ref().map(|it| model(it, model_header)));
    RouteMatch {
        prefix: matcher
            .path_prefix
            .clone()
            .unwrap_or_else(|| "/".to_owned()),
        headers,
    }
}

fn host(host: &HostMatch) -> String {
    // Of the authority, which may have a port, and a dot after the name.
    let name = match host {
        HostMatch::Exact(name) => literal(name),
        HostMatch::Suffix(suffix) => format!(".+{}", literal(suffix)),
    };
    on(":authority", &regex(&format!("(?i){name}\\.?(:[0-9]+)?")))
}

fn header(header: &HeaderMatch) -> String {
    match &header.value {
        ValueMatch::Exact(value) => on(&header.name, &exact(value)),
        ValueMatch::Prefix(value) => on(&header.name, &prefix(value)),
        ValueMatch::Present => format!("{{ name: {}, present_match: true }}", scalar(&header.name)),
    }
}

fn model(model: &ModelMatch, header: &str) -> String {
    match model {
        ModelMatch::AnyOf(names) => match names.as_slice() {
            [name] => on(header, &exact(name)),
            names => {
                let names: Vec<_> = names.iter().map(|name| literal(name)).collect();
                on(header, &regex(&names.join("|")))
            }
        },
        ModelMatch::Prefix(value) => on(header, &prefix(value)),
    }
}

fn on(header: &str, condition: &str) -> String {
    format!(
        "{{ name: {}, string_match: {{ {condition} }} }}",
        scalar(header)
    )
}

fn exact(value: &str) -> String {
    format!("exact: {}", scalar(value))
}

fn prefix(value: &str) -> String {
    format!("prefix: {}", scalar(value))
}

/// A regular expression of RE2 for the whole value.
fn regex(text: &str) -> String {
    format!("safe_regex: {{ regex: {} }}", quoted(text))
}

/// The expression that matches this text alone.
fn literal(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\x{:02x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
        .replace("\\x2d", "-")
        .replace("\\x2e", "\\.")
        .replace("\\x2f", "/")
}
