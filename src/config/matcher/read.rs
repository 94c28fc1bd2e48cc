//! Reads the `match` of a pool.

use super::super::error::Problems;
use super::super::json::Json;
use super::super::names;
use super::super::reader::{FirstUses, Node, Object, Path};
use super::{HeaderMatch, HostMatch, Match, ModelMatch, ValueMatch};

const PATH_PREFIX: &str = "a path that begins with \"/\", in visible ASCII and without \"?\" or \
     \"#\": the query is not compared";
const HOST: &str = "a host name or \"*.\" and a domain, without a port";
const HEADER_NAME: &str = "a condition on \":method\" or on an ordinary header; path and host \
     have their own keys, path_prefix and host";
const CONDITION: &str =
    "the exact value, {\"exact\": ...}, {\"prefix\": ...} or {\"present\": true}";
const EXACT: &str = "a value without control characters or a space at either end";
const MODEL: &str = "a model's name, an array of names, {\"exact\": ...} or {\"prefix\": ...}";
const MODELS: &str = "an array of at least one model's name";
const MODEL_NAME: &str = "a model's name: at least one character, no control characters and no \
     space at either end";
const PREFIX: &str = "how the value begins: at least one character, no control characters and \
     no space in front; {\"present\": true} matches any value";

/// Reads conditions; those that are refused are left out.
pub(in super::super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<Match> {
    let allowed = "an object with path_prefix, host, headers or model";
    let object = node.object(allowed, problems)?;
    object.allow_only(&["path_prefix", "host", "headers", "model"], problems);

    let path_prefix = object
        .get("path_prefix")
        .and_then(|node| node.text_that(is_path_prefix, PATH_PREFIX, problems))
        .map(str::to_owned);
    let host = object
        .get("host")
        .and_then(|node| read_host(node, problems));
    let headers = object
        .get("headers")
        .map(|node| read_headers(node, problems))
        .unwrap_or_default();
    let model = object
        .get("model")
        .and_then(|node| read_model(node, problems));
    Some(Match {
        path_prefix,
        host,
        headers,
        model,
    })
}

/// Reads a model's name, some names, or an object as for a header.
fn read_model(node: Node<'_>, problems: &mut Problems) -> Option<ModelMatch> {
    match node.json {
        Json::String(_) => {
            read_model_name(node, problems).map(|name| ModelMatch::AnyOf(vec![name]))
        }
        Json::Array(_) => {
            let items = node.items(MODELS, problems)?;
            let mut seen = FirstUses::default();
            let mut names = Vec::with_capacity(items.len());
            for (index, json) in items.iter().enumerate() {
                let path = Path::Index(&node.path, index);
                let Some(name) = read_model_name(Node { json, path }, problems) else {
                    continue;
                };
                if seen.earlier(&name, index).is_some() {
                    problems.add(&path, &"named before; name a model once");
                }
                names.push(name);
            }
            Some(ModelMatch::AnyOf(names))
        }
        _ => {
            let object = node.object(MODEL, problems)?;
            object.allow_only(&["exact", "prefix"], problems);
            let [(key, json)] = object.entries else {
                problems.add(&object.path, &"give one of exact and prefix");
                return None;
            };
            let path = Path::Key(&object.path, key);
            let name = Node { json, path };
            match key.as_str() {
                "exact" => {
                    read_model_name(name, problems).map(|name| ModelMatch::AnyOf(vec![name]))
                }
                "prefix" => read_model_name(name, problems).map(ModelMatch::Prefix),
                // Told above, as an unknown key.
                _ => None,
            }
        }
    }
}

fn read_model_name(node: Node<'_>, problems: &mut Problems) -> Option<String> {
    let name = node.text_that(is_model_name, MODEL_NAME, problems)?;
    Some(name.to_owned())
}

/// Whether a body or a header can name such a model.
fn is_model_name(text: &str) -> bool {
    is_header_value(text) && !text.is_empty()
}

fn is_path_prefix(text: &str) -> bool {
    let comparable = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    text.starts_with('/') && text.bytes().all(comparable)
}

fn read_host(node: Node<'_>, problems: &mut Problems) -> Option<HostMatch> {
    let text = node
        .text_that(is_host, HOST, problems)?
        .to_ascii_lowercase();
    Some(match text.strip_prefix('*') {
        Some(suffix) => HostMatch::Suffix(suffix.to_owned()),
        None => HostMatch::Exact(text),
    })
}

fn is_host(text: &str) -> bool {
    let address = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        let allowed = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        return address.contains(':') && address.bytes().all(allowed);
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(allowed))
}

fn read_headers(node: Node<'_>, problems: &mut Problems) -> Vec<HeaderMatch> {
    let allowed = "an object of header names and conditions";
    let Some(object) = node.object(allowed, problems) else {
        return Vec::new();
    };
    let mut names = FirstUses::default();
    let mut headers = Vec::with_capacity(object.entries.len());
    for (index, (key, json)) in object.entries.iter().enumerate() {
        let name = key.to_ascii_lowercase();
        let path = Path::Key(&object.path, key);
        if !is_header_name(&name) {
            problems.add(
                &path,
                &format_args!("not a header to match; give {HEADER_NAME}"),
            );
            continue;
        }
        if let Some(first) = names.earlier(&name, index) {
            refuse_second_spelling(&object, first, key, problems);
        }
        let value = read_condition(Node { json, path }, problems);
        headers.extend(value.map(|value| HeaderMatch { name, value }));
    }
    headers
}

/// Whether a request can have a header of this name. In Envoy the host stands
/// in `:authority`, never in `host`.
fn is_header_name(name: &str) -> bool {
    name == ":method" || (names::is_token(name) && name != "host")
}

/// Refuses a header that stands twice, in upper and lower case. The same
/// spelling twice is a repeated key, and told as that.
fn refuse_second_spelling(
    headers: &Object<'_>,
    first: usize,
    second: &str,
    problems: &mut Problems,
) {
    let first = headers.entries.get(first).map(|(key, _)| key.as_str());
    if let Some(first) = first.filter(|first| *first != second) {
        problems.add(
            &Path::Key(&headers.path, second),
            &format_args!("the same header as {first}: case does not count; give it once"),
        );
    }
}

fn read_condition(node: Node<'_>, problems: &mut Problems) -> Option<ValueMatch> {
    if let Json::String(_) = node.json {
        return read_exact(node, problems);
    }
    let object = node.object(CONDITION, problems)?;
    object.allow_only(&["exact", "prefix", "present"], problems);
    match object.entries {
        [(key, json)] => {
            let path = Path::Key(&object.path, key);
            let value = Node { json, path };
            match key.as_str() {
                "exact" => read_exact(value, problems),
                "prefix" => read_prefix(value, problems),
                "present" => read_present(value, problems),
                // Told above, as an unknown key.
                _ => None,
            }
        }
        _ => {
            problems.add(&object.path, &"give one of exact, prefix and present");
            None
        }
    }
}

fn read_exact(node: Node<'_>, problems: &mut Problems) -> Option<ValueMatch> {
    let text = node.text_that(is_header_value, EXACT, problems)?;
    Some(ValueMatch::Exact(text.to_owned()))
}

fn read_prefix(node: Node<'_>, problems: &mut Problems) -> Option<ValueMatch> {
    let text = node.text_that(is_value_prefix, PREFIX, problems)?;
    Some(ValueMatch::Prefix(text.to_owned()))
}

fn read_present(node: Node<'_>, problems: &mut Problems) -> Option<ValueMatch> {
    if let Json::Bool(true) = node.json {
        return Some(ValueMatch::Present);
    }
    node.refuse(&"true", problems);
    None
}

/// Whether a header can have this value: HTTP drops the space around it.
fn is_header_value(text: &str) -> bool {
    text.is_empty() || (is_value_prefix(text) && !text.ends_with(' '))
}

fn is_value_prefix(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(' ') && !text.bytes().any(|byte| byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Match, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        match read(Node::root(&json), &mut problems) {
            Some(conditions) if problems.is_empty() => Ok(conditions),
            _ => Err(problems.to_string()),
        }
    }

    fn header(name: &str, value: ValueMatch) -> HeaderMatch {
        HeaderMatch {
            name: name.to_owned(),
            value,
        }
    }

    #[test]
    fn an_empty_match_is_a_catch_all() {
        assert!(parse("{}").unwrap().is_catch_all());
        assert!(parse(r#"{"headers": {}}"#).unwrap().is_catch_all());
    }

    #[test]
    fn every_condition_is_read() {
        let json = r#"{
            "path_prefix": "/v1/chat",
            "host": "*.Models.example.com",
            "model": {"prefix": "llama-"},
            "headers": {
                "X-Tenant": "a b",
                "x-model": {"prefix": "llama "},
                "x-any": {"present": true},
                "x-empty": {"exact": ""},
                ":method": {"exact": "POST"}
            }
        }"#;
        let expected = Match {
            path_prefix: Some("/v1/chat".to_owned()),
            host: Some(HostMatch::Suffix(".models.example.com".to_owned())),
            headers: vec![
                header("x-tenant", ValueMatch::Exact("a b".to_owned())),
                header("x-model", ValueMatch::Prefix("llama ".to_owned())),
                header("x-any", ValueMatch::Present),
                header("x-empty", ValueMatch::Exact(String::new())),
                header(":method", ValueMatch::Exact("POST".to_owned())),
            ],
            model: Some(ModelMatch::Prefix("llama-".to_owned())),
        };
        assert_eq!(parse(json), Ok(expected));
    }

    #[test]
    fn models_are_a_name_some_names_or_how_a_name_begins() {
        let model = |json: &str| parse(&format!("{{\"model\": {json}}}")).map(|read| read.model);
        let any = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            Ok(Some(ModelMatch::AnyOf(names)))
        };
        assert_eq!(model(r#""a""#), any(&["a"]));
        assert_eq!(model(r#"{"exact": "a"}"#), any(&["a"]));
        assert_eq!(model(r#"["a", "B b"]"#), any(&["a", "B b"]));
        for (json, said) in [
            (
                "[]",
                format!("model: an empty array is not allowed; give {MODELS}"),
            ),
            ("1", format!("model: 1 is not allowed; give {MODEL}")),
            (
                "\"\"",
                format!("model: \"\" is not allowed; give {MODEL_NAME}"),
            ),
            (
                r#"["a", " b"]"#,
                format!("model[1]: \" b\" is not allowed; give {MODEL_NAME}"),
            ),
            (
                r#"["a", "a"]"#,
                "model[1]: named before; name a model once".to_owned(),
            ),
            ("{}", "model: give one of exact and prefix".to_owned()),
            (
                r#"{"present": true}"#,
                "model.present: unknown key; allowed: exact, prefix".to_owned(),
            ),
        ] {
            assert_eq!(model(json).unwrap_err(), said);
        }
    }

    #[test]
    fn path_prefixes_that_match_nothing_are_refused() {
        for prefix in ["", "v1", "/v1?x=1", "/v1#a", "/a b", "/ä"] {
            let said = parse(&format!("{{\"path_prefix\": \"{prefix}\"}}")).unwrap_err();
            assert!(said.starts_with("path_prefix: \""), "{said}");
            assert!(said.ends_with(&format!("give {PATH_PREFIX}")), "{said}");
        }
    }

    #[test]
    fn hosts_are_names_addresses_or_domains() {
        for host in ["localhost", "a.example.com", "10.0.0.1", "[::1]", "a_b.c-d"] {
            let expected = Some(HostMatch::Exact(host.to_owned()));
            let parsed = parse(&format!("{{\"host\": \"{host}\"}}")).unwrap();
            assert_eq!(parsed.host, expected);
        }
    }

    #[test]
    fn hosts_that_match_nothing_are_refused() {
        for host in [
            "",
            "*",
            "*.",
            "*example.com",
            "a.*.com",
            "a.com:80",
            "a.com.",
            ".a.com",
            "a b",
            "ä.com",
            "::1",
            "[]",
            "[::1]:80",
            "http://a.com",
        ] {
            let said = parse(&format!("{{\"host\": \"{host}\"}}")).unwrap_err();
            assert!(said.ends_with(&format!("give {HOST}")), "{said}");
        }
    }

    #[test]
    fn headers_that_no_request_has_are_refused() {
        for name in ["", "host", "Host", ":path", ":authority", "x y", "x:", "ä"] {
            let said = parse(&format!("{{\"headers\": {{\"{name}\": \"v\"}}}}")).unwrap_err();
            assert!(said.starts_with("headers"), "{said}");
            assert!(said.ends_with(&format!("not a header to match; give {HEADER_NAME}")));
        }
    }

    #[test]
    fn values_that_no_header_has_are_refused() {
        for (condition, allowed) in [
            (r#"" a""#, EXACT),
            (r#""a ""#, EXACT),
            (r#""a\nb""#, EXACT),
            (r#"{"exact": "\u007f"}"#, EXACT),
            (r#"{"exact": 1}"#, EXACT),
            (r#"{"prefix": ""}"#, PREFIX),
            (r#"{"prefix": " a"}"#, PREFIX),
            (r#"{"present": false}"#, "true"),
            ("1", CONDITION),
            ("[]", CONDITION),
        ] {
            let said = parse(&format!("{{\"headers\": {{\"x-a\": {condition}}}}}")).unwrap_err();
            assert!(said.starts_with("headers.x-a"), "{said}");
            assert!(
                said.ends_with(&format!("is not allowed; give {allowed}")),
                "{said}"
            );
        }
    }

    #[test]
    fn a_condition_is_one_thing() {
        assert_eq!(
            parse(r#"{"headers": {"x-a": {}}}"#).unwrap_err(),
            "headers.x-a: give one of exact, prefix and present"
        );
        assert_eq!(
            parse(r#"{"headers": {"x-a": {"exact": "a", "prefix": "a"}}}"#).unwrap_err(),
            "headers.x-a: give one of exact, prefix and present"
        );
        assert_eq!(
            parse(r#"{"headers": {"x-a": {"regex": "a"}}}"#).unwrap_err(),
            "headers.x-a.regex: unknown key; allowed: exact, prefix, present"
        );
    }

    #[test]
    fn a_header_stands_once_whatever_its_case() {
        assert_eq!(
            parse(r#"{"headers": {"X-A": "1", "x-a": "2"}}"#).unwrap_err(),
            "headers.x-a: the same header as X-A: case does not count; give it once"
        );
    }

    #[test]
    fn all_problems_of_a_match_are_told() {
        let json = r#"{"path": "/", "host": 1, "headers": {"x-a": null, "x-b": null}}"#;
        let said = parse(json).unwrap_err();
        assert!(
            said.starts_with("4 problems:\n  path: unknown key; "),
            "{said}"
        );
    }
}
