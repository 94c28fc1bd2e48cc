//! Ctrl-C and its like.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The signals that ask a process to end. While this listens, none ends it by itself.
pub(crate) struct EndSignals {
    interrupted: Signal,
    terminated: Signal,
}

impl EndSignals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupted: signal(SignalKind::interrupt()).context("SIGINT")?,
            terminated: signal(SignalKind::terminate()).context("SIGTERM")?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}
