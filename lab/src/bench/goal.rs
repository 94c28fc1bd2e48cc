//! Figures beside what they should be.

use tabled::builder::Builder;
use tabled::settings::Style;

use super::goals::verdict;

/// A figure beside what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Which figure.
    pub figure: String,
    /// What was measured.
    pub measured: f64,
    allowed: Allowed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Allowed {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    /// A figure that must not be greater.
    #[must_use]
    pub fn at_most(figure: impl Into<String>, measured: f64, most: f64) -> Self {
        Self {
            figure: figure.into(),
            measured,
            allowed: Allowed::AtMost(most),
        }
    }

    /// A figure that must not be less.
    #[must_use]
    pub fn at_least(figure: impl Into<String>, measured: f64, least: f64) -> Self {
        Self {
            figure: figure.into(),
            measured,
            allowed: Allowed::AtLeast(least),
        }
    }

    /// Whether the goal is missed, by what the table shows: hundredths. What was not measured is missed.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        let shown = |figure: f64| (figure * 100.0).round();
        let met = match self.allowed {
            Allowed::AtMost(most) => shown(self.measured) <= shown(most),
            Allowed::AtLeast(least) => shown(self.measured) >= shown(least),
        };
        !met
    }
}

/// The goals as a Markdown table; nothing where there are none.
#[must_use]
pub fn measured_goals_table(goals: &[Goal]) -> String {
    if goals.is_empty() {
        return String::new();
    }
    let mut table = Builder::default();
    table.push_record(["goal", "", "measured", ""]);
    for goal in goals {
        table.push_record([
            goal.figure.clone(),
            match goal.allowed {
                Allowed::AtMost(most) => format!("at most {most:.2}"),
                Allowed::AtLeast(least) => format!("at least {least:.2}"),
            },
            format!("{:.2}", goal.measured),
            verdict(!goal.is_missed()).to_owned(),
        ]);
    }
    table.build().with(Style::markdown()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_have_a_side() {
        let missed = |goal: Goal| goal.is_missed();
        assert!(!missed(Goal::at_most("a", 1.154, 1.15)));
        assert!(missed(Goal::at_most("a", 1.16, 1.15)));
        assert!(!missed(Goal::at_least("a", 0.946, 0.95)));
        assert!(missed(Goal::at_least("a", 0.94, 0.95)));
        assert!(missed(Goal::at_most("a", f64::NAN, 1.0)));
        assert!(missed(Goal::at_least("a", f64::NAN, 1.0)));
    }

    #[test]
    fn the_table_says_what_is_missed() {
        let goals = [Goal::at_most("a", 2.0, 1.0), Goal::at_least("b", 2.0, 1.0)];
        let table = measured_goals_table(&goals);
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert!(lines[0].contains("at most 1.00") && lines[0].contains("**missed**"));
        assert!(lines[1].contains("at least 1.00") && lines[1].contains("met"));
        assert_eq!(measured_goals_table(&[]), "");
    }
}
