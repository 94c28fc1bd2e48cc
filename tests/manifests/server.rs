//! Model servers, and clients that tell which of them answered.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A server that names itself in `x-served-by`, on a port of its own. It ends
/// with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    name: String,
    stopped: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Server {
    pub(crate) fn start(name: &str, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return; // The port is closed with the listener.
                }
                let connection = connection.unwrap();
                let kept = connection.try_clone().unwrap();
                accepting.connections.lock().unwrap().push(kept);
                let name = accepting.name.clone();
                thread::spawn(move || serve(connection, &name, takes));
            }
        });
        Self { address, shared }
    }

    /// Closes the port and every connection: later ones are refused.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, and waits for the port to be closed.
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Answers requests until the connection ends.
fn serve(connection: TcpStream, name: &str, takes: Duration) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    loop {
        let mut length = 0;
        let mut first = true;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() && !first {
                break;
            }
            first = false;
            if let Some((key, value)) = line.split_once(':')
                && key.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        if reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        thread::sleep(takes);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-served-by: {name}\r\n\r\n");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A client on a connection of its own.
pub(crate) struct Client {
    agent: ureq::Agent,
    gateway: SocketAddr,
    host: &'static str,
}

/// A status, and who answered; nobody where Envoy did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) served_by: String,
}

impl Client {
    pub(crate) fn new(gateway: SocketAddr, host: &'static str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(15)))
            .build();
        Self {
            agent: config.into(),
            gateway,
            host,
        }
    }

    pub(crate) fn get(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(self.url()).header("host", self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    /// At another path than the other requests.
    pub(crate) fn at(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.gateway);
        answer(self.agent.get(url).header("host", self.host).call())
    }

    /// With a body, for which a module that is made to trap waits.
    pub(crate) fn post(&self) -> Answer {
        let request = self.agent.post(self.url()).header("host", self.host);
        answer(request.send("some"))
    }

    /// A request as OpenAI's API has it.
    pub(crate) fn complete(&self) -> Answer {
        let request = self
            .agent
            .post(self.url())
            .header("host", self.host)
            .header("content-type", "application/json");
        answer(request.send(r#"{ "model": "llama", "prompt": "Once", "max_tokens": 20 }"#))
    }

    fn url(&self) -> String {
        format!("http://{}/v1/completions", self.gateway)
    }
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    // The connection is used again only once the body is read.
    let _ = response.body_mut().read_to_string();
    let name = response.headers().get("x-served-by");
    Answer {
        status: response.status().as_u16(),
        served_by: name.map_or(String::new(), |name| name.to_str().unwrap().to_owned()),
    }
}

/// So many clients at a time send so many requests each. Returns how often each
/// answer came.
pub(crate) fn load(
    gateway: SocketAddr,
    host: &'static str,
    clients: usize,
    requests: usize,
    headers: &[(&str, &str)],
) -> BTreeMap<Answer, usize> {
    let mut counts = BTreeMap::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(move || {
                    let client = Client::new(gateway, host);
                    (0..requests)
                        .map(|_| client.get(headers))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for answers in threads {
            for answer in answers.join().unwrap() {
                *counts.entry(answer).or_default() += 1;
            }
        }
    });
    counts
}
