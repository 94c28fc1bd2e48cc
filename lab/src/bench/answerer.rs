use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// A server that answers at once, so that what is measured is the proxy before it. It ends when it is dropped.
#[derive(Debug)]
pub struct Answerer {
    address: SocketAddr,
    /// Dropping it ends the server.
    _end: oneshot::Sender<Infallible>,
}

impl Answerer {
    /// Starts it on a thread of its own and a port that the system chooses.
    ///
    /// # Errors
    /// No port, thread or runtime could be had.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (end, ended) = oneshot::channel::<Infallible>();
        thread::Builder::new()
            .name("answerer".to_owned())
            .spawn(move || {
                let serve = LocalSet::new();
                serve.block_on(&runtime, async {
                    let Ok(listener) = TcpListener::from_std(listener) else {
                        return;
                    };
                    tokio::select! {
                        () = accept(listener) => {}
                        _ = ended => {}
                    }
                });
            })?;
        Ok(Self { address, _end: end })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // Without it a small answer may wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        spawn_local(connection);
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    while let Some(frame) = request.body_mut().frame().await {
        frame?;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"done"))))
}
