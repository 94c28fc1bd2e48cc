//! The last decisions of each worker, for people who watch.
//!
//! Whoever looks writes the moment below the workers' key. Each worker reads it on its
//! ticks, and for some seconds from then on keeps its last few decisions in words and
//! shows them, at most once a tick, in a key of its own. So while nobody looks, nothing is
//! kept, put into words or written. While somebody does, a tick's worth of traffic is
//! sampled: only its first few decisions are put into words, and requests that were not
//! routed have places of their own, so that traffic does not drown them.

use std::time::Duration;

use crate::host::{HostError, SharedData};
use crate::state::codec::{take, take_u16, take_u64};
use crate::time::Timestamp;

/// For how long after somebody has looked decisions are kept.
const WATCHED: Duration = Duration::from_secs(10);
/// Decisions of each kind that a worker keeps, and the most that it takes in between two
/// ticks.
const MOST: usize = 8;
/// The most characters of a decision.
const LONGEST: usize = 400;

/// What came of a request, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// When.
    pub at: Timestamp,
    /// The name of its pool; empty where it has none.
    pub pool: String,
    /// What was decided and why, as the decision header has it.
    pub text: String,
}

/// One worker's last decisions.
#[derive(Debug)]
pub struct Recent {
    /// Where the workers share their state.
    key: String,
    is_watched: bool,
    routed: Kept,
    others: Kept,
}

#[derive(Debug, Default)]
struct Kept {
    decisions: Vec<Decided>,
    /// How many came since the last tick.
    new: usize,
}

impl Recent {
    /// Nothing is kept. The workers share their state below `key`.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Recent {
            key: key.to_owned(),
            is_watched: false,
            routed: Kept::default(),
            others: Kept::default(),
        }
    }

    fn of(&mut self, is_routed: bool) -> &mut Kept {
        match is_routed {
            true => &mut self.routed,
            false => &mut self.others,
        }
    }

    /// Whether the next decision, which routes a request or does not, is to be kept.
    #[inline]
    #[must_use]
    pub fn wants(&self, is_routed: bool) -> bool {
        self.is_watched
            && match is_routed {
                true => self.routed.new < MOST,
                false => self.others.new < MOST,
            }
    }

    /// Keeps a decision that is wanted.
    #[inline(never)]
    pub fn keep(&mut self, is_routed: bool, pool: &str, text: &str, at: Timestamp) {
        let end = text.char_indices().nth(LONGEST);
        let text = end.and_then(|(end, _)| text.get(..end)).unwrap_or(text);
        let kept = self.of(is_routed);
        kept.new += 1;
        if kept.decisions.len() == MOST {
            kept.decisions.remove(0);
        }
        kept.decisions.push(Decided {
            at,
            pool: pool.to_owned(),
            text: text.to_owned(),
        });
    }

    /// Finds out whether somebody watches, and shows what is new to those who do. `lane`
    /// is the number of this worker's lane, if it has one.
    ///
    /// # Errors
    /// The host failed; the next call makes up for it.
    pub fn show(
        &mut self,
        shared: &mut impl SharedData,
        lane: Option<usize>,
        now: Timestamp,
    ) -> Result<(), HostError> {
        let looked = shared.get(&self.looked_at())?;
        let looked = looked.and_then(|found| take_u64(&mut found.value.as_slice()));
        let looked = looked.map(Timestamp::from_nanos);
        self.is_watched = looked.is_some_and(|at| is_recent(at, now));
        if !self.is_watched {
            self.routed = Kept::default();
            self.others = Kept::default();
            return Ok(());
        }
        let is_news = self.routed.new + self.others.new > 0;
        if let (true, Some(lane)) = (is_news, lane) {
            let all = self.routed.decisions.iter().chain(&self.others.decisions);
            let mut bytes = Vec::new();
            all.for_each(|it| it.encode(&mut bytes));
            shared.set(&self.of_lane(lane), &bytes)?;
        }
        (self.routed.new, self.others.new) = (0, 0);
        Ok(())
    }

    /// Tells all workers that somebody looks.
    ///
    /// # Errors
    /// The host failed, and they do not know.
    pub fn look(&self, shared: &mut impl SharedData, now: Timestamp) -> Result<(), HostError> {
        shared.set(&self.looked_at(), &now.as_nanos().to_le_bytes())
    }

    /// What the worker with this lane has shown of the last seconds.
    pub fn shown_by(
        &self,
        shared: &mut impl SharedData,
        lane: usize,
        now: Timestamp,
    ) -> Vec<Decided> {
        let found = shared.get(&self.of_lane(lane)).unwrap_or(None);
        let bytes = found.map(|found| found.value).unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut shown = Vec::new();
        while let Some(decided) = Decided::decode(&mut rest) {
            if is_recent(decided.at, now) {
                shown.push(decided);
            }
        }
        shown
    }

    fn looked_at(&self) -> String {
        [&self.key, "/looked"].concat()
    }

    fn of_lane(&self, lane: usize) -> String {
        format!("{}/lane/{lane}/decisions", self.key)
    }
}

/// Whether it is a few seconds ago, by a clock that was read by another worker.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= WATCHED && at.since(now) <= WATCHED
}

impl Decided {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.at.as_nanos().to_le_bytes());
        for text in [&self.pool, &self.text] {
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Decided {
            at: Timestamp::from_nanos(u64::from_le_bytes(take(bytes)?)),
            pool: take_text(bytes)?,
            text: take_text(bytes)?,
        })
    }
}

fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let length = take_u16(bytes)?;
    let (text, rest) = bytes.split_at_checked(length.into())?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// A worker that keeps what it decides, and a moment in which it does.
    fn watched(shared: &mut Memory) -> Recent {
        let mut recent = Recent::new("key");
        recent.look(shared, at(1_000)).unwrap();
        recent.show(shared, Some(3), at(1_250)).unwrap();
        recent
    }

    #[test]
    fn nothing_is_kept_or_written_while_nobody_looks() {
        let shared = &mut Memory::default();
        let mut recent = Recent::new("key");
        recent.show(shared, Some(3), at(0)).unwrap();
        assert!(!recent.wants(true) && !recent.wants(false));

        let mut recent = watched(shared);
        recent.keep(true, "chat", "upstream=a", at(1_300));
        recent.show(shared, Some(3), at(1_500)).unwrap();
        assert_eq!(recent.shown_by(shared, 3, at(1_500)).len(), 1);
        recent.show(shared, Some(3), at(11_001)).unwrap();
        assert!(!recent.wants(true));
        assert_eq!(recent.shown_by(shared, 3, at(11_400)), []);
    }

    #[test]
    fn the_others_see_what_a_worker_has_decided() {
        let shared = &mut Memory::default();
        let mut recent = watched(shared);
        recent.keep(true, "chat", "upstream=a", at(1_300));
        recent.keep(false, "", "pass_through; reason=no_pool", at(1_301));
        recent.show(shared, Some(3), at(1_500)).unwrap();
        let shown = Recent::new("key").shown_by(shared, 3, at(1_500));
        let decided = |at, pool: &str, text: &str| Decided {
            at,
            pool: pool.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(
            shown,
            [
                decided(at(1_300), "chat", "upstream=a"),
                decided(at(1_301), "", "pass_through; reason=no_pool"),
            ]
        );
        assert_eq!(Recent::new("key").shown_by(shared, 4, at(1_500)), []);
    }

    #[test]
    fn traffic_is_sampled_and_does_not_drown_what_was_not_routed() {
        let shared = &mut Memory::default();
        let mut recent = watched(shared);
        recent.keep(false, "chat", "rejected", at(1_300));
        let mut kept = 0;
        while recent.wants(true) {
            recent.keep(true, "chat", &format!("upstream={kept}"), at(1_300));
            kept += 1;
        }
        assert_eq!(kept, MOST);
        recent.show(shared, Some(3), at(1_500)).unwrap();
        assert!(recent.wants(true));
        recent.keep(true, "chat", "upstream=last", at(1_600));
        recent.show(shared, Some(3), at(1_750)).unwrap();
        let shown = recent.shown_by(shared, 3, at(1_750));
        let texts: Vec<&str> = shown.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts.len(), MOST + 1);
        assert_eq!(texts[0], "upstream=1");
        assert_eq!(texts[MOST - 1..], ["upstream=last", "rejected"]);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let shared = &mut Memory::default();
        let mut recent = watched(shared);
        recent.keep(true, "chat", &"é".repeat(LONGEST + 1), at(1_300));
        recent.show(shared, Some(3), at(1_500)).unwrap();
        let shown = recent.shown_by(shared, 3, at(1_500));
        assert_eq!(shown[0].text, "é".repeat(LONGEST));
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let shared = &mut Memory::default();
            shared.set("key/lane/0/decisions", &bytes).unwrap();
            let _ = Recent::new("key").shown_by(shared, 0, at(0));
        }
    }
}
