//! A client that can stop at every step.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};

use super::soon;
use super::upstream::Cut;

pub(crate) type RequestBody = Either<Empty<Bytes>, Channel<Bytes, Cut>>;

/// One connection to the gateway. Dropping it cuts the connection, whatever is
/// under way.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    driver: AbortHandle,
}

/// A response that has been read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header; nothing if it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The upstream that answered.
    pub(crate) fn served_by(&self) -> &str {
        self.header("x-served-by")
    }
}

impl Connection {
    pub(crate) async fn open(gateway: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(gateway))
            .await
            .unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(async {
            // Fails whenever a test cuts the connection.
            let _ = connection.await;
        });
        Self {
            sender,
            driver: driver.abort_handle(),
        }
    }

    /// Sends a request with this body, whose length is declared or not, and
    /// reads the whole answer.
    pub(crate) async fn upload(
        &mut self,
        headers: &[(&str, &str)],
        body: &[u8],
        declared: bool,
    ) -> Answer {
        soon("the connection to take a request", self.sender.ready())
            .await
            .unwrap();
        let (mut sender, request) = upload(headers, declared.then_some(body.len()));
        let response = self.start(request);
        for piece in body.chunks(32 << 10) {
            // Fails where the gateway has answered without it.
            if sender
                .send_data(Bytes::copy_from_slice(piece))
                .await
                .is_err()
            {
                break;
            }
        }
        drop(sender);
        response.answer().await
    }

    /// Starts a request; what comes back is read by the caller, if at all.
    pub(crate) fn start(&mut self, request: Request<RequestBody>) -> Pending {
        Pending(tokio::spawn(self.sender.send_request(request)))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn request(&mut self, request: Request<RequestBody>) -> Answer {
        soon("the connection to take a request", self.sender.ready())
            .await
            .unwrap();
        self.start(request).answer().await
    }

    /// A plain GET.
    pub(crate) async fn get(&mut self) -> Answer {
        self.request(get()).await
    }

    /// Cuts the connection.
    pub(crate) fn cut(self) {}
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Sends a request over HTTP/2 with these pieces of a body and, if there are
/// any, trailers behind it. HTTP/2 has no chunked bodies: what is not declared
/// ends with the stream.
pub(crate) async fn over_http2(
    gateway: SocketAddr,
    pieces: &[&[u8]],
    declared: bool,
    trailers: Option<hyper::HeaderMap>,
) -> Answer {
    let stream = soon("a connection", TcpStream::connect(gateway))
        .await
        .unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (mut body, mut request) = upload(&[], declared.then_some(length));
    *request.uri_mut() = "http://models/infer".parse().unwrap();
    request.headers_mut().remove("host");
    let response = Pending(tokio::spawn(sender.send_request(request)));
    for piece in pieces {
        body.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    if let Some(trailers) = trailers {
        body.send_trailers(trailers).await.unwrap();
    }
    drop(body);
    let answer = response.answer().await;
    driver.abort();
    answer
}

/// Starts a request over HTTP/2 whose body is the test's to send and to end.
pub(crate) async fn over_http2_slowly(gateway: SocketAddr) -> (Sender<Bytes, Cut>, Pending) {
    let stream = soon("a connection", TcpStream::connect(gateway))
        .await
        .unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let (body, mut request) = upload(&[], None);
    *request.uri_mut() = "http://models/infer".parse().unwrap();
    request.headers_mut().remove("host");
    // Held until the answer, because the connection ends with it.
    let response = tokio::spawn(async move { sender.send_request(request).await });
    (body, Pending(response))
}

/// An answer that is to come.
pub(crate) struct Pending(JoinHandle<hyper::Result<Response<Incoming>>>);

impl Pending {
    /// The answer's head; the body is the caller's to read.
    pub(crate) async fn head(self) -> Response<Incoming> {
        soon("an answer", self.0).await.unwrap().unwrap()
    }

    /// The whole answer.
    pub(crate) async fn answer(self) -> Answer {
        let (head, body) = self.head().await.into_parts();
        let body = soon("the answer's end", body.collect())
            .await
            .unwrap()
            .to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.into()).unwrap(),
        }
    }

    /// The status of an answer that came whole and in time, or what went wrong.
    pub(crate) async fn status_within(self, limit: Duration) -> Result<u16, String> {
        let answer = async {
            let response = self.0.await.unwrap().map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            body.collect().await.map_err(|error| error.to_string())?;
            Ok(head.status.as_u16())
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(format!("not within {limit:?}")))
    }

    /// Makes sure that no answer comes.
    pub(crate) async fn none(self) {
        assert!(soon("the request's end", self.0).await.unwrap().is_err());
    }
}

/// A GET request.
pub(crate) fn get() -> Request<RequestBody> {
    request("GET", "/infer", &[])
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<RequestBody> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "models");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Either::Left(Empty::new())).unwrap()
}

/// A POST request whose body is the test's to send and to end.
pub(crate) fn post() -> (Sender<Bytes, Cut>, Request<RequestBody>) {
    let (sender, body) = Channel::new(8);
    let request = Request::post("/infer")
        .header("host", "models")
        .body(Either::Right(body));
    (sender, request.unwrap())
}

/// A POST request with the first piece of its body, declared to have so many
/// bytes, or chunked.
pub(crate) fn upload(
    headers: &[(&str, &str)],
    declared: Option<usize>,
) -> (Sender<Bytes, Cut>, Request<RequestBody>) {
    let (sender, mut request) = post();
    for (name, value) in headers {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    if let Some(length) = declared {
        let name = hyper::header::CONTENT_LENGTH;
        request.headers_mut().insert(name, length.into());
    }
    (sender, request)
}

/// Sends these bytes on a connection of their own and reads until the gateway
/// closes it: for what a well-behaved client cannot be made to send.
pub(crate) async fn raw(gateway: SocketAddr, bytes: &str) -> String {
    let mut stream = soon("a connection", TcpStream::connect(gateway))
        .await
        .unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the connection's end", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    answer
}
