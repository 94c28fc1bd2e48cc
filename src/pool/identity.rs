//! What tells members and upstreams apart, in every topology and every version.

use std::marker::PhantomData;

use crate::random::mix;

/// A member or an upstream, `T`, to be found again in another topology.
#[derive(Debug)]
pub struct Handle<T> {
    /// Where it was; a shortcut.
    index: usize,
    identity: u64,
    of: PhantomData<fn() -> T>,
}

// Derived, these would ask the same of `T`, which a handle does not hold.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.identity) == (other.index, other.identity)
    }
}

impl<T> Eq for Handle<T> {}

impl<T> Handle<T> {
    pub(super) const fn new(index: usize, identity: u64) -> Self {
        Handle {
            index,
            identity,
            of: PhantomData,
        }
    }

    /// What tells it apart in every topology.
    #[must_use]
    pub const fn identity(&self) -> u64 {
        self.identity
    }

    /// The number that it had in the topology that it is from.
    pub(crate) const fn index_then(&self) -> usize {
        self.index
    }
}

/// The place of what `handle` stands for: where it was, or wherever it is.
pub(super) fn find<T>(handle: Handle<T>, all: &[T], identity: impl Fn(&T) -> u64) -> Option<usize> {
    let is_it = |it: &T| identity(it) == handle.identity;
    if all.get(handle.index).is_some_and(is_it) {
        return Some(handle.index);
    }
    all.iter().position(is_it)
}

/// A 64-bit hash of a list of names. It is stored, so it must be the same in
/// every build: FNV-1a (Fowler, Noll and Vo), each name ended by a byte that
/// no name contains, then mixed.
#[inline(never)]
pub fn identity(names: &[&str]) -> u64 {
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}
