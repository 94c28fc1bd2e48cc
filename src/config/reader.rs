//! Reads JSON values and knows where they stand.
//!
//! Every reader gives `None` for what it refuses, after telling why in
//! [`Problems`]; the caller goes on, so that all problems are found at once.
//! None is inlined: a configuration is read once, and there are many values.

use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;

use super::duration::{self, Shown};
use super::error::Problems;
use super::json::{Json, Quoted};
use super::suggestion;

/// Where a value stands, from the root: `pools[1].upstreams[0].weight`.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Root => f.write_str("configuration"),
            Self::Key(parent, key) => {
                let nested = !matches!(parent, Self::Root);
                if nested {
                    parent.fmt(f)?;
                }
                if !is_plain(key) {
                    return write!(f, "[{}]", Quoted(key));
                }
                if nested {
                    f.write_str(".")?;
                }
                f.write_str(key)
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Whether a key can stand in a path as it is.
fn is_plain(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&key.len()) && key.bytes().all(plain)
}

/// A value and its place.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) json: &'a Json,
    pub(super) path: Path<'a>,
}

impl<'a> Node<'a> {
    pub(super) fn root(json: &'a Json) -> Self {
        Self {
            json,
            path: Path::Root,
        }
    }

    /// Refuses the value. `allowed` follows the word "give".
    #[inline(never)]
    pub(super) fn refuse(&self, allowed: &dyn fmt::Display, problems: &mut Problems) {
        problems.add(
            &self.path,
            &format_args!("{} is not allowed; give {allowed}", self.json),
        );
    }

    /// A string; `allowed` says which.
    #[inline(never)]
    pub(super) fn text(&self, allowed: &str, problems: &mut Problems) -> Option<&'a str> {
        if let Json::String(text) = self.json {
            return Some(text);
        }
        self.refuse(&allowed, problems);
        None
    }

    /// A string that `valid` accepts; `allowed` says which those are.
    #[inline(never)]
    pub(super) fn text_that(
        &self,
        valid: fn(&str) -> bool,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<&'a str> {
        let text = self.text(allowed, problems)?;
        if valid(text) {
            return Some(text);
        }
        self.refuse(&allowed, problems);
        None
    }

    #[inline(never)]
    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        if let Json::Bool(value) = self.json {
            return Some(*value);
        }
        self.refuse(&"true or false", problems);
        None
    }

    /// A whole number. 8.0 is one: Istio turns every number into a double.
    #[inline(never)]
    pub(super) fn whole(&self, range: RangeInclusive<u32>, problems: &mut Problems) -> Option<u32> {
        let (min, max) = (*range.start(), *range.end());
        match self.number() {
            Some(number)
                if number.fract() == 0.0 && (f64::from(min)..=f64::from(max)).contains(&number) =>
            {
                Some(number as u32)
            }
            _ => {
                let allowed = format_args!("a whole number from {min} to {max}");
                self.refuse(&allowed, problems);
                None
            }
        }
    }

    #[inline(never)]
    pub(super) fn real(&self, range: RangeInclusive<f64>, problems: &mut Problems) -> Option<f64> {
        let number = self.number().filter(|number| range.contains(number));
        if number.is_none() {
            // Through Json: the standard library's own way weighs 20 KB of wasm.
            let [min, max] = [*range.start(), *range.end()].map(Json::from);
            let allowed = format_args!("a number from {min} to {max}");
            self.refuse(&allowed, problems);
        }
        number
    }

    #[inline(never)]
    pub(super) fn duration(
        &self,
        range: RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        let duration = match self.json {
            Json::String(text) => duration::parse(text).filter(|given| range.contains(given)),
            _ => None,
        };
        if duration.is_none() {
            let (min, max) = (Shown(*range.start()), Shown(*range.end()));
            let allowed = format_args!("a duration from \"{min}\" to \"{max}\", such as \"1.5s\"");
            self.refuse(&allowed, problems);
        }
        duration
    }

    /// An array with at least one item; `allowed` says of what.
    #[inline(never)]
    pub(super) fn items(&self, allowed: &str, problems: &mut Problems) -> Option<&'a [Json]> {
        match self.json {
            Json::Array(items) if !items.is_empty() => Some(items),
            _ => {
                self.refuse(&allowed, problems);
                None
            }
        }
    }

    /// An object; `allowed` says which.
    #[inline(never)]
    pub(super) fn object(&self, allowed: &str, problems: &mut Problems) -> Option<Object<'a>> {
        if let Json::Object(entries) = self.json {
            return Some(Object {
                entries,
                path: self.path,
            });
        }
        self.refuse(&allowed, problems);
        None
    }

    #[inline(never)]
    fn number(&self) -> Option<f64> {
        match self.json {
            Json::Number(number) => number.as_f64(),
            _ => None,
        }
    }
}

/// An object's entries and its place.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) entries: &'a [(String, Json)],
    pub(super) path: Path<'a>,
}

impl Object<'_> {
    /// Refuses every key that is not in `allowed`.
    #[inline(never)]
    pub(super) fn allow_only(&self, allowed: &[&str], problems: &mut Problems) {
        for (key, _) in self.entries {
            if allowed.contains(&key.as_str()) {
                continue;
            }
            problems.add(
                &Path::Key(&self.path, key),
                &format_args!("unknown key; {}", suggestion::allowed(key, allowed)),
            );
        }
    }

    #[inline(never)]
    pub(super) fn get<'s>(&'s self, key: &'s str) -> Option<Node<'s>> {
        let (_, json) = self.entries.iter().find(|(name, _)| name == key)?;
        Some(Node {
            json,
            path: Path::Key(&self.path, key),
        })
    }

    /// [`Node::boolean`] of the value at `key`, where there is one.
    #[inline(never)]
    pub(super) fn boolean(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        self.get(key)?.boolean(problems)
    }

    /// [`Node::whole`] of the value at `key`, where there is one.
    #[inline(never)]
    pub(super) fn whole(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        self.get(key)?.whole(range, problems)
    }

    /// [`Node::real`] of the value at `key`, where there is one.
    #[inline(never)]
    pub(super) fn real(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
        problems: &mut Problems,
    ) -> Option<f64> {
        self.get(key)?.real(range, problems)
    }

    /// [`Node::duration`] of the value at `key`, where there is one.
    #[inline(never)]
    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        self.get(key)?.duration(range, problems)
    }

    /// As [`Object::get`], but the key must be there; `allowed` says with what.
    #[inline(never)]
    pub(super) fn require<'s>(
        &'s self,
        key: &'s str,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<Node<'s>> {
        let node = self.get(key);
        if node.is_none() {
            problems.add(
                &Path::Key(&self.path, key),
                &format_args!("missing; give {allowed}"),
            );
        }
        node
    }
}

/// Refuses keys that stand twice in one object, at any depth.
pub(super) fn refuse_repeated_keys(node: Node<'_>, problems: &mut Problems) {
    match node.json {
        Json::Array(items) => {
            for (index, json) in items.iter().enumerate() {
                let path = Path::Index(&node.path, index);
                refuse_repeated_keys(Node { json, path }, problems);
            }
        }
        Json::Object(entries) => {
            let mut seen = FirstUses::default();
            for (index, (key, json)) in entries.iter().enumerate() {
                let path = Path::Key(&node.path, key);
                if seen.earlier(key, index).is_some() {
                    problems.add(&path, &"repeated key; give it once");
                }
                refuse_repeated_keys(Node { json, path }, problems);
            }
        }
        _ => {}
    }
}

/// Finds what stands twice; names are in order.
#[derive(Default)]
pub(super) struct FirstUses(Vec<(String, usize)>);

impl FirstUses {
    /// The index at which `name` stood before, if it did.
    #[inline(never)]
    pub(super) fn earlier(&mut self, name: &str, index: usize) -> Option<usize> {
        match self.0.binary_search_by_key(&name, |(name, _)| name) {
            Ok(place) => Some(self.0.get(place)?.1),
            Err(place) => {
                self.0.insert(place, (name.to_owned(), index));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader made of `json`, and what it said.
    fn read<T>(json: &str, reader: impl FnOnce(Node<'_>, &mut Problems) -> T) -> (T, String) {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let value = reader(Node::root(&json), &mut problems);
        let said = match problems.is_empty() {
            true => String::new(),
            false => problems.to_string(),
        };
        (value, said)
    }

    #[test]
    fn paths_read_as_in_json_path() {
        let root = Path::Root;
        assert_eq!(root.to_string(), "configuration");
        let pools = Path::Key(&root, "pools");
        let pool = Path::Index(&pools, 1);
        let headers = Path::Key(&pool, "headers");
        assert_eq!(headers.to_string(), "pools[1].headers");
        let tenant = Path::Key(&headers, "x-tenant");
        assert_eq!(tenant.to_string(), "pools[1].headers.x-tenant");
        let odd = Path::Key(&headers, "a.b\n");
        assert_eq!(odd.to_string(), r#"pools[1].headers["a.b\n"]"#);
        assert_eq!(Path::Key(&root, "").to_string(), r#"[""]"#);
        assert_eq!(Path::Index(&root, 0).to_string(), "configuration[0]");
    }

    #[test]
    fn integral_doubles_are_whole_numbers() {
        for json in ["8", "8.0", "8e0", "0.8e1", "80e-1"] {
            let (number, said) = read(json, |node, problems| node.whole(1..=8, problems));
            assert_eq!((number, said.as_str()), (Some(8), ""), "{json}");
        }
    }

    #[test]
    fn other_numbers_are_not() {
        for (json, shown) in [
            ("0", "0"),
            ("-1", "-1"),
            ("9", "9"),
            ("2.5", "2.5"),
            ("1e300", "1e+300"),
            ("4294967297", "4294967297"),
            ("18446744073709551615", "18446744073709551615"),
            (r#""2""#, r#""2""#),
            (r#""NaN""#, r#""NaN""#),
            ("null", "null"),
            ("true", "true"),
        ] {
            let (number, said) = read(json, |node, problems| node.whole(1..=8, problems));
            assert_eq!(number, None, "{json}");
            assert_eq!(
                said,
                format!("configuration: {shown} is not allowed; give a whole number from 1 to 8")
            );
        }
    }

    #[test]
    fn real_numbers_keep_to_their_range() {
        let real = |json| read(json, |node, problems| node.real(0.0..=0.2, problems));
        assert_eq!(real("0").0, Some(0.0));
        assert_eq!(real("-0.0").0, Some(0.0));
        assert_eq!(real("0.2").0, Some(0.2));
        for json in ["0.20000001", "-0.1", "1", r#""NaN""#, "[]"] {
            let (number, said) = real(json);
            assert_eq!(number, None, "{json}");
            assert!(said.ends_with("is not allowed; give a number from 0.0 to 0.2"));
        }
    }

    #[test]
    fn durations_keep_to_their_range() {
        let range = Duration::from_secs(1)..=Duration::from_secs(300);
        let duration = |json| {
            read(json, |node, problems| {
                node.duration(range.clone(), problems)
            })
        };
        assert_eq!(duration(r#""1s""#).0, Some(Duration::from_secs(1)));
        assert_eq!(duration(r#""5m""#).0, Some(Duration::from_secs(300)));
        for json in [r#""999999us""#, r#""301s""#, r#""10""#, "10"] {
            let (value, said) = duration(json);
            assert_eq!(value, None, "{json}");
            assert_eq!(
                said,
                format!(
                    "configuration: {json} is not allowed; \
                     give a duration from \"1s\" to \"5m\", such as \"1.5s\""
                )
            );
        }
    }

    #[test]
    fn unknown_keys_are_told_with_the_known_ones() {
        let (_, said) = read(
            r#"{"wieght": 2, "x": 1, "cluster": 1}"#,
            |node, problems| {
                let object = node.object("an object", problems).unwrap();
                object.allow_only(&["cluster", "weight"], problems);
            },
        );
        assert_eq!(
            said,
            "2 problems:\n  \
             wieght: unknown key; did you mean weight? allowed: cluster, weight\n  \
             x: unknown key; allowed: cluster, weight"
        );
    }

    #[test]
    fn keys_repeated_at_any_depth_are_told_each_time() {
        let json = r#"{"a": [{"b": 1, "c": {"d": 1, "d": 1}, "b": 2, "b": 3}], "b": 1}"#;
        let (_, said) = read(json, refuse_repeated_keys);
        assert_eq!(
            said,
            "3 problems:\n  \
             a[0].c.d: repeated key; give it once\n  \
             a[0].b: repeated key; give it once\n  \
             a[0].b: repeated key; give it once"
        );
    }
}
