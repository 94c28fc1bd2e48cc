//! What comes of a probe at virtual time.

use super::fleet::Replica;
use crate::model::{HealthAnswer, Mode, Time};

/// What a server makes of a probe at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    /// It answers, at once.
    Answered(HealthAnswer),
    /// The connection breaks.
    Reset,
    /// It says nothing yet.
    Nothing,
}

impl Probed {
    /// Of `replica`, as `lab serve` answers `/health`.
    pub(super) fn of(replica: &Replica, now: Time) -> Self {
        let condition = replica.server.condition(now);
        match condition.mode {
            _ if condition.hangs() => Self::Nothing,
            Mode::Drop => Self::Reset,
            _ => Self::Answered(condition.health()),
        }
    }
}
