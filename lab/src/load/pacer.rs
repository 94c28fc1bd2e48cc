use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

/// Tells when each request is due, from a thread of its own: the timers of the asynchronous runtime are a millisecond
/// coarse, and late whenever the runtime is busy.
pub(super) struct Pacer {
    due: UnboundedReceiver<usize>,
    // Its end wakes the thread and ends it.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Starts to tell the index of each of `offsets`, which are in order, when it has gone by since `start`.
    pub(super) fn start(start: Instant, offsets: Vec<Duration>) -> io::Result<Self> {
        let (tell, due) = tokio::sync::mpsc::unbounded_channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name("load-pacer".to_owned())
            .spawn(move || {
                for (index, offset) in offsets.into_iter().enumerate() {
                    if !sleep_until(start + offset, &stopped) || tell.send(index).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            due,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The next index that is due; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<usize> {
        self.due.recv().await
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been told by its own message.
            let _ = thread.join();
        }
    }
}

/// Sleeps until then; `false` if told to stop.
fn sleep_until(due: Instant, stopped: &mpsc::Receiver<()>) -> bool {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match stopped.recv_timeout(left) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
    }
}
