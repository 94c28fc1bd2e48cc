//! Answers that come token by token, as server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::ResetSwitch;
use super::replica::{Progress, Ticket};
use super::token_text::text;
use crate::model::LossReason;

/// The texts of a stream's events.
pub(super) trait Chunks: Send + Sync {
    /// The event with the first token.
    fn first(&self, text: &str) -> Bytes;
    /// An event with further tokens.
    fn next(&self, text: &str) -> Bytes;
    /// All that comes after the last token.
    fn last(&self) -> Bytes;
}

/// A body that follows a streamed job. Dropped before its end, it cancels the job.
pub(super) struct TokenStream {
    progress: UnboundedReceiver<Progress>,
    ticket: Ticket,
    chunks: Box<dyn Chunks>,
    reset: ResetSwitch,
    stage: Stage,
}

enum Stage {
    Waiting,
    /// With the event of one token, the same each time.
    Generating(Bytes),
    Ended,
}

/// The server dropped the job half-way: the body ends where it is.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer was cut off")]
pub(super) struct CutOff;

impl TokenStream {
    pub(super) fn new(
        progress: UnboundedReceiver<Progress>,
        ticket: Ticket,
        chunks: Box<dyn Chunks>,
        reset: ResetSwitch,
    ) -> Self {
        Self {
            progress,
            ticket,
            chunks,
            reset,
            stage: Stage::Waiting,
        }
    }

    fn tokens(&mut self, count: u32) -> Bytes {
        match &self.stage {
            Stage::Generating(one) if count == 1 => one.clone(),
            Stage::Generating(_) | Stage::Ended => self.chunks.next(text(count).as_str()),
            Stage::Waiting => {
                self.stage = Stage::Generating(self.chunks.next(text(1).as_str()));
                self.chunks.first(text(count).as_str())
            }
        }
    }

    fn end(&mut self) {
        self.ticket.end();
        self.stage = Stage::Ended;
    }
}

impl Body for TokenStream {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let stream = self.get_mut();
        if let Stage::Ended = stream.stage {
            return Poll::Ready(None);
        }
        let bytes = match ready!(stream.progress.poll_recv(context)) {
            Some(Progress::Tokens(count)) => stream.tokens(count),
            Some(Progress::End(Ok(()))) => {
                stream.end();
                stream.chunks.last()
            }
            Some(Progress::End(Err(reason))) => {
                stream.end();
                if reason != LossReason::Reload {
                    stream.reset.set();
                }
                return Poll::Ready(Some(Err(CutOff)));
            }
            // The whole fleet is shutting down.
            None => return Poll::Ready(Some(Err(CutOff))),
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}
