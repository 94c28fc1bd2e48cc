//! Hash maps whose keys are numbers.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// A map by contexts, which the proxy numbers in turn, or by identities, which are hashes
/// already. Nobody outside chooses either; a client can name tenants, of which few are
/// remembered.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// One multiplication spreads such numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
