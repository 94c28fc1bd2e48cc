//! Debian's Chromium, driven through its DevTools protocol.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{SOON, eventually, soon};

/// A browser with one page. Dropping it ends it.
pub(crate) struct Browser {
    child: Child,
    _profile: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    session: Value,
    /// What the page has logged as an error or a warning, and what it has thrown.
    complaints: Vec<String>,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_dark: bool,
}

impl Browser {
    /// Starts it; the page is empty.
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args([
            "--headless=new",
            "--remote-debugging-port=0",
            "--no-first-run",
        ]);
        command.args([
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]);
        if fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0) {
            command.arg("--no-sandbox");
        }
        let child = command
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}; `make test` installs it"));
        let place = profile.path().join("DevToolsActivePort");
        let url = eventually("a browser", SOON * 4, async || {
            let text = fs::read_to_string(&place).map_err(|error| error.to_string())?;
            let mut lines = text.lines();
            let (Some(port), Some(path)) = (lines.next(), lines.next()) else {
                return Err(text);
            };
            Ok(format!("ws://127.0.0.1:{port}{path}"))
        })
        .await;
        let (socket, _) = connect_async(&url).await.unwrap();
        let mut this = Self {
            child,
            _profile: profile,
            socket,
            calls: 0,
            session: Value::Null,
            complaints: Vec::new(),
        };
        let target = this
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = this.call("Target.attachToTarget", attach).await;
        this.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            this.call(&format!("{domain}.enable"), json!({})).await;
        }
        this
    }

    /// Calls a method of the protocol; gives its result.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        loop {
            let message = soon(method, self.socket.next()).await;
            let Message::Text(text) = message.expect("an open connection").unwrap() else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if message["id"] == self.calls {
                assert_eq!(message["error"], Value::Null, "{call}");
                return message["result"].take();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        let is_complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => parameters["type"] != "log",
            Some("Log.entryAdded") => parameters["entry"]["level"] != "verbose",
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }

    /// Opens a page.
    pub(crate) async fn open(&mut self, url: &str, look: Look) {
        self.look(look).await;
        let opened = self.call("Page.navigate", json!({ "url": url })).await;
        assert_eq!(opened["errorText"], Value::Null, "{url}");
    }

    /// Looks at the page in another way.
    pub(crate) async fn look(&mut self, look: Look) {
        let size = json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1,
            "mobile": look.width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if look.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    /// What an expression of JavaScript gives.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut evaluated = self.call("Runtime.evaluate", parameters).await;
        assert_eq!(evaluated["exceptionDetails"], Value::Null, "{expression}");
        evaluated["result"]["value"].take()
    }

    /// Waits until an expression is true; says what `else_say` gives where it is not.
    pub(crate) async fn until(&mut self, expression: &str, else_say: &str) {
        let deadline = tokio::time::Instant::now() + SOON * 2;
        while self.evaluate(expression).await != true {
            if tokio::time::Instant::now() > deadline {
                let said = self.evaluate(else_say).await;
                panic!("not within {:?}: {expression}\n{said:#}", SOON * 2);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Presses and releases a key.
    pub(crate) async fn press(&mut self, key: &str, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 13 };
            let mut event = json!({ "type": kind, "key": key, "code": key,
                "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types a text.
    pub(crate) async fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Writes a picture of what is seen.
    pub(crate) async fn picture(&mut self, file: &Path) {
        use base64::Engine as _;
        let taken = self
            .call("Page.captureScreenshot", json!({ "format": "png" }))
            .await;
        let data = taken["data"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .unwrap();
        fs::write(file, bytes).unwrap();
    }

    /// Fails if the page has complained of anything.
    pub(crate) fn expect_no_complaint(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Both fail only if it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
