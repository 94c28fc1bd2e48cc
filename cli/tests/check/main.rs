//! `paceline check` on files as users have them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

mod envoys;
mod plugins;
mod warnings;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether all is accepted, and what is said of it.
fn check(files: &[&Path]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .arg("check")
        .args(files)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn check_text(suffix: &str, text: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::with_suffix(suffix).unwrap();
    std::fs::write(file.path(), text).unwrap();
    check(&[file.path()])
}

/// The same for a text on standard input.
fn check_piped(text: &str) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The directory of Envoy's shipped files.
fn shipped(name: &str) -> std::path::PathBuf {
    let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    envoy.join(name)
}

/// Shipped files in a directory of their own, each changed by a replacement.
fn changed(files: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, from, to) in files {
        let text = std::fs::read_to_string(shipped(name)).unwrap();
        assert!(text.contains(from), "{from} in {name}");
        std::fs::write(directory.path().join(name), text.replacen(from, to, 1)).unwrap();
    }
    directory
}

/// What is said of a shipped file of Envoy's after one replacement.
fn said_of(name: &str, from: &str, to: &str) -> String {
    let files = changed(&[(name, from, to)]);
    check(&[&files.path().join(name)]).1
}
