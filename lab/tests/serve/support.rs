//! A fleet to talk to, and ways to talk.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lab::model::{Control, Counters, Fleet};
use lab::serve::{FleetServer, Options, Status};
use serde_json::Value;

/// An engine whose steps are simple sums: 10 ms a step, and a millisecond a token.
pub(crate) const LLM: &str = r#"{ "name": "llm", "kind": "batching", "kv_tokens": 10000, "model": "tiny",
    "step_ms": { "b0": 10, "b1": 1, "c0": 0, "c1": 0, "k": 0, "h": 0 } }"#;

/// One request at a time.
pub(crate) const SLOT: &str = r#"{ "name": "slot", "kind": "slots", "model": "painter" }"#;

/// Long enough for a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// A fleet in this process, and a client.
pub(crate) struct Lab {
    pub(crate) servers: FleetServer,
    agent: ureq::Agent,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// The message of an error, and the field that it blames.
    pub(crate) fn error(&self) -> (String, Value) {
        let error = &self.json()["error"];
        let message = error["message"].as_str();
        let message = message.unwrap_or_else(|| panic!("no error in {}", self.body));
        (message.to_owned(), error["param"].clone())
    }
}

impl Lab {
    pub(crate) fn start(servers: &[&str], time_scale: f64) -> Self {
        Self::start_as(servers, time_scale, Control::default())
    }

    /// Servers that were told something before they answer anything.
    pub(crate) fn start_as(servers: &[&str], time_scale: f64, begin: Control) -> Self {
        let json = format!(r#"{{ "servers": [{}] }}"#, servers.join(","));
        Self::of(&json, time_scale, begin)
    }

    /// The servers of a fleet file.
    pub(crate) fn start_fleet(json: &str, time_scale: f64) -> Self {
        Self::of(json, time_scale, Control::default())
    }

    fn of(json: &str, time_scale: f64, begin: Control) -> Self {
        let fleet = Fleet::from_json(json).unwrap();
        let options = Options {
            time_scale,
            begin,
            ..Options::default()
        };
        Self {
            servers: FleetServer::start(&fleet, &options).unwrap(),
            agent: agent(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address_of(0)
    }

    fn address_of(&self, server: usize) -> String {
        self.servers.endpoints()[server].address.to_string()
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let url = format!("http://{}{path}", self.address());
        let request = headers
            .iter()
            .fold(self.agent.post(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        read(request.send(body)).unwrap()
    }

    pub(crate) fn post_json(&self, path: &str, body: &str) -> Answer {
        self.post(path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_at(0, path)
    }

    pub(crate) fn get_at(&self, server: usize, path: &str) -> Answer {
        let address = self.address_of(server);
        get(&self.agent, &format!("http://{address}{path}"))
    }

    pub(crate) fn control(&self, json: &str) {
        let answer = self.post("/control", &[], json);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// The first server's, by the library.
    pub(crate) fn status(&self) -> Status {
        self.status_of(0)
    }

    fn status_of(&self, server: usize) -> Status {
        let name = &self.servers.endpoints()[server].name;
        self.servers.status(name).unwrap()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.status().counters
    }

    /// Tells the first server, by the library.
    pub(crate) fn tell(&self, control: &Control) {
        let name = &self.servers.endpoints()[0].name;
        self.servers.control(name, control).unwrap();
    }

    /// Waits until the first server's status is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Status) -> bool) {
        self.wait_for_at(0, wanted);
    }

    #[track_caller]
    pub(crate) fn wait_for_at(&self, server: usize, wanted: impl Fn(&Status) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.status_of(server)) {
            assert!(
                Instant::now() < deadline,
                "still {:?}",
                self.status_of(server)
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a request and leaves its answer to the caller.
    pub(crate) fn begin_get(&self, path: &str) -> Pending {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: lab\r\n\r\n").unwrap();
        Pending { stream }
    }

    pub(crate) fn begin(&self, path: &str, headers: &str, body: &str) -> Pending {
        self.begin_at(0, path, headers, body)
    }

    pub(crate) fn begin_at(&self, server: usize, path: &str, headers: &str, body: &str) -> Pending {
        let mut stream = TcpStream::connect(self.address_of(server)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: lab\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        Pending { stream }
    }
}

/// A request without its answer. Dropped, its client goes away.
pub(crate) struct Pending {
    stream: TcpStream,
}

impl Pending {
    /// The status of the answer.
    pub(crate) fn status(self) -> u16 {
        let mut line = String::new();
        BufReader::new(self.stream).read_line(&mut line).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Whether there has been no answer for so long.
    pub(crate) fn is_silent_for(&self, span: Duration) -> bool {
        self.stream.set_read_timeout(Some(span)).unwrap();
        let answered = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        answered.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// How reading to the end ends.
    pub(crate) fn end(mut self) -> std::io::Result<usize> {
        self.stream.read_to_end(&mut Vec::new())
    }

    pub(crate) fn lines(self) -> impl Iterator<Item = String> {
        BufReader::new(self.stream).lines().map(Result::unwrap)
    }
}

pub(crate) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build();
    config.into()
}

pub(crate) fn get(agent: &ureq::Agent, url: &str) -> Answer {
    read(agent.get(url).call()).unwrap()
}

fn read(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, ureq::Error> {
    let mut answer = answer?;
    Ok(Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.body_mut().read_to_string()?,
    })
}
