//! "Did you mean": the nearest of a few known words.

/// Longer words are not compared: no known word is near them.
const MAX_LEN: usize = 64;

/// What could have been given instead of `word`: the nearest, and all.
pub(super) fn allowed(word: &str, candidates: &[&str]) -> String {
    let all = candidates.join(", ");
    match nearest(word, candidates) {
        Some(near) => format!("did you mean {near}? allowed: {all}"),
        None => format!("allowed: {all}"),
    }
}

/// The candidate that `word` is a likely misspelling of.
fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.len() > MAX_LEN {
        return None;
    }
    // `routeHeader` and `route-header` are one slip away, not three.
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.len() / 3 || extends(&word, candidate)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Whether one is the beginning of the other, as with `path` and `path_prefix`.
fn extends(word: &str, candidate: &str) -> bool {
    word.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate))
}

/// The Levenshtein distance in bytes.
fn distance(from: &str, to: &str) -> usize {
    // row[j]: from the part of `from` read so far to the first j + 1 bytes of `to`.
    let mut row: Vec<usize> = (1..=to.len()).collect();
    let mut last = to.len();
    for (read, from_byte) in from.bytes().enumerate() {
        let mut diagonal = read;
        last = read + 1;
        for (cell, to_byte) in row.iter_mut().zip(to.bytes()) {
            let replaced = diagonal + usize::from(from_byte != to_byte);
            diagonal = *cell;
            last = replaced.min(last + 1).min(diagonal + 1);
            *cell = last;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("flaw", "lawn"), 2);
        assert_eq!(distance("wieght", "weight"), 2);
    }

    #[test]
    fn slips_are_recognised() {
        let keys = ["route_header", "explain", "upstreams", "policy"];
        assert_eq!(nearest("routeHeader", &keys), Some("route_header"));
        assert_eq!(nearest("Route-Header", &keys), Some("route_header"));
        assert_eq!(nearest("upstream", &keys), Some("upstreams"));
        assert_eq!(nearest("polices", &keys), Some("policy"));
    }

    #[test]
    fn beginnings_and_endings_are_recognised() {
        assert_eq!(
            nearest("path", &["path_prefix", "host"]),
            Some("path_prefix")
        );
        assert_eq!(nearest("matches", &["name", "match"]), Some("match"));
        assert_eq!(nearest("pa", &["path_prefix", "host"]), None);
    }

    #[test]
    fn other_words_suggest_nothing() {
        let keys = ["name", "cluster", "weight"];
        assert_eq!(nearest("host", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(nearest(&"weight".repeat(20), &keys), None);
    }
}
