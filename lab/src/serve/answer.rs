//! What goes back to the client: answers and errors.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::sse::TokenStream;
use crate::model::{LossReason, Refusal};

pub(super) type Body = Either<Full<Bytes>, TokenStream>;
pub(super) type Answer = Response<Body>;

pub(super) fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body)));
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(json) => plain(status, "application/json", Bytes::from(json)),
        Err(error) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            Bytes::from(error.to_string()),
        ),
    }
}

/// Why a request gets no proper answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error that the client is told of.
    Told(ApiError),
    /// The connection is reset.
    Reset,
}

/// An error in the form of OpenAI's API.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field or header that is wrong.
    pub(super) param: Option<String>,
    pub(super) code: Option<&'static str>,
    pub(super) retry_after_seconds: Option<u32>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after_seconds: None,
        }
    }

    /// 400, naming the field or header.
    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Object<'a>,
        }
        #[derive(Serialize)]
        struct Object<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let error = Object {
            message: &self.message,
            r#type: kind,
            param: self.param.as_deref(),
            code: self.code,
        };
        let mut answer = json(self.status, &Envelope { error });
        if let Some(seconds) = self.retry_after_seconds {
            let seconds = HeaderValue::from(seconds);
            answer.headers_mut().insert(RETRY_AFTER, seconds);
        }
        answer
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Told(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let told = |status, code| {
            Self::Told(ApiError {
                code: Some(code),
                ..ApiError::new(status, message.as_str())
            })
        };
        match refusal {
            Refusal::QueueFull { status, .. } => {
                let status = StatusCode::from_u16(status);
                told(
                    status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                    "queue_full",
                )
            }
            Refusal::TooLong { .. } => told(StatusCode::BAD_REQUEST, "context_length_exceeded"),
            Refusal::Loading => told(StatusCode::SERVICE_UNAVAILABLE, "model_loading"),
            Refusal::RandomError { status } => {
                let status = StatusCode::from_u16(status);
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                told(status, "random_error")
            }
            Refusal::Dropping => Self::Reset,
            Refusal::Failing {
                status,
                retry_after_seconds,
            } => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                Self::Told(ApiError {
                    code: Some("failing"),
                    retry_after_seconds,
                    ..ApiError::new(status, message.as_str())
                })
            }
        }
    }
}

impl From<LossReason> for Failure {
    fn from(reason: LossReason) -> Self {
        match reason {
            LossReason::Reload => Refusal::Loading.into(),
            LossReason::Dropped | LossReason::OutOfMemory => Self::Reset,
        }
    }
}
