//! Tar archives and gzip streams that hold nothing of the machine that made them.

use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};

/// The byte of a gzip header that says "unknown" where others name the
/// operating system.
const NO_OPERATING_SYSTEM: u8 = 255;

/// A tar archive of these files, in this order: readable by all, owned by
/// number 0, of time 0.
pub(super) fn tar(files: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, *content)?;
    }
    archive.into_inner()
}

/// The same bytes compressed, without a file name or a time.
pub(super) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(NO_OPERATING_SYSTEM)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
