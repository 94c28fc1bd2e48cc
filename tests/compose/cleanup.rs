//! Nothing is left behind, even by a test that is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::docker::docker;

use crate::support::stack::Stack;
use crate::support::{SOON, eventually};

/// What the other test runs in a process of its own, and kills.
#[test]
#[ignore = "run by a_killed_test_leaves_nothing"]
fn a_test_that_never_ends() {
    let stack = Stack::new();
    stack.compose(&["up", "--detach", "a40-1"]);
    println!("\nproject {}", stack.project());
    std::thread::sleep(Duration::from_secs(300));
}

#[tokio::test]
async fn a_killed_test_leaves_nothing() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["cleanup::a_test_that_never_ends", "--exact", "--ignored"])
        .arg("--nocapture")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let project = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("project ").map(str::to_owned))
        .unwrap();
    let label = format!("label=com.docker.compose.project={project}");
    let left = || {
        let containers = docker(&["ps", "--all", "--quiet", "--filter", &label]).unwrap();
        let networks = docker(&["network", "ls", "--quiet", "--filter", &label]).unwrap();
        (containers, networks)
    };
    let (containers, networks) = left();
    assert!(!containers.is_empty() && !networks.is_empty());

    test.kill().unwrap();
    test.wait().unwrap();
    eventually("all of it to be removed", SOON, async || match left() {
        (containers, networks) if containers.is_empty() && networks.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
}
