//! The bytes of a list of discovered endpoints.
//!
//! ```text
//! header     magic, schema version, number of endpoints
//! endpoints  when it last answered u64, length u8, the address
//! ```
//!
//! Each cluster's list has its own key in shared data: it changes when endpoints
//! come and go, and not with each request. A damaged list is rejected as a whole;
//! the workers write it again from memory.

use crate::config::endpoint_address;
use crate::time::Timestamp;

const MAGIC: u32 = u32::from_le_bytes(*b"PACL");
/// Version of the layout; it stands in the key as well.
pub const VERSION: u32 = 1;

/// The most endpoints that a list holds.
pub const CAPACITY: usize = 1024;

/// An endpoint that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `ip:port`, as the proxy writes it.
    pub address: String,
    /// When it last answered, as far as the list tells.
    pub seen_at: Timestamp,
}

/// The list as bytes; what is beyond [`CAPACITY`] is left out.
#[must_use]
pub fn encode(endpoints: &[Known]) -> Vec<u8> {
    let count = endpoints.len().min(CAPACITY);
    let mut bytes = Vec::with_capacity(12 + count * 32);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((count as u32).to_le_bytes());
    for endpoint in endpoints.iter().take(count) {
        bytes.extend(endpoint.seen_at.as_nanos().to_le_bytes());
        bytes.push(endpoint.address.len() as u8);
        bytes.extend(endpoint.address.as_bytes());
    }
    bytes
}

/// The list from its bytes; `None` where they are none.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Option<Vec<Known>> {
    let header = (take(&mut bytes)?, take(&mut bytes)?, take(&mut bytes)?);
    let (magic, version, count) = header;
    let known = [MAGIC, VERSION] == [magic, version].map(u32::from_le_bytes);
    let count = u32::from_le_bytes(count) as usize;
    if !known || count > CAPACITY {
        return None;
    }
    let mut endpoints = Vec::with_capacity(count);
    for _ in 0..count {
        let seen_at = Timestamp::from_nanos(u64::from_le_bytes(take(&mut bytes)?));
        let [length] = take(&mut bytes)?;
        let (text, rest) = bytes.split_at_checked(length.into())?;
        bytes = rest;
        let text = std::str::from_utf8(text).ok()?;
        let address = endpoint_address(text).filter(|address| address == text)?;
        endpoints.push(Known { address, seen_at });
    }
    bytes.is_empty().then_some(endpoints)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<Known> {
        ["10.0.0.1:8000", "[fd00::1]:8000"]
            .map(|address| Known {
                address: address.to_owned(),
                seen_at: Timestamp::from_nanos(7),
            })
            .into()
    }

    #[test]
    fn lists_survive_the_round_trip() {
        for list in [vec![], sample()] {
            assert_eq!(decode(&encode(&list)), Some(list));
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let many: Vec<_> = (1..=2 * CAPACITY)
            .map(|port| Known {
                address: format!("10.0.0.1:{port}"),
                seen_at: Timestamp::ZERO,
            })
            .collect();
        assert_eq!(decode(&encode(&many)).unwrap().len(), CAPACITY);
    }

    proptest! {
        #[test]
        fn no_blob_is_misread(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn damaged_lists_name_addresses_or_nothing(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = encode(&sample());
            let at = at.index(bytes.len());
            bytes[at] = value;
            for known in decode(&bytes).unwrap_or_default() {
                prop_assert_eq!(endpoint_address(&known.address), Some(known.address));
            }
        }
    }
}
