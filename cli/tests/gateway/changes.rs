//! `paceline envoy --dynamic`: servers come and go while Envoy runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{
    Envoy, PATIENCE, Servers, agent, eventually, free_port, module, paceline, said, succeed,
};

/// Writes the files for one server, and starts Envoy on them.
fn start(directory: &Path, servers: &Servers) -> Envoy {
    let admin = format!("127.0.0.1:{}", free_port());
    let module = module();
    let path = directory.to_str().unwrap();
    let mut all = vec![
        "envoy",
        "--dynamic",
        path,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        &admin,
        "--status",
        "127.0.0.1:0",
    ];
    let (one, filter) = (servers.named("a"), module.to_str().unwrap());
    all.extend(["--server", &one, "--filter", filter]);
    succeed(&all);
    Envoy::start(&directory.join("dynamic.yaml"))
}

/// Clients that keep their connections, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(url: &str) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |_| {
            let (stop, sent, url) = (Arc::clone(&stop), Arc::clone(&sent), format!("{url}/infer"));
            std::thread::spawn(move || {
                let (agent, mut lost) = (agent(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match agent.post(&url).header("x-service-ms", "5").send_empty() {
                        Ok(answer) if answer.status().as_u16() == 200 => {}
                        Ok(answer) => lost.push(answer.status().to_string()),
                        Err(error) => lost.push(error.to_string()),
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                lost
            })
        };
        let threads = (0..4).map(client).collect();
        Self {
            stop,
            sent,
            threads,
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let lost: Vec<_> = self
            .threads
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect();
        assert!(
            lost.is_empty(),
            "{lost:?} of {}",
            self.sent.load(Ordering::Relaxed)
        );
    }
}

fn expect_answers_of(servers: &Servers, name: &str) {
    let before = servers.answered(name);
    eventually(&format!("answers of {name}"), || {
        (servers.answered(name) > before + 5).then_some(())
    });
}

#[test]
fn servers_come_and_go_without_a_lost_request() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let servers = Servers::start(&[("a", "m"), ("b", "m"), ("c", "m")]);
    let envoy = start(directory.path(), &servers);
    let clients = Clients::start(&envoy.url());
    expect_answers_of(&servers, "a");

    let more = format!("{},{}", servers.named("b"), servers.named("c"));
    succeed(&["envoy", "--dynamic", path, "--add", &more]);
    expect_answers_of(&servers, "b");
    expect_answers_of(&servers, "c");

    // One by its name, the one that was there first by its URL.
    let url = format!("http://{}", servers.address("a"));
    succeed(&[
        "envoy",
        "--dynamic",
        path,
        "--remove",
        "c",
        "--remove",
        &url,
    ]);
    let before = [servers.answered("a"), servers.answered("c")];
    expect_answers_of(&servers, "b");
    assert_eq!(
        [servers.answered("a"), servers.answered("c")],
        before,
        "{}",
        envoy.log()
    );
    clients.end();

    let clusters = fs::read_to_string(directory.path().join("cds.yaml")).unwrap();
    assert!(clusters.contains("b-servers") && !clusters.contains("c-servers"));
    let checked = succeed(&[
        "check",
        directory.path().join("dynamic.yaml").to_str().unwrap(),
    ]);
    assert!(checked.contains("1 pool, 1 upstream"), "{checked}");
}

#[test]
fn what_envoy_refuses_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let servers = Servers::start(&[("a", "m"), ("b", "m")]);
    let envoy = start(directory.path(), &servers);
    let before = fs::read_to_string(directory.path().join("lds.yaml")).unwrap();
    // A filter that is not there.
    let output = paceline(&["envoy", "--dynamic", path, "--filter", "/nowhere.wasm"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    assert!(
        said(&output).contains("Envoy refuses it and keeps the old one"),
        "{}",
        said(&output)
    );
    assert_eq!(
        fs::read_to_string(directory.path().join("lds.yaml")).unwrap(),
        before
    );
    // It is forgotten.
    succeed(&["envoy", "--dynamic", path, "--add", &servers.named("b")]);
    let clients = Clients::start(&envoy.url());
    expect_answers_of(&servers, "b");
    clients.end();
}

#[test]
fn an_envoy_that_does_not_answer_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let admin = format!("127.0.0.1:{}", free_port());
    succeed(&[
        "envoy",
        "--server",
        "gpu-a:1",
        "--dynamic",
        path,
        "--admin",
        &admin,
    ]);
    let add = ["envoy", "--dynamic", path, "--add", "gpu-b:1"];
    let begin = std::time::Instant::now();
    let output = paceline(&add).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(
        said(&output).contains("--offline if none runs"),
        "{}",
        said(&output)
    );
    assert!(begin.elapsed() < PATIENCE);

    succeed(&[&add[..], &["--offline"]].concat());
    let listeners = fs::read_to_string(directory.path().join("lds.yaml")).unwrap();
    assert!(listeners.contains(r#""cluster": "gpu-b""#));

    // What somebody changed by hand is not lost.
    fs::write(
        directory.path().join("lds.yaml"),
        listeners.replace("10000", "10001"),
    )
    .unwrap();
    let output = paceline(&["envoy", "--dynamic", path, "--remove", "gpu-b", "--offline"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(
        said(&output).contains("lds.yaml: was changed by hand"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_change_that_was_interrupted_is_ended_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let servers = Servers::start(&[("a", "m"), ("b", "m")]);
    let _envoy = start(directory.path(), &servers);
    succeed(&["envoy", "--dynamic", path, "--add", &servers.named("b")]);
    // Envoy still drains connections when the time is over.
    let remove = ["envoy", "--dynamic", path, "--remove", "a", "--wait", "0"];
    let output = paceline(&remove).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    let clusters = || fs::read_to_string(directory.path().join("cds.yaml")).unwrap();
    assert!(
        clusters().contains("a-servers"),
        "what may still be picked is there"
    );

    let told = succeed(&["envoy", "--dynamic", path]);
    assert!(
        told.contains("first what an earlier change left to do"),
        "{told}"
    );
    assert!(!clusters().contains("a-servers"));
}
