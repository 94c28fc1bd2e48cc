use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::Target;

/// Time between two tries.
const INTERVAL: Duration = Duration::from_millis(100);

/// A target that was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("{target}: GET /health was not answered with 200 within {within:?}; last: {last}")]
pub struct NotReady {
    /// Where.
    target: Target,
    /// How long was waited.
    within: Duration,
    /// What came of the last try that ended.
    last: String,
}

/// Waits until the target answers `GET /health` with 200, whatever the path of its URL.
///
/// # Errors
/// If it does not within that time; says what came instead.
pub async fn ready(target: &Target, within: Duration) -> Result<(), NotReady> {
    let deadline = Instant::now() + within;
    let mut last = "no answer".to_owned();
    loop {
        match timeout_at(deadline, health(target)).await {
            Ok(Ok(StatusCode::OK)) => return Ok(()),
            Ok(Ok(status)) => last = status.to_string(),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {}
        }
        if Instant::now() + INTERVAL >= deadline {
            return Err(NotReady {
                target: target.clone(),
                within,
                last,
            });
        }
        sleep(INTERVAL).await;
    }
}

async fn health(target: &Target) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(target.address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/health")
        .header(header::HOST, &target.host)
        .body(Empty::<Bytes>::new())?;
    let status = sender
        .send_request(request)
        .await
        .map(|answer| answer.status());
    driver.abort();
    Ok(status?)
}
