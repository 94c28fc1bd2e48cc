use serde::Serialize;

/// A figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median of the runs; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least of the runs.
    pub min: f64,
    /// The greatest of the runs.
    pub max: f64,
}

impl Spread {
    /// The spread of the values, `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.get((sorted.len() - 1) / 2..=sorted.len() / 2)?;
        let median = middle.iter().sum::<f64>() / middle.len() as f64;
        Some(Self { median, min, max })
    }

    /// Whether the runs differ.
    pub fn is_spread(&self) -> bool {
        self.min < self.max
    }
}
