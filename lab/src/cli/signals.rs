//! Ctrl-C and its like.

use anyhow::Context;

/// What ends when the process is interrupted or terminated; from now on neither ends it by itself.
#[cfg(unix)]
pub(super) fn end_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupted = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

/// What ends when the process is interrupted; from now on that does not end it by itself.
#[cfg(not(unix))]
pub(super) fn end_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to hear of it there is nothing to wait for.
        let _ = tokio::signal::ctrl_c().await;
    })
}
