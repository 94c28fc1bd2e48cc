//! Estimates about upstreams, learned from the requests that they answered.
//!
//! Pure arithmetic: time is always an argument, and nothing here knows where
//! the numbers are stored. Every estimate can be "unknown",
//! and no input makes an estimate infinite or NaN.

mod basis;
pub mod concurrency;
pub mod errors;
mod evidence;
mod line;
pub mod observed;
pub mod pace;
pub mod refusals;
pub mod response_time;
pub mod shrinkage;
pub mod sketch;
mod spread;
pub mod tail;
mod tuning;
pub mod work;

pub use basis::{Basis, Book, Books, Sample};
pub use concurrency::ConcurrencyLimit;
pub use errors::ErrorRate;
pub use evidence::{Credit, Evidence, MeanLatency};
pub use observed::ObservedWork;
pub use pace::{Pace, ResidualVariance};
pub use refusals::{Answers, Refusals};
pub use response_time::{PeakResponseTime, ResponseTime};
pub use shrinkage::Prior;
pub use sketch::Sketch;
pub use spread::Spread;
pub use tail::{Latencies, Tail, tail_paces};
pub use tuning::Tuning;
pub use work::{AtPick, WorkModel};
