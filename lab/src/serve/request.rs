//! What a request asks for: headers and bodies, read with care.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use serde::de::DeserializeOwned;

use super::answer::ApiError;
use super::token_text::BYTES_PER_TOKEN;
use crate::json;

/// Tokens of an answer whose request does not say how many.
pub(super) const DEFAULT_OUTPUT_TOKENS: u32 = 128;
const MAX_TOKENS: u32 = 10_000_000;
const MAX_SERVICE_MILLIS: f64 = 1e9;
const MAX_JSON_BYTES: usize = 64 << 20;

/// The headers that say how much work a request is; they win over what its body says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SizeHeaders {
    pub(super) prompt_tokens: Option<u32>,
    pub(super) output_tokens: Option<u32>,
    pub(super) service: Option<Duration>,
    /// What the request says of its size; no body says that.
    pub(super) size: Option<u64>,
}

impl SizeHeaders {
    /// # Errors
    /// 400, naming the header.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let service_millis: Option<f64> = number(headers, "x-service-ms")?;
        Ok(Self {
            prompt_tokens: tokens("x-prompt-tokens", number(headers, "x-prompt-tokens")?)?,
            output_tokens: tokens("x-output-tokens", number(headers, "x-output-tokens")?)?,
            service: service("x-service-ms", service_millis)?,
            size: number(headers, "x-request-size")?,
        })
    }
}

fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Result<Option<T>, ApiError> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    match parsed {
        Some(number) => Ok(Some(number)),
        None => Err(ApiError::invalid(
            name,
            format!("{name}: {value:?} is not a number that it can be"),
        )),
    }
}

/// # Errors
/// 400, naming the field, if there are more than a request may have.
pub(super) fn tokens(field: &str, tokens: Option<u32>) -> Result<Option<u32>, ApiError> {
    match tokens {
        Some(count) if count > MAX_TOKENS => Err(ApiError::invalid(
            field,
            format!("{field}: {count} is not allowed, 0 to {MAX_TOKENS} is"),
        )),
        _ => Ok(tokens),
    }
}

/// # Errors
/// 400, naming the field, if it is not a time that a job may take.
pub(super) fn service(field: &str, millis: Option<f64>) -> Result<Option<Duration>, ApiError> {
    match millis {
        Some(millis) if !(0.0..=MAX_SERVICE_MILLIS).contains(&millis) => Err(ApiError::invalid(
            field,
            format!("{field}: {millis} is not allowed, 0 to {MAX_SERVICE_MILLIS} is"),
        )),
        _ => Ok(millis.map(|millis| Duration::from_secs_f64(millis / 1e3))),
    }
}

/// The tokens that so many bytes of text are taken for, rounded up.
pub(super) fn tokens_of_bytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(MAX_TOKENS)
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// The whole body.
///
/// # Errors
/// 413 if it is longer than 64 MiB, 400 if it ends early.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, ApiError> {
    match Limited::new(request.into_body(), MAX_JSON_BYTES)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a JSON body has {MAX_JSON_BYTES} bytes at most"),
        )),
        Err(error) => Err(cut_off(&*error)),
    }
}

/// The length of a body that nobody wants to keep.
///
/// # Errors
/// 400 if it ends early.
pub(super) async fn body_length(request: Request<Incoming>) -> Result<u64, ApiError> {
    let mut body = request.into_body();
    let mut length = 0;
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| cut_off(&error))?;
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

fn cut_off(error: &dyn std::error::Error) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        format!("the request's body was cut off: {error}"),
    )
}

/// Reads a JSON body.
///
/// # Errors
/// 400, naming the place.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    json::from_slice(json).map_err(|error| ApiError::invalid(&error.path, error.to_string()))
}
