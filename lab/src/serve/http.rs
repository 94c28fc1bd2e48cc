//! Listening, and who answers what.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use super::answer::{Answer, ApiError, Failure, json, plain};
use super::completion::Api;
use super::connection::{Connection, ResetSwitch};
use super::infer::infer;
use super::openai::{complete, models};
use super::replica::{Replica, Snapshot};
use super::request::read_body;
use super::{Status, metrics};
use crate::model::{Condition, Control, HealthAnswer, Mode};

/// How often those look who wait for a server that hangs.
const HANGING: Duration = Duration::from_millis(5);

static SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Accepts connections for as long as the runtime lives.
pub(super) async fn listen(listener: TcpListener, replica: Arc<Replica>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&replica)));
            }
            Err(error) => {
                // Out of file descriptors, most likely: some will be closed soon.
                eprintln!("{}: cannot accept: {error}", replica.spec().name);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, replica: Arc<Replica>) {
    // Without it answers in several writes would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    let reset = ResetSwitch::default();
    let service = service_fn(|request| answer(&replica, &reset, request));
    let connection = TokioIo::new(Connection::new(stream, reset.clone()));
    // An error is a client that left, or a connection that was told to be dropped.
    let _ = http1::Builder::new()
        .serve_connection(connection, service)
        .await;
}

/// A connection that is to be reset.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told to drop connections")]
struct Dropped;

async fn answer(
    replica: &Arc<Replica>,
    reset: &ResetSwitch,
    request: Request<Incoming>,
) -> Result<Answer, Dropped> {
    let mut answer = match route(replica, reset, request).await {
        Ok(answer) => answer,
        Err(Failure::Told(error)) => error.into_answer(),
        Err(Failure::Reset) => {
            reset.set();
            return Err(Dropped);
        }
    };
    let name = replica.name_header().clone();
    answer.headers_mut().insert(&SERVED_BY, name);
    Ok(answer)
}

async fn route(
    replica: &Arc<Replica>,
    reset: &ResetSwitch,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let path = request.uri().path();
    let Some(endpoint) = Endpoint::at(path) else {
        let message = format!("{path} is not here; {}", Endpoint::LIST);
        return Err(ApiError::new(StatusCode::NOT_FOUND, message).into());
    };
    if !endpoint.has(request.method()) {
        let message = format!("{} is not for {path}", request.method());
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).into());
    }
    if endpoint != Endpoint::Control {
        while replica.hangs() {
            tokio::time::sleep(HANGING).await;
        }
    }
    let condition = match endpoint {
        Endpoint::Health | Endpoint::Models | Endpoint::Metrics => Some(replica.condition()),
        _ => None,
    };
    if condition.is_some_and(|condition| condition.mode == Mode::Drop) {
        return Err(Failure::Reset);
    }
    match endpoint {
        Endpoint::Infer => infer(replica, request).await,
        Endpoint::Chat => complete(Api::Chat, replica, request, reset).await,
        Endpoint::Completions => complete(Api::Completions, replica, request, reset).await,
        Endpoint::Health => Ok(health(condition)),
        Endpoint::Models => Ok(models(replica)),
        Endpoint::Metrics => {
            let page = metrics::render(&replica.spec().model, &replica.snapshot());
            Ok(plain(
                StatusCode::OK,
                metrics::CONTENT_TYPE,
                Bytes::from(page),
            ))
        }
        Endpoint::Control => control(replica, request).await,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Infer,
    Chat,
    Completions,
    Health,
    Models,
    Metrics,
    Control,
}

impl Endpoint {
    const LIST: &str = "POST /infer, POST /v1/chat/completions, POST /v1/completions, \
        GET /v1/models, GET /health, GET /metrics, GET and POST /control are";

    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/infer" => Self::Infer,
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            "/v1/models" => Self::Models,
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            "/control" => Self::Control,
            _ => return None,
        })
    }

    fn has(self, method: &Method) -> bool {
        match self {
            Self::Infer | Self::Chat | Self::Completions => method == Method::POST,
            Self::Health | Self::Models | Self::Metrics => method == Method::GET,
            Self::Control => method == Method::GET || method == Method::POST,
        }
    }
}

fn health(condition: Option<Condition>) -> Answer {
    let answer = condition.map_or(HealthAnswer::Unavailable, |it| it.health());
    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::OK);
    json(status, &serde_json::json!({ "status": answer.text() }))
}

async fn control(replica: &Replica, request: Request<Incoming>) -> Result<Answer, Failure> {
    if request.method() == Method::POST {
        let body = read_body(request).await?;
        let done = Control::from_json(&body).and_then(|control| replica.control(&control));
        done.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    }
    #[derive(Serialize)]
    struct State<'a> {
        name: &'a str,
        kind: &'a str,
        model: &'a str,
        #[serde(flatten)]
        status: Status,
    }
    let spec = replica.spec();
    let state = State {
        name: &spec.name,
        kind: spec.kind.name(),
        model: &spec.model,
        status: Status::from(replica.snapshot()),
    };
    Ok(json(StatusCode::OK, &state))
}

impl From<Snapshot> for Status {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            condition: snapshot.condition,
            load: snapshot.load,
            counters: snapshot.counters,
        }
    }
}
