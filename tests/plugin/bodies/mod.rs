//! Requests that wait for their bodies: none waits for ever, whatever the host
//! does, and none leaves anything behind.

mod waits;
mod whole;

use crate::fleet::{GET, Response, picked, respond};
use crate::host::{Action, HeaderMap, Process, Property, Root, Stream, Vm, VmResult};

/// Sizes and models are in the body.
const BY_BODY: &str = r#"{ "pools": [ {
    "name": "llama",
    "match": { "model": { "prefix": "llama" } },
    "request_size": "openai",
    "upstreams": [ { "cluster": "gpu-a" }, { "cluster": "gpu-b" } ]
} ] }"#;

const BODY: &[u8] = br#"{"model": "llama-8b", "messages": [{"role": "user", "content": "hello"}]}"#;

/// A request whose client names a cluster itself.
fn post() -> HeaderMap {
    let own = [("x-upstream-cluster", "forged")];
    HeaderMap::new(GET.into_iter().chain(own))
}

/// Bytes that Envoy has received for the request.
fn receive(stream: &Stream, bytes: i64) {
    stream.set_property(&["request", "total_size"], Property::int(bytes));
}

fn start(process: &Process) -> Root {
    Vm::start(process, BY_BODY).unwrap()
}

/// A request that waits for its body.
fn waiting(root: &Root) -> VmResult<Stream> {
    let stream = root.stream()?;
    receive(&stream, 200);
    assert_eq!(stream.request_headers(post(), false)?, Action::Pause);
    Ok(stream)
}

fn unknown(process: &Process, name: &str, reason: &str) -> u64 {
    let all = process.counters(name);
    let ending = format!("reason={reason}");
    all.iter()
        .filter(|(name, _)| name.ends_with(&ending))
        .map(|(_, count)| count)
        .sum()
}

/// How a body may come.
#[derive(Clone, Copy, Debug)]
enum Coming {
    AtOnce,
    InPieces,
    WithTrailers,
}

const COMINGS: [Coming; 3] = [Coming::AtOnce, Coming::InPieces, Coming::WithTrailers];

fn send_body(stream: &Stream, coming: Coming) -> VmResult<Action> {
    match coming {
        Coming::AtOnce => stream.request_body(BODY, true),
        Coming::InPieces => {
            let mut action = Action::Pause;
            for (number, piece) in BODY.chunks(7).enumerate() {
                action = stream.request_body(piece, (number + 1) * 7 >= BODY.len())?;
            }
            Ok(action)
        }
        Coming::WithTrailers => {
            stream.request_body(BODY, false)?;
            stream.request_trailers(HeaderMap::default())
        }
    }
}

/// A request from its headers to its end; whether it was routed.
fn life(process: &Process, root: &Root, coming: Coming) -> VmResult<bool> {
    let stream = root.stream()?;
    receive(&stream, 200);
    let mut action = stream.request_headers(post(), false)?;
    if action == Action::Pause {
        action = send_body(&stream, coming)?;
    }
    assert_eq!(action, Action::Continue, "the request does not go on");
    let routed = picked(&stream).is_some_and(|name| name.starts_with("gpu-"));
    respond(process, &stream, &Response::OK)?;
    stream.end()?;
    Ok(routed)
}
