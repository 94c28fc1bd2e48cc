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
        let millionths = (self.0 * 1e6).round();
        // Beyond 2^63 the conversion stops at the greatest number, which is
        // what a number without bounds should look like.
        let millionths = millionths as u64;
        write!(f, "{}", millionths / 1_000_000)?;
        let digits = format!("{:06}", millionths % 1_000_000);
        match digits.trim_end_matches('0') {
            "" => Ok(()),
            digits => write!(f, ".{digits}"),
        }
    }
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
