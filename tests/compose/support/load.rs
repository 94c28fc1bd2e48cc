//! Open-loop load that goes on while the test does something to the servers.

use lab::load::{Measurement, Progress, Settings, drive};
use lab::workload::{Shape, Workload};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::stack::Stack;
use super::{SOON, eventually};

/// The servers' speed-up, as the compose file has it.
const TIME_SCALE: f64 = 4.0;

/// Requests a second, emulated: 29 % of what the servers can serve, so that any
/// three of them can serve them all.
const RATE: f64 = 12.0;

/// Load under way.
pub(crate) struct Load {
    progress: watch::Receiver<usize>,
    measurement: JoinHandle<Measurement>,
}

impl Load {
    /// Begins to send so many requests, 48 a second.
    pub(crate) fn start(stack: &Stack, requests: usize) -> Self {
        let requests = Workload::of_shape(Shape::Conversation)
            .requests(requests, Some(RATE), 1)
            .unwrap();
        let mut settings = Settings::new(stack.published("envoy", 10000).into());
        settings.time_scale = TIME_SCALE;
        settings.warm_up = 0.0;
        let (tell, progress) = watch::channel(0);
        let load = drive(requests, settings, move |Progress { ended, .. }| {
            // Nobody listens once the test is over.
            let _ = tell.send(ended);
        });
        Self {
            progress,
            measurement: tokio::spawn(async { load.await.unwrap() }),
        }
    }

    /// Waits until so many more requests have ended.
    pub(crate) async fn expect_progress(&self, requests: usize) {
        let wanted = *self.progress.borrow() + requests;
        eventually(&format!("{wanted} requests to end"), SOON, async || {
            let ended = *self.progress.borrow();
            if ended >= wanted {
                Ok(())
            } else {
                Err(format!("{ended} have"))
            }
        })
        .await;
    }

    /// Waits for the rest, and makes sure that every request was served.
    pub(crate) async fn expect_no_errors(self) -> Measurement {
        let measurement = self.measurement.await.unwrap();
        let failures = measurement.tally.failures();
        assert_eq!(failures, "", "{:?}", measurement.first_failure);
        measurement
    }
}
