//! The state on a host in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::exchange::{Exchange, Flow};
use crate::host::fake::{Call, Fake};

const CONFIG: &str = r#"{"pools": [
    {"name": "chat", "max_in_flight": 3, "upstreams": [
        {"cluster": "gpu-a", "device": "h100", "memory": {"base": 1e9}},
        {"cluster": "gpu-b", "max_in_flight": 2, "weight": 0}]}],
    "devices": [{"name": "h100", "memory": 80e9}]}"#;

const GET: &[(&str, &str)] = &[(":method", "GET"), (":path", "/paceline")];

/// What a request was answered.
#[derive(Debug, PartialEq)]
struct Responded {
    status: u16,
    headers: BTreeMap<String, Vec<u8>>,
    body: Vec<u8>,
}

impl Responded {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map_or(&[][..], Vec::as_slice);
        std::str::from_utf8(value).unwrap()
    }
}

/// The worker that clients reach, the one that tells the state, and their proxy.
struct Case {
    host: Fake,
    worker: Worker,
    teller: Worker,
    streams: u32,
}

impl Case {
    fn new(config: &str) -> Self {
        let mut host = Fake::new();
        let mut config = Config::parse(Some(config.as_bytes())).unwrap();
        let worker = Worker::new(config.clone(), &mut host).unwrap();
        config.status = Some(crate::config::Status {
            path: "/paceline".to_owned(),
            port: None,
        });
        let teller = Worker::new(config, &mut host).unwrap();
        Case {
            host,
            worker,
            teller,
            streams: 0,
        }
    }

    fn request(&mut self) -> Exchange {
        self.streams += 1;
        self.host
            .begin(self.streams, &[(":method", "GET"), (":path", "/v1")]);
        let mut exchange = Exchange::new(self.streams);
        let flow = exchange.on_request_headers(&mut self.worker, &mut self.host, true);
        assert_eq!(flow, Flow::Continue);
        exchange
    }

    fn tick(&mut self) {
        self.host.advance(Duration::from_millis(250));
        let _ = self.worker.tick(&mut self.host);
        let _ = self.teller.tick(&mut self.host);
    }

    /// What a request to the teller is answered; `None` where it goes on.
    fn ask(&mut self, headers: &[(&str, &str)]) -> Option<Responded> {
        self.ask_at(None, headers)
    }

    /// The same for one that came in at this port.
    fn ask_at(&mut self, port: Option<u64>, headers: &[(&str, &str)]) -> Option<Responded> {
        self.streams += 1;
        self.host.begin(self.streams, headers);
        if let Some(port) = port {
            let stream = self.host.stream(self.streams);
            stream.set_number(attributes::DESTINATION_PORT, port);
        }
        let mut exchange = Exchange::new(self.streams);
        let flow = exchange.on_request_headers(&mut self.teller, &mut self.host, true);
        let stream = self.host.stream(self.streams);
        let body = std::mem::take(&mut stream.answer_body);
        let answered = stream.answered.take().map(|(status, headers)| Responded {
            status,
            headers,
            body,
        });
        assert_eq!(flow == Flow::Pause, answered.is_some());
        exchange.end(&mut self.teller, &mut self.host);
        answered
    }

    fn state(&mut self) -> Value {
        let answered = self.ask(GET).unwrap();
        assert_eq!(answered.status, 200);
        serde_json::from_slice(&answered.body).unwrap()
    }
}

#[test]
fn the_state_names_what_there_is() {
    let mut case = Case::new(CONFIG);
    let _open = [case.request(), case.request()];
    case.tick();
    let state = case.state();
    assert_eq!(state["version"], 1);
    assert_eq!(state["workers"][0]["in_flight"], 2);
    assert_eq!(
        state["devices"],
        json!([{"name": "h100", "memory": 80_000_000_000u64, "used": 2_000_000_000u64}])
    );
    let pool = &state["pools"][0];
    assert_eq!(pool["name"], "chat");
    assert_eq!(pool["policy"], "shortest_expected_delay");
    assert_eq!(pool["basis"], "requests");
    assert_eq!(
        (&pool["in_flight"], &pool["max_in_flight"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(
        (&pool["held"], &pool["held_for"]),
        (&json!(0), &Value::Null)
    );
    let [one, other] = [&pool["upstreams"][0], &pool["upstreams"][1]];
    assert_eq!(one["name"], "gpu-a");
    assert_eq!((&one["in_flight"], &one["work"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&one["device"], &one["max_in_flight"]),
        (&json!("h100"), &Value::Null)
    );
    assert_eq!((&one["state"], &one["ready"]), (&json!("in"), &Value::Null));
    assert_eq!(one["pace"]["measured"], Value::Null);
    assert_eq!(
        one["latency"],
        json!({"p50": null, "p90": null, "p99": null})
    );
    assert_eq!(
        (&other["weight"], &other["max_in_flight"]),
        (&json!(0), &json!(2))
    );
}

#[test]
fn requests_that_wait_are_told_with_the_reason() {
    let mut case = Case::new(CONFIG);
    let _open = [case.request(), case.request(), case.request()];
    case.streams += 1;
    case.host
        .begin(case.streams, &[(":method", "GET"), (":path", "/v1")]);
    let mut held = Exchange::new(case.streams);
    let flow = held.on_request_headers(&mut case.worker, &mut case.host, true);
    assert_eq!(flow, Flow::Pause);
    case.tick();
    let pool = case.state()["pools"][0].clone();
    assert_eq!(
        (&pool["held"], &pool["held_for"]),
        (&json!(1), &json!("pool_full"))
    );
}

#[test]
fn decisions_are_kept_only_while_somebody_looks() {
    let mut case = Case::new(CONFIG);
    let _open = case.request();
    case.tick();
    assert_eq!(
        case.state()["decisions"],
        json!([]),
        "nobody has looked before"
    );
    case.tick();
    let _other = case.request();
    case.tick();
    let decisions = case.state()["decisions"].clone();
    assert_eq!(decisions.as_array().unwrap().len(), 1);
    assert_eq!(
        (&decisions[0]["pool"], &decisions[0]["lane"]),
        (&json!("chat"), &json!(0))
    );
    let text = decisions[0]["decision"].as_str().unwrap();
    assert!(text.starts_with("upstream=gpu-a; policy="), "{text}");
    let age = decisions[0]["age"].as_f64().unwrap();
    assert!((0.25..0.3).contains(&age), "{age}");
}

#[test]
fn a_teller_does_nothing_on_its_ticks_while_nobody_looks() {
    let mut case = Case::new(CONFIG);
    let _open = case.request();
    case.tick();
    for call in [Call::Get, Call::Set] {
        case.host.fail(call);
    }
    let _ = case.teller.tick(&mut case.host);
    assert_eq!(case.host.value("paceline_state_errors_total"), 0);
    case.host.heal();
    assert_eq!(case.state()["workers"][0]["in_flight"], 1);
    case.host.fail(Call::Get);
    case.host.advance(Duration::from_millis(250));
    let _ = case.teller.tick(&mut case.host);
    assert!(
        case.host.value("paceline_state_errors_total") > 0,
        "it is awake"
    );
}

#[test]
fn a_browser_gets_the_page_and_others_json() {
    let mut case = Case::new(CONFIG);
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = case.ask(&[GET[0], GET[1], browser]).unwrap();
    assert_eq!(page.header("content-encoding"), "gzip");
    assert_eq!(page.body, PAGE);
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    for path in ["/paceline?format=json", "/paceline?x&format=json"] {
        let json = case.ask(&[GET[0], (":path", path), browser]).unwrap();
        assert_eq!(json.header("content-type"), "application/json");
    }
    for method in ["POST", "OPTIONS", "DELETE"] {
        let refused = case.ask(&[(":method", method), GET[1]]).unwrap();
        assert_eq!(refused.status, 405, "{method}");
        assert_eq!(refused.header("allow"), "GET, HEAD");
        let body: Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(body["error"]["reason"], "method_not_allowed");
    }
    for path in ["/", "/paceline/", "/pacelines", "/x?/paceline"] {
        assert_eq!(case.ask(&[GET[0], (":path", path)]), None, "{path}");
    }
}

#[test]
fn where_the_proxy_does_not_answer_the_request_goes_on() {
    let mut case = Case::new(CONFIG);
    case.host.fail(Call::Respond);
    assert_eq!(case.ask(GET), None);
}

/// A teller that answers at port 9902 and nowhere else.
fn at_a_port() -> Case {
    let mut case = Case::new(CONFIG);
    case.teller.config.status = Some(crate::config::Status {
        path: "/a\"b".to_owned(),
        port: Some(9902),
    });
    case
}

#[test]
fn with_a_port_only_requests_at_that_port_are_answered() {
    let mut case = at_a_port();
    for (port, is_answered) in [(Some(10_000), false), (Some(9902), true), (None, false)] {
        let answered = case.ask_at(port, &[GET[0], (":path", "/a\"b?format=json")]);
        let expected = is_answered.then_some(200);
        assert_eq!(answered.map(|it| it.status), expected, "{port:?}");
    }
}

#[test]
fn at_its_port_other_paths_are_not_found_and_do_not_count() {
    let mut case = at_a_port();
    for path in ["/", "/favicon.ico", "/a", "/x?/a\"b"] {
        let answered = case.ask_at(Some(9902), &[GET[0], (":path", path)]);
        let answered = answered.unwrap();
        assert_eq!(answered.status, 404, "{path}");
        assert_eq!(answered.header("content-type"), "application/json");
        let body: Value = serde_json::from_slice(&answered.body).unwrap();
        let expected = json!({"message": "the status is at /a\"b", "reason": "not_found"});
        assert_eq!(body, json!({"error": expected}));
    }
    assert_eq!(case.teller.balancer.lanes().number(), None);
    assert_eq!(case.ask_at(Some(10_000), &[GET[0], (":path", "/a")]), None);
    assert!(case.teller.balancer.lanes().number().is_some(), "it counts");
}
