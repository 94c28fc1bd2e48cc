//! Requests that take the proxy's own route while Paceline watches.

use super::*;

const OBSERVE: &str = r#"{"explain": true, "mode": "observe",
    "upstreams": [{"cluster": "gpu-a"}, {"cluster": "gpu-b"}]}"#;

impl Case {
    /// The proxy has a connection to the server with this address, which may say whose it
    /// is.
    fn connect(&mut self, exchange: &Exchange, address: &str, upstream: Option<&str>) {
        let stream = self.host.stream(exchange.context);
        stream.set_text(attributes::UPSTREAM_ADDRESS, address);
        if let Some(upstream) = upstream {
            stream.set_text(attributes::ENDPOINT_UPSTREAM, upstream);
        }
    }

    /// A request that has an upstream by the proxy's choice, of which so far nobody knows.
    fn observed(&mut self, upstream: &str) -> Exchange {
        let (exchange, flow) = self.request(POST, false);
        assert_eq!(flow, Flow::Continue);
        assert_eq!(self.named(&exchange), "", "no header is set");
        self.connect(&exchange, answer_of(upstream).address, Some(upstream));
        exchange
    }

    /// The same with its end, after `millis`.
    fn serve(&mut self, upstream: &str, millis: u64) {
        let mut exchange = self.observed(upstream);
        self.body(&mut exchange, b"{}", true);
        self.answer(&mut exchange, &served_by(upstream), millis);
        self.complete(&mut exchange, 0);
        self.end(exchange);
    }

    /// What is in flight, after a tick that looks for servers no more.
    fn counted(&mut self) -> BTreeMap<String, u64> {
        self.worker.take_watched().clear();
        self.in_flight()
    }

    fn compared(&self) -> BTreeMap<String, u64> {
        self.host
            .values("paceline_observed_total;pool=default;outcome=")
    }

    fn group(&self, group: &str) -> BTreeMap<String, u64> {
        let name = format!("paceline_group_outcomes_total;pool=default;group={group};outcome=");
        self.host.values(&name)
    }
}

/// An answer on the fallback route.
fn served_by(upstream: &str) -> Answered<'_> {
    Answered {
        cluster: "all-gpus",
        ..answer_of(upstream)
    }
}

#[test]
fn a_request_counts_where_the_proxy_sends_it_as_soon_as_that_shows() {
    let mut case = Case::new(OBSERVE);
    let mut exchange = case.observed("gpu-b");
    assert_eq!(case.worker.take_watched(), [exchange.context]);
    assert_eq!(case.counted(), one([]), "it does not show yet");
    case.body(&mut exchange, b"{}", true);
    assert_eq!(case.counted(), one([("gpu-b", 1)]));
    case.answer(&mut exchange, &served_by("gpu-b"), 30);
    let shown = case.host.stream(exchange.context).response[DECISION_HEADER].clone();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.starts_with("observe; upstream=gpu-"), "{shown}");
    assert!(shown.contains("; served_by=gpu-b"), "{shown}");
    case.complete(&mut exchange, 20);
    case.end(exchange);
    assert_eq!(case.counted(), one([]));
    assert_eq!(
        case.outcomes(),
        one([("upstream=gpu-b;outcome=success", 1)])
    );
    assert_eq!(case.group("observed"), one([("success", 1)]));
    assert_eq!(case.group("balanced"), one([]));
    let latency = "paceline_group_latency_milliseconds;pool=default;group=observed";
    assert_eq!(case.host.samples(latency), [50]);
    assert_eq!(case.passed_through(), one([]));
    assert_eq!(case.host.values("paceline_picks_total"), one([]));
    assert_eq!(case.host.values("paceline_adoptions_total"), one([]));
}

#[test]
fn a_tick_finds_the_server_of_a_request_without_a_body() {
    let mut case = Case::new(OBSERVE);
    let (mut exchange, _) = case.request(POST, true);
    assert!(!exchange.look_for_server(&mut case.worker, &mut case.host));
    case.connect(&exchange, "10.0.0.1:80", Some("gpu-a"));
    assert!(exchange.look_for_server(&mut case.worker, &mut case.host));
    assert_eq!(case.counted(), one([("gpu-a", 1)]));
    case.end(exchange);
    assert_eq!(case.counted(), one([]));
}

#[test]
fn it_tells_how_often_it_agrees_and_what_it_would_gain() {
    let mut case = Case::new(OBSERVE);
    // The proxy takes turns; gpu-b is four times as slow.
    for _ in 0..100 {
        case.serve("gpu-a", 100);
        case.serve("gpu-b", 400);
    }
    let compared = case.compared();
    assert_eq!(compared.values().sum::<u64>(), 200, "{compared:?}");
    // It takes a while to know, and one pick in a hundred explores.
    assert!(compared["agreed"] >= 85, "{compared:?}");
    assert!(compared["differed"] >= 85, "{compared:?}");
    let picks = case.host.values("paceline_observed_picks_total");
    assert!(picks[";pool=default;upstream=gpu-a"] >= 180, "{picks:?}");
    let delay = |of: &str| {
        let name = format!("paceline_observed_{of}_delay_microseconds_total;pool=");
        case.host.values(&name)["default"] as f64
    };
    // A mean of 100 ms in place of one of 250 ms.
    let gain = 1.0 - delay("pick") / delay("server");
    assert!((0.5..0.65).contains(&gain), "{gain}");
    assert_eq!(case.outcomes()["upstream=gpu-b;outcome=success"], 100);
}

#[test]
fn the_name_of_a_cluster_tells_who_serves_as_well() {
    let mut case = Case::new(OBSERVE);
    let (mut exchange, _) = case.request(POST, true);
    case.answer(&mut exchange, &answer_of("gpu-a"), 10);
    assert_eq!(case.counted(), one([("gpu-a", 1)]));
    case.complete(&mut exchange, 0);
    case.end(exchange);
    assert_eq!(
        case.outcomes(),
        one([("upstream=gpu-a;outcome=success", 1)])
    );
}

#[test]
fn a_server_that_nobody_knows_is_told() {
    let mut case = Case::new(OBSERVE);
    let (mut exchange, _) = case.request(POST, true);
    case.answer(&mut exchange, &served_by("gpu-a"), 10);
    assert_eq!(case.counted(), one([]));
    case.complete(&mut exchange, 0);
    case.end(exchange);
    // And one that the proxy refuses itself.
    let (exchange, _) = case.request(POST, true);
    case.end(exchange);
    assert_eq!(case.compared(), one([("unidentified", 1), ("unserved", 1)]));
    assert_eq!(case.outcomes(), one([]));
    assert_eq!(
        case.group("observed"),
        one([("success", 1), ("unknown", 1)])
    );
}

#[test]
fn what_failed_before_the_server_that_answers_is_blamed() {
    let mut case = Case::new(OBSERVE);
    let mut exchange = case.observed("gpu-a");
    case.body(&mut exchange, b"{}", true);
    assert_eq!(case.counted(), one([("gpu-a", 1)]));
    case.connect(&exchange, "10.0.0.2:80", Some("gpu-b"));
    let answer = Answered {
        attempts: 2,
        ..served_by("gpu-b")
    };
    case.answer(&mut exchange, &answer, 30);
    assert_eq!(case.counted(), one([("gpu-b", 1)]));
    case.complete(&mut exchange, 0);
    case.end(exchange);
    let expected = one([
        ("upstream=gpu-a;outcome=retried", 1),
        ("upstream=gpu-b;outcome=success", 1),
    ]);
    assert_eq!(case.outcomes(), expected);
    let samples = case.host.samples("paceline_latency_milliseconds");
    assert!(samples.is_empty(), "{samples:?}");
}

#[test]
fn the_server_that_did_not_answer_is_blamed() {
    const RESET: u64 = 1 << 6;
    let mut case = Case::new(OBSERVE);
    let (exchange, _) = case.request(POST, true);
    case.connect(&exchange, "10.0.0.2:80", Some("gpu-b"));
    let stream = case.host.stream(exchange.context);
    stream.set_number(attributes::RESPONSE_FLAGS, RESET);
    stream.set_number(attributes::UPSTREAM_ATTEMPTS, 1);
    case.end(exchange);
    assert_eq!(case.outcomes(), one([("upstream=gpu-b;outcome=reset", 1)]));
    assert_eq!(case.group("observed"), one([("reset", 1)]));
    assert_eq!(case.counted(), one([]));
}

#[test]
fn nothing_is_held_however_full_it_is() {
    let config = OBSERVE.replace(
        r#""mode""#,
        r#""max_in_flight": 1, "admission": {"queue": {"max_requests": 1}}, "mode""#,
    );
    let mut case = Case::new(&config);
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut exchange = case.observed("gpu-a");
        case.body(&mut exchange, b"{}", true);
        open.push(exchange);
    }
    assert_eq!(case.counted(), one([("gpu-a", 5)]));
    open.into_iter().for_each(|exchange| case.end(exchange));
    assert_eq!(case.counted(), one([]));
}

#[test]
fn endpoints_are_found_where_the_proxy_goes() {
    let mut case = Case::new(r#"{"cluster": "gpus", "mode": "observe"}"#);
    for turn in 0..20 {
        let address = ["10.0.0.1:80", "10.0.0.2:80"][turn % 2];
        let (mut exchange, _) = case.request(POST, true);
        let answer = Answered {
            address,
            ..answer_of("gpus")
        };
        case.answer(&mut exchange, &answer, 10);
        case.complete(&mut exchange, 0);
        case.end(exchange);
    }
    assert_eq!(case.counted(), one([]));
    let outcomes = one([
        ("upstream=10.0.0.1:80;outcome=success", 10),
        ("upstream=10.0.0.2:80;outcome=success", 10),
    ]);
    assert_eq!(case.outcomes(), outcomes);
    // The first request of each endpoint could not have been picked for it.
    let compared = case.compared();
    assert_eq!(compared.values().sum::<u64>(), 19, "{compared:?}");
    assert_eq!(case.host.values("paceline_explorations_total"), one([]));
}

#[test]
fn a_share_is_balanced_and_the_groups_are_kept_apart() {
    let config = OBSERVE.replace(r#""observe""#, r#"{"balance_percent": 10}"#);
    let mut case = Case::new(&config);
    let mut balanced = 0;
    for _ in 0..4_000 {
        let (mut exchange, _) = case.request(POST, true);
        let upstream = case.named(&exchange);
        balanced += u64::from(!upstream.is_empty());
        let (upstream, millis) = match upstream.as_str() {
            "" => ("gpu-a", 40),
            picked => (picked, 10),
        };
        case.connect(&exchange, answer_of(upstream).address, Some(upstream));
        case.answer(&mut exchange, &answer_of(upstream), millis);
        case.complete(&mut exchange, 0);
        case.end(exchange);
    }
    // 400 expected; six standard deviations of 19.
    assert!((286..514).contains(&balanced), "{balanced}");
    assert_eq!(case.group("balanced"), one([("success", balanced)]));
    assert_eq!(case.group("observed"), one([("success", 4_000 - balanced)]));
    let picks = case.host.values("paceline_picks_total");
    assert_eq!(picks.values().sum::<u64>(), balanced);
    let samples = |group: &str| {
        let name = format!("paceline_group_latency_milliseconds;pool=default;group={group}");
        case.host.samples(&name)
    };
    assert!(samples("balanced").iter().all(|millis| *millis == 10));
    assert!(samples("observed").iter().all(|millis| *millis == 40));
}

#[test]
fn the_access_log_tells_the_decision_if_it_is_asked_to() {
    let logged = |config: &str, served: &str| {
        let mut case = Case::new(config);
        let (mut exchange, _) = case.request(POST, true);
        let before = case.host.stream(exchange.context).logged.clone();
        case.connect(&exchange, answer_of(served).address, Some(served));
        case.answer(&mut exchange, &served_by(served), 10);
        let after = case.host.stream(exchange.context).logged.clone();
        case.end(exchange);
        let text = |logged: BTreeMap<String, String>| logged.into_values().collect::<String>();
        (text(before), text(after))
    };
    let one = r#"{"upstreams": [{"cluster": "gpu-a"}]}"#;
    assert_eq!(logged(one, "gpu-a"), Default::default());
    let on = one.replace(r#"{"up"#, r#"{"access_log": true, "up"#);
    let balanced = "decision=balanced; upstream=gpu-a; score=1.2; wait=0ms; reason=policy";
    assert_eq!(logged(&on, "gpu-a"), (balanced.into(), balanced.into()));
    let observe = on.replace(r#""up"#, r#""mode": "observe", "up"#);
    let (before, after) = logged(&observe, "gpu-a");
    let observed = "decision=observed; upstream=gpu-a; score=1.2; wait=0ms; reason=policy";
    assert_eq!(before, observed);
    assert_eq!(after, format!("{observed}; served_by=gpu-a"));
    let drained = on.replace(r#""gpu-a""#, r#""gpu-a", "weight": 0"#);
    let (passed, _) = logged(&drained, "gpu-a");
    let none = "decision=passed_through; upstream=-; score=0; wait=0ms; reason=drained";
    assert_eq!(passed, none);
}
