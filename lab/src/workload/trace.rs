//! Recorded requests, from a CSV file.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Request;

/// The columns of a trace file, in their order.
const HEADER: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

/// The most tokens that a prompt or an output of a trace may have.
pub const MAX_TOKENS: u32 = 10_000_000;

/// The requests of a trace file, in the order of their times.
///
/// The file is CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`, as the Azure LLM inference traces have it:
///
/// ```csv
/// TIMESTAMP,ContextTokens,GeneratedTokens
/// 2023-11-16 18:15:46.6805900,374,44
/// 2023-11-16 18:15:50.9951690,396,109
/// ```
///
/// A timestamp is a date and a time, with an offset from UTC or without one. Every row is kept; 0 tokens count as 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    name: String,
    rows: Vec<Request>,
    out_of_order: usize,
}

/// A trace that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// It does not begin with the header of a trace.
    #[error(
        "{file}:1: the header is {found:?}, allowed is \"TIMESTAMP,ContextTokens,GeneratedTokens\""
    )]
    Header {
        /// The file.
        file: String,
        /// What stands there.
        found: String,
    },
    /// A row has too few fields or too many.
    #[error("{file}:{line}: {found} fields, allowed are 3")]
    FieldCount {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// A field has a value that is not allowed.
    #[error("{file}:{line}: {column} is {value:?}, allowed is {allowed}")]
    Field {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The name of the column.
        column: &'static str,
        /// What stands there.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// There are no rows.
    #[error("{file}: no row follows the header, at least one is needed")]
    Empty {
        /// The file.
        file: String,
    },
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TraceError`] names the file, the line, the value and what is allowed.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let file = path.display().to_string();
        match std::fs::File::open(path) {
            Ok(reader) => Self::read(&file, io::BufReader::new(reader)),
            Err(source) => Err(unreadable(&file, source)),
        }
    }

    /// Reads a trace that is called `file` in errors.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn read(file: &str, reader: impl io::BufRead) -> Result<Self, TraceError> {
        let mut parsed = Vec::new();
        let mut lines = (1..).zip(reader.lines());
        let header = match lines.next() {
            Some((_, header)) => header.map_err(|source| unreadable(file, source))?,
            None => String::new(),
        };
        check_header(file, &header)?;
        for (line, text) in lines {
            let text = text.map_err(|source| unreadable(file, source))?;
            if !text.trim().is_empty() {
                parsed.push(
                    Row {
                        file,
                        line,
                        text: &text,
                    }
                    .parse()?,
                );
            }
        }
        Self::from_rows(file, parsed)
    }

    fn from_rows(file: &str, mut parsed: Vec<(Timestamp, Request)>) -> Result<Self, TraceError> {
        let out_of_order = parsed
            .windows(2)
            .filter(|pair| matches!(pair, [(before, _), (after, _)] if after < before))
            .count();
        // Stable: rows of one time stay in the order of the file.
        parsed.sort_by_key(|(time, _)| *time);
        let Some(&(start, _)) = parsed.first() else {
            return Err(TraceError::Empty {
                file: file.to_owned(),
            });
        };
        let rows = parsed
            .into_iter()
            .map(|(time, row)| Request {
                arrival: Duration::try_from(time.duration_since(start)).unwrap_or_default(),
                ..row
            })
            .collect();
        Ok(Self {
            name: file.to_owned(),
            rows,
            out_of_order,
        })
    }

    /// The requests in the order of their times, of which the first is 0.
    pub fn rows(&self) -> &[Request] {
        &self.rows
    }

    /// The file that it came from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows were earlier than the row before them in the file. They were sorted in.
    pub fn out_of_order(&self) -> usize {
        self.out_of_order
    }
}

fn check_header(file: &str, line: &str) -> Result<(), TraceError> {
    // Spreadsheets put a byte order mark first.
    let line = line.trim_start_matches('\u{feff}').trim();
    if fields(line).eq(HEADER) {
        return Ok(());
    }
    Err(TraceError::Header {
        file: file.to_owned(),
        found: line.to_owned(),
    })
}

/// The fields of a line. No value of a trace has a comma in it, so quotes can only enclose whole fields.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"'))
}

fn unreadable(file: &str, source: io::Error) -> TraceError {
    TraceError::Read {
        file: file.to_owned(),
        source,
    }
}

/// One row after the header.
struct Row<'a> {
    file: &'a str,
    line: usize,
    text: &'a str,
}

impl Row<'_> {
    fn parse(&self) -> Result<(Timestamp, Request), TraceError> {
        let mut fields = fields(self.text);
        let (Some(time), Some(prompt), Some(output), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(TraceError::FieldCount {
                file: self.file.to_owned(),
                line: self.line,
                found: self.text.split(',').count(),
            });
        };
        let [time_column, prompt_column, output_column] = HEADER;
        let prompt_tokens = self.tokens(prompt_column, prompt)?;
        let request = Request {
            arrival: Duration::ZERO,
            prompt_tokens,
            output_tokens: self.tokens(output_column, output)?,
            service: None,
            size: Some(u64::from(prompt_tokens.get())),
        };
        match timestamp(time) {
            Some(timestamp) => Ok((timestamp, request)),
            None => Err(self.field_error(
                time_column,
                time,
                "a time such as 2023-11-16 18:15:46.6805900, with or without an offset such as +00:00",
            )),
        }
    }

    fn tokens(&self, column: &'static str, text: &str) -> Result<NonZeroU32, TraceError> {
        text.parse()
            .ok()
            .filter(|tokens| (0..=MAX_TOKENS).contains(tokens))
            .map(|tokens| NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN))
            .ok_or_else(|| self.field_error(column, text, "a whole number, 0 to 10000000"))
    }

    fn field_error(&self, column: &'static str, value: &str, allowed: &'static str) -> TraceError {
        TraceError::Field {
            file: self.file.to_owned(),
            line: self.line,
            column,
            value: value.to_owned(),
            allowed,
        }
    }
}

/// Reads a time; without an offset it is taken as UTC, which no difference of times depends on.
fn timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let civil: DateTime = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}
