//! A line through samples, by exponentially weighted least squares, with a
//! measure of how far to trust it.
//!
//! The fitted slope shrinks the more, the more likely it is to be chance: the F statistic
//! of the regression, `F = r^2 (n - 2) / (1 - r^2)`, gives the factor
//! `max(0, 1 - 1 / F)` (the positive-part James-Stein estimator for one
//! coefficient).

/// The moments of two variables, of which `y` is thought to follow `x`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    samples: f32,
    mean_x: f32,
    mean_y: f32,
    variance_x: f32,
    variance_y: f32,
    covariance: f32,
}

/// How `y` follows `x`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slope {
    /// As it was fitted.
    pub(super) fitted: f64,
    /// How far it can be trusted, 0 to 1.
    pub(super) trust: f64,
}

impl Line {
    /// Numbers that make up the line.
    pub(super) const PARTS: usize = 6;
    /// Before this many samples there is no slope.
    const NEEDED: f64 = 20.0;

    /// The line from its parts; `None` where they make no sense.
    pub(super) fn from_parts(parts: [f32; Self::PARTS]) -> Option<Self> {
        let [samples, mean_x, mean_y, variance_x, variance_y, covariance] = parts;
        let not_negative = [samples, mean_y, variance_x, variance_y];
        let is_sound = parts.iter().all(|part| part.is_finite())
            && not_negative.iter().all(|part| *part >= 0.0);
        is_sound.then_some(Line {
            samples,
            mean_x,
            mean_y,
            variance_x,
            variance_y,
            covariance,
        })
    }

    /// The parts, to be stored.
    pub(super) const fn parts(self) -> [f32; Self::PARTS] {
        [
            self.samples,
            self.mean_x,
            self.mean_y,
            self.variance_x,
            self.variance_y,
            self.covariance,
        ]
    }

    pub(super) fn mean_x(&self) -> f64 {
        f64::from(self.mean_x)
    }

    pub(super) fn mean_y(&self) -> f64 {
        f64::from(self.mean_y)
    }

    /// How many samples there are with the next one, within a memory of so many.
    pub(super) fn next_samples(&self, memory: f64) -> f64 {
        (f64::from(self.samples) + 1.0).min(memory)
    }

    /// The slope; `None` where too little is known, or one of the two never
    /// varies.
    pub(super) fn slope(&self) -> Option<Slope> {
        let samples = f64::from(self.samples);
        let variance_x = f64::from(self.variance_x);
        let product = variance_x * f64::from(self.variance_y);
        if samples < Self::NEEDED || product <= 0.0 {
            return None;
        }
        let covariance = f64::from(self.covariance);
        let explained = (covariance * covariance / product).min(0.9999);
        let f = explained * (samples - 2.0) / (1.0 - explained);
        Some(Slope {
            fitted: covariance / variance_x,
            trust: if f > 1.0 { 1.0 - 1.0 / f } else { 0.0 },
        })
    }

    /// The line with one sample more, which is the last of `samples`; `None` where
    /// that is too much for its numbers.
    pub(super) fn with(&self, x: f64, y: f64, samples: f64) -> Option<Self> {
        let weight = 1.0 / samples;
        let (gap_x, gap_y) = (x - self.mean_x(), y - self.mean_y());
        let blend =
            |old: f32, product: f64| ((1.0 - weight) * (f64::from(old) + weight * product)) as f32;
        Line::from_parts([
            samples as f32,
            (self.mean_x() + weight * gap_x) as f32,
            (self.mean_y() + weight * gap_y) as f32,
            blend(self.variance_x, gap_x * gap_x),
            blend(self.variance_y, gap_y * gap_y),
            blend(self.covariance, gap_x * gap_y),
        ])
    }
}
