//! Numbers as text.

use std::fmt;

/// A number that is not negative, to six decimals. Whole numbers make it, because the
/// standard library's formatting of floats would be a tenth of the filter's code.
#[derive(Clone, Copy, Debug)]
pub struct Decimal(pub f64);

impl Decimal {
    /// Seconds to a tenth of a millisecond.
    pub(crate) fn of_seconds(seconds: f64) -> Self {
        Decimal((seconds * 1e4).round() / 1e4)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Decimal {
    /// Adds the number to a text.
    pub(crate) fn add_to(self, text: &mut String) {
        self.with_text(|digits| text.push_str(digits));
    }

    /// Digit by digit, without the standard library's formatting: a request whose decision
    /// is told waits for this.
    fn with_text<T>(self, act: impl FnOnce(&str) -> T) -> T {
        // Beyond 2^64 the conversion stops at the greatest number, which is
        // what a number without bounds should look like.
        let millionths = (self.0 * 1e6).round() as u64;
        let (mut whole, mut part) = (millionths / 1_000_000, millionths % 1_000_000);
        // From the last digit.
        let mut text = [0; LONGEST];
        let mut left = text.len();
        let mut places = text.iter_mut().rev();
        let mut put = |byte: u8| {
            if let Some(place) = places.next() {
                *place = byte;
                left -= 1;
            }
        };
        let mut decimals = 6;
        while decimals > 0 && part % 10 == 0 {
            (part, decimals) = (part / 10, decimals - 1);
        }
        if decimals > 0 {
            for _ in 0..decimals {
                put(digit(part));
                part /= 10;
            }
            put(b'.');
        }
        loop {
            put(digit(whole));
            whole /= 10;
            if whole == 0 {
                break;
            }
        }
        let text = text.get(left..).unwrap_or_default();
        act(std::str::from_utf8(text).unwrap_or_default())
    }
}

/// Characters of the greatest number, 2^64 - 1 millionths, and one to spare.
const LONGEST: usize = 22;

/// The last digit of a number.
fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let shown = [2.0, 0.25, 1.000_000_4, 0.000_05, 1234.5, 0.0].map(|s| Decimal(s).to_string());
        assert_eq!(shown, ["2", "0.25", "1", "0.00005", "1234.5", "0"]);
        assert_eq!(Decimal(f64::INFINITY).to_string(), "18446744073709.551615");
        assert_eq!(Decimal(f64::NAN).to_string(), "0");
    }
}
