//! Facts about a request: read from the host once, and only when needed.

mod admission;
mod arriving;
mod openai;
mod pointer;

use std::borrow::Cow;

use crate::config::{Config, ModelSource, RequestView, SizeSource};
use crate::decision::PassThrough;
use crate::host::Host;
use crate::pool::PoolIndex;

pub use admission::Said;
pub use arriving::{Arriving, Progress};
pub use openai::OpenAi;
use openai::Scalar;

/// Why a fact of a request is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It is not there: no such header or member, or no body.
    Missing,
    /// It is there and cannot be read: not a number, or not JSON.
    Malformed,
    /// The body is larger than what is waited for.
    TooLarge,
    /// The worker already keeps as much of other bodies as it may.
    NoRoom,
    /// The client sends its body only once it is asked to.
    HeldBack,
    /// The body did not come in time.
    Late,
    /// The proxy does not show bodies before it has a route.
    NotShown,
    /// A host call failed.
    HostError,
}

impl Unknown {
    /// All reasons, in the order of [`Unknown::index`].
    pub const ALL: [Unknown; 8] = [
        Unknown::Missing,
        Unknown::Malformed,
        Unknown::TooLarge,
        Unknown::NoRoom,
        Unknown::HeldBack,
        Unknown::Late,
        Unknown::NotShown,
        Unknown::HostError,
    ];

    /// The reason's place in [`Unknown::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of the reason in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Unknown::Missing => "missing",
            Unknown::Malformed => "malformed",
            Unknown::TooLarge => "too_large",
            Unknown::NoRoom => "no_room",
            Unknown::HeldBack => "held_back",
            Unknown::Late => "late",
            Unknown::NotShown => "not_shown",
            Unknown::HostError => "host_error",
        }
    }
}

/// A request's body, as far as it is known.
#[derive(Debug)]
pub enum Body {
    /// It may still come.
    ToCome,
    /// All of it.
    Whole(Vec<u8>),
    /// It will not be read.
    Unread(Unknown),
}

impl Body {
    /// All of a body.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        match bytes.is_empty() {
            true => Body::Unread(Unknown::Missing),
            false => Body::Whole(bytes),
        }
    }
}

/// A request that waits for its body before it can be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsBody;

/// One request, as a decision sees it. Headers are fetched from the host at
/// most once, and the body is read at most once for each question.
///
/// A header that the host fails to give counts as absent: the request then
/// belongs to the first pool that does not need it.
#[derive(Debug)]
pub struct Request<'a, H> {
    host: &'a mut H,
    fetched: Vec<(String, Option<Vec<u8>>)>,
    body: &'a Body,
    openai: Option<Result<OpenAi, Unknown>>,
    model_source: &'a ModelSource,
    model: Option<Result<Vec<u8>, Unknown>>,
    needs_body: bool,
}

impl<'a, H: Host> Request<'a, H> {
    /// The request that `host` is at.
    pub fn new(host: &'a mut H, model_source: &'a ModelSource, body: &'a Body) -> Self {
        Request {
            host,
            fetched: Vec::new(),
            body,
            openai: None,
            model_source,
            model: None,
            needs_body: false,
        }
    }

    /// The first pool whose match fits, or why there is none.
    ///
    /// # Errors
    /// A pool may fit or not, as the body will tell.
    pub fn pool(&mut self, config: &Config) -> Result<Result<PoolIndex, PassThrough>, NeedsBody> {
        for (number, pool) in config.pools.iter().enumerate() {
            let fits = pool.matcher.matches(self);
            if self.needs_body {
                return Err(NeedsBody);
            }
            if fits {
                return Ok(Ok(PoolIndex(number)));
            }
        }
        // The model is asked for only where all else fits.
        Ok(Err(if self.model.is_some() {
            PassThrough::UnknownModel
        } else {
            PassThrough::NoPool
        }))
    }

    /// The size, or why it is not known.
    ///
    /// # Errors
    /// The body will tell.
    pub fn size(&mut self, source: &SizeSource) -> Result<Result<f64, Unknown>, NeedsBody> {
        let size = match source {
            SizeSource::ContentLength => match self.body {
                Body::Unread(Unknown::Missing) => Err(Unknown::Missing),
                Body::Whole(bytes) => Ok(bytes.len() as f64),
                _ => self.number_in("content-length"),
            },
            SizeSource::Header(name) => self.number_in(name),
            SizeSource::JsonPointer(pointer) => match self.body {
                Body::ToCome => return Err(NeedsBody),
                Body::Unread(reason) => Err(*reason),
                Body::Whole(bytes) => pointer::size_at(bytes, pointer.tokens()),
            },
            SizeSource::OpenAi => match self.openai()? {
                Ok(facts) => facts.size().ok_or(Unknown::Missing),
                Err(reason) => Err(*reason),
            },
        };
        Ok(size)
    }

    /// Whether a body of JSON may come that is no larger than `max_bytes`.
    ///
    /// # Errors
    /// Why it will not: what there is to wait for ends with the stream, is no
    /// JSON, is too large, or comes only once the request has gone on.
    pub fn awaits_json(&mut self, max_bytes: u32) -> Result<(), Unknown> {
        if self.fetch("upgrade").is_some() {
            return Err(Unknown::Missing);
        }
        let method = self.fetch(":method");
        if method.is_some_and(|method| *method == *b"CONNECT") {
            return Err(Unknown::Missing);
        }
        let is_other = self
            .fetch("content-type")
            .is_some_and(|kind| is_no_json(&kind));
        if is_other {
            return Err(Unknown::Malformed);
        }
        match self.number_in("content-length") {
            Ok(length) if length > f64::from(max_bytes) => return Err(Unknown::TooLarge),
            _ => {}
        }
        // Envoy answers it and takes it away, unless it is to be passed on.
        match self.fetch("expect") {
            Some(_) => Err(Unknown::HeldBack),
            None => Ok(()),
        }
    }

    /// Why the model is not known, where it was asked for.
    #[must_use]
    pub fn model_unknown(&self) -> Option<Unknown> {
        self.model.as_ref()?.as_ref().err().copied()
    }

    /// What has been learned beyond headers, for people: `model=llama;
    /// stream=true`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let facts = self.openai.as_ref().and_then(|facts| facts.as_ref().ok());
        let model = match (&self.model, facts) {
            (Some(Ok(model)), _) => Some(model.as_slice()),
            (None, Some(facts)) => facts.model.as_deref().map(str::as_bytes),
            _ => None,
        };
        if let Some(model) = model {
            text.push_str("; model=");
            text.push_str(&shown(model));
        }
        if facts.is_some_and(|facts| facts.stream) {
            text.push_str("; stream=true");
        }
        text
    }

    fn fetch(&mut self, name: &str) -> Option<Cow<'_, [u8]>> {
        let place = match self.fetched.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None => {
                let value = self.host.request_header(name).unwrap_or(None);
                self.fetched.push((name.to_owned(), value));
                self.fetched.len() - 1
            }
        };
        let (_, value) = self.fetched.get(place)?;
        value.as_deref().map(Cow::Borrowed)
    }

    /// A header's value as a number that is not negative.
    fn number_in(&mut self, header: &str) -> Result<f64, Unknown> {
        let value = self.fetch(header).ok_or(Unknown::Missing)?;
        if let Some(number) = digits(&value) {
            return Ok(number);
        }
        let scalar = serde_json::from_slice::<Scalar>(&value).ok();
        let number = scalar.and_then(Scalar::number);
        number
            .filter(|number| *number >= 0.0)
            .ok_or(Unknown::Malformed)
    }

    fn openai(&mut self) -> Result<&Result<OpenAi, Unknown>, NeedsBody> {
        let body = match self.body {
            Body::ToCome => return Err(NeedsBody),
            Body::Unread(reason) => Err(*reason),
            Body::Whole(bytes) => Ok(bytes),
        };
        Ok(self
            .openai
            .get_or_insert_with(|| body.and_then(|bytes| OpenAi::parse(bytes))))
    }

    fn read_model(&mut self) -> Result<Result<Vec<u8>, Unknown>, NeedsBody> {
        let source = self.model_source;
        Ok(match source {
            ModelSource::Header(name) => {
                let value = self.fetch(name);
                value.map(Cow::into_owned).ok_or(Unknown::Missing)
            }
            ModelSource::Body => match self.openai()? {
                Ok(facts) => match &facts.model {
                    Some(model) => Ok(model.clone().into_bytes()),
                    None => Err(Unknown::Missing),
                },
                Err(reason) => Err(*reason),
            },
        })
    }
}

impl<H: Host> RequestView for Request<'_, H> {
    fn path(&mut self) -> Option<Cow<'_, [u8]>> {
        self.fetch(":path")
    }

    fn host(&mut self) -> Option<Cow<'_, [u8]>> {
        self.fetch(":authority")
    }

    fn header(&mut self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.fetch(name)
    }

    fn model(&mut self) -> Option<Cow<'_, [u8]>> {
        if self.model.is_none() {
            match self.read_model() {
                Ok(model) => self.model = Some(model),
                Err(NeedsBody) => self.needs_body = true,
            }
        }
        let model = self.model.as_ref()?.as_ref().ok()?;
        Some(Cow::Borrowed(model.as_slice()))
    }
}

/// Whether a content type says that the body is something else than JSON.
/// Clients say so many things of JSON that only the clear cases count: forms
/// with files, sounds and pictures, and streams that go both ways.
fn is_no_json(content_type: &[u8]) -> bool {
    let others: [&[u8]; 6] = [
        b"multipart/",
        b"application/grpc",
        b"application/octet-stream",
        b"audio/",
        b"image/",
        b"video/",
    ];
    others.iter().any(|other| {
        let start = content_type.get(..other.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(other))
    })
}

/// How many bytes of a client's words are repeated.
const SHOWN_BYTES: usize = 64;

/// A client's words in a response header: visible ASCII without separators.
fn shown(text: &[u8]) -> String {
    let shown = |byte: &u8| match *byte {
        byte if byte.is_ascii_graphic() && byte != b';' => char::from(byte),
        _ => '_',
    };
    text.iter().take(SHOWN_BYTES).map(shown).collect()
}

/// A plain whole number of at most fifteen digits, as sizes are: it is exact, and
/// found without a parser.
fn digits(value: &[u8]) -> Option<f64> {
    if value.is_empty() || value.len() > 15 || (value.len() > 1 && value.first() == Some(&b'0')) {
        return None;
    }
    let mut number = 0u64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    Some(number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_their_index() {
        for (place, reason) in Unknown::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
        }
    }

    #[test]
    fn only_what_is_clearly_no_json_is_not_waited_for() {
        for kind in [
            "multipart/form-data; boundary=x",
            "Application/gRPC+proto",
            "audio/wav",
        ] {
            assert!(is_no_json(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "application/json",
            "application/x-www-form-urlencoded",
            "",
            "\u{e9}",
            "audio",
        ] {
            assert!(!is_no_json(kind.as_bytes()), "{kind}");
        }
    }

    #[test]
    fn what_a_client_says_cannot_break_a_header() {
        assert_eq!(shown(b"org/llama-3.1:8b"), "org/llama-3.1:8b");
        assert_eq!(shown(b"a;b\r\nx: y\xff"), "a_b__x:_y_");
        assert_eq!(shown(&[b'a'; 100]).len(), SHOWN_BYTES);
    }
}
