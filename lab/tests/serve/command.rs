//! The `lab serve` command.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::support::{agent, get};

fn lab() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lab"))
}

/// A directory of this test's own.
fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("serve-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A `lab serve` that is killed when the test ends, however it does.
struct Running {
    child: Child,
    addresses: Value,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = lab()
            .arg("serve")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let addresses = serde_json::from_str(&line).unwrap();
        Self { child, addresses }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_one_server_of_a_fleet() {
    let running = Running::start(&["--fleet", "unequal8", "--only", "a40-1"]);
    let servers = running.addresses["servers"].as_array().unwrap();
    let names: Vec<_> = servers.iter().map(|server| &server["name"]).collect();
    assert_eq!(names, ["a40-1"]);
    let told = failure(&["--fleet", "unequal8", "--only", "a40"]);
    assert!(
        told.contains("--only") && told.contains("\"a40\": no such server"),
        "{told}"
    );
    assert!(told.contains("it has h100-1, h100-2, a100-1"), "{told}");
}

fn failure(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = lab().arg("serve").args(arguments).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn serves_a_fleet_and_says_where() {
    let directory = directory("addresses");
    let fleet = directory.join("fleet.json");
    let json = r#"{ "servers": [
        { "name": "a", "kind": "batching", "gpu": "h100" }, { "name": "b", "kind": "slots" } ] }"#;
    std::fs::write(&fleet, json).unwrap();
    let addresses = directory.join("addresses.json");
    let (fleet, path) = (fleet.to_str().unwrap(), addresses.to_str().unwrap());
    let running = Running::start(&["--fleet", fleet, "--addresses", path, "--time-scale", "50"]);
    assert_eq!(running.addresses["time_scale"], 50.0);
    for (server, name, kind) in [(0, "a", "batching"), (1, "b", "slots")] {
        let server = &running.addresses["servers"][server];
        assert_eq!(
            (&server["name"], &server["kind"]),
            (&name.into(), &kind.into())
        );
        let address = server["address"].as_str().unwrap();
        let answer = get(&agent(), &format!("http://{address}/health"));
        assert_eq!((answer.status, answer.header("x-served-by")), (200, name));
    }
}

#[cfg(unix)]
#[test]
fn writes_the_addresses_file_and_ends_in_peace_when_terminated() {
    let directory = directory("terminated");
    let file = directory.join("addresses.json");
    let mut running = Running::start(&["--fleet", "slots8", "--addresses", file.to_str().unwrap()]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !file.exists() {
        assert!(std::time::Instant::now() < deadline, "no addresses file");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        running.addresses
    );
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn errors_say_what_is_wrong_and_what_is_allowed() {
    let error = failure(&["--fleet", "nowhere.json"]);
    assert!(
        error.contains("nowhere.json") && error.contains("unequal8"),
        "{error}"
    );
    let fleet = directory("errors").join("fleet.json");
    std::fs::write(
        &fleet,
        r#"{"servers": [{"name": "a", "kind": "slots", "sped": 2}]}"#,
    )
    .unwrap();
    let error = failure(&["--fleet", fleet.to_str().unwrap()]);
    assert!(error.contains("servers[0].sped: unknown field"), "{error}");
    let error = failure(&["--time-scale", "0"]);
    assert!(
        error.contains("time scale: 0 is not allowed, 0.001 to 10000 is"),
        "{error}"
    );
    let error = failure(&["--base-port", "65530"]);
    assert!(
        error.contains("65535") || error.contains("cannot listen"),
        "{error}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let error = failure(&["--fleet", "slots8", "--base-port", &port]);
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{error}"
    );
}

#[test]
fn help_tells_a_stranger_enough() {
    let output = lab().args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "/infer",
        "/control",
        "unequal8",
        "x-prompt-tokens",
        "curl",
        "\"kind\": \"slots\"",
    ] {
        assert!(help.contains(word), "no {word} in {help}");
    }
}
