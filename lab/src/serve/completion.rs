//! What an OpenAI-style API answers: one object, or a stream of chunks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;

use super::answer::{Answer, json};
use super::sse::Chunks;
use super::token_text::text;

/// Which of the two APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
}

/// An answer, known in full before it is generated.
#[derive(Debug)]
pub(super) struct Completion {
    api: Api,
    id: String,
    created: u64,
    model: String,
    prompt_tokens: u32,
    output_tokens: u32,
    finish_reason: &'static str,
    /// Whether a stream tells of its usage.
    include_usage: bool,
}

impl Completion {
    pub(super) fn new(
        api: Api,
        model: &str,
        (prompt_tokens, output_tokens): (u32, u32),
        finish_reason: &'static str,
        include_usage: bool,
    ) -> Self {
        let now = since_epoch();
        let number = now.as_nanos();
        Self {
            api,
            id: match api {
                Api::Chat => format!("chatcmpl-{number:x}"),
                Api::Completions => format!("cmpl-{number:x}"),
            },
            created: now.as_secs(),
            model: model.to_owned(),
            prompt_tokens,
            output_tokens,
            finish_reason,
            include_usage,
        }
    }

    /// The answer in one piece.
    pub(super) fn whole(&self) -> Answer {
        let text = text(self.output_tokens);
        let mut choice = Choice::new(Some(self.finish_reason));
        match self.api {
            Api::Chat => {
                choice.message = Some(Delta {
                    role: Some("assistant"),
                    content: Some(text.as_str()),
                });
            }
            Api::Completions => choice.text = Some(text.as_str()),
        }
        let object = match self.api {
            Api::Chat => "chat.completion",
            Api::Completions => "text_completion",
        };
        json(
            StatusCode::OK,
            &self.object(object, &[choice], Some(self.usage())),
        )
    }

    fn tokens(&self, role: Option<&'static str>, text: &str) -> Bytes {
        let mut choice = Choice::new(None);
        match self.api {
            Api::Chat => {
                choice.delta = Some(Delta {
                    role,
                    content: Some(text),
                });
            }
            Api::Completions => choice.text = Some(text),
        }
        Bytes::from(self.event(&[choice], None))
    }

    fn event(&self, choices: &[Choice<'_>], usage: Option<Usage>) -> String {
        let object = match self.api {
            Api::Chat => "chat.completion.chunk",
            Api::Completions => "text_completion",
        };
        // Nothing in it could fail to be JSON.
        let json = serde_json::to_string(&self.object(object, choices, usage)).unwrap_or_default();
        format!("data: {json}\n\n")
    }

    fn object<'a>(
        &'a self,
        object: &'a str,
        choices: &'a [Choice<'a>],
        usage: Option<Usage>,
    ) -> Object<'a> {
        Object {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            choices,
            usage,
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.output_tokens,
            total_tokens: u64::from(self.prompt_tokens) + u64::from(self.output_tokens),
        }
    }
}

impl Chunks for Completion {
    fn first(&self, text: &str) -> Bytes {
        self.tokens(Some("assistant"), text)
    }

    fn next(&self, text: &str) -> Bytes {
        self.tokens(None, text)
    }

    fn last(&self) -> Bytes {
        let mut choice = Choice::new(Some(self.finish_reason));
        match self.api {
            Api::Chat => choice.delta = Some(Delta::default()),
            Api::Completions => choice.text = Some(""),
        }
        let mut events = self.event(&[choice], None);
        if self.include_usage {
            events += &self.event(&[], Some(self.usage()));
        }
        events += "data: [DONE]\n\n";
        Bytes::from(events)
    }
}

#[derive(Serialize)]
struct Object<'a> {
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

/// By the wall's clock; a clock set before 1970 counts as 1970.
pub(super) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
