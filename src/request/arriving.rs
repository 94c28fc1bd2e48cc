//! A body of JSON as it arrives, part by part.

use serde::de::IgnoredAny;

/// So much of the beginning is parsed, again whenever it has doubled: what is not
/// JSON at all shows that early. Of the rest only brackets are counted.
const PARSED: usize = 4 << 10;

/// Up to this size it is parsed again with every part.
const SMALL: usize = 512;

/// What has come of a body so far.
#[derive(Debug, Default)]
pub struct Arriving {
    bytes: Vec<u8>,
    /// The size at which it was last parsed.
    parsed: usize,
    brackets: Brackets,
}

/// How far a body of JSON has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is to come.
    Open,
    /// Its value is complete.
    Whole,
    /// Whatever follows, it is not a JSON object or array.
    Malformed,
}

impl Arriving {
    /// One more part has come. All parts together are looked at once, and the
    /// first 4 KiB at most twice more.
    pub fn add(&mut self, part: Vec<u8>) -> Progress {
        let seen = self.brackets.read(&part);
        if self.bytes.is_empty() {
            self.bytes = part;
        } else {
            self.bytes.extend_from_slice(&part);
        }
        if seen != Progress::Open {
            return seen;
        }
        let Some(beginning) = self.beginning_to_parse() else {
            return Progress::Open;
        };
        match serde_json::from_slice::<IgnoredAny>(beginning) {
            Err(error) if !error.is_eof() => Progress::Malformed,
            _ => Progress::Open,
        }
    }

    /// The beginning of what has come, if it is time to parse it again.
    fn beginning_to_parse(&mut self) -> Option<&[u8]> {
        let size = self.bytes.len().min(PARSED);
        let is_due = size <= SMALL || size >= self.parsed.saturating_mul(2);
        if !is_due || size == self.parsed {
            return None;
        }
        self.parsed = size;
        self.bytes.get(..size)
    }

    /// The bytes that have come.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that has come; nothing is left.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).bytes
    }
}

/// Finds where the first object or array closes. It knows strings and brackets,
/// any of which closes any other, and nothing else of the grammar.
#[derive(Debug, Default)]
struct Brackets {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    is_closed: bool,
}

impl Brackets {
    fn read(&mut self, part: &[u8]) -> Progress {
        let mut rest = part;
        loop {
            rest = self.skip_string(rest);
            let Some((byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.is_closed => return Progress::Malformed,
                b'{' | b'[' => self.depth += 1,
                _ if self.depth == 0 => return Progress::Malformed,
                b'"' => self.in_string = true,
                b'}' | b']' => {
                    self.depth -= 1;
                    self.is_closed = self.depth == 0;
                }
                _ => {}
            }
        }
        match self.is_closed {
            true => Progress::Whole,
            false => Progress::Open,
        }
    }

    /// What follows the string that `part` begins in. Nearly all of a long body is
    /// text in strings, so this is where the time goes.
    fn skip_string<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
        let mut rest = part;
        while self.in_string {
            let skipped = match self.is_escaped {
                true => 0,
                false => rest.iter().position(is_special).unwrap_or(rest.len()),
            };
            let found = rest.get(skipped..).and_then(<[u8]>::split_first);
            let Some((byte, after)) = found else {
                return &[];
            };
            rest = after;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                _ => self.in_string = false,
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn after(parts: &[&str]) -> Progress {
        let mut arriving = Arriving::default();
        let mut progress = Progress::Open;
        for part in parts {
            progress = arriving.add(part.as_bytes().to_vec());
        }
        assert_eq!(arriving.len(), parts.concat().len());
        assert_eq!(arriving.take(), parts.concat().as_bytes());
        assert!(arriving.is_empty());
        progress
    }

    #[test]
    fn an_object_is_whole_with_its_last_brace() {
        for parts in [
            &["{}"][..],
            &[" {\"a\": [1, {\"b\": \"}\"}]}\n"],
            &["{\"a\\", "\"}\": ", "1", "}"],
            &["[1", "]", " \n"],
        ] {
            assert_eq!(after(parts), Progress::Whole, "{parts:?}");
        }
    }

    #[test]
    fn what_may_still_become_an_object_is_open() {
        for parts in [
            &[""][..],
            &[" ", "\n"],
            &["{"],
            &["{\"a\": \"}"],
            &["{\"a\": \"\\", "\""],
            &["{\"a\": tr"],
        ] {
            assert_eq!(after(parts), Progress::Open, "{parts:?}");
        }
    }

    #[test]
    fn what_cannot_become_an_object_is_malformed_at_once() {
        for parts in [
            &["12"][..],
            &["\"a\""],
            &["\u{e9}"],
            &["\u{feff}{"],
            // An envelope of Connect, and a message of Protocol Buffers.
            &["\0\0\0\0\u{2}{}"],
            &["\n\u{7b}\u{12}\u{3}abc"],
            &["{} {"],
            &["{\"a\":1}\n", "{\"b\":2}\n"],
            &["{\"a\" 1"],
            &["{", "more"],
            &["{\"a\"", " 1"],
            &["}"],
        ] {
            assert_eq!(after(parts), Progress::Malformed, "{parts:?}");
        }
    }

    #[test]
    fn a_large_body_is_parsed_a_bounded_number_of_times() {
        // Parts of few bytes, each of which closes something: were each parsed,
        // it would take minutes.
        let mut arriving = Arriving::default();
        arriving.add(b"[0".to_vec());
        for _ in 0..200_000 {
            assert_eq!(arriving.add(b",[]".to_vec()), Progress::Open);
        }
        assert_eq!(arriving.add(b"]".to_vec()), Progress::Whole);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(11),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn json_is_whole_at_its_end_however_it_is_cut(
            keys in prop::collection::vec("[a{}\\[\\]\"\\\\ ]{0,4}", 0..6),
            cuts in prop::collection::vec(0_usize..200, 0..5),
        ) {
            let object: serde_json::Value = keys
                .iter()
                .map(|key| (key.clone(), serde_json::json!([key, { "k": key }])))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let text = object.to_string();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            let mut arriving = Arriving::default();
            let mut start = 0;
            for cut in cuts {
                prop_assert_eq!(arriving.add(text.as_bytes()[start..cut].to_vec()), Progress::Open);
                start = cut;
            }
            let rest = text.as_bytes()[start..].to_vec();
            prop_assert_eq!(arriving.add(rest), Progress::Whole);
        }

        #[test]
        fn any_bytes_are_answered(parts in prop::collection::vec(any::<Vec<u8>>(), 0..4)) {
            let mut arriving = Arriving::default();
            for part in parts {
                let _ = arriving.add(part);
            }
        }
    }
}
