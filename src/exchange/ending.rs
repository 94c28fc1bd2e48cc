//! How a request ended, as the host tells it.

use std::time::Duration;

use super::Exchange;
use super::answer::Progress;
use super::phase::Location;
use crate::config::Config;
use crate::host::{Host, attributes};
use crate::outcome::{Details, End, is_client_gone, parse_retry_after};

impl Exchange {
    /// Asks the host how the request ended. What the host does not say is
    /// taken as nobody's fault.
    #[inline(never)]
    pub(super) fn read_end(
        &self,
        config: &Config,
        host: &mut impl Host,
        location: Location,
    ) -> End {
        let progress = self.answer.progress;
        let attempts = attempts(config, host);
        // A move was a failure of the endpoint that was picked, and it has been
        // told so.
        let is_moved = location == Location::Moved;
        let attempts = if is_moved { 1 } else { attempts };
        let status = status(host);
        let is_good = status.is_some_and(|code| (200..400).contains(&code));
        // An answer that came to its end and is good raises no flag that
        // matters, so one call is saved where most requests are.
        let is_ordinary = is_good && progress.is_complete() && attempts == 1;
        let flags = if is_ordinary {
            0
        } else {
            number(host, attributes::RESPONSE_FLAGS).unwrap_or(0)
        };
        // Other flags say enough, and an answer that was switched to another
        // protocol has no end of its own.
        let is_open = !is_ordinary && attempts == 1 && status.is_some() && status != Some(101);
        let details = match is_open && (flags == 0 || is_client_gone(flags)) {
            true => details(host),
            false => Details::None,
        };
        let is_tunnel = is_open && is_good && flags == 0 && is_connect(host);
        // Envoy makes up a gRPC status for other answers, for a 200 an error:
        // only an answer of gRPC is asked for one.
        let grpc_status = if progress == Progress::EndedWithHeaders && is_grpc(host) {
            number(host, attributes::RESPONSE_GRPC_STATUS)
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
            is_elsewhere: false,
            is_moved,
            request_complete: self.upload.is_complete,
            response_complete: progress.is_complete(),
            is_tunnel,
            details,
        }
    }
}

/// How many attempts were made; none where the proxy answered by itself.
#[inline(never)]
pub(super) fn attempts(config: &Config, host: &mut impl Host) -> u64 {
    if config.include_attempt_count_in_response {
        let header = host.response_header(attributes::ATTEMPT_COUNT_HEADER);
        // An answer of the proxy itself may lack it.
        if let Ok(Some(value)) = header
            && let [digit @ b'1'..=b'9'] = value.as_slice()
        {
            return u64::from(digit - b'0');
        }
    }
    match host.property(attributes::UPSTREAM_ATTEMPTS) {
        Ok(Some(bytes)) => attributes::number(&bytes),
        // The proxy has nothing to say of an upstream: it answered itself.
        Ok(None) => 0,
        Err(_) => 1,
    }
}

fn details(host: &mut impl Host) -> Details {
    let details = host.property(attributes::RESPONSE_CODE_DETAILS);
    Details::parse(&details.unwrap_or(None).unwrap_or_default())
}

/// Whether the request asked for a tunnel.
fn is_connect(host: &mut impl Host) -> bool {
    let method = host.request_header(":method").unwrap_or(None);
    method.is_some_and(|method| method == b"CONNECT")
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
        _ => number(host, attributes::RESPONSE_CODE),
    }
}

fn is_grpc(host: &mut impl Host) -> bool {
    let content_type = host.response_header("content-type").unwrap_or(None);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// For how long a cluster that the proxy does not have is left alone. A request
/// that finds it still missing is lost, and one that is new waits so long.
const MISSING_CLUSTER_BACK_OFF: Duration = Duration::from_secs(10);

/// For how long the upstream is to be left alone, if it asked for that or cannot
/// be there.
pub(super) fn back_off(host: &mut impl Host, end: &End) -> Option<Duration> {
    if end.is_cluster_missing() {
        return Some(MISSING_CLUSTER_BACK_OFF);
    }
    if !matches!(end.status, Some(429 | 503)) {
        return None;
    }
    let value = host.response_header("retry-after").unwrap_or(None)?;
    parse_retry_after(&value)
}

/// Whether the upstream reports that requests stand in line there, as vLLM does where a
/// request asks for it: by ORCA, in the forms `TEXT` and `JSON`.
pub(super) fn reports_queue(host: &mut impl Host) -> bool {
    const NAME: &[u8] = b"num_requests_waiting";
    let Ok(Some(report)) = host.response_header("endpoint-load-metrics") else {
        return false;
    };
    let mut places = report.windows(NAME.len());
    let place = places.position(|it| it == NAME).unwrap_or(report.len());
    let rest = report.iter().skip(place + NAME.len());
    let number = rest.skip_while(|it| matches!(it, b'"' | b'=' | b':' | b' '));
    let mut digits = number.take_while(|it| it.is_ascii_digit() || **it == b'.');
    digits.any(|digit| matches!(digit, b'1'..=b'9'))
}

/// A numeric property; `None` where it is absent or cannot be read.
pub(super) fn number(host: &mut impl Host, path: &[&str]) -> Option<u64> {
    let bytes = host.property(path).unwrap_or(None)?;
    Some(attributes::number(&bytes))
}

/// A property that is text; `None` where it is absent or cannot be read.
#[inline(never)]
pub(super) fn text(host: &mut impl Host, path: &[&str]) -> Option<String> {
    String::from_utf8(host.property(path).unwrap_or(None)?).ok()
}
