//! What runs of load have shown, for people (a table, a picture) and for programs (JSON).
//!
//! A [`Series`] is what one policy did in one or more runs, a [`Comparison`] sets several side by side. Where there are several
//! runs, a figure is their median, and its spread the least and the greatest; ratios are taken run by run, of runs on the same arrivals,
//! before their median is.

mod comparison;
mod plot;
mod run;
mod spread;
mod table;

#[cfg(test)]
mod tests;

pub use comparison::{Comparison, Ratio, Series};
pub use plot::{PlotError, distribution_svg, latency_svg};
pub use run::{Quantile, RunReport, ScheduleDelay, Summary};
pub use spread::Spread;
pub(crate) use table::seconds;
pub use table::{notes, table};
