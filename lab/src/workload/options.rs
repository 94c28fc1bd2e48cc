//! The options of a command line that say what is asked of a fleet.

use std::path::PathBuf;
use std::sync::Arc;

use super::Workload;
use super::arrivals::Arrivals;
use super::shape::Shape;
use super::trace::Trace;

/// What is asked, and when.
#[derive(Debug, clap::Args)]
pub struct WorkloadArgs {
    /// The sizes of requests: conversation, code-completion, long-context or diffusion
    ///
    /// Drawn from published figures of production services. diffusion is for slot servers, the others are tokens of an LLM.
    #[arg(long, value_name = "NAME", default_value_t = Shape::Conversation, conflicts_with = "trace")]
    workload: Shape,

    /// Replay a trace instead: a CSV file with the header TIMESTAMP,ContextTokens,GeneratedTokens
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// How requests arrive: poisson, recorded (as in the trace) or bursty:CV
    ///
    /// CV is the coefficient of variation of the times between arrivals, 1.1 to 100. Without this option, as was published of the workload,
    /// or as recorded.
    #[arg(long, value_name = "HOW")]
    arrivals: Option<Arrivals>,
}

impl WorkloadArgs {
    /// The workload; says on standard error what is odd about a trace.
    ///
    /// # Errors
    /// A trace that cannot be read, or arrivals that the workload does not have.
    pub fn workload(&self) -> anyhow::Result<Workload> {
        let workload = match &self.trace {
            None => Workload::of_shape(self.workload),
            Some(path) => {
                let trace = Trace::open(path)?;
                if trace.out_of_order() > 0 {
                    eprintln!(
                        "{}: {} rows are earlier than the row before them; they were sorted by time",
                        trace.name(),
                        trace.out_of_order()
                    );
                }
                Workload::of_trace(Arc::new(trace))
            }
        };
        match self.arrivals {
            None => Ok(workload),
            Some(arrivals) => Ok(workload.arriving(arrivals)?),
        }
    }
}

/// How many requests to make of those asked for; says on standard error if the trace has fewer.
#[must_use]
pub fn clamp_to_trace(workload: &Workload, asked: usize) -> usize {
    match workload.available() {
        Some(rows) if rows < asked => {
            eprintln!(
                "the trace has {rows} rows, fewer than the {asked} requests asked for: all of them are replayed"
            );
            rows
        }
        _ => asked,
    }
}
