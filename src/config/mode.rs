//! Whether a pool's requests go where Paceline picks.

use core::ops::RangeInclusive;

use super::error::Problems;
use super::json::Json;
use super::reader::{Node, Object};

const SHARES: RangeInclusive<f64> = 0.1..=99.9;

const ALLOWED: &str = "\"balance\", \"observe\" or {\"balance_percent\": 10}";

/// Which part of a pool's requests goes where Paceline picks. The rest goes where the
/// proxy's own route sends it, and Paceline watches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// All of them: the default.
    #[default]
    Balance,
    /// None.
    Observe,
    /// So many of a hundred, drawn at random: 0.1 to 99.9.
    BalancePercent(f64),
}

impl Mode {
    /// How many of a hundred requests go where Paceline picks.
    #[must_use]
    pub fn percent(self) -> f64 {
        match self {
            Mode::Balance => 100.0,
            Mode::Observe => 0.0,
            Mode::BalancePercent(percent) => percent,
        }
    }
}

/// Reads `mode` of a pool.
pub(super) fn read(pool: &Object<'_>, problems: &mut Problems) -> Mode {
    let mode = pool.get("mode").and_then(|node| read_mode(node, problems));
    mode.unwrap_or_default()
}

fn read_mode(node: Node<'_>, problems: &mut Problems) -> Option<Mode> {
    if let Json::Object(_) = node.json {
        let object = node.object(ALLOWED, problems)?;
        object.allow_only(&["balance_percent"], problems);
        let percent = object.require("balance_percent", "a share such as 10", problems)?;
        return percent.real(SHARES, problems).map(Mode::BalancePercent);
    }
    let is_mode = |text: &str| matches!(text, "balance" | "observe");
    match node.text_that(is_mode, ALLOWED, problems)? {
        "observe" => Some(Mode::Observe),
        _ => Some(Mode::Balance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(json: &str) -> Result<Mode, String> {
        let json: Json = serde_json::from_str(json).unwrap();
        let mut problems = Problems::default();
        let object = Node::root(&json).object("an object", &mut problems);
        let mode = read(&object.unwrap(), &mut problems);
        match problems.is_empty() {
            true => Ok(mode),
            false => Err(problems.to_string()),
        }
    }

    #[test]
    fn a_pool_balances_unless_it_is_told_otherwise() {
        for (json, expected) in [
            ("{}", Mode::Balance),
            (r#"{"mode": "balance"}"#, Mode::Balance),
            (r#"{"mode": "observe"}"#, Mode::Observe),
            (
                r#"{"mode": {"balance_percent": 12.5}}"#,
                Mode::BalancePercent(12.5),
            ),
        ] {
            assert_eq!(mode(json), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (json, said) in [
            (
                r#"{"mode": "dry_run"}"#,
                "mode: \"dry_run\" is not allowed; \
                 give \"balance\", \"observe\" or {\"balance_percent\": 10}",
            ),
            (
                r#"{"mode": 10}"#,
                "mode: 10 is not allowed; \
                 give \"balance\", \"observe\" or {\"balance_percent\": 10}",
            ),
            (
                r#"{"mode": {"balance_percent": 100}}"#,
                "mode.balance_percent: 100 is not allowed; give a number from 0.1 to 99.9",
            ),
            (
                r#"{"mode": {"percent": 10}}"#,
                "2 problems:\n  mode.percent: unknown key; allowed: balance_percent\n  \
                 mode.balance_percent: missing; give a share such as 10",
            ),
        ] {
            assert_eq!(mode(json).unwrap_err(), said);
        }
    }
}
