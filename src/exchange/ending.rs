//! How a request ended, as the host tells it.

use super::Exchange;
use crate::host::Host;
use crate::outcome::{End, parse_retry_after};

impl Exchange {
    /// Asks the host how the request ended. What the host does not say is
    /// taken as nobody's fault.
    pub(super) fn read_end(&self, host: &mut impl Host) -> End {
        let attempts = match host.property(&["upstream", "request_attempt_count"]) {
            Ok(Some(bytes)) => little_endian(&bytes),
            // The proxy has nothing to say of an upstream: it answered itself.
            Ok(None) => 0,
            Err(_) => 1,
        };
        // A move was a failure of the endpoint that was picked, and it has been
        // told so.
        let is_moved = self.way.as_ref().is_some_and(|way| way.is_moved);
        let attempts = if is_moved { 1 } else { attempts };
        let status = status(host);
        let is_good = status.is_some_and(|code| (200..400).contains(&code));
        // An answer that came to its end and is good raises no flag that
        // matters, so one call is saved where most requests are.
        let flags = if is_good && self.response_complete && attempts == 1 {
            0
        } else {
            number(host, &["response", "flags"]).unwrap_or(0)
        };
        // Envoy makes up a gRPC status for other answers, for a 200 an error:
        // only an answer of gRPC is asked for one.
        let grpc_status = if self.may_have_grpc_status && is_grpc(host) {
            number(host, &["response", "grpc_status"])
        } else {
            None
        };
        End {
            status: status
                .and_then(|code| u16::try_from(code).ok())
                .filter(|code| *code > 0),
            grpc_status: grpc_status.and_then(|status| u32::try_from(status).ok()),
            flags,
            attempts,
            is_moved,
            request_complete: self.request_complete,
            response_complete: self.response_complete,
        }
    }
}

/// The response's status. A header costs the host half of what a property does,
/// so it is read there as long as the host shows headers.
fn status(host: &mut impl Host) -> Option<u64> {
    let header = host.response_header(":status").unwrap_or(None);
    match header.as_deref() {
        Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            let digits = [a, b, c].map(|digit| u64::from(digit - b'0'));
            Some(digits.iter().fold(0, |status, digit| 10 * status + digit))
        }
        _ => number(host, &["response", "code"]),
    }
}

fn is_grpc(host: &mut impl Host) -> bool {
    let content_type = host.response_header("content-type").unwrap_or(None);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

pub(super) fn retry_after(host: &mut impl Host) -> Option<std::time::Duration> {
    let value = host.response_header("retry-after").unwrap_or(None)?;
    parse_retry_after(&value)
}

/// A numeric property; `None` where it is absent or cannot be read.
pub(super) fn number(host: &mut impl Host, path: &[&str]) -> Option<u64> {
    let bytes = host.property(path).unwrap_or(None)?;
    Some(little_endian(&bytes))
}

/// Envoy gives integers as eight little-endian bytes.
pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    let places = bytes.iter().take(8).enumerate();
    places.fold(0, |number, (place, byte)| {
        number | u64::from(*byte) << (8 * place)
    })
}
