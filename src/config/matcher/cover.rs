//! Whether a match leaves anything to a later one.

use super::{HeaderMatch, HostMatch, Match, ModelMatch, ValueMatch};

impl Match {
    /// Whether every request that `other` matches is matched by `self` too.
    pub(in super::super) fn covers(&self, other: &Self) -> bool {
        self.covers_path(other)
            && self.covers_host(other)
            && self
                .headers
                .iter()
                .all(|own| other.headers.iter().any(|theirs| own.covers(theirs)))
            && self.covers_model(other)
    }

    fn covers_model(&self, other: &Self) -> bool {
        match (&self.model, &other.model) {
            (None, _) => true,
            (Some(own), Some(theirs)) => own.covers(theirs),
            (Some(_), None) => false,
        }
    }

    fn covers_path(&self, other: &Self) -> bool {
        match (&self.path_prefix, &other.path_prefix) {
            (None, _) => true,
            (Some(own), Some(theirs)) => theirs.starts_with(own.as_str()),
            (Some(_), None) => false,
        }
    }

    fn covers_host(&self, other: &Self) -> bool {
        match (&self.host, &other.host) {
            (None, _) => true,
            (Some(own), Some(theirs)) => own.covers(theirs),
            (Some(_), None) => false,
        }
    }
}

impl HostMatch {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(_), Self::Suffix(_)) => false,
            (_, Self::Exact(host)) => self.matches(host.as_bytes()),
            (Self::Suffix(own), Self::Suffix(theirs)) => theirs.ends_with(own.as_str()),
        }
    }
}

impl ModelMatch {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::AnyOf(names)) => names.iter().all(|name| self.matches(name.as_bytes())),
            (Self::Prefix(own), Self::Prefix(theirs)) => theirs.starts_with(own.as_str()),
            (Self::AnyOf(_), Self::Prefix(_)) => false,
        }
    }
}

impl HeaderMatch {
    fn covers(&self, other: &Self) -> bool {
        self.name == other.name
            && match (&self.value, &other.value) {
                (ValueMatch::Present, _) => true,
                (ValueMatch::Exact(own), ValueMatch::Exact(theirs)) => own == theirs,
                (
                    ValueMatch::Prefix(own),
                    ValueMatch::Exact(theirs) | ValueMatch::Prefix(theirs),
                ) => theirs.starts_with(own.as_str()),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(prefix: &str) -> Match {
        Match {
            path_prefix: Some(prefix.to_owned()),
            ..Match::default()
        }
    }

    fn host(host: HostMatch) -> Match {
        Match {
            host: Some(host),
            ..Match::default()
        }
    }

    fn exact_host(name: &str) -> Match {
        host(HostMatch::Exact(name.to_owned()))
    }

    fn below(suffix: &str) -> Match {
        host(HostMatch::Suffix(suffix.to_owned()))
    }

    fn header(name: &str, value: ValueMatch) -> Match {
        Match {
            headers: vec![HeaderMatch {
                name: name.to_owned(),
                value,
            }],
            ..Match::default()
        }
    }

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.to_owned())
    }

    fn prefix(value: &str) -> ValueMatch {
        ValueMatch::Prefix(value.to_owned())
    }

    #[test]
    fn a_catch_all_covers_everything_and_only_it_covers_itself() {
        let all = Match::default();
        for narrower in [
            path("/"),
            exact_host("a"),
            below(".a"),
            header("x", ValueMatch::Present),
        ] {
            assert!(all.covers(&narrower), "{narrower:?}");
            assert!(!narrower.covers(&all), "{narrower:?}");
            assert!(narrower.covers(&narrower.clone()), "{narrower:?}");
        }
        assert!(all.covers(&all));
    }

    #[test]
    fn a_shorter_path_covers_a_longer_one() {
        assert!(path("/v1").covers(&path("/v1/chat")));
        assert!(!path("/v1/chat").covers(&path("/v1")));
        assert!(!path("/v2").covers(&path("/v1")));
    }

    #[test]
    fn a_domain_covers_the_hosts_below_it() {
        assert!(below(".a.com").covers(&exact_host("x.a.com")));
        assert!(below(".a.com").covers(&below(".x.a.com")));
        assert!(!below(".a.com").covers(&exact_host("a.com")));
        assert!(!below(".x.a.com").covers(&below(".a.com")));
        assert!(!exact_host("x.a.com").covers(&below(".a.com")));
        assert!(!exact_host("x.a.com").covers(&exact_host("y.a.com")));
    }

    #[test]
    fn a_looser_value_covers_a_stricter_one() {
        let on = |value| header("x", value);
        assert!(on(ValueMatch::Present).covers(&on(exact("ab"))));
        assert!(on(ValueMatch::Present).covers(&on(prefix("ab"))));
        assert!(on(prefix("a")).covers(&on(exact("ab"))));
        assert!(on(prefix("a")).covers(&on(prefix("ab"))));
        assert!(!on(prefix("ab")).covers(&on(prefix("a"))));
        assert!(!on(exact("ab")).covers(&on(prefix("ab"))));
        assert!(!on(exact("ab")).covers(&on(ValueMatch::Present)));
        assert!(!on(ValueMatch::Present).covers(&header("y", exact("ab"))));
    }

    #[test]
    fn more_names_cover_fewer_models() {
        let model = |model| Match {
            model: Some(model),
            ..Match::default()
        };
        let any = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            model(ModelMatch::AnyOf(names))
        };
        let begins = |prefix: &str| model(ModelMatch::Prefix(prefix.to_owned()));
        assert!(any(&["a", "b"]).covers(&any(&["b"])));
        assert!(!any(&["a", "b"]).covers(&any(&["b", "c"])));
        assert!(begins("a").covers(&any(&["ab", "a"])));
        assert!(!begins("a").covers(&any(&["ab", "ba"])));
        assert!(begins("a").covers(&begins("ab")));
        assert!(!begins("ab").covers(&begins("a")));
        assert!(!any(&["a"]).covers(&begins("a")));
        assert!(Match::default().covers(&begins("a")));
        assert!(!begins("a").covers(&Match::default()));
    }

    #[test]
    fn more_conditions_are_covered_by_fewer() {
        let mut both = header("x", exact("a"));
        both.path_prefix = Some("/v1".to_owned());
        assert!(path("/v1").covers(&both));
        assert!(header("x", exact("a")).covers(&both));
        assert!(!both.covers(&path("/v1")));
        assert!(!path("/v2").covers(&both));
    }
}
