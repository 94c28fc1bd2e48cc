//! The numbers and encodings of proxy-wasm ABI 0.2.1.

/// Why a host call failed, as the VM sees it; 0 would be success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Status {
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
}

/// The host's answer to a call: a value, or the status that says why not.
pub(crate) type HostResult<T = ()> = Result<T, Status>;

/// What a callback tells the host to do with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Continue,
    Pause,
}

/// The header maps that this host offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapType {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    /// Maps of gRPC call-outs, which this host never makes.
    Grpc,
    /// Of the answer to a call-out.
    CallResponseHeaders,
    CallResponseTrailers,
}

impl TryFrom<u32> for MapType {
    type Error = Status;

    fn try_from(number: u32) -> HostResult<Self> {
        match number {
            0 => Ok(Self::RequestHeaders),
            1 => Ok(Self::RequestTrailers),
            2 => Ok(Self::ResponseHeaders),
            3 => Ok(Self::ResponseTrailers),
            4 | 5 => Ok(Self::Grpc),
            6 => Ok(Self::CallResponseHeaders),
            7 => Ok(Self::CallResponseTrailers),
            _ => Err(Status::BadArgument),
        }
    }
}

/// The buffers that this host offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferType {
    RequestBody,
    ResponseBody,
    VmConfiguration,
    PluginConfiguration,
    /// Of the answer to a call-out.
    CallResponseBody,
    /// Buffers of network filters, which this host never fills.
    Other,
}

impl TryFrom<u32> for BufferType {
    type Error = Status;

    fn try_from(number: u32) -> HostResult<Self> {
        match number {
            0 => Ok(Self::RequestBody),
            1 => Ok(Self::ResponseBody),
            6 => Ok(Self::VmConfiguration),
            7 => Ok(Self::PluginConfiguration),
            4 => Ok(Self::CallResponseBody),
            2..=3 | 5 | 8 => Ok(Self::Other),
            _ => Err(Status::BadArgument),
        }
    }
}

/// The directions that a stream can be continued or closed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamType {
    Request,
    Response,
    Downstream,
    Upstream,
}

impl TryFrom<u32> for StreamType {
    type Error = Status;

    fn try_from(number: u32) -> HostResult<Self> {
        match number {
            0 => Ok(Self::Request),
            1 => Ok(Self::Response),
            2 => Ok(Self::Downstream),
            3 => Ok(Self::Upstream),
            _ => Err(Status::BadArgument),
        }
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
}

impl TryFrom<u32> for LogLevel {
    type Error = Status;

    fn try_from(number: u32) -> HostResult<Self> {
        match number {
            0 => Ok(Self::Trace),
            1 => Ok(Self::Debug),
            2 => Ok(Self::Info),
            3 => Ok(Self::Warn),
            4 => Ok(Self::Error),
            5 => Ok(Self::Critical),
            _ => Err(Status::BadArgument),
        }
    }
}

/// Names and values in their order, as the ABI moves header maps.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Writes a header map as the ABI has it: the count, all sizes, then each name
/// and value with a NUL behind it.
pub(crate) fn encode_pairs(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

/// Reads a header map that the VM wrote. Like Envoy, takes anything malformed,
/// larger than 1 MiB or longer than 1024 pairs for an empty map.
pub(crate) fn decode_pairs(bytes: &[u8]) -> Pairs {
    const MAX_BYTES: usize = 1 << 20;
    if bytes.len() > MAX_BYTES {
        return Pairs::new();
    }
    try_decode_pairs(bytes).unwrap_or_default()
}

fn try_decode_pairs(bytes: &[u8]) -> Option<Pairs> {
    const MAX_PAIRS: usize = 1024;
    let (count, rest) = take_u32(bytes)?;
    if count > MAX_PAIRS {
        return None;
    }
    let mut sizes = Vec::with_capacity(2 * count);
    let mut rest = rest;
    for _ in 0..2 * count {
        let (size, tail) = take_u32(rest)?;
        sizes.push(size);
        rest = tail;
    }
    let mut parts = Vec::with_capacity(2 * count);
    for size in sizes {
        let (part, tail) = rest.split_at_checked(size)?;
        parts.push(part.to_vec());
        rest = tail.strip_prefix(&[0])?;
    }
    let mut parts = parts.into_iter();
    let mut pairs = Pairs::with_capacity(count);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((name, value));
    }
    rest.is_empty().then_some(pairs)
}

fn take_u32(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head) as usize, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_encoding_whatever_their_bytes() {
        let pairs: Pairs = vec![
            (b":path".to_vec(), b"/".to_vec()),
            (b"x-\xff\xfe".to_vec(), Vec::new()),
            (b"nul".to_vec(), b"a\0b".to_vec()),
        ];
        assert_eq!(decode_pairs(&encode_pairs(&pairs)), pairs);
    }

    #[test]
    fn malformed_pairs_are_an_empty_map() {
        let good = encode_pairs(&[(b"name".to_vec(), b"value".to_vec())]);
        let cut = &good[..good.len() - 1];
        let long = [good.as_slice(), b"more"].concat();
        let endless = u32::MAX.to_le_bytes();
        for bytes in [b"".as_slice(), cut, &long, &endless] {
            assert_eq!(decode_pairs(bytes), Pairs::new(), "{bytes:?}");
        }
    }
}
