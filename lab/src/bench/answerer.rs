use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::wire::Wire;

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// At once, in one piece.
    Whole,
    /// As a stream of so many chunks, each in a write of its own, a millisecond apart: so the proxy gets each by itself.
    Chunks(u32),
}

const WHOLE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\ndone";
const STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// One token, as an OpenAI-style server sends it; without the line that says its length.
const EVENT: &str = "data: {\"id\":\"cmpl-1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n";
const STREAM_END: &[u8] = b"0\r\n\r\n";
const BETWEEN_CHUNKS: Duration = Duration::from_millis(1);

/// A server that answers at once, so that what is measured is the proxy before it. It ends when it is dropped.
#[derive(Debug)]
pub struct Answerer {
    address: SocketAddr,
    /// Dropping it ends the server.
    _end: oneshot::Sender<Infallible>,
}

impl Answerer {
    /// Starts it on so many threads of its own and a port that the system chooses. Each thread has the same number of connections.
    ///
    /// # Errors
    /// No port, thread or runtime could be had.
    pub fn start(answer: Answer, threads: usize) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut servers = Vec::new();
        for _ in 0..threads.max(1) {
            let (server, connections) = mpsc::unbounded_channel();
            on_thread(async move || serve(connections, answer).await)?;
            servers.push(server);
        }
        let (end, ended) = oneshot::channel::<Infallible>();
        on_thread(async move || {
            tokio::select! {
                () = accept(listener, &servers) => {}
                _ = ended => {}
            }
        })?;
        Ok(Self { address, _end: end })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Runs a task on a thread of its own, until it ends.
fn on_thread(task: impl AsyncFnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let run = move || LocalSet::new().block_on(&runtime, task());
    thread::Builder::new()
        .name("answerer".to_owned())
        .spawn(run)?;
    Ok(())
}

/// Gives connections to the servers in turn.
async fn accept(listener: std::net::TcpListener, servers: &[Connections]) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    for server in servers.iter().cycle() {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        // A connection belongs to the thread that it was made on.
        if let Ok(stream) = stream.into_std() {
            let _ = server.send(stream);
        }
    }
}

type Connections = mpsc::UnboundedSender<std::net::TcpStream>;

/// Serves until nobody can send it connections any more.
async fn serve(mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>, answer: Answer) {
    while let Some(stream) = connections.recv().await {
        let wire = TcpStream::from_std(stream).and_then(Wire::new);
        if let Ok(wire) = wire {
            // Ends with an error when the client closes the connection.
            spawn_local(answer_all(wire, answer));
        }
    }
}

async fn answer_all(mut wire: Wire, answer: Answer) -> io::Result<()> {
    let chunk = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
    loop {
        wire.skip_request().await?;
        match answer {
            Answer::Whole => wire.write(WHOLE).await?,
            Answer::Chunks(chunks) => {
                wire.write(STREAM).await?;
                for _ in 0..chunks {
                    wire.write(chunk.as_bytes()).await?;
                    tokio::time::sleep(BETWEEN_CHUNKS).await;
                }
                wire.write(STREAM_END).await?;
            }
        }
    }
}
