//! Little-endian numbers in byte strings: all shared state is written and read
//! through this module.

/// Takes the first `N` bytes off `bytes`; `None` where there are fewer.
#[inline]
pub fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Takes a 16-bit number off `bytes`.
#[inline]
pub fn take_u16(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes).map(u16::from_le_bytes)
}

/// Takes a 32-bit number off `bytes`.
#[inline]
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_le_bytes)
}

/// Takes a 64-bit number off `bytes`.
#[inline]
pub fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

/// The `N` bytes at `offset`; `None` where they are not all there.
#[inline]
pub fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// The 64-bit number at `offset`; zero where there is none.
#[inline]
pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    at(bytes, offset).map_or(0, u64::from_le_bytes)
}

/// Replaces the bytes at `offset`, where they are all there.
#[inline]
pub fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    if let Some(place) = bytes
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_nothing_is_read_or_written_beyond_the_end() {
        let mut bytes = vec![0; 14];
        put(&mut bytes, 2, 7u32.to_le_bytes());
        put(&mut bytes, 6, u64::MAX.to_le_bytes());
        put(&mut bytes, 11, 1u32.to_le_bytes());
        put(&mut bytes, usize::MAX, [1]);
        assert_eq!(at(&bytes, 2).map(u32::from_le_bytes), Some(7));
        assert_eq!(u64_at(&bytes, 6), u64::MAX);
        assert_eq!(u64_at(&bytes, 7), 0);
        let mut rest = &*bytes;
        assert_eq!(take_u16(&mut rest), Some(0));
        assert_eq!(take_u32(&mut rest), Some(7));
        assert_eq!(take_u64(&mut rest), Some(u64::MAX));
        assert_eq!((take_u16(&mut rest), rest.len()), (None, 0));
    }
}
