//! What the filter needs from the proxy that runs it.
//!
//! Everything else in this crate reaches the outside only through these
//! traits, so it runs unchanged under the real proxy, under tests and in the
//! simulator. Errors are values: a host call may fail at any time, and a
//! failed call must never become a failed request.

pub mod attributes;
#[cfg(test)]
pub(crate) mod fake;
pub mod memory;

use std::fmt;
use std::time::Duration;

use crate::time::Timestamp;

/// A host call that did not succeed, by the proxy-wasm status it returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError(pub u32);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host call failed with status {}", self.0)
    }
}

impl std::error::Error for HostError {}

/// The version of a value in shared data: any write of the key changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

/// A value of shared data at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value; empty where it was removed.
    pub value: Vec<u8>,
    /// The version to give to [`SharedData::compare_and_set`].
    pub version: Version,
}

/// Why a write to shared data did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError {
    /// Somebody else wrote the key since the given version was read.
    Conflict,
    /// The host refused for another reason.
    Host(HostError),
}

/// The store that all workers of a process share.
pub trait SharedData {
    /// Reads `key`; `None` where it was never written.
    ///
    /// # Errors
    /// The host call failed.
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError>;

    /// Writes `key`, whatever it holds: for keys that only one worker writes.
    ///
    /// # Errors
    /// The host call failed.
    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError>;

    /// Writes `key` if it still has the version that `expected` names, or if
    /// it does not exist where `expected` is `None`.
    ///
    /// # Errors
    /// The key has changed, or the host call failed.
    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError>;
}

/// What a metric counts and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A total that only grows.
    Counter,
    /// A level that is set.
    Gauge,
    /// A distribution of samples.
    Histogram,
}

/// A queue that the host knows: what any worker puts in, its owner is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueId(pub u32);

/// An answer to a request in place of an upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalResponse<'a> {
    /// The status, 200 to 599.
    pub status: u16,
    /// Why, for the proxy's access log.
    pub details: &'a str,
    /// Names, in lower case, and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// The status of gRPC for requests of gRPC; `None` where the proxy is to derive it
    /// from the status.
    pub grpc_status: Option<u32>,
}

/// A metric that the host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricId(pub u32);

/// A request that the filter sent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u32);

/// Requests that the filter sends itself: the probes of a health check.
pub trait Calls: SharedData {
    /// Sends a request without a body to a cluster, on behalf of the context whose
    /// callback is running. Its end comes to that context, with the id that this
    /// returns; a context that has gone hears of none. `headers` are `:method`,
    /// `:path`, `:authority` and others.
    ///
    /// # Errors
    /// The host did not take the request, or has its answer already: there is no such
    /// cluster, say, or nothing in it to connect to.
    fn call(
        &mut self,
        cluster: &str,
        headers: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<CallId, HostError>;

    /// The first value of a header of the answer that has come, while its context
    /// hears of it.
    ///
    /// # Errors
    /// The host call failed.
    fn call_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// At most `max` bytes of the body of the answer that has come, while its context
    /// hears of it; `None` where it has no body.
    ///
    /// # Errors
    /// The host call failed.
    fn call_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError>;
}

/// The proxy: its clock, the current stream's headers and properties, its
/// metrics and the shared data.
///
/// Header names are lower case. Header values are bytes: nothing promises
/// that they are UTF-8.
pub trait Host: Calls {
    /// The monotonic clock.
    ///
    /// # Errors
    /// The host call failed.
    fn now(&mut self) -> Result<Timestamp, HostError>;

    /// 64 random bits.
    ///
    /// # Errors
    /// The host call failed.
    fn random(&mut self) -> Result<u64, HostError>;

    /// The first value of a request header.
    ///
    /// # Errors
    /// The host call failed; it does once the headers have gone upstream.
    fn request_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Gives a request header this one value, whatever it had.
    ///
    /// # Errors
    /// The host call failed.
    fn set_request_header(&mut self, name: &str, value: &str) -> Result<(), HostError>;

    /// Removes all values of a request header.
    ///
    /// # Errors
    /// The host call failed.
    fn remove_request_header(&mut self, name: &str) -> Result<(), HostError>;

    /// At most `max` bytes of the request's body, as far as it is buffered;
    /// `None` where nothing is.
    ///
    /// # Errors
    /// The host call failed.
    fn request_body(&mut self, max: usize) -> Result<Option<Vec<u8>>, HostError>;

    /// Turns to another stream: what is asked after this is asked of it.
    ///
    /// # Errors
    /// The host call failed; it does where there is no such stream any more.
    fn attend(&mut self, context: u32) -> Result<(), HostError>;

    /// Lets a request go on that was paused. Its headers can no longer be
    /// changed then.
    ///
    /// # Errors
    /// The host call failed.
    fn resume_request(&mut self) -> Result<(), HostError>;

    /// Answers the request in place of an upstream; it must not go on then.
    ///
    /// # Errors
    /// The host call failed, and the request is not answered.
    fn respond(&mut self, response: &LocalResponse<'_>) -> Result<(), HostError>;

    /// Makes this worker the one that is called when something is put into the queue of
    /// that name.
    ///
    /// # Errors
    /// The host call failed.
    fn own_queue(&mut self, name: &str) -> Result<QueueId, HostError>;

    /// Puts something into a queue, so that its owner is called soon.
    ///
    /// # Errors
    /// The host call failed.
    fn enqueue(&mut self, queue: QueueId) -> Result<(), HostError>;

    /// Takes one thing out of a queue. Whether there was one.
    ///
    /// # Errors
    /// The host call failed.
    fn dequeue(&mut self, queue: QueueId) -> Result<bool, HostError>;

    /// Asks to be ticked every `millis` milliseconds, the next time after so
    /// many.
    ///
    /// # Errors
    /// The host call failed.
    fn tick_every(&mut self, millis: u32) -> Result<(), HostError>;

    /// The first value of a response header.
    ///
    /// # Errors
    /// The host call failed.
    fn response_header(&mut self, name: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Gives a response header this one value, whatever it had.
    ///
    /// # Errors
    /// The host call failed.
    fn set_response_header(&mut self, name: &str, value: &str) -> Result<(), HostError>;

    /// A property of the stream or the plugin, as the host serialises it;
    /// `None` where it does not exist at this point.
    ///
    /// # Errors
    /// The host call failed.
    fn property(&mut self, path: &[&str]) -> Result<Option<Vec<u8>>, HostError>;

    /// Sets a property of the stream, which the proxy's access log can tell.
    ///
    /// # Errors
    /// The host call failed.
    fn set_property(&mut self, path: &str, value: &str) -> Result<(), HostError>;

    /// Makes a metric known; the same name is the same metric in every worker.
    ///
    /// # Errors
    /// The host call failed.
    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Result<MetricId, HostError>;

    /// Adds to a counter.
    ///
    /// # Errors
    /// The host call failed.
    fn increment_metric(&mut self, id: MetricId, by: i64) -> Result<(), HostError>;

    /// Sets a gauge, or adds a sample to a histogram.
    ///
    /// # Errors
    /// The host call failed.
    fn record_metric(&mut self, id: MetricId, value: u64) -> Result<(), HostError>;
}
