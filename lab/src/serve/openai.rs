//! The OpenAI-style API: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, ApiError, BYTES_PER_TOKEN, Failure, json, text};
use super::connection::ResetSwitch;
use super::replica::{Demand, Replica};
use super::request::{
    DEFAULT_OUTPUT_TOKENS, SizeHeaders, parse, read_body, tokens, tokens_of_bytes,
};
use super::sse::{Chunks, TokenStream};
use crate::model::Kind;

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
}

/// What is read of a request; all that changes no token count is left to real models.
#[derive(Deserialize)]
struct CompletionRequest {
    model: Option<String>,
    messages: Option<Vec<Message>>,
    prompt: Option<TextBytes>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    n: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: TextBytes,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Answers a completion request.
pub(super) async fn complete(
    api: Api,
    replica: &Arc<Replica>,
    request: Request<Incoming>,
    reset: &ResetSwitch,
) -> Result<Answer, Failure> {
    let headers = SizeHeaders::of(request.headers())?;
    let asked: CompletionRequest = parse(&read_body(request).await?)?;
    let plan = Plan::of(api, &asked, &headers, &replica.spec().model)?;
    if asked.stream.unwrap_or(false) {
        stream(plan, replica, &asked, reset)
    } else {
        whole(&plan, replica).await
    }
}

/// `/v1/models`: the one that the server has.
pub(super) fn models(replica: &Replica) -> Answer {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'a str,
        data: [Model<'a>; 1],
    }
    #[derive(Serialize)]
    struct Model<'a> {
        id: &'a str,
        object: &'a str,
        created: u64,
        owned_by: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_model_len: Option<u32>,
    }
    let max_model_len = match &replica.spec().kind {
        Kind::Batching(batching) => Some(batching.kv_tokens.get()),
        Kind::Slots(_) => None,
    };
    let model = Model {
        id: &replica.spec().model,
        object: "model",
        created: unix_seconds(),
        owned_by: "paceline-lab",
        max_model_len,
    };
    let list = List {
        object: "list",
        data: [model],
    };
    json(StatusCode::OK, &list)
}

/// A request that has been understood.
struct Plan {
    api: Api,
    model: String,
    demand: Demand,
    finish_reason: &'static str,
}

impl Plan {
    fn of(
        api: Api,
        asked: &CompletionRequest,
        headers: &SizeHeaders,
        model: &str,
    ) -> Result<Self, ApiError> {
        if let Some(other) = asked.model.as_deref().filter(|asked| *asked != model) {
            return Err(ApiError {
                code: Some("model_not_found"),
                param: Some("model".to_owned()),
                ..ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!("model: {other:?} is not here, {model:?} is"),
                )
            });
        }
        if let Some(n) = asked.n.filter(|n| *n != 1) {
            let message = format!("n: {n} is not allowed, these servers generate 1 answer");
            return Err(ApiError::invalid("n", message));
        }
        let prompt_bytes = prompt_bytes(api, asked)?;
        let (field, limit) = match (api, asked.max_completion_tokens) {
            (Api::Chat, Some(limit)) => ("max_completion_tokens", Some(limit)),
            (Api::Chat | Api::Completions, _) => ("max_tokens", asked.max_tokens),
        };
        if limit == Some(0) {
            let message = format!("{field}: 0 is not allowed, 1 or more is");
            return Err(ApiError::invalid(field, message));
        }
        let limit = tokens(field, limit)?;
        // The header says where the answer would end by itself, the field where it is cut off.
        let (output_tokens, finish_reason) = match (headers.output_tokens, limit) {
            (Some(natural), Some(limit)) if natural > limit => (limit, "length"),
            (Some(natural), _) => (natural, "stop"),
            (None, Some(limit)) => (limit, "length"),
            (None, None) => (DEFAULT_OUTPUT_TOKENS, "stop"),
        };
        let prompt_tokens = headers.prompt_tokens;
        Ok(Self {
            api,
            model: model.to_owned(),
            demand: Demand {
                prompt_tokens: prompt_tokens.unwrap_or_else(|| tokens_of_bytes(prompt_bytes)),
                output_tokens: output_tokens.max(1),
                service: headers.service,
            },
            finish_reason,
        })
    }

    fn usage(&self) -> Usage {
        let Demand {
            prompt_tokens,
            output_tokens,
            ..
        } = self.demand;
        Usage {
            prompt_tokens,
            completion_tokens: output_tokens,
            total_tokens: u64::from(prompt_tokens) + u64::from(output_tokens),
        }
    }
}

fn prompt_bytes(api: Api, asked: &CompletionRequest) -> Result<u64, ApiError> {
    match api {
        Api::Chat => match asked.messages.as_deref() {
            None | Some([]) => {
                let message = "messages: an array of one or more messages is needed";
                Err(ApiError::invalid("messages", message))
            }
            Some(messages) => Ok(messages.iter().map(|message| message.content.0).sum()),
        },
        Api::Completions => asked.prompt.map(|prompt| prompt.0).ok_or_else(|| {
            let message = "prompt: a string, or an array of strings or tokens, is needed";
            ApiError::invalid("prompt", message)
        }),
    }
}

async fn whole(plan: &Plan, replica: &Arc<Replica>) -> Result<Answer, Failure> {
    replica.run(plan.demand).await??;
    let text = text(plan.demand.output_tokens);
    let choice = match plan.api {
        Api::Chat => Choice {
            message: Some(Delta {
                role: Some("assistant"),
                content: Some(text.as_str()),
            }),
            ..Choice::new(Some(plan.finish_reason))
        },
        Api::Completions => Choice {
            text: Some(text.as_str()),
            ..Choice::new(Some(plan.finish_reason))
        },
    };
    let completion = Completion {
        id: &plan.api.id(unix_nanos()),
        object: match plan.api {
            Api::Chat => "chat.completion",
            Api::Completions => "text_completion",
        },
        created: unix_seconds(),
        model: &plan.model,
        choices: &[choice],
        usage: Some(plan.usage()),
    };
    Ok(json(StatusCode::OK, &completion))
}

/// The head goes out at once, as vLLM's does; the first event comes with the first token.
fn stream(
    plan: Plan,
    replica: &Arc<Replica>,
    asked: &CompletionRequest,
    reset: &ResetSwitch,
) -> Result<Answer, Failure> {
    let (ticket, progress) = replica.stream(plan.demand)?;
    let options = asked.stream_options.as_ref();
    let chunks = Box::new(CompletionChunks {
        id: plan.api.id(u128::from(ticket.job().0)),
        created: unix_seconds(),
        include_usage: options.is_some_and(|options| options.include_usage),
        plan,
    });
    let body = TokenStream::new(progress, ticket, chunks, reset.clone());
    let mut answer = Response::new(Either::Right(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

impl Api {
    fn id(self, number: u128) -> String {
        match self {
            Self::Chat => format!("chatcmpl-{number:x}"),
            Self::Completions => format!("cmpl-{number:x}"),
        }
    }
}

struct CompletionChunks {
    plan: Plan,
    id: String,
    created: u64,
    include_usage: bool,
}

impl CompletionChunks {
    fn tokens(&self, role: Option<&'static str>, text: &str) -> Bytes {
        let choice = match self.plan.api {
            Api::Chat => Choice {
                delta: Some(Delta {
                    role,
                    content: Some(text),
                }),
                ..Choice::new(None)
            },
            Api::Completions => Choice {
                text: Some(text),
                ..Choice::new(None)
            },
        };
        Bytes::from(self.event(&[choice], None))
    }

    fn event(&self, choices: &[Choice<'_>], usage: Option<Usage>) -> String {
        let completion = Completion {
            id: &self.id,
            object: match self.plan.api {
                Api::Chat => "chat.completion.chunk",
                Api::Completions => "text_completion",
            },
            created: self.created,
            model: &self.plan.model,
            choices,
            usage,
        };
        // Nothing in it could fail to be JSON.
        let json = serde_json::to_string(&completion).unwrap_or_default();
        format!("data: {json}\n\n")
    }
}

impl Chunks for CompletionChunks {
    fn first(&self, text: &str) -> Bytes {
        self.tokens(Some("assistant"), text)
    }

    fn next(&self, text: &str) -> Bytes {
        self.tokens(None, text)
    }

    fn last(&self) -> Bytes {
        let mut choice = Choice::new(Some(self.plan.finish_reason));
        match self.plan.api {
            Api::Chat => choice.delta = Some(Delta::default()),
            Api::Completions => choice.text = Some(""),
        }
        let mut events = self.event(&[choice], None);
        if self.include_usage {
            events += &self.event(&[], Some(self.plan.usage()));
        }
        events += "data: [DONE]\n\n";
        Bytes::from(events)
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// One of `message`, `delta` and `text` is there.
#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl Choice<'_> {
    fn new(finish_reason: Option<&'static str>) -> Self {
        Self {
            index: 0,
            message: None,
            delta: None,
            text: None,
            logprobs: None,
            finish_reason,
        }
    }
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Clone, Copy, Serialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
}

fn since_epoch() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

fn unix_nanos() -> u128 {
    since_epoch().as_nanos()
}

/// The bytes of the text in a prompt or a message, whatever its form: a string, an array of strings or of
/// parts with a `text`, or an array of tokens (four bytes each). The text itself is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TextBytes(u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextBytes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, an array of strings, text parts or tokens, or null")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextBytes, E> {
        Ok(TextBytes(text.len() as u64))
    }

    fn visit_u64<E>(self, _token: u64) -> Result<TextBytes, E> {
        Ok(TextBytes(BYTES_PER_TOKEN))
    }

    fn visit_unit<E>(self) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<TextBytes, A::Error> {
        let mut total = 0;
        while let Some(TextBytes(bytes)) = parts.next_element()? {
            total += bytes;
        }
        Ok(TextBytes(total))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut part: A) -> Result<TextBytes, A::Error> {
        let mut total = 0;
        while let Some(key) = part.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "text" {
                total += part.next_value::<TextBytes>()?.0;
            } else {
                part.next_value::<IgnoredAny>()?;
            }
        }
        Ok(TextBytes(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_counted_in_all_its_forms() {
        let bytes = |json: &str| serde_json::from_str::<TextBytes>(json).unwrap().0;
        assert_eq!(bytes(r#""four""#), 4);
        assert_eq!(bytes(r#"["one", "three"]"#), 8);
        assert_eq!(bytes("[1, 2, 3]"), 12);
        assert_eq!(bytes("[[1], [2, 3]]"), 12);
        assert_eq!(bytes("null"), 0);
        let parts = r#"[{"type": "text", "text": "12345"}, {"type": "image_url", "image_url": {"url": "x"}}]"#;
        assert_eq!(bytes(parts), 5);
        assert!(serde_json::from_str::<TextBytes>("true").is_err());
    }
}
