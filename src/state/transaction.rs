//! Bounded compare-and-swap transactions on the shared record.

use std::fmt;

use super::record::Record;
use crate::host::{HostError, SetError, SharedData, Version};

/// How often a transaction is tried before it gives up. Each try takes some
/// microseconds, so sixteen that all fail mean that more workers fight for the
/// record than it can serve, and waiting longer would only feed the fight.
pub const ATTEMPTS: u32 = 16;

/// After so many looks in a row that found the record as it had been left, a
/// worker writes without looking. One is not enough: among others, a request
/// that comes and goes while they rest would make the next one's write fail.
const HOPEFUL: u32 = 2;

/// Why a transaction did not happen. The shared record is as others left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Other workers changed the record at every try.
    Contended,
    /// The record was not one of ours; it has been replaced by a fresh one.
    Malformed,
    /// The host failed.
    Host(HostError),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Contended => {
                write!(f, "the shared record changed at each of {ATTEMPTS} tries")
            }
            StateError::Malformed => {
                f.write_str("the shared record was malformed and was replaced")
            }
            StateError::Host(error) => write!(f, "shared data: {error}"),
        }
    }
}

impl std::error::Error for StateError {}

/// What a transaction returned and how many tries it took besides the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the change returned.
    pub value: T,
    /// Tries that failed because another worker was quicker.
    pub retries: u32,
}

/// A worker's way to the record at one key.
///
/// A transaction is two host calls, a read and a conditional write. It is one
/// where the worker already knows what it would read: the record as it wrote it
/// last. The host does not tell the version of a write, but numbers all writes
/// of the process in turn, so the next number is worth a try: if it is right,
/// nobody wrote in between; if it is not, nothing happens and the record is read
/// after all. It cannot be right by accident. The version that a write replaced
/// is known to be older than the write, so is every number that another key got
/// before it, and a later write of this key has a later number.
#[derive(Debug)]
pub struct Store {
    key: String,
    written: Option<Written>,
    /// How many looks in a row found the record as this worker had left it.
    undisturbed: u32,
}

/// A record as this worker wrote it, and the version that it has unless another
/// key was written at the same moment.
#[derive(Debug)]
struct Written {
    record: Record,
    version: Version,
}

impl Store {
    /// The record at `key`.
    #[must_use]
    pub fn new(key: String) -> Self {
        Store {
            key,
            written: None,
            undisturbed: 0,
        }
    }

    /// Reads the record, changes it and writes it back, again from the start
    /// while others write in between.
    ///
    /// `change` gets the record, or `None` where there is none, and returns the
    /// one to write. It may be called several times; only the value of the last
    /// call is returned. A malformed record is replaced by what `change` makes
    /// of `None`, and the transaction fails.
    ///
    /// # Errors
    /// Every try met a conflict, the record was malformed, or the host failed.
    pub fn transact<T>(
        &mut self,
        shared: &mut impl SharedData,
        mut change: impl FnMut(Option<Record>) -> (Record, T),
    ) -> Result<Committed<T>, StateError> {
        let expected = self.written.take();
        let mut expected_version = expected.as_ref().map(|written| written.version);
        if let Some(written) = expected.filter(|_| self.undisturbed >= HOPEFUL) {
            let (record, value) = change(Some(written.record));
            match self.write(shared, record, Some(written.version)) {
                Ok(()) => return Ok(Committed { value, retries: 0 }),
                Err(SetError::Conflict) => {
                    self.undisturbed = 0;
                    expected_version = None;
                }
                Err(SetError::Host(error)) => return Err(StateError::Host(error)),
            }
        }
        for retries in 0..ATTEMPTS {
            let (version, read) = self.read(shared)?;
            if let Some(expected) = expected_version.take() {
                self.undisturbed = if version == Some(expected) {
                    self.undisturbed.saturating_add(1)
                } else {
                    0
                };
            }
            let malformed = read.is_err();
            let (record, value) = change(read.unwrap_or(None));
            match self.write(shared, record, version) {
                Ok(()) if malformed => return Err(StateError::Malformed),
                Ok(()) => return Ok(Committed { value, retries }),
                Err(SetError::Conflict) => {}
                Err(SetError::Host(error)) => return Err(StateError::Host(error)),
            }
        }
        Err(StateError::Contended)
    }

    /// Reads the record without changing it; `None` where there is none or none
    /// that can be read.
    ///
    /// # Errors
    /// The host failed.
    pub fn peek(&self, shared: &mut impl SharedData) -> Result<Option<Record>, StateError> {
        Ok(self.read(shared)?.1.unwrap_or(None))
    }

    fn read(&self, shared: &mut impl SharedData) -> Result<Read, StateError> {
        let found = shared.get(&self.key).map_err(StateError::Host)?;
        Ok(match found {
            None => (None, Ok(None)),
            Some(found) => (Some(found.version), Record::parse(found.value).map(Some)),
        })
    }

    fn write(
        &mut self,
        shared: &mut impl SharedData,
        record: Record,
        version: Option<Version>,
    ) -> Result<(), SetError> {
        shared.compare_and_set(&self.key, record.as_bytes(), version)?;
        let next = version.and_then(Version::next);
        self.written = next.map(|version| Written { record, version });
        Ok(())
    }
}

type Read = (
    Option<Version>,
    Result<Option<Record>, super::record::Malformed>,
);

#[cfg(test)]
mod tests {
    use super::super::record::Rows;
    use super::*;
    use crate::host::Versioned;
    use crate::time::Timestamp;
    use hashbrown::HashMap;
    use proptest::prelude::*;

    const KEY: &str = "record";

    /// Envoy's shared data to the letter: one number for all keys that skips
    /// zero, zero overwrites whatever is there, any number creates.
    struct Envoy {
        values: HashMap<String, (Vec<u8>, u32)>,
        next: u32,
        reads: usize,
        writes: usize,
        /// What happens just before each write that a [`Store`] makes.
        rivals: Vec<Rival>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Rival {
        Nobody,
        /// Writes another key.
        Stranger,
        /// Writes this one.
        Worker,
    }

    impl Envoy {
        fn new(next: u32) -> Self {
            let (values, rivals) = (HashMap::new(), Vec::new());
            Envoy {
                values,
                next,
                reads: 0,
                writes: 0,
                rivals,
            }
        }

        fn set(&mut self, key: &str, value: Vec<u8>, cas: u32) -> bool {
            let found = self.values.get(key).map(|(_, version)| *version);
            if cas != 0 && found.is_some_and(|version| version != cas) {
                return false;
            }
            self.values.insert(key.to_owned(), (value, self.next));
            self.next = self.next.wrapping_add(1).max(1);
            true
        }

        fn calls(&mut self) -> (usize, usize) {
            (
                std::mem::take(&mut self.reads),
                std::mem::take(&mut self.writes),
            )
        }
    }

    impl SharedData for Envoy {
        fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
            self.reads += 1;
            Ok(self
                .values
                .get(key)
                .cloned()
                .map(|(value, version)| Versioned {
                    value,
                    version: Version(version),
                }))
        }

        fn compare_and_set(
            &mut self,
            key: &str,
            value: &[u8],
            expected: Option<Version>,
        ) -> Result<(), SetError> {
            self.writes += 1;
            match self.rivals.pop().unwrap_or(Rival::Nobody) {
                Rival::Nobody => {}
                Rival::Stranger => assert!(self.set("another", Vec::new(), 0)),
                Rival::Worker => {
                    let read = self.values.get(KEY).cloned();
                    let (record, version) = read.map_or((None, u32::MAX), |(value, version)| {
                        (Record::parse(value).ok(), version)
                    });
                    let (record, ()) = count(record, RIVAL);
                    assert!(self.set(KEY, record.as_bytes().to_vec(), version));
                }
            }
            let cas = expected.map_or(u32::MAX, |version| version.0);
            if self.set(key, value.to_vec(), cas) {
                Ok(())
            } else {
                Err(SetError::Conflict)
            }
        }
    }

    const LANES: usize = 3;
    const RIVAL: usize = 2;

    /// Counts in lane `lane`, whose heartbeat serves as a counter.
    fn count(record: Option<Record>, lane: usize) -> (Record, ()) {
        let mut record = record.unwrap_or_else(|| {
            let mut record = Record::new(&Rows::default());
            for _ in 0..LANES {
                record.add_lane();
            }
            record
        });
        let before = record.lane_heartbeat(lane).as_nanos();
        record.hold_lane(lane, 1, Timestamp::from_nanos(before + 1));
        (record, ())
    }

    fn counted(envoy: &mut Envoy) -> [u64; LANES] {
        let record = Store::new(KEY.to_owned()).peek(envoy).unwrap().unwrap();
        [0, 1, 2].map(|lane| record.lane_heartbeat(lane).as_nanos())
    }

    /// Counts in a lane, before which nobody is quicker. Returns the reads and
    /// writes that it took.
    fn transact(envoy: &mut Envoy, store: &mut Store, lane: usize) -> (usize, usize) {
        envoy.calls();
        let committed = store.transact(envoy, |record| count(record, lane)).unwrap();
        assert_eq!(committed.retries, 0, "nobody was quicker");
        envoy.calls()
    }

    /// A worker that has been alone for long enough to write without reading.
    fn hermit() -> (Envoy, Store) {
        let (mut envoy, mut store) = (Envoy::new(1), Store::new(KEY.to_owned()));
        for _ in 0..4 {
            transact(&mut envoy, &mut store, 0);
        }
        (envoy, store)
    }

    #[test]
    fn a_worker_that_is_alone_writes_without_reading() {
        let (mut envoy, mut store) = hermit();
        for _ in 0..5 {
            assert_eq!(transact(&mut envoy, &mut store, 0), (0, 1));
        }
        assert_eq!(counted(&mut envoy), [9, 0, 0]);
    }

    #[test]
    fn a_worker_among_others_reads_before_it_writes() {
        let mut envoy = Envoy::new(1);
        let mut stores = [(); 2].map(|()| Store::new(KEY.to_owned()));
        for _ in 0..10 {
            for (lane, store) in stores.iter_mut().enumerate() {
                store
                    .transact(&mut envoy, |record| count(record, lane))
                    .unwrap();
            }
        }
        assert_eq!(counted(&mut envoy), [10, 10, 0]);
        for (lane, store) in stores.iter_mut().enumerate() {
            let calls = transact(&mut envoy, store, lane);
            assert_eq!(calls, (1, 1), "no write that must fail");
        }
    }

    #[test]
    fn a_write_of_another_key_costs_one_try_and_no_count() {
        let (mut envoy, mut store) = hermit();
        envoy.rivals = vec![Rival::Stranger];
        let mut transact = || transact(&mut envoy, &mut store, 0);
        assert_eq!(
            transact(),
            (0, 1),
            "the number that the stranger took is not known yet"
        );
        assert_eq!(transact(), (1, 2));
        assert_eq!(transact(), (1, 1));
        assert_eq!(transact(), (1, 1));
        assert_eq!(transact(), (0, 1));
        assert_eq!(counted(&mut envoy), [9, 0, 0]);
    }

    proptest! {
        /// Whoever writes when, and wherever the numbers wrap: every transaction
        /// that succeeds counts once.
        #[test]
        fn no_write_is_lost(
            start in prop_oneof![Just(1u32), (u32::MAX - 40)..=u32::MAX],
            workers in proptest::collection::vec(0..2usize, 1..60),
            rivals in proptest::collection::vec(
                prop_oneof![
                    5 => Just(Rival::Nobody),
                    1 => Just(Rival::Stranger),
                    1 => Just(Rival::Worker),
                ],
                0..60,
            ),
        ) {
            let mut envoy = Envoy::new(start);
            let mut expected = [0, 0, 1];
            // There from the start: a first write that gets the greatest number
            // looks to the next first write as if it were not there.
            assert!(envoy.set(KEY, count(None, RIVAL).0.as_bytes().to_vec(), 0));
            let mut stores = [(); 2].map(|()| Store::new(KEY.to_owned()));
            envoy.rivals = rivals;
            for lane in workers {
                let before = envoy.rivals.clone();
                let result = stores[lane].transact(&mut envoy, |record| count(record, lane));
                expected[lane] += u64::from(result.is_ok());
                let used = before.iter().skip(envoy.rivals.len());
                expected[RIVAL] += used.filter(|rival| matches!(rival, Rival::Worker)).count() as u64;
            }
            prop_assert_eq!(counted(&mut envoy), expected);
        }
    }
}
