//! What a request's headers say about how it is to be admitted: its priority, its
//! tenant, and how long it may take.
//!
//! Clients send these headers, so anything may be in them. What cannot be read is as good
//! as absent, and is counted.

use std::time::Duration;

use super::{Request, digits};
use crate::config::{Deadline, DeadlineMode, Fairness, LatencySignal, Priority};
use crate::host::Host;
use crate::random::mix;

/// What headers say, and whether any of them could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said<T> {
    /// What they say, or what stands for that.
    pub value: T,
    /// A header was there and could not be read.
    pub is_invalid: bool,
}

/// The tenant of requests that name none.
const NO_TENANT: u64 = 0;

impl<H: Host> Request<'_, H> {
    /// The place of its class, 0 for the most important.
    pub fn class(&mut self, priority: &Priority) -> Said<usize> {
        let value = self.fetch(&priority.header);
        let named = value.as_deref().map(|value| {
            let mut classes = priority.classes.iter();
            classes.position(|class| class.as_bytes() == value)
        });
        Said {
            value: named.flatten().unwrap_or(priority.default),
            is_invalid: named == Some(None),
        }
    }

    /// Tells its tenant apart: a hash of the header's value, 0 where there is none.
    pub fn tenant(&mut self, fairness: &Fairness) -> u64 {
        let value = self.fetch(&fairness.header);
        value.map_or(NO_TENANT, |value| hash(&value))
    }

    /// How long it may take from now on; `None` where it may take any time. `signal` is
    /// what is meant by a request's time in its pool.
    pub fn time_allowed(
        &mut self,
        deadline: &Deadline,
        signal: LatencySignal,
    ) -> Said<Option<Duration>> {
        let mut is_invalid = false;
        if deadline.mode == DeadlineMode::Off {
            return Said::default();
        }
        let mut read = |header: &str, parse: fn(&[u8]) -> Option<Duration>| {
            let value = self.fetch(header)?;
            let parsed = parse(&value);
            is_invalid |= parsed.is_none();
            // Zero stands for no limit.
            parsed.filter(|allowed| !allowed.is_zero())
        };
        let own = deadline.header.as_ref();
        let own = own.and_then(|header| read(header, milliseconds));
        let value = own.or_else(|| {
            let known = [
                read("grpc-timeout", grpc_timeout),
                read("x-envoy-expected-rq-timeout-ms", milliseconds),
                match signal {
                    LatencySignal::FirstByte => read("x-llm-d-slo-ttft-ms", milliseconds),
                    LatencySignal::Complete => None,
                },
            ];
            known.into_iter().flatten().min().or(deadline.default)
        });
        Said { value, is_invalid }
    }
}

/// Whole milliseconds.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let millis = digits(value.trim_ascii())?;
    Some(Duration::from_millis(millis as u64))
}

/// A timeout as gRPC writes it: up to eight digits and a unit
/// (`doc/PROTOCOL-HTTP2.md` of gRPC). Nobody asks for an answer within no time.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, number) = value.trim_ascii().split_last()?;
    let is_number = (1..=8).contains(&number.len()) && number.iter().all(u8::is_ascii_digit);
    if !is_number {
        return None;
    }
    let value = number.iter().fold(0, |value: u64, digit| {
        value * 10 + u64::from(digit.wrapping_sub(b'0'))
    });
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    // At most 11,416 years.
    Duration::from_nanos(nanos).checked_mul(u32::try_from(value).ok()?)
}

/// A hash of any bytes, the same in every build, that is not [`NO_TENANT`].
fn hash(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    let hashed = bytes
        .chunks(8)
        .fold(mix(length ^ 0x7465_6e61_6e74), |hash, chunk| {
            let word = chunk
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            mix(hash ^ word)
        });
    hashed.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelSource;
    use crate::host::fake::Fake;
    use crate::request::{Body, Unknown};

    /// What is read of a request with these headers.
    fn read<T>(headers: &[(&str, &str)], read: impl Fn(&mut Request<'_, Fake>) -> T) -> T {
        let mut host = Fake::new();
        host.begin(1, headers);
        let (source, body) = (ModelSource::Body, Body::Unread(Unknown::Missing));
        read(&mut Request::new(&mut host, &source, &body))
    }

    #[test]
    fn a_class_is_named_exactly_or_the_default() {
        let priority = Priority {
            header: "x-priority".to_owned(),
            classes: ["high", "normal", "low"].map(str::to_owned).to_vec(),
            default: 1,
        };
        let class = |value: Option<&str>| {
            let headers = value.map(|value| ("x-priority", value));
            read(headers.as_slice(), |request| request.class(&priority))
        };
        let said = |value, is_invalid| Said { value, is_invalid };
        assert_eq!(class(Some("high")), said(0, false));
        assert_eq!(class(Some("low")), said(2, false));
        assert_eq!(class(None), said(1, false));
        for other in ["", "High", "high ", "0", "\u{e9}"] {
            assert_eq!(class(Some(other)), said(1, true), "{other:?}");
        }
    }

    #[test]
    fn tenants_are_told_apart() {
        let fairness = Fairness {
            header: "x-tenant".to_owned(),
        };
        let tenant =
            |value: &str| read(&[("x-tenant", value)], |request| request.tenant(&fairness));
        let names = [
            "",
            "a",
            "b",
            "ab",
            "ba",
            "tenant-1",
            "tenant-2",
            "tenant-11",
            "tenant-1\0",
        ];
        let mut hashes = names.map(tenant).to_vec();
        assert_eq!(hashes[1], tenant("a"));
        hashes.push(read(&[], |request| request.tenant(&fairness)));
        assert_eq!(hashes.last(), Some(&0));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 10);
    }

    fn deadline(header: Option<&str>, default: Option<u64>) -> Deadline {
        Deadline {
            header: header.map(str::to_owned),
            default: default.map(Duration::from_millis),
            mode: DeadlineMode::Enforce,
        }
    }

    fn allowed(deadline: &Deadline, headers: &[(&str, &str)]) -> (Option<Duration>, bool) {
        let said = read(headers, |request| {
            request.time_allowed(deadline, LatencySignal::Complete)
        });
        (said.value, said.is_invalid)
    }

    #[test]
    fn the_configured_header_counts_first_then_the_shortest_known_then_the_default() {
        let deadline = deadline(Some("x-timeout"), Some(9_000));
        let all = [
            ("x-timeout", "5000"),
            ("grpc-timeout", "2S"),
            ("x-envoy-expected-rq-timeout-ms", "3000"),
            ("x-llm-d-slo-ttft-ms", "1000"),
        ];
        let millis = |millis| (Some(Duration::from_millis(millis)), false);
        assert_eq!(allowed(&deadline, &all), millis(5000));
        assert_eq!(allowed(&deadline, &all[1..]), millis(2000));
        assert_eq!(allowed(&deadline, &all[2..]), millis(3000));
        assert_eq!(
            allowed(&deadline, &all[3..]),
            millis(9000),
            "of the first byte"
        );
        let first_byte = read(&all[1..], |request| {
            request
                .time_allowed(&deadline, LatencySignal::FirstByte)
                .value
        });
        assert_eq!(first_byte, Some(Duration::from_millis(1000)));
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_ignored() {
        let deadline = deadline(Some("x-timeout"), None);
        for value in [
            "",
            "-1",
            "1.5",
            "1e3",
            "soon",
            "007",
            "1s",
            "9999999999999999",
        ] {
            assert_eq!(
                allowed(&deadline, &[("x-timeout", value)]),
                (None, true),
                "{value:?}"
            );
            let both = [("x-timeout", value), ("grpc-timeout", "1S")];
            assert_eq!(
                allowed(&deadline, &both),
                (Some(Duration::from_secs(1)), true)
            );
        }
        assert_eq!(allowed(&deadline, &[("x-timeout", "0")]), (None, false));
        let spaces = allowed(&deadline, &[("x-timeout", " 20 ")]);
        assert_eq!(spaces, (Some(Duration::from_millis(20)), false));
    }

    #[test]
    fn every_unit_of_grpc_is_read() {
        let second = Duration::from_secs(1);
        for (value, duration) in [
            ("2H", second * 7200),
            ("2M", second * 120),
            ("02S", second * 2),
            ("2m", Duration::from_millis(2)),
            ("2u", Duration::from_micros(2)),
            ("2n", Duration::from_nanos(2)),
            ("99999999H", second * 3600 * 99_999_999),
        ] {
            assert_eq!(grpc_timeout(value.as_bytes()), Some(duration), "{value}");
        }
        for value in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "123456789S",
            "1 S",
            "\u{e9}S",
        ] {
            assert_eq!(grpc_timeout(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn what_is_off_reads_nothing() {
        let off = Deadline {
            mode: DeadlineMode::Off,
            ..deadline(Some("x-timeout"), Some(1))
        };
        assert_eq!(allowed(&off, &[("x-timeout", "bad")]), (None, false));
    }
}
