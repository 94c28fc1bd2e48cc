//! Requests that wait for their bodies, and whether it is any use.
//!
//! A filter that stops a request at its headers is shown the body only if the
//! proxy was told to (`allow_on_headers_stop_iteration`). Otherwise the body
//! waits in the proxy for the request to go on, and the request for its body.
//! The two are told apart by what the proxy has received for the request: if
//! that grows and nothing is shown, nothing will be. A slow client is not
//! mistaken for it, because of a slow client nothing has been received.
//!
//! A request of whose body a part has been shown goes on from the callback of a
//! later part alone, never from a tick. Envoy keeps what it buffers for the
//! filter after a tick has let the request go, and adds the next part to it:
//! until the middle of 2026 that part was lost, and since then it brings all that
//! is kept for retries once more.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::exchange::Exchange;
use crate::host::Host;
use crate::request::Unknown;
use crate::time::Timestamp;

/// Once bodies are known not to be shown, a request tries again so often: the
/// proxy may have been told to in the meantime.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Bytes that any proxy can hold.
const SMALL: u32 = 16 * 1024;

/// Where the proxy tells its version: Envoy is at 1 for ever, and counts on here.
const MINOR_VERSION: [&str; 5] = [
    "xds",
    "node",
    "user_agent_build_version",
    "version",
    "minor_number",
];

/// Since this version of Envoy, what the virtual host says of its buffer holds
/// while a request waits, and not only once it has gone on.
const ROOM_SINCE: u64 = 37;

/// The part of Envoy's own buffer, 1 MiB, that leaves room for one more frame of
/// HTTP/2.
const ROOM_BEFORE: usize = (1 << 20) - (16 << 10);

/// The requests of one worker that wait, by their context.
///
/// A part of a body is kept where the rest is certain to fit beside it. Envoy
/// refuses what does not, and how large its buffer is it does not tell. What
/// goes on with its first part is never refused.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In the order of their contexts.
    parked: Vec<(u32, Parked)>,
    sight: Sight,
    /// Decided, and still to be resumed: the proxy did not do it when told.
    stuck: Vec<u32>,
    /// The proxy refused a body that was waited for as too large.
    refuses: bool,
    /// The proxy is too old to be given a larger buffer.
    cramped: bool,
    /// Bytes of the largest body that has come while it was waited for.
    largest: usize,
}

#[derive(Debug)]
struct Parked {
    exchange: Weak<RefCell<Exchange>>,
    since: Timestamp,
    /// Bytes that the proxy had received for the request when it was stopped.
    received: Option<u64>,
    /// A part of its body has been shown.
    shown: bool,
}

/// What is known of the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sight {
    #[default]
    Untried,
    /// It shows bodies.
    Shown,
    /// It does not, as was last found out then.
    NotShown(Timestamp),
}

/// A request that has waited enough, and why it goes on without its body.
#[derive(Debug)]
pub struct Due {
    /// The context of its stream.
    pub context: u32,
    /// Why.
    pub reason: Unknown,
    parked: Parked,
}

impl Due {
    /// Which request; `None` where it has ended.
    #[must_use]
    pub fn exchange(&self) -> Option<Rc<RefCell<Exchange>>> {
        self.parked.exchange.upgrade()
    }
}

impl Waiting {
    /// No request waits yet at this proxy.
    pub fn new(host: &mut impl Host) -> Self {
        let version = host.property(&MINOR_VERSION).unwrap_or(None);
        let version = version.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        Waiting {
            cramped: version.is_some_and(|version| version < ROOM_SINCE),
            ..Waiting::default()
        }
    }

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
    pub fn park(
        &mut self,
        context: u32,
        exchange: Weak<RefCell<Exchange>>,
        host: &mut impl Host,
        now: Timestamp,
    ) {
        let parked = Parked {
            exchange,
            since: now,
            received: received(host),
            shown: false,
        };
        self.keep(context, parked);
    }

    /// Whether the proxy is to keep so many bytes of a body that does not say how
    /// large it is: of the request that `host` is at. Over HTTP/1 any number of
    /// bytes may come next.
    #[must_use]
    pub fn may_keep(&self, bytes: usize, host: &mut impl Host) -> bool {
        if !self.cramped {
            return !self.refuses;
        }
        let fits = !self.refuses && bytes <= ROOM_BEFORE;
        fits && protocol(host).as_deref() == Some(b"HTTP/2")
    }

    /// The largest body to wait for, where so much is configured: less once the
    /// proxy has refused one.
    #[must_use]
    pub fn max_bytes(&self, configured: u32) -> u32 {
        if !self.refuses {
            return configured;
        }
        let known = u32::try_from(self.largest).unwrap_or(u32::MAX);
        configured.min(known.max(SMALL))
    }

    /// So large a body has come while it was waited for.
    pub fn held(&mut self, bytes: usize) {
        self.largest = self.largest.max(bytes);
    }

    /// The proxy refused a body that was waited for: its buffer is too small for
    /// the limit that is configured here. From now on bodies are only kept that
    /// say how large they are, and are no larger than one that it held.
    pub fn refused(&mut self) {
        if !self.refuses {
            log::warn!(
                "paceline: Envoy refused a request's body as too large while it was waited for: \
                 set request_body_buffer_limit of the virtual host to at least \
                 request_body.max_bytes and 2 MiB; until then, large bodies are not waited for, \
                 and of bodies without a content-length only the first part"
            );
        }
        self.refuses = true;
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

    /// A part of a body has come while its request waits. Says whether it is the
    /// first one.
    pub fn body_shown(&mut self, context: u32) -> bool {
        let place = self.place(context).ok();
        let was_shown = place
            .and_then(|place| self.parked.get_mut(place))
            .is_some_and(|(_, parked)| std::mem::replace(&mut parked.shown, true));
        if let Sight::NotShown(_) = self.sight {
            log::info!("paceline: request bodies are shown to the filter again");
        }
        self.sight = Sight::Shown;
        !was_shown
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

    /// Takes out the requests that have waited enough and of whose bodies nothing
    /// has been shown.
    pub fn take_due(
        &mut self,
        host: &mut impl Host,
        timeout: Duration,
        now: Timestamp,
    ) -> Vec<Due> {
        let sight = &mut self.sight;
        let ready: Vec<(u32, Unknown)> = self
            .parked
            .iter()
            .filter(|(_, parked)| !parked.shown)
            .filter_map(|(context, parked)| {
                // Else the stream is gone, or the next tick tries again.
                host.attend(*context).ok()?;
                let overdue = now.since(parked.since) >= timeout;
                if is_kept_from_us(parked, host, overdue) {
                    sight.found_blind(now);
                    return Some((*context, Unknown::NotShown));
                }
                overdue.then_some((*context, Unknown::Late))
            })
            .collect();
        self.parked
            .retain(|(_, parked)| parked.exchange.strong_count() > 0);
        let due = |(context, reason)| {
            let parked = self.take(context)?;
            Some(Due {
                context,
                reason,
                parked,
            })
        };
        ready.into_iter().filter_map(due).collect()
    }

    fn place(&self, context: u32) -> Result<usize, usize> {
        self.parked.binary_search_by_key(&context, |(it, _)| *it)
    }

    fn keep(&mut self, context: u32, parked: Parked) {
        self.take(context);
        let place = self.place(context).unwrap_or_else(|place| place);
        self.parked.insert(place, (context, parked));
    }

    fn take(&mut self, context: u32) -> Option<Parked> {
        let place = self.place(context).ok()?;
        Some(self.parked.remove(place).1)
    }

    /// Keeps a request that could not be let go; the next tick tries again.
    pub fn put_back(&mut self, due: Due) {
        self.keep(due.context, due.parked);
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

/// Whether the proxy has received a part of the body without showing it. Of a
/// proxy that does not tell what it has received, silence is taken for that.
fn is_kept_from_us(parked: &Parked, host: &mut impl Host, overdue: bool) -> bool {
    match (parked.received, received(host)) {
        (Some(before), Some(now)) => now > before,
        _ => overdue,
    }
}

/// Bytes that the proxy has received for the request, its headers included.
fn received(host: &mut impl Host) -> Option<u64> {
    let bytes = host.property(&["request", "total_size"]).ok()??;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn protocol(host: &mut impl Host) -> Option<Vec<u8>> {
    host.property(&["request", "protocol"]).ok()?
}
