use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Target;
use super::tally::Outcome;

type Body = Full<Bytes>;

/// Keep-alive connections to one target, as many as there are requests outstanding.
///
/// The one used last is used next, so that those of a burst fall idle together. A request goes out at once: on an idle
/// connection, or on a new one, and never waits for another request.
pub(super) struct Connections {
    target: Target,
    idle: RefCell<Vec<SendRequest<Body>>>,
    opened: Cell<u64>,
}

/// A connection that a request is on.
pub(super) struct Busy {
    sender: SendRequest<Body>,
    pool: Rc<Connections>,
}

impl Connections {
    pub(super) fn new(target: Target) -> Rc<Self> {
        Rc::new(Self {
            target,
            idle: RefCell::default(),
            opened: Cell::new(0),
        })
    }

    /// How many were opened in all.
    pub(super) fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        self: &Rc<Self>,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Busy), Outcome> {
        loop {
            let (mut sender, is_new) = match self.take_idle() {
                Some(sender) => (sender, false),
                None => (self.open().await.map_err(Outcome::ConnectFailed)?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let pool = Rc::clone(self);
                    return Ok((response, Busy { sender, pool }));
                }
                Err(mut failure) => match failure.take_message() {
                    // The server had closed this idle connection, and not a byte was sent on it.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(broken(failure.error())),
                },
            }
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn open(&self) -> Result<SendRequest<Body>, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("no connection to {}: {error}", self.target);
        let stream = TcpStream::connect(self.target.address)
            .await
            .map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        self.opened.set(self.opened.get() + 1);
        // Its error, if it ends in one, is also that of the request on it.
        spawn_local(async { drop(connection.await) });
        Ok(sender)
    }
}

impl Busy {
    /// Makes the connection idle after its answer was read to the end, unless the server closes it.
    pub(super) fn release(mut self) {
        spawn_local(async move {
            if self.sender.ready().await.is_ok() {
                self.pool.idle.borrow_mut().push(self.sender);
            }
        });
    }
}

/// The outcome of an error on a connection, with its causes.
pub(super) fn broken(error: &hyper::Error) -> Outcome {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Outcome::Broken(message)
}
