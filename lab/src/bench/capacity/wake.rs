use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::Shown;
use super::run::WaitError;
use crate::bench::Goal;
use crate::bench::closed_loop::{Load, Until, drive, posts};
use crate::bench::wire::Wire;
use crate::gateway::{Balancing, Gateway, Topology, filter_module};

/// How long the server takes for each request.
const SERVICE: Duration = Duration::from_millis(4);
const RUN: Duration = Duration::from_secs(10);
/// So many that there is always somebody who waits, and that both workers have some of them but in one of 2^23 runs.
const CLIENTS: u64 = 24;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
/// Milliseconds by which a wake-up may make the median longer.
const WAKE: f64 = 1.0;

/// One request at the server.
#[derive(Clone, Copy)]
struct Visit {
    /// The connection, which belongs to one worker of Envoy.
    connection: usize,
    came: Instant,
    /// Just before the answer was written.
    left: Instant,
}

/// A server with a cap of one behind two workers, and always somebody who waits: how long it has nothing to do between an answer and the
/// next request, where that comes from the same worker and where the other has to be woken. A quarter of a minute.
///
/// # Errors
/// See [`WaitError`].
pub async fn measure_wake_ups() -> Result<Shown, WaitError> {
    let server = Server::start()?;
    let config = json!({ "upstreams": [{ "cluster": "a", "max_in_flight": 1 }] });
    let balancing = Balancing::Filter {
        module: filter_module()?,
        config: config.to_string(),
    };
    let mut topology = Topology::new([("a", server.address)], balancing);
    topology.workers = 2;
    let gateway = Gateway::start(&topology).await?;
    let load = Load {
        threads: 1,
        connections: CLIENTS,
        until: Until::Elapsed(RUN),
        requests: posts(b"{}", &[]),
    };
    drive(gateway.address(), &load).await?;
    let visits = server.visits();
    let (same, other) = gaps(&visits);
    let median = |gaps: &[f64]| quantile(gaps, 0.5);
    let goal = Goal::at_most(
        "milliseconds that a wake-up across workers adds, at the median",
        median(&other) - median(&same),
        WAKE,
    );
    let overlapping = visits.iter().zip(visits.iter().skip(1));
    let overlapping = overlapping
        .filter(|(one, next)| next.came < one.left)
        .count();
    let remark = (overlapping > 0).then(|| format!("{overlapping} requests came above the cap"));
    Ok(Shown {
        text: table(&[
            ("the worker whose request ended", &same),
            ("the other worker", &other),
        ]),
        goals: vec![goal],
        remarks: remark.into_iter().collect(),
    })
}

/// Milliseconds between an answer and the next request, in rising order: on the same connection, and on another.
fn gaps(visits: &[Visit]) -> (Vec<f64>, Vec<f64>) {
    let (mut same, mut other) = (Vec::new(), Vec::new());
    for (one, next) in visits.iter().zip(visits.iter().skip(1)) {
        let gap = next.came.saturating_duration_since(one.left);
        let gap = gap.as_secs_f64() * 1e3;
        if one.connection == next.connection {
            same.push(gap);
        } else {
            other.push(gap);
        }
    }
    same.sort_by(f64::total_cmp);
    other.sort_by(f64::total_cmp);
    (same, other)
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = (sorted.len() as f64 * q).ceil() as usize;
    let value = sorted.get(place.saturating_sub(1));
    value.copied().unwrap_or(f64::NAN)
}

fn table(rows: &[(&str, &Vec<f64>)]) -> String {
    let mut table = Builder::default();
    table.push_record([
        "the next request comes from",
        "times",
        "p50",
        "p90",
        "p99",
        "longest",
    ]);
    for (name, gaps) in rows {
        let of = |q| format!("{:.2} ms", quantile(gaps, q));
        table.push_record([
            (*name).to_owned(),
            gaps.len().to_string(),
            of(0.5),
            of(0.9),
            of(0.99),
            of(1.0),
        ]);
    }
    table.build().with(Style::markdown()).to_string()
}

/// A server that notes when requests come and go. It ends when it is dropped.
struct Server {
    address: SocketAddr,
    visits: Arc<Mutex<Vec<Visit>>>,
    _end: oneshot::Sender<()>,
}

impl Server {
    fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let visits = Arc::<Mutex<Vec<Visit>>>::default();
        let (end, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let noted = Arc::clone(&visits);
        let run = move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    _ = accept(listener, noted) => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new()
            .name("server".to_owned())
            .spawn(run)?;
        Ok(Self {
            address,
            visits,
            _end: end,
        })
    }

    fn visits(&self) -> Vec<Visit> {
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut visits = visits.clone();
        visits.sort_by_key(|visit| visit.came);
        visits
    }
}

async fn accept(listener: std::net::TcpListener, visits: Arc<Mutex<Vec<Visit>>>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    for connection in 0.. {
        let (stream, _) = listener.accept().await?;
        let visits = Arc::clone(&visits);
        // Ends with an error when Envoy closes the connection.
        spawn_local(async move { answer(stream, connection, &visits).await });
    }
    Ok(())
}

async fn answer(
    stream: TcpStream,
    connection: usize,
    visits: &Mutex<Vec<Visit>>,
) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    loop {
        wire.skip_request().await?;
        let came = Instant::now();
        tokio::time::sleep(SERVICE).await;
        let left = Instant::now();
        wire.write(ANSWER).await?;
        let visit = Visit {
            connection,
            came,
            left,
        };
        let mut visits = visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.push(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told_apart_by_the_connection() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let visit = |connection, came, left| Visit {
            connection,
            came: at(came),
            left: at(left),
        };
        let visits = [
            visit(0, 0, 4),
            visit(0, 5, 9),
            visit(1, 11, 15),
            visit(0, 18, 22),
        ];
        assert_eq!(gaps(&visits), (vec![1.0], vec![2.0, 3.0]));
    }

    #[test]
    fn quantiles_are_values() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 1.0].map(|q| quantile(&sorted, q)),
            [50.0, 99.0, 100.0]
        );
        assert!(quantile(&[], 0.5).is_nan());
    }
}
