//! The open-loop driver against small servers whose every answer is known.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use lab::load::{Ending, LoadError, Measurement, Progress, Settings, drive};
use lab::workload::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, sleep_until};

/// What a server does with request `n`, which it tells by its prompt tokens; `false` closes the connection.
trait Behaviour: Send + Sync + 'static {
    fn answer(&self, n: u32, stream: &mut TcpStream) -> impl Future<Output = bool> + Send;
}

/// A server on a port of the system's choice, until the runtime of the test ends. Returns its URL.
async fn serve(behaviour: impl Behaviour) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behaviour = Arc::new(behaviour);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let behaviour = Arc::clone(&behaviour);
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                while let Some(n) = read_request(&mut stream).await {
                    if !behaviour.answer(n, &mut stream).await {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Reads a request up to its end, the body `{}`.
async fn read_request(stream: &mut TcpStream) -> Option<u32> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8(text).unwrap();
    let tokens = text
        .lines()
        .find_map(|line| line.strip_prefix("x-prompt-tokens: "));
    Some(tokens.unwrap().parse().unwrap())
}

async fn write(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).await.is_ok()
}

async fn write_status(stream: &mut TcpStream, status: u16, server: &str) -> bool {
    let text =
        format!("HTTP/1.1 {status} X\r\nx-served-by: {server}\r\ncontent-length: 2\r\n\r\nok");
    write(stream, &text).await
}

/// `count` requests `gap` apart, numbered from 1 by their prompt tokens.
fn every(gap: Duration, count: u32) -> Vec<Request> {
    (1..=count)
        .map(|n| Request {
            arrival: gap * (n - 1),
            prompt_tokens: NonZeroU32::new(n).unwrap(),
            output_tokens: NonZeroU32::MIN,
            service: None,
            size: None,
        })
        .collect()
}

fn settings(url: &str) -> Settings {
    Settings {
        warm_up: 0.0,
        timeout: Duration::from_secs(30),
        ..Settings::new(url.parse().unwrap())
    }
}

async fn run(requests: Vec<Request>, settings: Settings) -> Measurement {
    drive(requests, settings, |_| ()).await.unwrap()
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// Answers in every way there is, by the number of the request modulo 10.
struct Everything;

impl Behaviour for Everything {
    async fn answer(&self, n: u32, stream: &mut TcpStream) -> bool {
        match n % 10 {
            1 => write_status(stream, 503, "b").await,
            2 => write_status(stream, 429, "b").await,
            3 => write_status(stream, 500, "b").await,
            4 => write_status(stream, 404, "b").await,
            5 => false,
            6 => {
                write(
                    stream,
                    "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\ntoo little",
                )
                .await;
                false
            }
            7 => {
                sleep(Duration::from_secs(60)).await;
                true
            }
            8 => write(stream, "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await,
            _ => write_status(stream, 200, "a").await,
        }
    }
}

#[tokio::test]
async fn every_outcome_is_counted_exactly() {
    let url = serve(Everything).await;
    let settings = Settings {
        timeout: Duration::from_secs(2),
        keeps_records: true,
        ..settings(&url)
    };
    let measurement = run(every(2 * MILLISECOND, 100), settings).await;

    let records = &measurement.records;
    let count = |ending| records.iter().filter(|it| it.ending == ending).count();
    let endings = [Ending::Answered(503), Ending::TimedOut, Ending::Broken];
    assert_eq!(endings.map(count), [10, 10, 20]);
    assert_eq!(records.iter().filter(|it| it.is_success()).count(), 30);
    let mut given_up = records.iter().filter(|it| it.ending == Ending::TimedOut);
    assert!(given_up.all(|it| it.took >= Duration::from_secs(2)));
    let mut due: Vec<_> = records.iter().map(|it| it.due).collect();
    due.sort_unstable();
    let expected: Vec<_> = (0..100).map(|number| number * 2 * MILLISECOND).collect();
    assert_eq!(due, expected);

    let tally = &measurement.tally;
    let statuses: Vec<_> = tally
        .statuses
        .iter()
        .map(|(&status, &count)| (status, count))
        .collect();
    assert_eq!(
        statuses,
        [(200, 30), (404, 10), (429, 10), (500, 10), (503, 10)]
    );
    assert_eq!(
        (
            tally.connect_failures,
            tally.broken,
            tally.timeouts,
            tally.unsent
        ),
        (0, 20, 10, 0)
    );
    assert_eq!(
        (
            tally.total(),
            tally.successes(),
            tally.rejects(),
            tally.errors()
        ),
        (100, 30, 20, 50)
    );
    assert_eq!(
        tally.failures(),
        "10 x 404, 10 x 429, 10 x 500, 10 x 503, 20 x connection broken, 10 x timed out"
    );
    let upstreams: Vec<_> = measurement
        .upstreams
        .iter()
        .map(|(name, &count)| (&name[..], count))
        .collect();
    assert_eq!(upstreams, [("(unknown)", 10), ("a", 20), ("b", 40)]);
    // Successes and timeouts have latencies, a failure never looks fast.
    assert_eq!(measurement.latency.len(), 40);
    assert_eq!(measurement.first_byte.len(), 30);
    assert_eq!(measurement.latency.count_between(1_999_000, 2_001_000), 10);
    assert_eq!(measurement.schedule_delay.len(), 100);
    assert!(measurement.first_failure.is_some());
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_every_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let measurement = run(every(MILLISECOND, 20), settings(&url)).await;
    assert_eq!(measurement.tally.connect_failures, 20);
    assert_eq!(
        (measurement.tally.errors(), measurement.latency.len()),
        (20, 0)
    );
    let failure = measurement.first_failure.unwrap();
    assert!(
        failure.starts_with(&format!("no connection to {url}: ")),
        "{failure}"
    );
}

/// Stalls for half a second when request 30 comes: whatever comes meanwhile waits for the end of the stall.
struct Stall {
    until: std::sync::Mutex<Option<Instant>>,
}

impl Behaviour for Stall {
    async fn answer(&self, n: u32, stream: &mut TcpStream) -> bool {
        let until = {
            let mut until = self.until.lock().unwrap();
            if n == 30 {
                *until = Some(Instant::now() + Duration::from_millis(500));
            }
            *until
        };
        if let Some(until) = until {
            sleep_until(until.into()).await;
        }
        write_status(stream, 200, "a").await
    }
}

#[tokio::test]
async fn a_stall_shows_in_all_requests_that_fall_into_it() {
    let url = serve(Stall { until: None.into() }).await;
    let measurement = run(every(10 * MILLISECOND, 100), settings(&url)).await;
    assert_eq!(measurement.tally.successes(), 100);
    // Request 30 waits 500 ms, each one after it 10 ms less: 26 of them 250 ms
    // or more. A closed loop would have seen one.
    let slow = measurement.latency.count_between(249_000, 86_400_000_000);
    assert!(slow >= 26, "{slow}");
    let before = measurement.latency.count_between(0, 249_000);
    assert!(before >= 29, "{before}");
}

#[tokio::test]
async fn each_ending_is_recorded_and_requests_may_have_headers_of_their_own() {
    let url = serve(Everything).await;
    // The second says that it is the third.
    let mut third = HeaderMap::new();
    third.insert("x-prompt-tokens", 3.into());
    let settings = Settings {
        headers: [HeaderMap::new(), third].into(),
        keeps_records: true,
        ..settings(&url)
    };
    let measurement = run(every(MILLISECOND, 5), settings).await;
    let mut records = measurement.records;
    records.sort_unstable_by_key(|record| record.index);
    let endings = records.iter().map(|record| (record.index, record.ending));
    let expected = [503, 500, 500, 404].map(Ending::Answered);
    let expected = expected.into_iter().chain([Ending::Broken]).enumerate();
    assert!(endings.eq(expected));
    assert!(records.iter().all(|record| record.took > Duration::ZERO));
}

#[tokio::test]
async fn a_late_generator_blames_itself() {
    let url = serve(Everything).await;
    // All of them are number 10, which is answered at once.
    let mut requests = every(MILLISECOND, 300);
    requests
        .iter_mut()
        .for_each(|request| request.prompt_tokens = NonZeroU32::new(10).unwrap());
    let stopped = AtomicBool::new(false);
    // The generator calls back on its own thread, so this holds it up.
    let observe = move |_: Progress| {
        if !stopped.swap(true, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    let measurement = drive(requests, settings(&url), observe).await.unwrap();
    assert_eq!(measurement.tally.successes(), 300);
    let lateness = measurement.lateness();
    assert!(lateness.fell_behind && !lateness.is_valid(), "{lateness}");
    assert!(lateness.median >= Duration::from_millis(200), "{lateness}");
    assert!(
        lateness
            .to_string()
            .contains("the generator itself fell behind: these results are void")
    );
    // Counted from when they were due, not from when they were sent at last.
    let median = Duration::from_micros(measurement.latency.value_at_quantile(0.5));
    assert!(median >= Duration::from_millis(200), "{median:?}");
}

#[tokio::test]
async fn what_exceeds_the_limit_on_outstanding_requests_is_counted_as_not_sent() {
    let url = serve(Stall {
        until: Some(Instant::now() + Duration::from_secs(1)).into(),
    })
    .await;
    let settings = Settings {
        max_outstanding: 5,
        ..settings(&url)
    };
    let measurement = run(every(MILLISECOND, 20), settings).await;
    assert_eq!(
        (measurement.tally.successes(), measurement.tally.unsent),
        (5, 15)
    );
    assert!(!measurement.lateness().is_valid());
    assert!(
        measurement
            .lateness()
            .to_string()
            .contains("15 requests were not sent")
    );
}

/// Sends half of the answer at once and the rest 100 ms later.
struct SlowBody;

impl Behaviour for SlowBody {
    async fn answer(&self, _: u32, stream: &mut TcpStream) -> bool {
        write(stream, "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\no").await;
        sleep(Duration::from_millis(100)).await;
        write(stream, "k").await
    }
}

#[tokio::test]
async fn the_first_byte_and_the_last_are_told_apart_in_emulated_time() {
    let url = serve(SlowBody).await;
    let settings = Settings {
        time_scale: 10.0,
        ..settings(&url)
    };
    let measurement = run(every(100 * MILLISECOND, 50), settings).await;
    assert_eq!(measurement.tally.successes(), 50);
    // 4.9 s of arrivals in a tenth of that, and 100 ms are told as a second.
    assert!(measurement.elapsed >= Duration::from_millis(490));
    assert!(
        measurement.elapsed < Duration::from_millis(4900),
        "{:?}",
        measurement.elapsed
    );
    assert!(
        measurement.latency.min() >= 999_000,
        "{}",
        measurement.latency.min()
    );
    let first_byte = measurement.first_byte.value_at_quantile(0.5);
    assert!(first_byte < 500_000, "{first_byte}");
}

#[tokio::test]
async fn the_warm_up_is_counted_apart() {
    let url = serve(Everything).await;
    let settings = Settings {
        warm_up: 0.25,
        timeout: Duration::from_secs(1),
        ..settings(&url)
    };
    let measurement = run(every(MILLISECOND, 40), settings).await;
    assert_eq!(
        (measurement.warm_up.total(), measurement.tally.total()),
        (10, 30)
    );
    assert_eq!(
        (
            measurement.warm_up.successes(),
            measurement.tally.successes()
        ),
        (3, 9)
    );
    assert_eq!(measurement.latency.len(), 12);
}

/// Answers at once, and closes the connection without having said so.
struct Closing;

impl Behaviour for Closing {
    async fn answer(&self, _: u32, stream: &mut TcpStream) -> bool {
        write_status(stream, 200, "a").await;
        false
    }
}

#[tokio::test]
async fn connections_are_kept_and_closed_ones_replaced() {
    let mut requests = every(20 * MILLISECOND, 25);
    requests
        .iter_mut()
        .for_each(|request| request.prompt_tokens = NonZeroU32::new(10).unwrap());
    let kept = run(requests.clone(), settings(&serve(Everything).await)).await;
    assert_eq!(kept.tally.successes(), 25);
    assert!(kept.connections <= 5, "{}", kept.connections);
    let replaced = run(requests, settings(&serve(Closing).await)).await;
    assert_eq!((replaced.tally.successes(), replaced.connections), (25, 25));
}

#[tokio::test]
async fn dropping_the_run_ends_it() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let url = serve(Everything).await;
    let load = drive(
        every(10 * MILLISECOND, 100_000),
        settings(&url),
        move |_| {
            let _ = tell.send(());
        },
    );
    let mut load = Box::pin(load);
    tokio::select! {
        _ = &mut load => panic!("it takes a thousand seconds"),
        first = told.recv() => assert_eq!(first, Some(())),
    }
    drop(load);
    // The callback goes when the generator does.
    let ended = async { while told.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_cannot_be_driven_is_refused() {
    let mut requests = every(MILLISECOND, 3);
    requests[2].arrival = Duration::ZERO;
    let error = drive(requests, settings("http://127.0.0.1:1"), |_| ())
        .await
        .unwrap_err();
    assert!(matches!(error, LoadError::Order(2)), "{error}");
    let settings = Settings {
        time_scale: f64::NAN,
        ..settings("http://127.0.0.1:1")
    };
    let error = drive(every(MILLISECOND, 1), settings, |_| ())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "time scale: NaN is not allowed, 0.001 to 1000 is"
    );
}
