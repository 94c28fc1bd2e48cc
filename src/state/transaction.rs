//! Bounded compare-and-swap transactions on the shared record.

use std::fmt;

use super::record::Record;
use crate::host::{HostError, SetError, SharedData, Version};

/// How often a transaction is tried before it gives up. Each try takes some
/// microseconds, so sixteen that all fail mean that more workers fight for the
/// record than it can serve, and waiting longer would only feed the fight.
pub const ATTEMPTS: u32 = 16;

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

/// Reads the record at `key`, changes it and writes it back, again from the
/// start while others write in between.
///
/// `change` gets the record, or `None` where there is none, and returns the
/// one to write. It may be called several times; only the value of the last
/// call is returned. A malformed record is replaced by what `change` makes of
/// `None`, and the transaction fails.
///
/// # Errors
/// Every try met a conflict, the record was malformed, or the host failed.
pub fn transact<T>(
    shared: &mut impl SharedData,
    key: &str,
    mut change: impl FnMut(Option<Record>) -> (Record, T),
) -> Result<Committed<T>, StateError> {
    for retries in 0..ATTEMPTS {
        let (version, read) = read(shared, key)?;
        let malformed = read.is_err();
        let (record, value) = change(read.unwrap_or(None));
        match shared.compare_and_set(key, record.as_bytes(), version) {
            Ok(()) if malformed => return Err(StateError::Malformed),
            Ok(()) => return Ok(Committed { value, retries }),
            Err(SetError::Conflict) => {}
            Err(SetError::Host(error)) => return Err(StateError::Host(error)),
        }
    }
    Err(StateError::Contended)
}

/// Reads the record at `key` without changing it; `None` where there is none
/// or none that can be read.
///
/// # Errors
/// The host failed.
pub fn peek(shared: &mut impl SharedData, key: &str) -> Result<Option<Record>, StateError> {
    Ok(read(shared, key)?.1.unwrap_or(None))
}

type Read = (
    Option<Version>,
    Result<Option<Record>, super::record::Malformed>,
);

fn read(shared: &mut impl SharedData, key: &str) -> Result<Read, StateError> {
    let found = shared.get(key).map_err(StateError::Host)?;
    Ok(match found {
        None => (None, Ok(None)),
        Some(found) => (Some(found.version), Record::parse(found.value).map(Some)),
    })
}
