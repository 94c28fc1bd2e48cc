//! Requests that wait for their bodies, and whether waiting is of any use.
//!
//! If a filter stops a request at its headers, the proxy shows the body only if
//! it is configured to (`allow_on_headers_stop_iteration`). Otherwise the body
//! waits in the proxy for the request to continue, and the request for its body.
//! The number of bytes that the proxy has received for the request distinguishes
//! the cases: if it grows and the proxy shows nothing, it never will. A slow client
//! is not mistaken for this, because nothing has been received from it.
//!
//! The proxy shows the filter each part once; the part stays in the stream's own
//! buffer, and is copied here. If that buffer is full, the proxy stops reading from
//! the client and rejects nothing. So a request can continue at any moment, from a
//! tick as well as from a callback, together with the parts that have come.

use std::time::Duration;

use crate::host::{Host, attributes};
use crate::request::Unknown;
use crate::time::Timestamp;

/// Once bodies are known not to be shown, a request tries again so often: the
/// proxy may have been told to in the meantime.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// How long it may take from the moment that the proxy has received a part of a
/// body to the moment that it shows it, where it has not shown any yet. A filter
/// before this one may keep a body back for a while.
const SHOWS_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of bodies that a worker keeps at most, beside the largest one.
const ROOM: usize = 64 << 20;

/// The requests of one worker that wait, by their context.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In the order of their contexts.
    parked: Vec<(u32, Parked)>,
    sight: Sight,
    /// Decided, and still to be resumed: the proxy did not do it when told.
    stuck: Vec<u32>,
    /// Bytes that are kept of all bodies.
    kept: usize,
}

#[derive(Debug)]
struct Parked {
    since: Timestamp,
    /// Bytes that the proxy had received for the request when it was stopped.
    received: Option<u64>,
    /// When it was found that the proxy has received more.
    grown_at: Option<Timestamp>,
    /// Bytes that are kept of its body.
    kept: usize,
}

/// What is known of the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sight {
    #[default]
    Untried,
    /// It shows bodies. That does not change while it runs this configuration.
    Shown,
    /// It does not, as was last found out then.
    NotShown(Timestamp),
}

/// A request that has waited enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The context of its stream.
    pub context: u32,
    /// Why it goes on without its body.
    pub reason: Unknown,
}

impl Waiting {
    /// Whether a request may wait for its body.
    pub fn may_begin(&mut self, now: Timestamp) -> bool {
        match self.sight {
            Sight::Untried | Sight::Shown => true,
            Sight::NotShown(since) if now.since(since) < TRY_AGAIN => false,
            Sight::NotShown(_) => {
                self.sight = Sight::NotShown(now);
                true
            }
        }
    }

    /// The request of the context that `host` is at waits from now on.
    pub fn park(&mut self, context: u32, host: &mut impl Host, now: Timestamp) {
        let parked = Parked {
            since: now,
            received: match self.sight {
                Sight::Shown => None,
                _ => received(host),
            },
            grown_at: None,
            kept: 0,
        };
        self.keep(context, parked);
    }

    /// Whether so many bytes of the request's body may be kept: there is room for
    /// 64 MiB of all bodies, and always for a single one.
    pub fn keeps(&mut self, context: u32, bytes: usize) -> bool {
        let Ok(place) = self.place(context) else {
            return true;
        };
        let Some((_, parked)) = self.parked.get_mut(place) else {
            return true;
        };
        let others = self.kept.saturating_sub(parked.kept);
        if others > 0 && others.saturating_add(bytes) > ROOM {
            return false;
        }
        parked.kept = bytes;
        self.kept = others.saturating_add(bytes);
        true
    }

    /// Whether the request has waited longer than it may. So has one that is
    /// not known to wait: nothing else would end its wait.
    #[must_use]
    pub fn is_overdue(&self, context: u32, timeout: Duration, now: Timestamp) -> bool {
        self.place(context)
            .ok()
            .and_then(|place| self.parked.get(place))
            .is_none_or(|(_, parked)| now.since(parked.since) >= timeout)
    }

    /// A part of a body has come while its request waits.
    pub fn body_shown(&mut self) {
        if let Sight::NotShown(_) = self.sight {
            log::info!("paceline: request bodies are shown to the filter again");
        }
        self.sight = Sight::Shown;
    }

    /// Lets the request of the context that `host` is at go on; if the proxy
    /// does not now, at the next tick.
    pub fn resume(&mut self, context: u32, host: &mut impl Host) {
        if host.resume_request().is_err() {
            self.stuck.push(context);
        }
    }

    /// Tries again what did not go on when told.
    pub fn resume_stuck(&mut self, host: &mut impl Host) {
        self.stuck
            .retain(|context| host.attend(*context).is_ok() && host.resume_request().is_err());
    }

    /// A request no longer waits.
    pub fn leave(&mut self, context: u32) {
        self.take(context);
    }

    /// A request goes on by the answer to a callback: to resume it as well
    /// would send again what it has sent.
    pub fn goes_on(&mut self, context: u32) {
        self.stuck.retain(|stuck| *stuck != context);
    }

    /// Whether requests wait of which it is not known that their bodies will be
    /// shown, or that should not wait: then they have to be looked after often.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        !self.stuck.is_empty() || (self.sight != Sight::Shown && !self.parked.is_empty())
    }

    /// The requests that have waited enough. Each is to be let go, or to leave
    /// where its stream is gone; until then it is due again.
    pub fn due(&mut self, host: &mut impl Host, timeout: Duration, now: Timestamp) -> Vec<Due> {
        let sight = &mut self.sight;
        let mut due = Vec::new();
        for (context, parked) in &mut self.parked {
            let context = *context;
            let overdue = now.since(parked.since) >= timeout;
            let reason = if *sight == Sight::Shown {
                overdue.then_some(Unknown::Late)
            } else if host.attend(context).is_err() {
                // Its stream is gone, or the next tick tries again.
                None
            } else if parked.is_kept_from_us(host, overdue, now) {
                sight.found_blind(now);
                Some(Unknown::NotShown)
            } else {
                overdue.then_some(Unknown::Late)
            };
            due.extend(reason.map(|reason| Due { context, reason }));
        }
        due
    }

    fn place(&self, context: u32) -> Result<usize, usize> {
        self.parked.binary_search_by_key(&context, |(it, _)| *it)
    }

    fn keep(&mut self, context: u32, parked: Parked) {
        self.take(context);
        self.kept = self.kept.saturating_add(parked.kept);
        let place = self.place(context).unwrap_or_else(|place| place);
        self.parked.insert(place, (context, parked));
    }

    fn take(&mut self, context: u32) -> Option<Parked> {
        let place = self.place(context).ok()?;
        let (_, parked) = self.parked.remove(place);
        self.kept = self.kept.saturating_sub(parked.kept);
        Some(parked)
    }
}

impl Sight {
    fn found_blind(&mut self, now: Timestamp) {
        if !matches!(self, Sight::NotShown(_)) {
            log::warn!(
                "paceline: Envoy does not show request bodies to the filter, so requests are \
                 routed without: set allow_on_headers_stop_iteration: true beside root_id in \
                 the filter's configuration"
            );
        }
        *self = Sight::NotShown(now);
    }
}

impl Parked {
    /// Whether the proxy has received a part of the body and does not show it. Of a
    /// proxy that does not tell what it has received, silence is taken for that.
    fn is_kept_from_us(&mut self, host: &mut impl Host, overdue: bool, now: Timestamp) -> bool {
        match (self.received, received(host)) {
            (Some(before), Some(received)) if received > before => {
                let grown_at = *self.grown_at.get_or_insert(now);
                overdue || now.since(grown_at) >= SHOWS_WITHIN
            }
            (Some(_), Some(_)) => false,
            _ => overdue,
        }
    }
}

/// Bytes that the proxy has received for the request, its headers included.
fn received(host: &mut impl Host) -> Option<u64> {
    let bytes = host.property(attributes::REQUEST_TOTAL_SIZE).ok()??;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
