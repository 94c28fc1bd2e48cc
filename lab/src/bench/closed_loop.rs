use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use super::wire::Wire;

/// A run that has not ended so long after it should have is given up.
const LATEST: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load {
    /// Threads that send, each with an event loop of its own.
    pub threads: usize,
    /// Connections, spread over the threads.
    pub connections: u64,
    /// When it ends.
    pub until: Until,
    /// The requests, as they go over the wire. Every connection sends them in turn, each from another one on.
    pub requests: Arc<[Bytes]>,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many requests.
    Requests(u64),
    /// With the answers to what was sent until then.
    Elapsed(Duration),
}

/// What a run of [`drive`] took.
#[derive(Clone, Debug)]
pub struct Driven {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// How many of them a second.
    pub per_second: f64,
    /// The median time from sending to the end of the answer.
    pub median: Duration,
}

/// A connection failed, or an answer was not a 200.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// No connection.
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, io::Error),
    /// A broken connection.
    #[error("the connection to {0} broke: {1}")]
    Broken(SocketAddr, io::Error),
    /// A bad answer.
    #[error("{0} answered {1}, expected 200")]
    Status(SocketAddr, u16),
    /// Answers that do not come.
    #[error("{0} has not answered {LATEST:?} after the run should have ended")]
    Late(SocketAddr),
    /// No thread to send from.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A POST with `body`; for each of `clusters` one that names it, or one alone that names none.
#[must_use]
pub fn posts(body: &[u8], clusters: &[String]) -> Arc<[Bytes]> {
    let post = |header: &str| {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{header}\r\n",
            body.len()
        );
        Bytes::from([head.as_bytes(), body].concat())
    };
    if clusters.is_empty() {
        return [post("")].into();
    }
    let named = clusters
        .iter()
        .map(|cluster| post(&format!("x-upstream-cluster: {cluster}\r\n")));
    named.collect()
}

/// Sends requests over connections that each send the next as soon as the last is answered.
///
/// A closed loop keeps the proxy busy, so that its time per request is not mostly that of waking up. It is the wrong
/// way to measure latency under load; for that there is [`crate::load`].
///
/// # Errors
/// Any request that is not answered with 200 ends the run.
pub async fn drive(address: SocketAddr, load: &Load) -> Result<Driven, DriveError> {
    let threads = (load.threads as u64).clamp(1, load.connections.max(1));
    let mut senders = Vec::new();
    for thread in 0..threads {
        let connections = (0..load.connections).filter(|number| number % threads == thread);
        senders.push(sender(address, load.clone(), connections.collect())?);
    }
    let mut driven = Sent::default();
    for sender in senders {
        // A thread that ends without a word has panicked.
        let lost = |_| DriveError::Thread(io::Error::other("it ended early"));
        let sent = sender.await.map_err(lost)??;
        driven.per_second += sent.per_second;
        driven.latencies.extend(sent.latencies);
    }
    let latencies = &mut driven.latencies;
    latencies.sort_unstable();
    Ok(Driven {
        answered: latencies.len() as u64,
        per_second: driven.per_second,
        median: latencies
            .get(latencies.len() / 2)
            .copied()
            .unwrap_or_default(),
    })
}

/// What a thread has sent.
#[derive(Default)]
struct Sent {
    per_second: f64,
    latencies: Vec<Duration>,
}

type Answered<T> = Result<T, DriveError>;

/// Starts a thread that sends over these connections, by their numbers among all.
fn sender(
    address: SocketAddr,
    load: Load,
    connections: Vec<u64>,
) -> Answered<oneshot::Receiver<Answered<Sent>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DriveError::Thread)?;
    let (done, receiver) = oneshot::channel();
    let run = move || {
        let sent = LocalSet::new().block_on(&runtime, send_all(address, &load, &connections));
        // Fails where another thread has failed before.
        let _ = done.send(sent);
    };
    thread::Builder::new()
        .name("load".to_owned())
        .spawn(run)
        .map_err(DriveError::Thread)?;
    Ok(receiver)
}

async fn send_all(address: SocketAddr, load: &Load, connections: &[u64]) -> Answered<Sent> {
    let mut wires = Vec::with_capacity(connections.len());
    for number in connections {
        let failed = |error| DriveError::Connect(address, error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        wires.push((*number, Wire::new(stream).map_err(failed)?));
    }
    let start = Instant::now();
    let run = match load.until {
        Until::Requests(_) => Duration::ZERO,
        Until::Elapsed(run) => run,
    };
    let mut senders = JoinSet::new();
    for (number, wire) in wires {
        let share = match load.until {
            Until::Requests(all) => {
                let more = u64::from(number < all % load.connections);
                Share::Requests(all / load.connections + more)
            }
            Until::Elapsed(run) => Share::Before(start + run),
        };
        // Connections begin evenly spread over the requests.
        let first = number * load.requests.len() as u64 / load.connections.max(1);
        let requests = Arc::clone(&load.requests);
        senders.spawn_local(send(address, wire, share, requests, first as usize));
    }
    let all = async {
        let mut latencies = Vec::new();
        while let Some(sent) = senders.join_next().await {
            // The tasks do not panic and are not aborted before the set is dropped.
            if let Ok(sent) = sent {
                latencies.extend(sent?);
            }
        }
        Ok(latencies)
    };
    let latencies = tokio::time::timeout(run + LATEST, all)
        .await
        .map_err(|_| DriveError::Late(address))??;
    Ok(Sent {
        per_second: latencies.len() as f64 / start.elapsed().as_secs_f64(),
        latencies,
    })
}

/// What one connection sends.
#[derive(Clone, Copy)]
enum Share {
    Requests(u64),
    Before(Instant),
}

async fn send(
    address: SocketAddr,
    mut wire: Wire,
    share: Share,
    requests: Arc<[Bytes]>,
    first: usize,
) -> Answered<Vec<Duration>> {
    let failed = |error| DriveError::Broken(address, error);
    let mut latencies = Vec::new();
    for request in requests.iter().cycle().skip(first) {
        let start = Instant::now();
        let ends = match share {
            Share::Requests(share) => latencies.len() as u64 >= share,
            Share::Before(end) => start >= end,
        };
        if ends {
            break;
        }
        wire.write(request).await.map_err(failed)?;
        match wire.skip_answer().await.map_err(failed)? {
            200 => latencies.push(start.elapsed()),
            status => return Err(DriveError::Status(address, status)),
        }
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Answerer};
    use super::*;

    fn load(until: Until) -> Load {
        Load {
            threads: 3,
            connections: 7,
            until,
            requests: posts(b"{}", &[]),
        }
    }

    #[tokio::test]
    async fn as_many_requests_are_answered_as_were_asked_for() {
        for answer in [Answer::Whole, Answer::Chunks(3)] {
            let server = Answerer::start(answer, 2).unwrap();
            let driven = drive(server.address(), &load(Until::Requests(45))).await;
            let driven = driven.unwrap();
            assert_eq!(driven.answered, 45);
            assert!(driven.per_second > 0.0 && driven.median > Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_run_ends_when_its_time_is_up() {
        let server = Answerer::start(Answer::Whole, 1).unwrap();
        let run = Duration::from_millis(100);
        let start = Instant::now();
        let driven = drive(server.address(), &load(Until::Elapsed(run))).await;
        assert!(driven.unwrap().answered >= 7);
        assert!((run..run + LATEST).contains(&start.elapsed()));
    }

    #[tokio::test]
    async fn nobody_there_is_an_error() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let driven = drive(address, &load(Until::Requests(1))).await;
        assert!(matches!(driven, Err(DriveError::Connect(..))));
    }

    #[test]
    fn a_client_may_name_each_cluster() {
        let text = |request: &Bytes| String::from_utf8(request.to_vec()).unwrap();
        let plain = posts(b"body", &[]);
        assert_eq!(plain.len(), 1);
        assert!(text(&plain[0]).ends_with("content-length: 4\r\n\r\nbody"));
        let named = posts(b"body", &["a".to_owned(), "b".to_owned()]);
        let named: Vec<_> = named.iter().map(text).collect();
        assert!(named[0].contains("\r\nx-upstream-cluster: a\r\n\r\nbody"));
        assert!(named[1].contains("\r\nx-upstream-cluster: b\r\n\r\nbody"));
    }
}
