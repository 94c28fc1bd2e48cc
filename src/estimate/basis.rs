//! Count or weigh: the measure of load.
//!
//! Load can be the number of requests or their expected work.
//! Which of them predicts latency better depends on the servers and on how well a
//! request's size predicts its work. If servers work on one request at a time
//! and the time depends on the size, weighing halves the tail; on servers
//! that batch, a prompt's length misleads. So the pool tracks both measures, each
//! with a pace per member, and uses the one whose residuals, the logarithms of
//! latency over `pace x load`, vary less. Both leave out the work that the answers
//! reveal.

use super::{Credit, ObservedWork, Pace, ResidualVariance, Tuning};

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

/// What is learned in one basis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Book {
    /// Of latency over what is predicted.
    pub residuals: ResidualVariance,
    /// Of that, what the answers tell.
    pub observed: ObservedWork,
}

impl Book {
    /// Takes in the sample of a request whose answer had so many bytes: its latency
    /// over the load at its pick, in seconds per unit, `silence` seconds after
    /// the upstream's last. Returns what [`Pace::observe`] does. What bytes cost is
    /// learned only where the pace that they are measured by is known well enough:
    /// beside one that tiny answers made, every long answer is absurdly dear.
    fn observe(
        &mut self,
        pace: &mut Pace,
        sample: f64,
        bytes: u64,
        credit: Credit,
        silence: f64,
        tuning: &Tuning,
    ) -> Option<f64> {
        let work = self.observed.of(bytes);
        if pace.is_known() && credit.doubt < Credit::DOUBTFUL {
            self.observed.observe(bytes, sample / pace.mean_log().exp());
        }
        pace.observe_in_part(sample / work, credit, silence, tuning)
    }
}

/// How well each of the two bases predicts, and which is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Books {
    /// Load counted in requests.
    pub requests: Book,
    /// Load weighed by work.
    pub work: Book,
    basis: Basis,
}

/// A finished request, as both books see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its latency in seconds over the requests at its pick.
    pub per_request: f64,
    /// Its latency in seconds over the work at its pick.
    pub per_work: f64,
    /// Of its answer.
    pub bytes: u64,
    /// Seconds since the upstream's last sample.
    pub silence: f64,
    /// What it is worth.
    pub credit: Credit,
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
    pub fn from_parts(requests: Book, work: Book, basis: Basis) -> Self {
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
            Basis::Requests => self.requests.residuals.get(),
            Basis::Work => self.work.residuals.get(),
        }
    }

    /// Takes in a finished request: in the two paces of its upstream, and here
    /// how far it lay from what they predicted.
    pub fn observe(
        &mut self,
        pace: &mut Pace,
        pace_of_work: &mut Pace,
        sample: &Sample,
        tuning: &Tuning,
    ) {
        let Sample {
            per_request,
            per_work,
            bytes,
            silence,
            credit,
        } = *sample;
        let by_requests = self
            .requests
            .observe(pace, per_request, bytes, credit, silence, tuning);
        let by_work = self
            .work
            .observe(pace_of_work, per_work, bytes, credit, silence, tuning);
        if let (Some(by_requests), Some(by_work)) = (by_requests, by_work) {
            self.compare(by_requests, by_work, credit.part);
        }
    }

    /// Takes in the residuals of one request, which is this part of a full sample.
    fn compare(&mut self, requests: f64, work: f64, part: f64) {
        self.requests.residuals.observe_in_part(requests, part);
        self.work.residuals.observe_in_part(work, part);
        let (_, samples) = self.work.residuals.parts();
        let ratio = self.variance(Basis::Work) / self.variance(Basis::Requests);
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
            books.compare(shared + draw(requests), shared + draw(work), 1.0);
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
            books.compare(residual, residual, 1.0);
            assert_eq!(books.basis(), Basis::Requests);
        }
    }
}
