//! Durations as an operator writes them: a number and a unit, as in `250ms`.

use core::fmt;
use core::time::Duration;

/// Units and their nanoseconds, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// How many digits may follow the point: so many fit in 64 bits in any unit.
const MAX_FRACTION_DIGITS: usize = 6;

/// Reads digits, perhaps with a fraction, followed at once by one unit.
/// `None` when `text` is anything else, or longer than 584 years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let unit_start = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(unit_start)?;
    let (_, unit_nanos) = UNITS.into_iter().find(|(name, _)| *name == unit)?;

    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, fraction_nanos(fraction, unit_nanos)?),
        None => (digits(number)?, 0),
    };
    let nanos = whole.checked_mul(unit_nanos)?.checked_add(fraction)?;
    Some(Duration::from_nanos(nanos))
}

/// The nanoseconds of `0.<fraction>` units, rounded down.
fn fraction_nanos(fraction: &str, unit_nanos: u64) -> Option<u64> {
    if fraction.len() > MAX_FRACTION_DIGITS {
        return None;
    }
    let denominator = fraction.bytes().fold(1_u64, |power, _| power * 10);
    Some(digits(fraction)?.checked_mul(unit_nanos)? / denominator)
}

/// `str::parse` alone would also read a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// A duration in the largest unit that shows it as a whole number, as
/// [`parse`] reads it. Below a microsecond it is cut off.
pub(super) struct Shown(pub(super) Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        let (unit, unit_micros) = UNITS
            .into_iter()
            .map(|(name, nanos)| (name, nanos / 1_000))
            .find(|(_, unit_micros)| micros > 0 && micros.is_multiple_of(*unit_micros))
            .unwrap_or(("us", 1));
        write!(f, "{}{unit}", micros / unit_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        assert_eq!(parse("500us"), Some(Duration::from_micros(500)));
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse("0s"), Some(Duration::ZERO));
        assert_eq!(parse("007s"), Some(Duration::from_secs(7)));
    }

    #[test]
    fn fractions_are_exact() {
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("0.1h"), Some(Duration::from_secs(360)));
        assert_eq!(parse("0.000001s"), Some(Duration::from_micros(1)));
        assert_eq!(
            parse("0.999999h"),
            Some(Duration::from_nanos(3_599_996_400_000))
        );
        assert_eq!(parse("0.3us"), Some(Duration::from_nanos(300)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "10",
            ".5s",
            "5.s",
            "1.2.3s",
            "-1s",
            "+1s",
            "1 s",
            " 1s",
            "1s ",
            "1S",
            "1e3s",
            "1m30s",
            "1d",
            "1ns",
            "1min",
            "NaNs",
            "infs",
            "ten s",
            "１s",
            "0.0000001s",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(parse("18446744073709551615us"), None);
        assert_eq!(parse("18446744073709551616s"), None);
        assert_eq!(parse("99999999999999999999999999h"), None);
    }

    #[test]
    fn the_largest_whole_unit_is_shown() {
        let shown = |duration| Shown(duration).to_string();
        assert_eq!(shown(Duration::from_secs(300)), "5m");
        assert_eq!(shown(Duration::from_secs(3600)), "1h");
        assert_eq!(shown(Duration::from_secs(90)), "90s");
        assert_eq!(shown(Duration::from_micros(1500)), "1500us");
        assert_eq!(shown(Duration::ZERO), "0us");
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for exponent in 0..16 {
            for digit in 0..10 {
                let duration = Duration::from_micros(digit * 10_u64.pow(exponent));
                assert_eq!(parse(&Shown(duration).to_string()), Some(duration));
            }
        }
    }
}
