//! Envoy's admin interface.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::error::GatewayError;
use super::stats::Stats;

/// How long one answer may take: the admin interface shares Envoy's main thread
/// with the compilation of the filter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A client of the admin interface at one address.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// The admin interface at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether Envoy has its configuration and accepts requests.
    pub async fn is_ready(&self) -> bool {
        self.get("/ready").await.is_ok()
    }

    /// The body of a `200 OK`.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] with what came instead, if it came within 10 s.
    pub async fn get(&self, path: &str) -> Result<String, GatewayError> {
        let exchange = tokio::time::timeout(ANSWER_DEADLINE, self.exchange(path)).await;
        let problem = match exchange {
            Ok(Ok((StatusCode::OK, body))) => return Ok(body),
            Ok(Ok((status, body))) => format!("{status}: {}", body.trim()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER_DEADLINE:?}"),
        };
        Err(GatewayError::admin(path, problem))
    }

    async fn exchange(
        &self,
        path: &str,
    ) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header(header::HOST, self.address.to_string())
            .body(Empty::<Bytes>::new())?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok((status, String::from_utf8(body.into())?))
    }

    /// Where the listener of this name listens, if the system chose the port.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] if the answer is not that.
    pub async fn listener_address(&self, name: &str) -> Result<SocketAddr, GatewayError> {
        const PATH: &str = "/listeners?format=json";
        let answer: Value = serde_json::from_str(&self.get(PATH).await?)
            .map_err(|error| GatewayError::admin(PATH, error))?;
        let listeners = answer.get("listener_statuses").and_then(Value::as_array);
        let named = |listener: &&Value| listener.get("name").is_some_and(|it| it == name);
        let listener = listeners.into_iter().flatten().find(named);
        let socket = listener.and_then(|it| it.pointer("/local_address/socket_address"));
        let address = socket.and_then(|socket| socket.get("address")?.as_str()?.parse().ok());
        let port =
            socket.and_then(|socket| u16::try_from(socket.get("port_value")?.as_u64()?).ok());
        match (address, port) {
            (Some(address), Some(port)) => Ok(SocketAddr::new(address, port)),
            _ => Err(GatewayError::admin(
                PATH,
                format!("no listener {name} in {answer}"),
            )),
        }
    }

    /// Envoy's counters and gauges of this moment.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Admin`] if the answer is not that.
    pub async fn stats(&self) -> Result<Stats, GatewayError> {
        const PATH: &str = "/stats?format=json";
        Stats::from_json(&self.get(PATH).await?).map_err(|error| GatewayError::admin(PATH, error))
    }
}
