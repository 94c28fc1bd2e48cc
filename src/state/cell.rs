//! A value in shared data that several workers may change: the one
//! compare-and-swap loop.

use std::fmt;

use crate::host::{HostError, SetError, SharedData, Version};

/// How often a change is tried that a request waits for. Each try takes a few
/// microseconds, so sixteen that all fail mean that more workers fight for the
/// key than it can serve, and trying longer would only feed the fight.
pub const ATTEMPTS: u32 = 16;

/// Why the shared state was not changed or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Other workers changed the value at every try.
    Contended,
    /// The value was not one of ours; it has been replaced.
    Malformed,
    /// The host failed.
    Host(HostError),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Contended => f.write_str("other workers wrote first at every try"),
            StateError::Malformed => f.write_str("a shared value was malformed and was replaced"),
            StateError::Host(error) => write!(f, "shared data: {error}"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<HostError> for StateError {
    fn from(error: HostError) -> Self {
        StateError::Host(error)
    }
}

/// What a change wants.
#[derive(Debug)]
pub enum Change<T> {
    /// The value is to be this.
    Write(Vec<u8>, T),
    /// The value is to stay as it is.
    Keep(T),
}

/// What a change returned and how many tries it took besides the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the change returned.
    pub value: T,
    /// The version that was read last, and that still holds if the value was
    /// kept.
    pub version: Option<Version>,
    /// Tries that failed because another worker wrote first.
    pub retries: u32,
}

/// A value as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The value; `None` where there is none. An empty value is a key that was
    /// removed, since no key can be removed for good.
    pub bytes: Option<&'a [u8]>,
    /// Its version.
    pub version: Option<Version>,
}

/// Reads the value at `key`, changes it and writes it back, again from the
/// start while others write in between, at most `attempts` times.
///
/// `change` may be called several times and must depend on nothing that an
/// earlier call did; only what the last call returned counts.
///
/// # Errors
/// Another worker wrote first at every try, or the host failed, or `change`
/// did. The value is as others left it.
pub fn change<T, S: SharedData>(
    shared: &mut S,
    key: &str,
    attempts: u32,
    mut change: impl FnMut(&mut S, Found<'_>) -> Result<Change<T>, StateError>,
) -> Result<Committed<T>, StateError> {
    for retries in 0..attempts {
        let found = shared.get(key)?;
        let version = found.as_ref().map(|found| found.version);
        let bytes = found.as_ref().map(|found| &*found.value);
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        match change(shared, Found { bytes, version })? {
            Change::Keep(value) => {
                return Ok(Committed {
                    value,
                    version,
                    retries,
                });
            }
            Change::Write(bytes, value) => match shared.compare_and_set(key, &bytes, version) {
                Ok(()) => {
                    return Ok(Committed {
                        value,
                        version: None,
                        retries,
                    });
                }
                Err(SetError::Conflict) => {}
                Err(SetError::Host(error)) => return Err(error.into()),
            },
        }
    }
    Err(StateError::Contended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::Memory;

    fn append(shared: &mut Memory, found: Found<'_>, rivals: &mut u32) -> Change<usize> {
        if *rivals > 0 {
            *rivals -= 1;
            shared.set("key", b"rival").unwrap();
        }
        let mut bytes = found.bytes.unwrap_or_default().to_vec();
        bytes.push(b'!');
        let length = bytes.len();
        Change::Write(bytes, length)
    }

    #[test]
    fn a_change_starts_over_where_another_wrote_first() {
        let (mut shared, mut rivals) = (Memory::default(), 2);
        let committed = change(&mut shared, "key", 3, |shared, found| {
            Ok(append(shared, found, &mut rivals))
        });
        let committed = committed.unwrap();
        assert_eq!((committed.value, committed.retries), (6, 2));
        assert_eq!(shared.get("key").unwrap().unwrap().value, b"rival!");
    }

    #[test]
    fn a_change_is_given_up_after_so_many_tries() {
        let (mut shared, mut rivals) = (Memory::default(), 9);
        let committed = change(&mut shared, "key", 3, |shared, found| {
            Ok(append(shared, found, &mut rivals))
        });
        assert_eq!(committed, Err(StateError::Contended));
        assert_eq!(rivals, 6);
    }

    #[test]
    fn an_empty_value_is_none_and_what_is_kept_is_not_written() {
        let mut shared = Memory::default();
        shared.set("key", b"").unwrap();
        let version = shared.get("key").unwrap().unwrap().version;
        let committed = change(&mut shared, "key", 1, |_, found| {
            assert_eq!(found.bytes, None);
            Ok(Change::Keep(()))
        });
        assert_eq!(committed.unwrap().version, Some(version));
        assert_eq!(shared.get("key").unwrap().unwrap().version, version);
    }
}
