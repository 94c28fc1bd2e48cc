//! Open-loop HTTP load: every request is sent when it is due, whatever became of those before it.
//!
//! Latency counts from the time that a request was *due*, not from when it was sent, so that a stall of the server shows
//! in all requests that fall into it, and a generator that is late blames itself (Tene, "How NOT to measure latency", on
//! coordinated omission). Every request ends in exactly one [`Tally`] entry: an HTTP status, a failed or broken
//! connection, a timeout, or never sent for want of room. What is bounded: the number of requests, those outstanding at a time, and
//! the time of each, so that a run ends at the latest one timeout after its last arrival.
//!
//! # Time scale
//! Emulated servers can run faster than life. Under the scale `s` arrivals come `s` times as fast and measured times are
//! multiplied by `s`: what goes in and what comes out is in emulated time, only [`Measurement::schedule_delay`] and
//! [`Measurement::elapsed`] are in real time.

mod connections;
mod driver;
mod form;
mod measurement;
mod pacer;
mod ready;
mod record;
mod settings;
mod tally;

pub use driver::{LoadError, Progress, drive};
pub use form::Form;
pub use measurement::{Lateness, Measurement};
pub use ready::{NotReady, ready};
pub use record::{Ending, Record};
pub use settings::{MAX_TIME_SCALE, Settings, SettingsError, Target};
pub use tally::Tally;
