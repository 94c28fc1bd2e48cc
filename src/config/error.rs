//! Why a configuration is refused.

use core::fmt;

/// How many problems are told one by one.
const MAX_PROBLEMS: usize = 20;

const STRUCT: &str = "a google.protobuf.Struct, which reaches the filter as other bytes than JSON; \
     give a StringValue: configuration: {\"@type\": \
     type.googleapis.com/google.protobuf.StringValue, value: '{...}'}";

/// Why a configuration is refused. Its display is what an operator reads in
/// Envoy's log: one problem on one line, several on a line each.
#[derive(Debug)]
pub enum ConfigError {
    /// Not UTF-8 from the byte at this offset on.
    Encoding {
        /// Zero-based.
        offset: usize,
    },
    /// Not one JSON value; tells line and column.
    Syntax(serde_json::Error),
    /// Not text, but a protobuf message of the type `Struct`.
    Struct,
    /// JSON, but not a valid configuration.
    Invalid(Problems),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding { offset } => write!(f, "not UTF-8 at byte {offset}"),
            Self::Syntax(error) => write!(f, "not valid JSON: {error}"),
            Self::Struct => f.write_str(STRUCT),
            Self::Invalid(problems) => problems.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// The same as a line for each problem, so that each can be logged with what
    /// it is about.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Self::Invalid(problems) = self else {
            return vec![self.to_string()];
        };
        let mut lines: Vec<String> = problems.told.iter().map(Problem::to_string).collect();
        if problems.untold > 0 {
            lines.push(format!("and {} more problems", problems.untold));
        }
        lines
    }
}

/// The problems found in one configuration, in the order found: at least one
/// when in a [`ConfigError`]. Only the first 20 are kept, the rest is counted.
#[derive(Debug, Default)]
pub struct Problems {
    told: Vec<Problem>,
    untold: usize,
}

#[derive(Debug)]
struct Problem {
    path: String,
    message: String,
}

impl Problems {
    /// How many there are, those that are not told included.
    pub fn count(&self) -> usize {
        self.told.len() + self.untold
    }

    /// Adds a problem at `path`, a JSON path such as `pools[1].name`.
    #[inline(never)]
    pub(super) fn add(&mut self, path: &dyn fmt::Display, message: &dyn fmt::Display) {
        if self.told.len() == MAX_PROBLEMS {
            self.untold += 1;
            return;
        }
        self.told.push(Problem {
            path: path.to_string(),
            message: message.to_string(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.told.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} problems:", self.count())?;
        for problem in &self.told {
            write!(f, "\n  {problem}")?;
        }
        if self.untold > 0 {
            write!(f, "\n  and {} more", self.untold)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(count: usize) -> Problems {
        let mut problems = Problems::default();
        for index in 0..count {
            problems.add(&format_args!("pools[{index}]"), &"wrong");
        }
        problems
    }

    #[test]
    fn one_problem_is_one_line() {
        assert_eq!(problems(1).to_string(), "pools[0]: wrong");
    }

    #[test]
    fn several_problems_are_counted_and_stand_on_their_own_lines() {
        assert_eq!(
            problems(2).to_string(),
            "2 problems:\n  pools[0]: wrong\n  pools[1]: wrong"
        );
    }

    #[test]
    fn each_problem_is_a_line_for_the_log() {
        let lines = |count| ConfigError::Invalid(problems(count)).lines();
        assert_eq!(lines(1), ["pools[0]: wrong"]);
        assert_eq!(lines(2), ["pools[0]: wrong", "pools[1]: wrong"]);
        let many = lines(23);
        assert_eq!(many.len(), 21);
        assert_eq!(many[20], "and 3 more problems");
        let encoding = ConfigError::Encoding { offset: 7 };
        assert_eq!(encoding.lines(), ["not UTF-8 at byte 7"]);
    }

    #[test]
    fn all_of_the_twentieth_are_told_and_the_twenty_first_is_counted() {
        let twenty = problems(20).to_string();
        assert!(twenty.starts_with("20 problems:"));
        assert!(twenty.ends_with("\n  pools[19]: wrong"));

        let many = problems(23);
        assert_eq!(many.count(), 23);
        let many = many.to_string();
        assert!(many.starts_with("23 problems:"));
        assert!(many.ends_with("\n  pools[19]: wrong\n  and 3 more"));
    }
}
