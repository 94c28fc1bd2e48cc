//! Where a pool's requests show how large they are.

use super::error::Problems;
use super::json::{Json, Quoted};
use super::names;
use super::reader::{Node, Path};
use super::suggestion;

const NAMES: [&str; 2] = ["content_length", "openai"];
const KEYS: [&str; 2] = ["header", "json_pointer"];
const SOURCE: &str = "\"content_length\", \"openai\", {\"header\": ...} or {\"json_pointer\": ...}";
const HEADER: &str = "the name of a header, such as \"x-steps\"";
/// What [`JsonPointer::parse`] accepts, in words.
pub(super) const POINTER: &str = "a JSON pointer such as \"/parameters/steps\": each part after a \"/\", \
     with \"~1\" for a slash and \"~0\" for a tilde, up to 32 parts";

/// The most parts of a pointer: reading a body recurses so deep.
const MAX_PARTS: usize = 32;

/// What a request's size is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SizeSource {
    /// The header `content-length`: the bytes of the body.
    #[default]
    ContentLength,
    /// A number in the header of this name, in lower case.
    Header(String),
    /// A number, or the length of a string or an array, at a place in the JSON
    /// body.
    JsonPointer(JsonPointer),
    /// The prompt and the limits of an OpenAI-style body.
    OpenAi,
}

impl SizeSource {
    /// What tells it apart from others, as a list of names; none for the usual
    /// source.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::ContentLength => Vec::new(),
            Self::OpenAi => vec!["openai"],
            Self::Header(name) => vec!["header", name],
            Self::JsonPointer(pointer) => {
                let tokens = pointer.tokens.iter().map(String::as_str);
                ["json_pointer"].into_iter().chain(tokens).collect()
            }
        }
    }

    /// Whether the size is in the request's body.
    #[must_use]
    pub fn needs_body(&self) -> bool {
        matches!(self, Self::JsonPointer(_) | Self::OpenAi)
    }
}

/// A place in a JSON document, after RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPointer {
    tokens: Vec<String>,
}

impl JsonPointer {
    /// Reads a pointer: empty for the whole document, or parts that each begin
    /// with a slash. `None` for anything else, and for more than 32 parts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let parts = text.strip_prefix('/')?.split('/');
        let tokens: Option<Vec<String>> = parts.map(unescape).collect();
        let tokens = tokens.filter(|tokens| tokens.len() <= MAX_PARTS)?;
        Some(Self { tokens })
    }

    /// The names and indices on the way, from the document's root.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('~');
    let mut token = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (escaped, rest) = match piece.as_bytes().first() {
            Some(b'0') => ('~', piece.get(1..)),
            Some(b'1') => ('/', piece.get(1..)),
            _ => return None,
        };
        token.push(escaped);
        token.push_str(rest.unwrap_or_default());
    }
    Some(token)
}

/// Reads a source's name, or an object with the header or the pointer.
pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<SizeSource> {
    if let Json::String(text) = node.json {
        return match text.as_str() {
            "content_length" => Some(SizeSource::ContentLength),
            "openai" => Some(SizeSource::OpenAi),
            _ => {
                let allowed = suggestion::allowed(text, &NAMES);
                problems.add(
                    &node.path,
                    &format_args!(
                        "{} is not a source; {allowed}, or {{\"header\": ...}} or \
                     {{\"json_pointer\": ...}}",
                        Quoted(text)
                    ),
                );
                None
            }
        };
    }
    let object = node.object(SOURCE, problems)?;
    object.allow_only(&KEYS, problems);
    let [(key, json)] = object.entries else {
        problems.add(&object.path, &"give one of header and json_pointer");
        return None;
    };
    let path = Path::Key(&object.path, key);
    let value = Node { json, path };
    match key.as_str() {
        "header" => read_header(value, problems).map(SizeSource::Header),
        "json_pointer" => {
            let text = value.text(POINTER, problems)?;
            let pointer = JsonPointer::parse(text);
            if pointer.is_none() {
                value.refuse(&POINTER, problems);
            }
            pointer.map(SizeSource::JsonPointer)
        }
        // Told above, as an unknown key.
        _ => None,
    }
}

/// Reads the name of a header of a request, into lower case.
pub(super) fn read_header(node: Node<'_>, problems: &mut Problems) -> Option<String> {
    let name = node.text_that(names::is_token, HEADER, problems)?;
    Some(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Result<SizeSource, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        match read(Node::root(&json), &mut problems) {
            Some(source) if problems.is_empty() => Ok(source),
            _ => Err(problems.to_string()),
        }
    }

    #[test]
    fn every_source_is_read() {
        assert_eq!(source(r#""content_length""#), Ok(SizeSource::ContentLength));
        assert_eq!(source(r#""openai""#), Ok(SizeSource::OpenAi));
        assert_eq!(
            source(r#"{"header": "X-Steps"}"#),
            Ok(SizeSource::Header("x-steps".to_owned()))
        );
        let pointer = JsonPointer {
            tokens: vec!["parameters".to_owned(), "steps".to_owned()],
        };
        assert_eq!(
            source(r#"{"json_pointer": "/parameters/steps"}"#),
            Ok(SizeSource::JsonPointer(pointer))
        );
    }

    #[test]
    fn what_is_no_source_is_refused_with_those_that_are() {
        assert_eq!(
            source(r#""content-length""#).unwrap_err(),
            "configuration: \"content-length\" is not a source; did you mean content_length? \
             allowed: content_length, openai, or {\"header\": ...} or {\"json_pointer\": ...}"
        );
        assert_eq!(
            source("1").unwrap_err(),
            format!("configuration: 1 is not allowed; give {SOURCE}")
        );
        assert_eq!(
            source("{}").unwrap_err(),
            "configuration: give one of header and json_pointer"
        );
        assert_eq!(
            source(r#"{"header": "x-a", "json_pointer": ""}"#).unwrap_err(),
            "configuration: give one of header and json_pointer"
        );
        assert_eq!(
            source(r#"{"body": "a"}"#).unwrap_err(),
            "body: unknown key; allowed: header, json_pointer"
        );
        assert_eq!(
            source(r#"{"header": "x steps"}"#).unwrap_err(),
            format!("header: \"x steps\" is not allowed; give {HEADER}")
        );
    }

    #[test]
    fn pointers_keep_to_the_standard() {
        let tokens = |text: &str| JsonPointer::parse(text).map(|pointer| pointer.tokens);
        let owned = |tokens: &[&str]| Some(tokens.iter().map(|&t| t.to_owned()).collect());
        assert_eq!(tokens(""), owned(&[]));
        assert_eq!(tokens("/"), owned(&[""]));
        assert_eq!(tokens("/a/0/"), owned(&["a", "0", ""]));
        assert_eq!(tokens("/a~1b/~01/é"), owned(&["a/b", "~1", "é"]));
        for bad in ["a", "#/a", "/~", "/~2", "/a~"] {
            assert_eq!(tokens(bad), None, "{bad}");
        }
        assert!(tokens(&"/a".repeat(32)).is_some());
        assert_eq!(tokens(&"/a".repeat(33)), None);
        assert_eq!(
            source(r#"{"json_pointer": "steps"}"#).unwrap_err(),
            format!("json_pointer: \"steps\" is not allowed; give {POINTER}")
        );
    }
}
