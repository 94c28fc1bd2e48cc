//! Count or weigh: what load is measured in.
//!
//! Load can be counted in requests or weighed by the work expected of them.
//! Which predicts latency better depends on the servers and on how well a
//! request's size tells its work: on servers that work at one request at a time
//! and whose time follows the size, weighing halves the tail; on servers
//! that batch, a prompt's length misleads. So the pool keeps both books, each with
//! a pace per member, and uses the one whose residuals, the logarithms of
//! latency over `pace x load`, vary less.

use super::pace::ResidualVariance;

/// What load is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// Requests.
    #[default]
    Requests,
    /// The work expected of them.
    Work,
}

impl Basis {
    /// As it is shown and configured.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Basis::Requests => "requests",
            Basis::Work => "work",
        }
    }
}

/// How well each of the two bases predicts, and which is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Books {
    /// Of latency over what requests predict.
    pub requests: ResidualVariance,
    /// Of latency over what work predicts.
    pub work: ResidualVariance,
    basis: Basis,
}

impl Books {
    /// Samples that it takes to weigh.
    const NEEDED: f32 = 100.0;
    /// Weighing begins where its residual variance is below this part of
    /// counting's...
    const BEGIN: f64 = 0.9;
    /// ...and ends where it is above that part.
    const END: f64 = 0.97;

    /// The books from their parts.
    #[must_use]
    pub fn from_parts(requests: ResidualVariance, work: ResidualVariance, basis: Basis) -> Self {
        Books {
            requests,
            work,
            basis,
        }
    }

    /// What load is measured in now.
    #[must_use]
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// The residual variance of the samples in the given basis.
    #[must_use]
    pub fn variance(&self, basis: Basis) -> f64 {
        match basis {
            Basis::Requests => self.requests.get(),
            Basis::Work => self.work.get(),
        }
    }

    /// Takes in the residuals of one request in both books, as
    /// [`Pace::observe`](super::Pace::observe) returns them.
    pub fn observe(&mut self, requests: f64, work: f64) {
        self.requests.observe(requests);
        self.work.observe(work);
        let (_, samples) = self.work.parts();
        let ratio = self.work.get() / self.requests.get();
        self.basis = match self.basis {
            Basis::Requests if samples >= Self::NEEDED && ratio < Self::BEGIN => Basis::Work,
            Basis::Work if samples < Self::NEEDED || ratio > Self::END => Basis::Requests,
            same => same,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Rng;

    /// Feeds residuals that are uniform with these standard deviations; how
    /// often the basis changed.
    fn feed(books: &mut Books, rng: &mut Rng, samples: usize, requests: f64, work: f64) -> usize {
        let mut changes = 0;
        for _ in 0..samples {
            let before = books.basis();
            let mut draw = |deviation: f64| deviation * 12f64.sqrt() * (rng.unit() - 0.5);
            let shared = draw(0.1);
            books.observe(shared + draw(requests), shared + draw(work));
            changes += usize::from(books.basis() != before);
        }
        changes
    }

    #[test]
    fn uses_what_predicts_better_and_follows_a_change() {
        let (mut books, mut rng) = (Books::default(), Rng::new(1));
        assert_eq!(books.basis(), Basis::Requests);
        assert_eq!(feed(&mut books, &mut rng, 2_000, 0.7, 0.4), 1);
        assert_eq!(books.basis(), Basis::Work);
        assert_eq!(feed(&mut books, &mut rng, 2_000, 0.6, 0.7), 1);
        assert_eq!(books.basis(), Basis::Requests);
    }

    #[test]
    fn counts_while_little_is_known_and_where_both_are_alike() {
        let (mut books, mut rng) = (Books::default(), Rng::new(2));
        assert_eq!(feed(&mut books, &mut rng, 90, 0.7, 0.1), 0);
        let mut books = Books::default();
        for _ in 0..5_000 {
            let residual = rng.unit() - 0.5;
            books.observe(residual, residual);
            assert_eq!(books.basis(), Basis::Requests);
        }
    }
}
