//! Files, with errors that name them.

use std::fs;
use std::io;
use std::path::Path;

use crate::failure::{Exit, Failure};

/// What names standard input.
pub(crate) const STDIN: &str = "-";

/// The text of a file, or of standard input.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let text = match path == Path::new(STDIN) {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    };
    text.map_err(|error| Failure::new(Exit::NoInput, format_args!("{}: {error}", path.display())))
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| not_written(path, &error))
}

/// Moves a new file over an old one: a reader sees one or the other, and Envoy,
/// which watches for moves, notices.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = Path::new(&staged);
    write(staged, text)?;
    fs::rename(staged, path).map_err(|error| not_written(path, &error))
}

/// Makes a directory, unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| not_written(path, &error))
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    let why = format_args!("cannot write {}: {error}", path.display());
    Failure::new(Exit::NoOutput, why)
}
