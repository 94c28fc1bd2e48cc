//! Where the filter answers itself, with what it knows.

use super::error::Problems;
use super::reader::Node;

/// The status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The path of the requests that the filter answers with its state, without a query.
    pub path: String,
    /// The port, 1 to 65535, that is there for the state alone: only at it the filter
    /// answers, and it answers everything there. `None`: at any port the path alone.
    pub port: Option<u16>,
}

pub(super) fn read(node: Node<'_>, problems: &mut Problems) -> Option<Status> {
    let object = node.object("an object with path", problems)?;
    object.allow_only(&["path", "port"], problems);
    let port = object.whole("port", 1..=u16::MAX.into(), problems);
    let allowed = "a path without a query, such as \"/paceline\"";
    let path = object
        .require("path", allowed, problems)?
        .text_that(is_path, allowed, problems)?;
    Some(Status {
        path: path.to_owned(),
        port: port.map(|port| port as u16),
    })
}

fn is_path(text: &str) -> bool {
    const LONGEST: usize = 255;
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    text.starts_with('/') && text.len() <= LONGEST && text.bytes().all(fits)
}
