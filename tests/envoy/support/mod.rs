//! What the tests stand on: scripted upstreams, a client whose every step can
//! be stopped, and a real Envoy between them.

pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod fleet;
pub(crate) mod load;
pub(crate) mod place;
pub(crate) mod trap;
pub(crate) mod upstream;
mod wait;
pub(crate) mod written;

pub(crate) use wait::{SOON, eventually};

/// What `future` gives, which must come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}
