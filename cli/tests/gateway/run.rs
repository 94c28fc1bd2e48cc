//! `paceline run`.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Servers, agent, eventually, get, lines_until, paceline, said, succeed};

/// Starts it on ports of the system's choice; gives what it says to try.
fn start(servers: &str) -> (Child, Vec<String>) {
    let any = "127.0.0.1:0";
    let sockets = ["--listen", any, "--admin", any, "--status", any];
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        config.path(),
        r#"{ "max_in_flight": 100, "explain": true }"#,
    )
    .unwrap();
    let mut child = paceline(&["run", "--server", servers, "--config"])
        .arg(config.path())
        .args(sockets)
        .args(["--", "--concurrency", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = lines_until(&mut child, "Ctrl-C ends it");
    (child, lines)
}

/// The first URL behind `marker`.
fn url_after(lines: &[String], marker: &str) -> String {
    let line = lines
        .iter()
        .find_map(|line| line.split_once(marker))
        .unwrap()
        .1;
    let end = line.find(['\'', ' ']).unwrap_or(line.len());
    line[..end].to_owned()
}

#[test]
fn servers_are_served_until_a_signal_comes() {
    let servers = Servers::start(&[("a", "m"), ("b", "m")]);
    for signal in [Signal::INT, Signal::TERM] {
        let given = format!("{},{}", servers.named("a"), servers.named("b"));
        let (mut child, lines) = start(&given);
        let url = url_after(&lines, "listens at ");
        let mut seen = [false; 2];
        for _ in 0..20 {
            let answer = agent().get(format!("{url}/v1/models")).call().unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            let decision = answer.headers()["x-paceline-decision"].to_str().unwrap();
            seen[0] |= decision.starts_with("upstream=a;");
            seen[1] |= decision.starts_with("upstream=b;");
        }
        assert_eq!(seen, [true; 2], "requests go to both");

        // Its metrics, where it says they are.
        let stats = url_after(&lines, "curl 'http");
        let (status, stats) = get(&format!("http{stats}")).unwrap();
        assert!(
            status == 200 && stats.contains("paceline_picks_total"),
            "{stats}"
        );

        let page = lines
            .iter()
            .find(|line| line.ends_with("/paceline"))
            .unwrap();
        let (status, state) = get(&format!("{}?format=json", page.trim())).unwrap();
        assert!(status == 200 && state.contains("\"version\":1"), "{state}");

        let admin = url_after(&lines, "paceline top --admin ");
        let seen = succeed(&["top", "--once", "--interval", "0.1", "--admin", &admin]);
        assert!(
            seen.contains("pool default: ")
                && seen.contains(" of 100 in flight")
                && seen.contains("\nb  "),
            "{seen}"
        );

        let arguments = ["top", "--once", "--interval", "0.1", "--admin", &admin];
        let seen = succeed(&[&arguments[..], &["--status", page.trim()]].concat());
        let row = seen.lines().find(|line| line.starts_with("a  ")).unwrap();
        assert!(row.ends_with(')') && row.contains(" to "), "{row}");
        assert!(seen.contains("\nlast decisions"), "{seen}");

        let process = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(process, signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
        // Envoy is gone with it.
        eventually("nobody to listen", || get(&url).is_none().then_some(()));
    }
}

#[test]
fn an_envoy_that_cannot_start_is_an_error() {
    let servers = Servers::start(&[("a", "m")]);
    let taken = servers.address("a").to_string();
    let output = paceline(&[
        "run",
        "--server",
        &servers.named("a"),
        "--admin",
        "127.0.0.1:0",
        "--no-status",
    ])
    .args(["--listen", &taken])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(
        said(&output).contains("paceline: Envoy ended"),
        "{}",
        said(&output)
    );

    let output = paceline(&["run", "--server", "gpu-a:8000"])
        .env("PACELINE_ENVOY", "/nowhere/envoy")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(said(&output).contains("--envoy: no file /nowhere/envoy"));
}
