//! Facts of a request: read from the host once, and only when asked for.

use std::borrow::Cow;

use crate::config::RequestView;
use crate::host::Host;

/// A request's headers, each fetched from the host at most once.
///
/// A header that the host fails to give counts as absent: the request then
/// belongs to the first pool that does not need it.
#[derive(Debug)]
pub struct RequestHeaders<'a, H> {
    host: &'a mut H,
    fetched: Vec<(String, Option<Vec<u8>>)>,
}

impl<'a, H: Host> RequestHeaders<'a, H> {
    /// The headers of the request that `host` is at.
    pub fn new(host: &'a mut H) -> Self {
        RequestHeaders {
            host,
            fetched: Vec::new(),
        }
    }

    fn fetch(&mut self, name: &str) -> Option<Cow<'_, [u8]>> {
        let place = match self.fetched.iter().position(|(known, _)| known == name) {
            Some(place) => place,
            None => {
                let value = self.host.request_header(name).unwrap_or(None);
                self.fetched.push((name.to_owned(), value));
                self.fetched.len() - 1
            }
        };
        let (_, value) = self.fetched.get(place)?;
        value.as_deref().map(Cow::Borrowed)
    }
}

impl<H: Host> RequestView for RequestHeaders<'_, H> {
    fn path(&mut self) -> Option<Cow<'_, [u8]>> {
        self.fetch(":path")
    }

    fn host(&mut self) -> Option<Cow<'_, [u8]>> {
        self.fetch(":authority")
    }

    fn header(&mut self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.fetch(name)
    }
}
