//! Who takes requests of which size: an upstream's limits, and the share of a
//! pool that is reserved for small ones.

use core::ops::RangeInclusive;

use super::error::Problems;
use super::reader::Node;

const SIZES: RangeInclusive<f64> = 0.0..=1e15;
const SHARES: RangeInclusive<f64> = 0.01..=0.9;
const DEFAULT_SHARE: f64 = 0.25;

/// The sizes of requests that an upstream accepts, both ends included. A request
/// whose size is not known is always accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accepts {
    /// The smallest; 0 unless given.
    pub min_size: f64,
    /// The largest; infinite unless given.
    pub max_size: f64,
}

impl Accepts {
    /// Every request.
    pub const ALL: Accepts = Accepts {
        min_size: 0.0,
        max_size: f64::INFINITY,
    };

    /// Whether a request of this size, if it is known, is accepted.
    #[must_use]
    pub fn accepts(&self, size: Option<f64>) -> bool {
        size.is_none_or(|size| (self.min_size..=self.max_size).contains(&size))
    }
}

impl Default for Accepts {
    fn default() -> Self {
        Accepts::ALL
    }
}

/// Upstreams of a pool that are kept free for small requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reserve {
    /// The part of the pool's upstreams that is reserved, 0.01 to 0.9, rounded
    /// to whole upstreams: at least one, never all.
    pub share: f64,
    /// Requests of a known size up to this are small.
    pub max_size: f64,
}

impl Reserve {
    /// How many of so many upstreams are reserved: the last ones.
    #[must_use]
    pub fn count(&self, upstreams: usize) -> usize {
        let most = upstreams.saturating_sub(1);
        ((self.share * upstreams as f64).round() as usize)
            .max(1)
            .min(most)
    }

    /// Whether a request of this size, if it is known, is small.
    #[must_use]
    pub fn is_small(&self, size: Option<f64>) -> bool {
        size.is_some_and(|size| size <= self.max_size)
    }
}

/// Reads `accepts`.
pub(super) fn read_accepts(node: Node<'_>, problems: &mut Problems) -> Option<Accepts> {
    const ALLOWED: &str = "an object with min_size, max_size or both";
    let object = node.object(ALLOWED, problems)?;
    object.allow_only(&["min_size", "max_size"], problems);
    let [min, max] = ["min_size", "max_size"].map(|key| object.get(key));
    if min.is_none() && max.is_none() {
        node.refuse(&ALLOWED, problems);
        return None;
    }
    let min_size = match min {
        Some(min) => min.real(SIZES, problems)?,
        None => Accepts::ALL.min_size,
    };
    let max_size = match max {
        Some(max) => max.real(min_size..=*SIZES.end(), problems)?,
        None => Accepts::ALL.max_size,
    };
    Some(Accepts { min_size, max_size })
}

/// Reads `reserve`, of a pool with so many upstreams.
pub(super) fn read_reserve(
    node: Node<'_>,
    upstreams: usize,
    problems: &mut Problems,
) -> Option<Reserve> {
    let object = node.object("an object with max_size", problems)?;
    object.allow_only(&["share", "max_size"], problems);
    let share = match object.get("share") {
        Some(share) => share.real(SHARES, problems)?,
        None => DEFAULT_SHARE,
    };
    let max_size = object
        .require(
            "max_size",
            "the size up to which a request is small",
            problems,
        )?
        .real(SIZES, problems)?;
    if upstreams < 2 {
        problems.add(&node.path, &"needs at least two upstreams; leave this out");
        return None;
    }
    Some(Reserve { share, max_size })
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::*;

    fn read<T>(
        json: &str,
        read: impl Fn(Node<'_>, &mut Problems) -> Option<T>,
    ) -> Result<T, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        match read(Node::root(&json), &mut problems) {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems.to_string()),
        }
    }

    fn accepts(json: &str) -> Result<Accepts, String> {
        read(json, read_accepts)
    }

    fn reserve(json: &str, upstreams: usize) -> Result<Reserve, String> {
        read(json, |node, problems| {
            read_reserve(node, upstreams, problems)
        })
    }

    #[test]
    fn both_ends_are_accepted_and_so_is_a_size_that_nobody_knows() {
        let both = accepts(r#"{"min_size": 10, "max_size": 20}"#).unwrap();
        let accepted = [9.0, 10.0, 20.0, 20.5].map(|size| both.accepts(Some(size)));
        assert_eq!(accepted, [false, true, true, false]);
        assert!(both.accepts(None));
        assert!(accepts(r#"{"min_size": 10}"#).unwrap().accepts(Some(1e300)));
        assert!(accepts(r#"{"max_size": 10}"#).unwrap().accepts(Some(0.0)));
    }

    #[test]
    fn a_share_is_rounded_to_at_least_one_and_never_to_all() {
        let reserve = |share| Reserve {
            share,
            max_size: 1.0,
        };
        assert_eq!([2, 3, 4, 8].map(|n| reserve(0.25).count(n)), [1, 1, 1, 2]);
        assert_eq!([2, 3, 10].map(|n| reserve(0.9).count(n)), [1, 2, 9]);
        assert_eq!([0, 1].map(|n| reserve(0.5).count(n)), [0, 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (json, said) in [
            (
                "{}",
                "configuration: an empty object is not allowed; give an object with min_size, max_size or both",
            ),
            (
                r#"{"max_size": -1}"#,
                "max_size: -1 is not allowed; give a number from 0.0 to 1000000000000000.0",
            ),
            (
                r#"{"min_size": 5, "max_size": 4}"#,
                "max_size: 4 is not allowed; give a number from 5.0 to 1000000000000000.0",
            ),
            (
                r#"{"max": 4}"#,
                "max: unknown key; did you mean max_size? allowed: min_size, max_size",
            ),
        ] {
            let found = accepts(json).unwrap_err();
            assert!(found.contains(said), "{found}");
        }
        for (json, upstreams, said) in [
            (
                "{}",
                2,
                "max_size: missing; give the size up to which a request is small",
            ),
            (
                r#"{"max_size": 9, "share": 1}"#,
                2,
                "share: 1 is not allowed; give a number from 0.01 to 0.9",
            ),
            (
                r#"{"max_size": 9}"#,
                1,
                "configuration: needs at least two upstreams; leave this out",
            ),
        ] {
            assert_eq!(reserve(json, upstreams).unwrap_err(), said);
        }
    }
}
