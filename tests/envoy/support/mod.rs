//! What the tests stand on: scripted upstreams, a client whose every step can
//! be stopped, and a real Envoy between them.

pub(crate) mod client;
pub(crate) mod fleet;
pub(crate) mod place;
pub(crate) mod trap;
pub(crate) mod upstream;

use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that should happen at once. Generous: the tests
/// share few processors with several Envoys.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Waits until `probe` gives a value, and fails with what it said last.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("{what}: not within {within:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What `future` gives, which must come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}
