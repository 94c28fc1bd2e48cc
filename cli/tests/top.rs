//! `paceline top` in a terminal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test says so by panicking"
)]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);

/// An admin interface that answers so often, each time what `stats` says; then it is
/// gone.
fn admin(answers: u64, stats: fn(u64) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for number in 0..answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let body = format!("{{\"stats\":[{}]}}", stats(number));
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    address
}

/// A terminal of 250 by 20 in which the command runs.
struct Terminal {
    keys: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(admin: SocketAddr) -> Self {
        let control = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&control).unwrap();
        unlockpt(&control).unwrap();
        let name = ptsname(&control, Vec::new()).unwrap();
        let mut open = OpenOptions::new();
        let terminal = open.read(true).write(true).open(name.to_str().unwrap());
        let terminal = terminal.unwrap();
        let size = Winsize {
            ws_row: 20,
            ws_col: 250,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_paceline"))
            .args([
                "top",
                "--interval",
                "0.1",
                "--admin",
                &format!("http://{admin}/"),
            ])
            .env("TERM", "xterm")
            .stdin(OwnedFd::from(terminal.try_clone().unwrap()))
            .stdout(OwnedFd::from(terminal.try_clone().unwrap()))
            .stderr(OwnedFd::from(terminal))
            .spawn()
            .unwrap();
        let keys = File::from(control);
        let mut output = keys.try_clone().unwrap();
        let (pieces, shown) = channel();
        // Reading fails once nobody has the terminal open any more.
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length) = output.read(&mut piece) {
                let piece = piece.get(..length).unwrap().to_vec();
                if length == 0 || pieces.send(piece).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            shown,
            seen: String::new(),
            child,
        }
    }

    /// Waits until `text` has been shown after what was waited for before.
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut after = String::new();
        while !after.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.shown.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {after:?}"));
            after += &String::from_utf8_lossy(&piece);
        }
        self.seen += &after;
    }

    /// Presses a key that ends it; gives all that was shown.
    fn end(mut self, key: &str) -> String {
        self.keys.write_all(key.as_bytes()).unwrap();
        let code = self.child.wait().unwrap().code();
        while let Ok(piece) = self.shown.recv_timeout(Duration::from_millis(500)) {
            self.seen += &String::from_utf8_lossy(&piece);
        }
        assert_eq!(code, Some(0), "{:?}", self.seen);
        self.seen
    }
}

/// Ten picks more each time; after a while a server that is not ready.
fn picks(number: u64) -> String {
    let ready = u64::from(number < 5);
    format!(
        r#"{{"name":"wasmcustom.paceline_picks_total;pool=p;upstream=gpu-a","value":{}}},
           {{"name":"wasmcustom.paceline_ready;pool=p;upstream=gpu-a;plugin=x","value":{ready}}}"#,
        10 * number
    )
}

#[test]
fn the_picture_is_refreshed_in_place_until_a_key_ends_it() {
    let mut terminal = Terminal::start(admin(8, picks));
    terminal.expect("gpu-a     ready ");
    terminal.expect("gpu-a     not ready ");
    // What was last seen stays while Envoy is gone.
    terminal.expect("name Envoy's admin interface with --admin");
    terminal.expect("gpu-a     not ready ");
    let seen = terminal.end("q");
    let (before, after) = seen
        .split_once("\u{1b}[?1049h")
        .expect("a screen of its own");
    assert!(!before.contains("pool p"), "{before:?}");
    assert!(
        after.matches("\u{1b}[1;1H").count() > 5,
        "drawn in place: {after:?}"
    );
    let (_, left) = after
        .rsplit_once("\u{1b}[?1049l")
        .expect("the old screen again");
    assert!(!left.contains("pool p"), "{left:?}");
    assert!(after.contains("\u{1b}[?25h"), "the cursor is back");
}
