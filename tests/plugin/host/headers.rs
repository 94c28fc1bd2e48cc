//! A header map: names and values in their order, duplicates and any bytes allowed.

use super::abi::Pairs;

/// Header names compare without regard to ASCII case, as Envoy lowers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderMap {
    pairs: Pairs,
}

impl HeaderMap {
    pub(crate) fn new<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut map = Self::default();
        for (name, value) in pairs {
            map.add(name.as_ref(), value.as_ref());
        }
        map
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(crate) fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// The first value under `name`: the one that Envoy routes on.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    pub(crate) fn get_all(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        let matching = move |pair: &&(Vec<u8>, Vec<u8>)| pair.0.eq_ignore_ascii_case(name);
        self.pairs
            .iter()
            .filter(matching)
            .map(|pair| pair.1.as_slice())
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) {
        self.pairs.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// Leaves `value` as the only one under `name`.
    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes every value under `name`.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.pairs.retain(|pair| !pair.0.eq_ignore_ascii_case(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_one_value_and_remove_leaves_none() {
        let pairs = [("x-a", "1"), ("X-A", "2"), ("x-b", "3")];
        let mut map = HeaderMap::new(pairs);
        assert_eq!(map.get(b"x-a"), Some(b"1".as_slice()));
        assert_eq!(map.get_all(b"x-a").count(), 2);
        map.replace(b"x-a", b"4");
        assert_eq!(map.get_all(b"x-a").collect::<Vec<_>>(), [b"4"]);
        map.remove(b"X-a");
        assert_eq!(map, HeaderMap::new([("x-b", "3")]));
    }
}
