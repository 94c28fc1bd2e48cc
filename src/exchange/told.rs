//! What people are told of a decision: in the response header, and in the proxy's access
//! log. Each only if the configuration asks for it.

use crate::decimal::Decimal;
use crate::host::{Host, attributes};

/// What is told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// In the response header.
    pub(super) header: Option<String>,
    /// In the access log.
    log: Option<String>,
    /// The proxy does not know yet what is to be logged.
    is_news: bool,
}

/// A decision, as the access log has it.
pub(super) struct Entry<'a> {
    /// What was done: `balanced`, say.
    pub(super) decision: &'static str,
    /// The upstream that was picked, if one was.
    pub(super) upstream: Option<&'a str>,
    /// The number that it was picked by.
    pub(super) score: f64,
    /// For how long the request waited for room.
    pub(super) waited_millis: u64,
    /// Why.
    pub(super) reason: &'static str,
}

/// Bytes of an entry with a name of usual length: it is written into one piece of memory.
const LIKELY_LENGTH: usize = 128;

impl Told {
    /// Lets the access log tell a decision. To be called only where the configuration
    /// wants that, so that otherwise no request makes an entry for nothing.
    #[inline(never)]
    pub(super) fn log(&mut self, host: &mut impl Host, entry: &Entry<'_>) {
        let mut text = String::with_capacity(LIKELY_LENGTH);
        text.push_str("decision=");
        text.push_str(entry.decision);
        text.push_str("; upstream=");
        text.push_str(entry.upstream.unwrap_or("-"));
        text.push_str("; score=");
        Decimal(entry.score).add_to(&mut text);
        text.push_str("; wait=");
        Decimal(entry.waited_millis as f64).add_to(&mut text);
        text.push_str("ms; reason=");
        text.push_str(entry.reason);
        self.log = Some(text);
        self.is_news = true;
        // At once: of a request that is not answered the log tells it as well.
        self.show_log(host);
    }

    /// Adds what is known only now.
    #[inline(never)]
    pub(super) fn note(&mut self, note: &str) {
        for text in [&mut self.header, &mut self.log].into_iter().flatten() {
            text.push_str(note);
            self.is_news = true;
        }
    }

    /// Adds who serves the request.
    pub(super) fn note_server(&mut self, name: &str) {
        self.note("; served_by=");
        self.note(name);
    }

    /// Adds the seconds that were expected at the pick and where the request went.
    pub(super) fn note_delays(&mut self, at_pick: f64, there: f64) {
        if self.header.is_some() || self.log.is_some() {
            let mut text = String::with_capacity(LIKELY_LENGTH);
            text.push_str("; expected=");
            Decimal::of_seconds(at_pick).add_to(&mut text);
            text.push_str("s; expected_there=");
            Decimal::of_seconds(there).add_to(&mut text);
            text.push('s');
            self.note(&text);
        }
    }

    /// Gives the proxy what is to be logged, unless it has that.
    #[inline(never)]
    pub(super) fn show_log(&mut self, host: &mut impl Host) {
        if let Some(text) = &self.log
            && std::mem::take(&mut self.is_news)
        {
            // What cannot be logged is no reason to do anything else.
            let _ = host.set_property(attributes::DECISION, text);
        }
    }
}
