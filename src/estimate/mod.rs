//! What is learned of upstreams from the requests that they answered.
//!
//! Pure arithmetic: time is always an argument and nothing here knows where
//! the numbers are kept. Every estimate can say that it knows nothing yet,
//! and none can be brought to a value that is not finite, whatever it is fed.

pub mod basis;
pub mod errors;
mod line;
pub mod observed;
pub mod pace;
pub mod response_time;
pub mod shrinkage;
pub mod sketch;
pub mod tail;
mod tuning;
pub mod work;

pub use basis::{Basis, Book, Books, Sample};
pub use errors::ErrorRate;
pub use observed::ObservedWork;
pub use pace::{Pace, ResidualVariance};
pub use response_time::{PeakResponseTime, ResponseTime};
pub use shrinkage::Prior;
pub use sketch::Sketch;
pub use tail::{Latencies, tail_paces};
pub use tuning::Tuning;
pub use work::{AtPick, WorkModel};
