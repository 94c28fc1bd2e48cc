//! What the built filter makes of the answers it sees.

use crate::fleet::{GET, Response, TWO, picked, respond};
use crate::host::{Process, Vm};
use std::time::Duration;

/// As much as the longest answer.
static BODY: [u8; 3_000] = [b'x'; 3_000];

/// The score of the best and of the second, from the decision header.
fn scores(decision: &str) -> Option<(f64, f64)> {
    let field = |name: &str| decision.split("; ").find_map(|it| it.strip_prefix(name));
    let best = field("score=")?.parse().ok()?;
    let (_, second) = field("runner_up=")?.split_once('(')?;
    Some((best, second.trim_end_matches(')').parse().ok()?))
}

#[test]
fn long_answers_do_not_make_a_server_look_slow() {
    // Both take a second for a thousand bytes, and one happens to get the long
    // answers.
    let process = Process::new();
    let configuration = TWO.replacen('{', r#"{ "explain": true, "#, 1);
    let root = Vm::start(&process, configuration).unwrap();
    let mut rng = fastrand::Rng::with_seed(4);
    let mut last = None;
    for _ in 0..2_000 {
        let stream = root.request(GET).unwrap();
        let base = match picked(&stream).as_deref() {
            Some("gpu-a") => 500,
            _ => 1_500,
        };
        let bytes = base + rng.usize(..1_000);
        let response = Response {
            body: &BODY[..bytes],
            latency: Duration::from_millis(bytes as u64),
            ..Response::OK
        };
        respond(&process, &stream, &response).unwrap();
        let headers = stream.received_headers();
        let decision = headers.get_all(b"x-paceline-decision").next();
        last = scores(&String::from_utf8_lossy(decision.unwrap())).or(last);
        stream.end().unwrap();
    }
    let (best, second) = last.expect("two that were compared");
    // The raw latencies differ by a factor of two.
    assert!(second / best < 1.3, "{best} {second}");
}
