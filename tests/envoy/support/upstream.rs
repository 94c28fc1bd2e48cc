//! A model server that does what the test tells it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::place::host;
use super::{SOON, eventually, soon};

/// What a server does with the next requests.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Answers after a while.
    Answer {
        status: u16,
        after: Duration,
        retry_after: Option<u32>,
    },
    /// Answers one request after the other, each after a while of its own. If it reports,
    /// each answer says how many requests wait, as vLLM's do.
    Serve { each: Duration, reports: bool },
    /// Answers so many at a time, each after a while, and says 503 to more.
    Limited { slots: usize, each: Duration },
    /// Cuts the connection at once, without an answer.
    Reset,
    /// Gives each request to the test, which decides.
    Hold,
}

impl Behaviour {
    /// `200 OK` at once.
    pub(crate) const OK: Self = Self::after(Duration::ZERO);

    /// `200 OK` after a while.
    pub(crate) const fn after(after: Duration) -> Self {
        Self::Answer {
            status: 200,
            after,
            retry_after: None,
        }
    }

    /// `200 OK`, one after the other.
    pub(crate) const fn serving(each: Duration) -> Self {
        Self::Serve {
            each,
            reports: false,
        }
    }

    /// An error at once.
    pub(crate) const fn failing(status: u16) -> Self {
        Self::Answer {
            status,
            after: Duration::ZERO,
            retry_after: None,
        }
    }
}

/// What a server says of its health, at paths that begin with `/health`.
#[derive(Debug, Clone)]
pub(crate) enum Health {
    /// It answers at once.
    Says { status: u16, body: &'static str },
    /// It takes the question, and never answers.
    Hangs,
}

impl Health {
    /// `200 OK`, and ready.
    pub(crate) const READY: Self = Self::Says {
        status: 200,
        body: r#"{"status": "ready"}"#,
    };
    /// `503 Service Unavailable`.
    pub(crate) const UNAVAILABLE: Self = Self::Says {
        status: 503,
        body: "",
    };
    /// `200 OK`, and not ready.
    pub(crate) const LOADING: Self = Self::Says {
        status: 200,
        body: r#"{"status": "loading"}"#,
    };
}

/// Is told of every request that a server has, other than questions about its health.
pub(crate) trait Watcher: Send + Sync {
    /// A request came.
    fn came(&self, upstream: &str, headers: &HeaderMap);
    /// It is about to be answered, or its connection is gone.
    fn left(&self, upstream: &str, headers: &HeaderMap);
}

/// A server on a port of its own. Dropping it closes all its connections.
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    accepting: AbortHandle,
}

struct Shared {
    name: String,
    behaviour: Mutex<Behaviour>,
    health: Mutex<Health>,
    seen: Mutex<Vec<HeaderMap>>,
    /// The headers of questions about its health; `seen` does not have them.
    probes: Mutex<Vec<HeaderMap>>,
    held: mpsc::UnboundedSender<Arrival>,
    turn: tokio::sync::Mutex<()>,
    /// Requests that have come and are not answered, now and at most.
    open: AtomicUsize,
    most_open: AtomicUsize,
    connections: Mutex<Vec<AbortHandle>>,
    watcher: Mutex<Option<Arc<dyn Watcher>>>,
}

/// A request that waits for the test.
pub(crate) struct Arrival {
    /// The name of the upstream that holds it.
    pub(crate) upstream: String,
    pub(crate) body: Incoming,
    reply: oneshot::Sender<Option<Response<ReplyBody>>>,
}

/// Data and errors are the test's; an error cuts the connection.
type ReplyBody = http_body_util::Either<Full<Bytes>, Channel<Bytes, Cut>>;

/// Why a body ends early.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by the test")
    }
}

impl std::error::Error for Cut {}

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Upstream {
    pub(crate) async fn start(name: &str, behaviour: Behaviour) -> Self {
        Self::start_at(name, host(), behaviour).await
    }

    /// The same at an address of the test's choice.
    pub(crate) async fn start_at(name: &str, host: IpAddr, behaviour: Behaviour) -> Self {
        Self::start_on(name, (host, 0).into(), behaviour).await
    }

    /// The same on a port of the test's choice, which is free.
    pub(crate) async fn start_on(name: &str, address: SocketAddr, behaviour: Behaviour) -> Self {
        let listener = eventually("the port to be free", SOON, async || {
            TcpListener::bind(address)
                .await
                .map_err(|it| it.to_string())
        })
        .await;
        let address = listener.local_addr().unwrap();
        let (held, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            behaviour: Mutex::new(behaviour),
            health: Mutex::new(Health::READY),
            seen: Mutex::default(),
            probes: Mutex::default(),
            held,
            turn: tokio::sync::Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            connections: Mutex::default(),
            watcher: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            name: name.to_owned(),
            address,
            shared,
            arrivals,
            accepting,
        }
    }

    /// Applies to requests that arrive from now on.
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Lets somebody watch the requests that arrive from now on.
    pub(crate) fn watch(&self, watcher: Arc<dyn Watcher>) {
        *self.shared.watcher.lock().unwrap() = Some(watcher);
    }

    /// Applies to questions about its health from now on.
    pub(crate) fn set_health(&self, health: Health) {
        *self.shared.health.lock().unwrap() = health;
    }

    /// The headers of every question about its health that has come, in order.
    pub(crate) fn probes(&self) -> Vec<HeaderMap> {
        self.shared.probes.lock().unwrap().clone()
    }

    /// The headers of every request that has come, in order.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests have come.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The most requests that it ever had at the same time, each from its headers to
    /// the moment before its answer.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// A held request, if there is one now.
    pub(crate) fn try_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.try_recv().ok()
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn stop(&self) {
        self.accepting.abort();
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Arrival {
    /// Answers in full.
    pub(crate) fn answer(self, status: u16) {
        let body = ReplyBody::Left(Full::from("answered\n"));
        // Fails where the request has been given up, and then nobody minds.
        let _ = self.reply.send(Some(response(status, body)));
    }

    /// Sends `200 OK`; the body is the test's to send and to end.
    pub(crate) fn begin_answer(self) -> Sender<Bytes, Cut> {
        let (sender, body) = Channel::new(8);
        let _ = self.reply.send(Some(response(200, ReplyBody::Right(body))));
        sender
    }

    /// Cuts the connection without an answer.
    pub(crate) fn reset(self) {
        let _ = self.reply.send(None);
    }

    /// Waits until the other side has given the request up.
    pub(crate) async fn given_up(&mut self) {
        soon("the request to be given up", self.reply.closed()).await;
    }

    /// Reads the next piece of the request's body.
    pub(crate) async fn next_piece(&mut self) -> Bytes {
        let frame = soon("a piece of the request's body", self.body.frame()).await;
        frame.unwrap().unwrap().into_data().unwrap()
    }

    /// Waits until nothing more of the request's body comes.
    pub(crate) async fn ended(&mut self) {
        while let Some(frame) = soon("the end of the request's body", self.body.frame()).await {
            let rest = frame.unwrap().into_data();
            assert!(rest.is_err(), "more than was expected: {rest:?}");
        }
    }
}

fn response(status: u16, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let serving = tokio::spawn(serve(stream, Arc::clone(&shared)));
        shared
            .connections
            .lock()
            .unwrap()
            .push(serving.abort_handle());
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| handle(request, Arc::clone(&shared)));
    // Ends with an error whenever a test cuts a connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn health(shared: &Shared, headers: &HeaderMap) -> Result<Response<ReplyBody>, Cut> {
    shared.probes.lock().unwrap().push(headers.clone());
    let health = shared.health.lock().unwrap().clone();
    match health {
        Health::Says { status, body } => Ok(response(status, ReplyBody::Left(Full::from(body)))),
        Health::Hangs => std::future::pending().await,
    }
}

/// A request that the server has; not any more when it is dropped.
struct Open<'a> {
    shared: &'a Shared,
    watched: Option<(Arc<dyn Watcher>, HeaderMap)>,
}

impl<'a> Open<'a> {
    fn new(shared: &'a Shared, headers: &HeaderMap) -> Self {
        let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_open.fetch_max(open, Ordering::SeqCst);
        let watcher = shared.watcher.lock().unwrap().clone();
        let watched = watcher.map(|watcher| (watcher, headers.clone()));
        if let Some((watcher, headers)) = &watched {
            watcher.came(&shared.name, headers);
        }
        Open { shared, watched }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
        if let Some((watcher, headers)) = &self.watched {
            watcher.left(&self.shared.name, headers);
        }
    }
}

async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<ReplyBody>, Cut> {
    if request.uri().path().starts_with("/health") {
        return health(&shared, request.headers()).await;
    }
    let _open = Open::new(&shared, request.headers());
    shared.seen.lock().unwrap().push(request.headers().clone());
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let mut answer = match behaviour {
        Behaviour::Answer {
            status,
            after,
            retry_after,
        } => {
            request.into_body().collect().await.map_err(|_| Cut)?;
            tokio::time::sleep(after).await;
            let mut answer = response(status, ReplyBody::Left(Full::from("answered\n")));
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert("retry-after", seconds.into());
            }
            answer
        }
        Behaviour::Serve { each, reports } => {
            request.into_body().collect().await.map_err(|_| Cut)?;
            let _turn = shared.turn.lock().await;
            tokio::time::sleep(each).await;
            let mut answer = response(200, ReplyBody::Left(Full::from("answered\n")));
            if reports {
                // All but this one and the next.
                let waiting = shared.open.load(Ordering::SeqCst).saturating_sub(2);
                let report = format!("TEXT named_metrics.num_requests_waiting={waiting}.0");
                let report = HeaderValue::from_str(&report).unwrap();
                answer.headers_mut().insert("endpoint-load-metrics", report);
            }
            answer
        }
        Behaviour::Limited { slots, each } => {
            let is_full = shared.open.load(Ordering::SeqCst) > slots;
            request.into_body().collect().await.map_err(|_| Cut)?;
            if !is_full {
                tokio::time::sleep(each).await;
            }
            let status = if is_full { 503 } else { 200 };
            response(status, ReplyBody::Left(Full::from("answered\n")))
        }
        Behaviour::Reset => return Err(Cut),
        Behaviour::Hold => {
            let (reply, answer) = oneshot::channel();
            shared
                .held
                .send(Arrival {
                    upstream: shared.name.clone(),
                    body: request.into_body(),
                    reply,
                })
                .map_err(|_| Cut)?;
            answer.await.map_err(|_| Cut)?.ok_or(Cut)?
        }
    };
    let name = HeaderValue::from_str(&shared.name).unwrap();
    answer.headers_mut().insert("x-served-by", name);
    Ok(answer)
}
