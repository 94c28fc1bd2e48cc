use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_local};

/// What a run of [`drive`] took.
#[derive(Clone, Debug)]
pub struct Driven {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// The median time from sending to the end of the answer.
    pub median: Duration,
}

/// A connection failed, or an answer was not a 200.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// No connection.
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, io::Error),
    /// A broken connection.
    #[error("the connection to {0} broke: {1}")]
    Http(SocketAddr, hyper::Error),
    /// A bad answer.
    #[error("{0} answered {1}, expected 200")]
    Status(SocketAddr, StatusCode),
}

/// Sends `requests` POSTs with `body`, over `connections` that each send the next as soon as the last is answered.
///
/// A closed loop keeps the proxy busy, so that its time per request is not mostly that of waking up. It is the wrong
/// way to measure latency under load; for that there is [`crate::load`]. To be called within a `LocalSet`.
///
/// # Errors
/// Any request that is not answered with 200 ends the run.
pub async fn drive(
    address: SocketAddr,
    connections: u64,
    requests: u64,
    body: Bytes,
) -> Result<Driven, DriveError> {
    let mut senders = JoinSet::new();
    for connection in 0..connections {
        let share = requests / connections + u64::from(connection < requests % connections);
        senders.spawn_local(send(address, share, body.clone()));
    }
    let mut latencies = Vec::with_capacity(usize::try_from(requests).unwrap_or(0));
    while let Some(sent) = senders.join_next().await {
        // The tasks do not panic and are not aborted before the set is dropped.
        if let Ok(sent) = sent {
            latencies.extend(sent?);
        }
    }
    latencies.sort_unstable();
    Ok(Driven {
        answered: latencies.len() as u64,
        median: latencies
            .get(latencies.len() / 2)
            .copied()
            .unwrap_or_default(),
    })
}

async fn send(
    address: SocketAddr,
    requests: u64,
    body: Bytes,
) -> Result<Vec<Duration>, DriveError> {
    let mut connection = connect(address).await?;
    let mut latencies = Vec::with_capacity(usize::try_from(requests).unwrap_or(0));
    for _ in 0..requests {
        let start = Instant::now();
        exchange(address, &mut connection, body.clone()).await?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, DriveError> {
    let failed = |error| DriveError::Connect(address, error);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| DriveError::Http(address, error))?;
    spawn_local(connection);
    Ok(sender)
}

async fn exchange(
    address: SocketAddr,
    connection: &mut SendRequest<Full<Bytes>>,
    body: Bytes,
) -> Result<(), DriveError> {
    let failed = |error| DriveError::Http(address, error);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = hyper::Uri::from_static("/v1/chat/completions");
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("models.example"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    connection.ready().await.map_err(failed)?;
    let mut response = connection.send_request(request).await.map_err(failed)?;
    while let Some(frame) = response.body_mut().frame().await {
        frame.map_err(failed)?;
    }
    if response.status() == StatusCode::OK {
        Ok(())
    } else {
        Err(DriveError::Status(address, response.status()))
    }
}
