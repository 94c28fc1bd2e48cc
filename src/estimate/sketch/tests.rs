use super::*;
use proptest::prelude::*;

fn sketch(nanos: &[u64]) -> Sketch {
    let mut sketch = Sketch::default();
    for nanos in nanos {
        sketch.record(Duration::from_nanos(*nanos));
    }
    sketch
}

/// Durations over the whole range, each octave as likely as another, and
/// some beyond it.
fn nanos() -> impl Strategy<Value = u64> {
    (0u32..43, any::<u64>()).prop_map(|(bits, noise)| (1 << bits) | (noise & ((1 << bits) - 1)))
}

fn encoded(sketch: &Sketch) -> Vec<u8> {
    let mut bytes = Vec::new();
    sketch.write(&mut bytes);
    bytes
}

#[test]
fn bins_follow_one_another_without_gaps() {
    assert_eq!(Sketch::LONGEST, Duration::from_nanos(1 << 40));
    assert!(Sketch::LONGEST >= Duration::from_secs(600));
    assert!(Sketch::SHORTEST <= Duration::from_millis(1));
    let mut last = 0;
    for units in 0..1u64 << 26 {
        // Every start of a bin of the last octaves, and all of the others.
        if units > 1 << 12 && !units.is_multiple_of(1 << 9) {
            continue;
        }
        let bin = Bin::of(Duration::from_nanos(units << UNIT_BITS));
        assert!(bin == last || bin == last + 1, "{units} units: bin {bin}");
        last = bin;
    }
    assert_eq!(last, BINS - 1);
    assert_eq!(Bin::of(Duration::MAX), BINS - 1);
    assert_eq!(Bin::of(Duration::from_nanos(u64::MAX)), BINS - 1);
}

#[test]
fn nothing_counted_has_no_quantile() {
    assert_eq!(Sketch::default().quantile(0.5), None);
    assert_eq!(Sketch::default().log_quantile(0.5), None);
    assert_eq!(Sketch::default().count(), 0);
}

#[test]
fn no_time_at_all_has_a_logarithm() {
    let (log, variance) = sketch(&[0, 0, 0]).log_quantile(0.0).unwrap();
    assert!(log.is_finite() && variance.is_finite(), "{log} {variance}");
}

#[test]
fn counts_stop_at_their_greatest() {
    let mut sketch = sketch(&[1_000_000]);
    for _ in 0..40 {
        let twice = sketch.clone();
        sketch.merge(&twice);
    }
    assert_eq!(sketch.count(), u64::from(u32::MAX));
    assert!(sketch.quantile(1.0).is_some());
}

#[test]
fn the_variance_of_a_quantile_is_that_of_many_draws() {
    // Exponential, mean one second: the variance of the logarithm of the
    // sample's q-quantile is q / (1 - q) / (n ln(1 - q)^2) for large n.
    let mut rng = crate::random::Rng::new(4);
    for q in [0.5, 0.9, 0.99] {
        let n = 2_000;
        let draws = 300;
        let (mut sum, mut squares, mut told) = (0.0, 0.0, 0.0);
        for _ in 0..draws {
            let mut sketch = Sketch::default();
            for _ in 0..n {
                let seconds = -(1.0 - rng.unit()).ln();
                sketch.record(Duration::from_secs_f64(seconds));
            }
            let (log, scaled) = sketch.log_quantile(q).unwrap();
            sum += log;
            squares += log * log;
            told += scaled / f64::from(n);
        }
        let draws = f64::from(draws);
        let seen = squares / draws - (sum / draws).powi(2);
        let told = told / draws;
        assert!((0.5..2.0).contains(&(told / seen)), "{q}: {told} {seen}");
    }
}

proptest! {
    #[test]
    fn a_quantile_is_within_half_a_bin_of_the_sample_at_its_rank(
        mut nanos in proptest::collection::vec(nanos(), 1..400),
        q in 0.0f64..=1.0,
    ) {
        let told = sketch(&nanos).quantile(q).unwrap();
        nanos.sort_unstable();
        let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
        let truth = nanos[rank - 1] as f64 * 1e-9;
        if truth > Sketch::LONGEST.as_secs_f64() {
            prop_assert!(told >= Sketch::LONGEST.as_secs_f64() * (1.0 - Sketch::RELATIVE_ERROR));
        } else if truth >= Sketch::SHORTEST.as_secs_f64() {
            let error = (told - truth).abs() / truth;
            prop_assert!(error <= Sketch::RELATIVE_ERROR, "{} for {}: {}", told, truth, error);
        } else {
            prop_assert!((told - truth).abs() <= 8.2e-6, "{} for {}", told, truth);
        }
    }

    #[test]
    fn merged_sketches_are_the_sketch_of_all(
        one in proptest::collection::vec(nanos(), 0..100),
        other in proptest::collection::vec(nanos(), 0..100),
    ) {
        let mut merged = sketch(&one);
        merged.merge(&sketch(&other));
        let mut backwards = sketch(&other);
        backwards.merge(&sketch(&one));
        let all = sketch(&[one, other].concat());
        prop_assert_eq!(&merged, &all);
        prop_assert_eq!(&backwards, &all);
    }

    #[test]
    fn a_sketch_survives_the_round_trip_in_bounded_bytes(
        nanos in proptest::collection::vec(nanos(), 0..600),
        rest in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let sketch = sketch(&nanos);
        let mut bytes = encoded(&sketch);
        prop_assert!(bytes.len() <= 1 + 6 * usize::from(BINS));
        bytes.extend_from_slice(&rest);
        let mut left = &*bytes;
        prop_assert_eq!(Sketch::read(&mut left), Some(sketch));
        prop_assert_eq!(left, &*rest);
    }

    #[test]
    fn any_bytes_are_refused_or_are_a_sketch(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        q in 0.0f64..=1.0,
    ) {
        let mut left = &*bytes;
        if let Some(sketch) = Sketch::read(&mut left) {
            let read = bytes.len() - left.len();
            prop_assert_eq!(encoded(&sketch), &bytes[..read]);
            prop_assert!(sketch.quantile(q).is_none_or(|seconds| seconds > 0.0 && seconds < 2_000.0));
            prop_assert!(sketch.log_quantile(q).is_none_or(|(log, v)| log.is_finite() && v >= 0.0 && v.is_finite()));
        }
    }

    #[test]
    fn a_sketch_that_was_cut_is_refused(nanos in proptest::collection::vec(nanos(), 1..60), cut in any::<proptest::sample::Index>()) {
        let bytes = encoded(&sketch(&nanos));
        let mut left = &bytes[..cut.index(bytes.len())];
        prop_assert_eq!(Sketch::read(&mut left), None);
    }
}
