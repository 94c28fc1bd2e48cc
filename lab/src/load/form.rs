use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};

use serde_json::json;

use super::Target;
use crate::workload::Request;

/// What requests look like on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `POST /infer` with a body of two bytes. Sizes are headers: `x-prompt-tokens`, `x-output-tokens`, and
    /// `x-service-ms` where the service time is known. `x-request-size` is what the request shows of its size, where it shows any.
    #[default]
    Infer,
    /// `POST /v1/chat/completions` in OpenAI's form, the body about as long as the prompt (4 bytes a token) and `max_tokens` the
    /// output tokens. It has the headers of `Infer` too, since a real model would know its own output.
    Chat {
        /// The model asked for.
        model: String,
        /// Whether the answer is streamed.
        stream: bool,
    },
}

const PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-prompt-tokens");
const OUTPUT_TOKENS: HeaderName = HeaderName::from_static("x-output-tokens");
const SERVICE_MS: HeaderName = HeaderName::from_static("x-service-ms");
const REQUEST_SIZE: HeaderName = HeaderName::from_static("x-request-size");

impl Form {
    fn default_path(&self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Infer => "/infer",
            Self::Chat { .. } => "/v1/chat/completions",
        })
    }

    fn body(&self, request: &Request) -> Bytes {
        match self {
            Self::Infer => Bytes::from_static(b"{}"),
            Self::Chat { model, stream } => chat_body(request, model, *stream),
        }
    }

    /// The request as it is sent.
    pub(super) fn request(
        &self,
        request: &Request,
        target: &Target,
    ) -> hyper::Request<Full<Bytes>> {
        let path = target.path.clone().unwrap_or_else(|| self.default_path());
        let mut sent = hyper::Request::new(Full::new(self.body(request)));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() = Uri::from(path);
        let headers = sent.headers_mut();
        headers.insert(HOST, target.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(PROMPT_TOKENS, request.prompt_tokens.get().into());
        headers.insert(OUTPUT_TOKENS, request.output_tokens.get().into());
        if let Some(service) = request.service {
            let milliseconds = u64::try_from(service.as_millis()).unwrap_or(u64::MAX);
            headers.insert(SERVICE_MS, milliseconds.into());
        }
        if let Some(size) = request.size {
            headers.insert(REQUEST_SIZE, size.into());
        }
        sent
    }
}

fn chat_body(request: &Request, model: &str, stream: bool) -> Bytes {
    // English has about 4 bytes a token.
    let prompt = "tok ".repeat(request.prompt_tokens.get() as usize);
    let body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": request.output_tokens,
        "stream": stream,
    });
    Bytes::from(body.to_string())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    fn request() -> Request {
        Request {
            arrival: Duration::ZERO,
            prompt_tokens: NonZeroU32::new(1000).unwrap(),
            output_tokens: NonZeroU32::new(50).unwrap(),
            service: Some(Duration::from_micros(1_500_400)),
            size: None,
        }
    }

    #[test]
    fn sizes_are_headers() {
        let target = "http://127.0.0.1:8080".parse().unwrap();
        let sent = Form::Infer.request(&request(), &target);
        assert_eq!(sent.uri(), "/infer");
        assert_eq!(sent.headers()["host"], "127.0.0.1:8080");
        assert_eq!(sent.headers()["x-prompt-tokens"], "1000");
        assert_eq!(sent.headers()["x-output-tokens"], "50");
        assert_eq!(sent.headers()["x-service-ms"], "1500");
    }

    #[test]
    fn a_chat_is_as_long_as_its_prompt() {
        let chat = Form::Chat {
            model: "own".to_owned(),
            stream: true,
        };
        let body: serde_json::Value = serde_json::from_slice(&chat.body(&request())).unwrap();
        assert_eq!(body["messages"][0]["content"].as_str().unwrap().len(), 4000);
        assert_eq!(body["max_tokens"], 50);
        assert_eq!(body["model"], "own");
        assert_eq!(body["stream"], true);
        let target = "http://127.0.0.1:8080/own".parse().unwrap();
        assert_eq!(chat.request(&request(), &target).uri(), "/own");
    }
}
