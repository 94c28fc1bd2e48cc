//! The OpenAI-style API: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

use std::sync::Arc;

use http_body_util::Either;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, ApiError, Failure, json};
use super::completion::{Api, Completion, since_epoch};
use super::connection::ResetSwitch;
use super::replica::{Demand, Replica};
use super::request::{
    DEFAULT_OUTPUT_TOKENS, SizeHeaders, parse, read_body, tokens, tokens_of_bytes,
};
use super::sse::TokenStream;
use super::text_bytes::TextBytes;
use crate::model::Kind;

/// What is read of a request; all that changes no token count is left to real models.
#[derive(Deserialize)]
struct Asked {
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
    let asked: Asked = parse(&read_body(request).await?)?;
    let (demand, completion) = asked.plan(api, &headers, &replica.spec().model)?;
    if asked.stream.unwrap_or(false) {
        stream(replica, demand, completion, reset)
    } else {
        replica.run(demand).await??;
        Ok(completion.whole())
    }
}

/// The head goes out at once, as vLLM's does; the first event comes with the first token.
fn stream(
    replica: &Arc<Replica>,
    demand: Demand,
    completion: Completion,
    reset: &ResetSwitch,
) -> Result<Answer, Failure> {
    let (ticket, progress) = replica.stream(demand)?;
    let body = TokenStream::new(progress, ticket, Box::new(completion), reset.clone());
    let mut answer = Response::new(Either::Right(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answer)
}

impl Asked {
    /// The work to be done, and the answer to be given when it is.
    fn plan(
        &self,
        api: Api,
        headers: &SizeHeaders,
        model: &str,
    ) -> Result<(Demand, Completion), ApiError> {
        self.check_model(model)?;
        if let Some(n) = self.n.filter(|n| *n != 1) {
            let message = format!("n: {n} is not allowed, these servers generate 1 answer");
            return Err(ApiError::invalid("n", message));
        }
        let prompt_tokens = tokens_of_bytes(self.prompt_bytes(api)?);
        let (output_tokens, finish_reason) = self.output(api, headers)?;
        let demand = Demand {
            prompt_tokens: headers.prompt_tokens.unwrap_or(prompt_tokens),
            output_tokens,
            service: headers.service,
            size: headers.size,
        };
        let sizes = (demand.prompt_tokens, demand.output_tokens);
        let options = self.stream_options.as_ref();
        let include_usage = options.is_some_and(|options| options.include_usage);
        let completion = Completion::new(api, model, sizes, finish_reason, include_usage);
        Ok((demand, completion))
    }

    fn check_model(&self, model: &str) -> Result<(), ApiError> {
        match self.model.as_deref() {
            Some(other) if other != model => Err(ApiError {
                code: Some("model_not_found"),
                param: Some("model".to_owned()),
                ..ApiError::new(
                    StatusCode::NOT_FOUND,
                    format!("model: {other:?} is not here, {model:?} is"),
                )
            }),
            _ => Ok(()),
        }
    }

    fn prompt_bytes(&self, api: Api) -> Result<u64, ApiError> {
        match api {
            Api::Chat => match self.messages.as_deref() {
                None | Some([]) => {
                    let message = "messages: an array of one or more messages is needed";
                    Err(ApiError::invalid("messages", message))
                }
                Some(messages) => Ok(messages.iter().map(|message| message.content.0).sum()),
            },
            Api::Completions => self.prompt.map(|prompt| prompt.0).ok_or_else(|| {
                let message = "prompt: a string, or an array of strings or tokens, is needed";
                ApiError::invalid("prompt", message)
            }),
        }
    }

    /// How many tokens come out, and why no more: the header says where the answer would end by itself, the field where it is cut off.
    fn output(&self, api: Api, headers: &SizeHeaders) -> Result<(u32, &'static str), ApiError> {
        let (field, limit) = match (api, self.max_completion_tokens) {
            (Api::Chat, Some(limit)) => ("max_completion_tokens", Some(limit)),
            (Api::Chat | Api::Completions, _) => ("max_tokens", self.max_tokens),
        };
        if limit == Some(0) {
            let message = format!("{field}: 0 is not allowed, 1 or more is");
            return Err(ApiError::invalid(field, message));
        }
        let limit = tokens(field, limit)?;
        Ok(match (headers.output_tokens, limit) {
            (Some(natural), Some(limit)) if natural > limit => (limit, "length"),
            (Some(natural), _) => (natural.max(1), "stop"),
            (None, Some(limit)) => (limit, "length"),
            (None, None) => (DEFAULT_OUTPUT_TOKENS, "stop"),
        })
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
        created: since_epoch().as_secs(),
        owned_by: "paceline-lab",
        max_model_len,
    };
    let list = List {
        object: "list",
        data: [model],
    };
    json(StatusCode::OK, &list)
}
