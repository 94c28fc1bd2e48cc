/// A cumulative histogram with vLLM's bucket bounds, in seconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds: the last is what is above them all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(super) fn of_first_token() -> Self {
        Self::new(&[
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
        ])
    }

    pub(super) fn of_latency() -> Self {
        Self::new(&[
            0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
            120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
        ])
    }

    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    pub(super) fn observe(&mut self, seconds: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }

    pub(super) fn reset(&mut self) {
        self.counts.fill(0);
        self.sum = 0.0;
    }

    /// Each bound with how many were no greater.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let running = self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        self.bounds.iter().copied().zip(running)
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_no_greater_than_each_bound() {
        let mut histogram = Histogram::of_latency();
        for seconds in [0.3, 0.31, 4.0, 1e5] {
            histogram.observe(seconds);
        }
        let at = |bound: f64| {
            let mut buckets = histogram.cumulative();
            buckets.find(|it| it.0 == bound).unwrap().1
        };
        assert_eq!(
            (at(0.3), at(0.5), at(2.5), at(5.0), at(7680.0)),
            (1, 2, 2, 3, 3)
        );
        assert_eq!(histogram.count(), 4);
        assert_eq!(histogram.sum(), 100_004.61);
        histogram.reset();
        assert_eq!((histogram.count(), histogram.sum()), (0, 0.0));
    }
}
