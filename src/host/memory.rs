//! Shared data in this process's memory.

use std::collections::HashMap;

use super::{HostError, SetError, SharedData, Version, Versioned};

/// A store that behaves as Envoy's does: one counter gives versions to all
/// keys. For what runs without a proxy: the simulator and tests.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    values: HashMap<String, Versioned>,
    latest: u32,
}

impl Memory {
    /// The keys that were ever written, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.values.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }
}

impl SharedData for Memory {
    fn get(&mut self, key: &str) -> Result<Option<Versioned>, HostError> {
        Ok(self.values.get(key).cloned())
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), HostError> {
        self.latest = self.latest.wrapping_add(1).max(1);
        let version = Version(self.latest);
        let value = value.to_vec();
        self.values
            .insert(key.to_owned(), Versioned { value, version });
        Ok(())
    }

    fn compare_and_set(
        &mut self,
        key: &str,
        value: &[u8],
        expected: Option<Version>,
    ) -> Result<(), SetError> {
        let found = self.values.get(key).map(|found| found.version);
        if found != expected {
            return Err(SetError::Conflict);
        }
        self.set(key, value).map_err(SetError::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_succeeds_once_for_each_version() {
        let mut memory = Memory::default();
        assert_eq!(
            memory.compare_and_set("k", b"a", Some(Version(9))),
            Err(SetError::Conflict)
        );
        assert_eq!(memory.compare_and_set("k", b"a", None), Ok(()));
        assert_eq!(
            memory.compare_and_set("k", b"b", None),
            Err(SetError::Conflict)
        );
        let read = memory.get("k").unwrap().unwrap();
        assert_eq!(
            memory.compare_and_set("k", b"b", Some(read.version)),
            Ok(())
        );
        assert_eq!(
            memory.compare_and_set("k", b"c", Some(read.version)),
            Err(SetError::Conflict)
        );
        assert_eq!(memory.get("k").unwrap().unwrap().value, b"b");
    }
}
