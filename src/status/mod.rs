//! The state of the filter, for people and for programs that watch: a request for the
//! status path is answered here.
//!
//! Programs get JSON; a browser gets a page that asks for the same JSON every
//! second. `build.rs` packs the page.

mod state;
mod writer;

use crate::host::{Host, LocalResponse, attributes};
use crate::worker::Worker;
use writer::Writer;

/// `page.html`, packed by gzip.
const PAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.html.gz"));
/// What the page may do: run its own script, whose hash this has, and ask its own origin.
const POLICY: &str = include_str!(concat!(env!("OUT_DIR"), "/page.policy"));

/// Answers the request that `host` is at, if it asks for the status, or came in at the
/// port that is there for nothing else. Whether it did; a request that the proxy does not
/// let the filter answer goes on as any other.
#[inline(never)]
pub fn answer(worker: &mut Worker, host: &mut impl Host) -> bool {
    let Some(status) = &worker.config.status else {
        return false;
    };
    // The port first: of a client's request nothing else is read.
    if let Some(port) = status.port {
        let came_in_at = host.property(attributes::DESTINATION_PORT).unwrap_or(None);
        if came_in_at.map(|bytes| attributes::number(&bytes)) != Some(port.into()) {
            return false;
        }
    }
    let path = host.request_header(":path").unwrap_or(None);
    let path = path.unwrap_or_default();
    let mut parts = path.splitn(2, |byte| *byte == b'?');
    let is_status = parts.next() == Some(status.path.as_bytes());
    if !is_status && status.port.is_none() {
        return false;
    }
    let query = parts.next().unwrap_or_default();
    let method = host.request_header(":method").unwrap_or(None);
    let wants = match method.as_deref() {
        _ if !is_status => Form::Elsewhere,
        Some(b"GET" | b"HEAD") => form(query, host),
        _ => Form::NotAllowed,
    };
    let text;
    let (code, content, body) = match wants {
        Form::Page => (
            200,
            [
                ("content-type", "text/html; charset=utf-8"),
                ("content-encoding", "gzip"),
            ],
            PAGE,
        ),
        Form::Json => {
            text = state::write(worker, host);
            (200, [JSON, ("vary", "accept")], text.as_bytes())
        }
        Form::NotAllowed => {
            text = error("use GET", "method_not_allowed");
            (405, [JSON, ("allow", "GET, HEAD")], text.as_bytes())
        }
        Form::Elsewhere => {
            let hint = ["the status is at ", &status.path].concat();
            text = error(&hint, "not_found");
            (404, [JSON, ("vary", "accept")], text.as_bytes())
        }
    };
    let [first, second] = content;
    let response = LocalResponse {
        status: code,
        details: "status",
        headers: &[
            first,
            second,
            ("cache-control", "no-store"),
            ("content-security-policy", POLICY),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ],
        body,
        grpc_status: None,
    };
    host.respond(&response).is_ok()
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// What is answered.
enum Form {
    Page,
    Json,
    NotAllowed,
    /// A path at which there is nothing.
    Elsewhere,
}

/// An error as rejections tell theirs.
fn error(message: &str, reason: &str) -> String {
    let mut json = Writer::default();
    json.open("", '{');
    json.open("error", '{');
    json.text("message", Some(message));
    json.text("reason", Some(reason));
    json.close('}');
    json.close('}');
    json.into_text()
}

/// JSON, unless a browser asks for a page.
fn form(query: &[u8], host: &mut impl Host) -> Form {
    let mut fields = query.split(|byte| *byte == b'&');
    if fields.any(|field| field == b"format=json") {
        return Form::Json;
    }
    let accept = host.request_header("accept").unwrap_or(None);
    let is_html = |accept: Vec<u8>| accept.windows(9).any(|part| part == b"text/html");
    match accept.is_some_and(is_html) {
        true => Form::Page,
        false => Form::Json,
    }
}

#[cfg(test)]
mod tests;
