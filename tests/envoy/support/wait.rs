//! Waiting for conditions: with deadlines, never for luck.

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
