//! How a command fails: what it says, and the exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a command ends, by what a script may want to do about it. The numbers are
/// those of `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything without a code of its own.
    Other = 1,
    /// The command line: an unknown option, a URL without a port.
    Usage = 64,
    /// A configuration that the filter or Envoy refuses.
    Refused = 65,
    /// A file that cannot be read.
    NoInput = 66,
    /// No Envoy, or one that does not answer, refuses or ends.
    Unavailable = 69,
    /// A file that cannot be written.
    NoOutput = 73,
}

impl Exit {
    /// What `--help` says about the codes.
    pub(crate) const HELP: &str = "Exit codes: 0 done, 1 other failures, 64 command line, 65 configuration refused, \
         66 file not readable, 69 Envoy not available, 73 file not writable";
}

/// A failed command. It shows as what standard error says.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    why: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, why: impl fmt::Display) -> Self {
        let why = anyhow::anyhow!("{why}");
        Self { exit, why }
    }

    pub(crate) fn usage(why: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, why)
    }

    pub(crate) fn refused(why: impl fmt::Display) -> Self {
        Self::new(Exit::Refused, why)
    }

    pub(crate) fn unavailable(why: impl fmt::Display) -> Self {
        Self::new(Exit::Unavailable, why)
    }

    /// Whether the filter or Envoy has refused a configuration.
    pub(crate) fn is_refusal(&self) -> bool {
        self.exit == Exit::Refused
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.why)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(why: anyhow::Error) -> Self {
        why.downcast().unwrap_or_else(|why| Self {
            exit: Exit::Other,
            why,
        })
    }
}
