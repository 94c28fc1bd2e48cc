//! `POST /infer`: any request to any model.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::answer::{Answer, Failure, plain};
use super::replica::{Demand, Replica};
use super::request::{
    DEFAULT_OUTPUT_TOKENS, SizeHeaders, body_length, is_json, parse, read_body, service, tokens,
    tokens_of_bytes,
};
use super::token_text::text;

/// The fields of a JSON body that say how much work it is; others are the model's own business.
#[derive(Deserialize)]
struct Sizes {
    prompt_tokens: Option<u32>,
    output_tokens: Option<u32>,
    service_ms: Option<f64>,
}

pub(super) async fn infer(
    replica: &Arc<Replica>,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let demand = demand_of(request).await?;
    replica.run(demand).await??;
    let body = text(demand.output_tokens).into_bytes();
    Ok(plain(StatusCode::OK, "text/plain", body))
}

async fn demand_of(request: Request<Incoming>) -> Result<Demand, Failure> {
    let headers = SizeHeaders::of(request.headers())?;
    let (sizes, length) = if is_json(request.headers()) {
        let body = read_body(request).await?;
        let sizes: Sizes = parse(&body)?;
        (Some(sizes), body.len() as u64)
    } else {
        (None, body_length(request).await?)
    };
    let body = match sizes {
        Some(sizes) => SizeHeaders {
            prompt_tokens: tokens("prompt_tokens", sizes.prompt_tokens)?,
            output_tokens: tokens("output_tokens", sizes.output_tokens)?,
            service: service("service_ms", sizes.service_ms)?,
            size: None,
        },
        None => SizeHeaders::default(),
    };
    Ok(Demand {
        prompt_tokens: headers
            .prompt_tokens
            .or(body.prompt_tokens)
            .unwrap_or_else(|| tokens_of_bytes(length)),
        output_tokens: headers
            .output_tokens
            .or(body.output_tokens)
            .unwrap_or(DEFAULT_OUTPUT_TOKENS),
        service: headers.service.or(body.service),
        size: headers.size,
    })
}
