use std::path::Path;

use anyhow::Context as _;

use lab::bench::replace_part;

use super::load::write;

/// The page that figures go into, if one was asked for. It is written after each part, so that a part that fails later costs only
/// itself.
pub(super) struct Page<'a> {
    path: Option<&'a Path>,
}

impl<'a> Page<'a> {
    /// The page at this path; every one of `parts` must have its place there.
    pub(super) fn open(
        path: Option<&'a Path>,
        parts: impl Iterator<Item = &'static str>,
    ) -> anyhow::Result<Self> {
        let page = Self { path };
        if let Some(text) = page.read()? {
            for part in parts {
                page.replaced(&text, part, "")?;
            }
        }
        Ok(page)
    }

    /// Writes one part anew, and leaves the rest as it stands there now.
    pub(super) fn set(&self, part: &str, content: &str) -> anyhow::Result<()> {
        let (Some(path), Some(text)) = (self.path, self.read()?) else {
            return Ok(());
        };
        write(path, &self.replaced(&text, part, content)?)
    }

    fn read(&self) -> anyhow::Result<Option<String>> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .with_context(|| format!("--page: cannot read {}", path.display()))
        };
        self.path.map(read).transpose()
    }

    fn replaced(&self, text: &str, part: &str, content: &str) -> anyhow::Result<String> {
        let place = || self.path.unwrap_or(Path::new("")).display().to_string();
        replace_part(text, part, content).with_context(place)
    }
}
