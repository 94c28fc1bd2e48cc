//! The text of an answer's tokens.

use std::sync::LazyLock;

use bytes::Bytes;

/// Each token of an answer is this text: four bytes, as in English prose.
const TOKEN: &str = "tok ";
const READY_TOKENS: usize = 16_384;
static READY_TEXT: LazyLock<String> = LazyLock::new(|| TOKEN.repeat(READY_TOKENS));

/// The bytes of one token, on average.
pub(super) const BYTES_PER_TOKEN: u64 = TOKEN.len() as u64;

/// So many tokens of text.
pub(super) fn text(tokens: u32) -> Text {
    match READY_TEXT.get(..tokens as usize * TOKEN.len()) {
        Some(ready) => Text::Ready(ready),
        None => Text::Long(TOKEN.repeat(tokens as usize)),
    }
}

/// Text of some tokens; short ones cost nothing.
#[derive(Debug)]
pub(super) enum Text {
    Ready(&'static str),
    Long(String),
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Ready(text) => text,
            Self::Long(text) => text,
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Ready(text) => Bytes::from_static(text.as_bytes()),
            Self::Long(text) => Bytes::from(text),
        }
    }
}
