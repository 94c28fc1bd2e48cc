//! Which members and upstreams have metrics of their own, and where these are.
//!
//! The proxy never removes or renames a metric. So a member that comes back under
//! the same name uses its metrics again, and the number of new ones that get their
//! own is limited: many at first, and then one from time to time.

use std::time::Duration;

use crate::map::Map;
use crate::pool::Handle;
use crate::time::Timestamp;

/// How many endpoints get metrics of their own at once. Those beyond are counted
/// together, each for as long as it is there.
pub const MAX_ENDPOINTS: u32 = 256;
/// How often one more endpoint may, up to that number at once.
pub const NAME_EVERY: Duration = Duration::from_secs(3600);

/// The slots of the members, or of the upstreams.
#[derive(Debug)]
pub(super) struct Slots {
    /// For each number in the topology, the identity and its slot.
    places: Vec<(u64, usize)>,
    /// Of each identity that ever had its own.
    known: Map<u64, usize>,
    /// Of what is counted together, by group.
    shared: Map<u64, usize>,
    /// What is in the topology and counted with others.
    others: Map<u64, usize>,
    /// How many more may have their own now, and since when it counts.
    left: u32,
    counted_at: Timestamp,
}

/// Where the metrics of something are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Numbers are given one after the other.
    pub(super) number: usize,
    /// It has them with others.
    pub(super) is_shared: bool,
}

impl Default for Slots {
    fn default() -> Self {
        Slots {
            places: Vec::new(),
            known: Map::default(),
            shared: Map::default(),
            others: Map::default(),
            left: MAX_ENDPOINTS,
            counted_at: Timestamp::ZERO,
        }
    }
}

impl Slots {
    /// A new topology follows. Gives the places of the old one, for
    /// [`Slots::end`].
    pub(super) fn begin(&mut self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.places)
    }

    /// The topology is complete. Gives the slots that were used and are no more.
    pub(super) fn end(&mut self, before: Vec<(u64, usize)>) -> Vec<usize> {
        self.others.clear();
        let mut used = vec![false; self.known.len() + self.shared.len()];
        for (identity, slot) in &self.places {
            if let Some(used) = used.get_mut(*slot) {
                *used = true;
            }
            if !self.known.contains_key(identity) {
                self.others.insert(*identity, *slot);
            }
        }
        let slots = before.into_iter().map(|(_, slot)| slot);
        slots
            .filter(|slot| used.get(*slot) == Some(&false))
            .collect()
    }

    /// The slot of what has the next number in the topology: its own, or the
    /// one of its group. What has no group always has its own.
    #[inline(never)]
    pub(super) fn place(&mut self, identity: u64, group: Option<u64>, now: Timestamp) -> Slot {
        let next = self.known.len() + self.shared.len();
        let own = |number| Slot {
            number,
            is_shared: false,
        };
        let in_group = |number| Slot {
            number,
            is_shared: true,
        };
        let known = self.known.get(&identity).copied();
        let slot = match (known, self.others.get(&identity).copied(), group) {
            (Some(number), _, _) => own(number),
            (None, Some(number), _) => in_group(number),
            (None, None, Some(group)) if !self.may_name(now) => {
                let number = *self.shared.entry(group).or_insert(next);
                self.others.insert(identity, number);
                in_group(number)
            }
            (None, None, _) => {
                self.known.insert(identity, next);
                own(next)
            }
        };
        self.places.push((identity, slot.number));
        slot
    }

    /// The slot of something, if that is or was in the topology.
    pub(super) fn find<T>(&self, handle: Handle<T>) -> Option<usize> {
        let identity = handle.identity();
        match self.places.get(handle.index_then()) {
            Some((it, slot)) if *it == identity => Some(*slot),
            _ => self.find_elsewhere(identity),
        }
    }

    #[inline(never)]
    fn find_elsewhere(&self, identity: u64) -> Option<usize> {
        let found = self.known.get(&identity);
        found.or_else(|| self.others.get(&identity)).copied()
    }

    /// Whether one more endpoint may have metrics of its own, which this is then.
    fn may_name(&mut self, now: Timestamp) -> bool {
        let periods = now.since(self.counted_at).as_secs() / NAME_EVERY.as_secs();
        if self.left >= MAX_ENDPOINTS || periods >= u64::from(MAX_ENDPOINTS) {
            self.left = MAX_ENDPOINTS;
            self.counted_at = now;
        } else if periods > 0 {
            self.left = (self.left + periods as u32).min(MAX_ENDPOINTS);
            self.counted_at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::MemberHandle;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    /// Replaces the topology; which of it has its own slot, and what is gone.
    fn follow(slots: &mut Slots, endpoints: std::ops::Range<u64>, now: u64) -> (Vec<Slot>, usize) {
        let before = slots.begin();
        let placed = endpoints.map(|it| slots.place(it, Some(0), at(now)));
        let placed = placed.collect();
        (placed, slots.end(before).len())
    }

    #[test]
    fn endpoints_that_come_later_get_metrics_of_their_own_from_time_to_time() {
        let mut slots = Slots::default();
        let (placed, _) = follow(&mut slots, 0..300, 5);
        let own = |placed: &[Slot]| placed.iter().filter(|it| !it.is_shared).count();
        assert_eq!(own(&placed), 256);
        // Others take their places at once: all share.
        let (placed, gone) = follow(&mut slots, 1000..1003, 6);
        assert_eq!((own(&placed), gone), (0, 256));
        // What comes back is itself again.
        let (placed, _) = follow(&mut slots, 0..3, 7);
        assert_eq!(own(&placed), 3);
        let (placed, _) = follow(&mut slots, 1000..1005, 2 * 3600 + 6);
        assert_eq!(own(&placed), 2);
        // And what shares, shares for as long as it is there.
        let (placed, _) = follow(&mut slots, 1000..1006, 9 * 3600);
        assert_eq!(own(&placed), 3, "{placed:?}");
        assert!(placed[2..5].iter().all(|it| it.is_shared));
    }

    #[test]
    fn a_handle_finds_its_slot_wherever_it_is_now() {
        use crate::config::Config;
        use crate::pool::{MemberIndex, Topology};
        let config = Config::parse(Some(br#"{"cluster": "gpus"}"#)).unwrap();
        let with = |ports: &[u32]| {
            Topology::with_endpoints(&config, |_| {
                ports
                    .iter()
                    .map(|port| format!("10.0.0.1:{port}"))
                    .collect()
            })
        };
        let mut slots = Slots::default();
        let mut follow = |topology: &Topology| {
            slots.begin();
            for it in &topology.members {
                slots.place(it.identity, Some(0), at(1));
            }
            slots
                .find(topology.member_handle(MemberIndex(0)).unwrap())
                .unwrap()
        };
        let (old, new) = (with(&[1, 2]), with(&[2, 3]));
        assert_eq!(follow(&old), 0);
        assert_eq!(follow(&new), 1);
        let find = |handle: Option<MemberHandle>| slots.find(handle.unwrap());
        assert_eq!(find(old.member_handle(MemberIndex(0))), Some(0));
        assert_eq!(find(old.member_handle(MemberIndex(1))), Some(1));
        assert_eq!(find(new.member_handle(MemberIndex(1))), Some(2));
    }
}
