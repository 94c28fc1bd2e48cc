//! The meaning of a row: what is kept of a member and of a pool.

use std::mem::take;

use crate::estimate::{
    Basis, Book, Books, ErrorRate, ObservedWork, Pace, PeakResponseTime, ResidualVariance,
    ResponseTime, WorkModel,
};
use crate::time::Timestamp;

/// What is kept of one member: an upstream in a pool.
///
/// It belongs to the names of the two, so it survives a change of
/// configuration that keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemberState {
    /// Seconds per request outstanding.
    pub pace: Pace,
    /// Seconds per unit of work outstanding.
    pub pace_of_work: Pace,
    /// Mean response time.
    pub response_time: ResponseTime,
    /// Peak-sensitive response time.
    pub peak: PeakResponseTime,
    /// Failures.
    pub errors: ErrorRate,
    /// Current weight in smooth weighted round robin.
    pub turn: i32,
    /// When the last response time was taken in; zero where none was.
    pub sampled_at: Timestamp,
    /// When the last success or failure was seen, or the member was first
    /// heard of.
    pub outcome_at: Timestamp,
}

impl MemberState {
    /// Bytes of an encoded row.
    pub const SIZE: usize = 56;

    /// A member first heard of at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        MemberState {
            outcome_at: now,
            ..MemberState::default()
        }
    }

    /// Fills the row's bytes, where they stand: a record is edited in place.
    #[inline]
    pub fn write(&self, row: &mut [u8; Self::SIZE]) {
        let (mean_log, uncertainty) = self.pace.parts();
        let (work_mean_log, work_uncertainty) = self.pace_of_work.parts();
        let (error_rate, back_off_until) = self.errors.parts();
        let mut row = Writer { rest: row };
        row.put(mean_log.to_le_bytes());
        row.put(uncertainty.to_le_bytes());
        row.put(work_mean_log.to_le_bytes());
        row.put(work_uncertainty.to_le_bytes());
        row.put(self.response_time.seconds().to_le_bytes());
        row.put(self.peak.seconds().to_le_bytes());
        row.put(error_rate.to_le_bytes());
        row.put(self.turn.to_le_bytes());
        row.put(back_off_until.as_nanos().to_le_bytes());
        row.put(self.sampled_at.as_nanos().to_le_bytes());
        row.put(self.outcome_at.as_nanos().to_le_bytes());
        debug_assert!(row.rest.is_empty(), "the row is longer than its fields");
    }

    /// The row from its bytes. Numbers that no encoder could have written are
    /// read as "unknown": a damaged row costs what was learned, nothing else.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        // One pattern instead of a reader: a pick decodes every row, and this
        // way no field needs a check of its own.
        let (words, _) = bytes.as_chunks();
        let &[
            mean_log,
            uncertainty,
            work_mean_log,
            work_uncertainty,
            response_time,
            peak,
            error_rate,
            turn,
            back_off_low,
            back_off_high,
            sampled_low,
            sampled_high,
            outcome_low,
            outcome_high,
        ] = words
        else {
            return MemberState::default();
        };
        MemberState {
            pace: Pace::from_parts(
                f32::from_le_bytes(mean_log),
                f32::from_le_bytes(uncertainty),
            ),
            pace_of_work: Pace::from_parts(
                f32::from_le_bytes(work_mean_log),
                f32::from_le_bytes(work_uncertainty),
            ),
            response_time: ResponseTime::from_seconds(f32::from_le_bytes(response_time)),
            peak: PeakResponseTime::from_seconds(f32::from_le_bytes(peak)),
            errors: ErrorRate::from_parts(
                f32::from_le_bytes(error_rate),
                timestamp(back_off_low, back_off_high),
            ),
            turn: i32::from_le_bytes(turn),
            sampled_at: timestamp(sampled_low, sampled_high),
            outcome_at: timestamp(outcome_low, outcome_high),
        }
    }
}

/// A member's row that is decoded again only when its bytes have changed: a
/// pick looks at every row, and hardly any has changed since the last.
#[derive(Clone, Copy, Debug)]
pub struct DecodedMember {
    words: [u64; MemberState::SIZE / 8],
    state: MemberState,
}

impl Default for DecodedMember {
    fn default() -> Self {
        DecodedMember {
            words: [0; MemberState::SIZE / 8],
            state: MemberState::decode(&[0; MemberState::SIZE]),
        }
    }
}

impl DecodedMember {
    /// The state that `bytes` encode.
    #[inline]
    pub fn of(&mut self, bytes: &[u8; MemberState::SIZE]) -> MemberState {
        let (words, _) = bytes.as_chunks::<8>();
        let mut difference = 0;
        for (known, word) in self.words.iter_mut().zip(words) {
            let word = u64::from_le_bytes(*word);
            difference |= *known ^ word;
            *known = word;
        }
        if difference != 0 {
            self.state = MemberState::decode(bytes);
        }
        self.state
    }
}

#[inline]
fn timestamp(low: [u8; 4], high: [u8; 4]) -> Timestamp {
    let (low, high) = (u32::from_le_bytes(low), u32::from_le_bytes(high));
    Timestamp::from_nanos(u64::from(high) << 32 | u64::from(low))
}

/// What is kept of a pool as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolState {
    /// Whose turn it is in round robin, counted up for ever.
    pub cursor: u32,
    /// How well requests and work predict latency, what answers tell besides, and
    /// which basis is in use.
    pub books: Books,
    /// How the work of a request follows its size.
    pub work: WorkModel,
    /// When the pool was last used.
    pub used_at: Timestamp,
}

impl PoolState {
    /// Bytes of an encoded row.
    pub const SIZE: usize = 108;

    /// A pool first heard of at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        PoolState {
            used_at: now,
            ..PoolState::default()
        }
    }

    /// Fills the row's bytes; see [`MemberState::write`].
    #[inline]
    pub fn write(&self, row: &mut [u8; Self::SIZE]) {
        let mut row = Writer { rest: row };
        row.put(self.cursor.to_le_bytes());
        row.put(u32::from(self.books.basis() == Basis::Work).to_le_bytes());
        for Book {
            residuals,
            observed,
        } in [self.books.requests, self.books.work]
        {
            let (variance, samples) = residuals.parts();
            row.put(variance.to_le_bytes());
            row.put(samples.to_le_bytes());
            for part in observed.parts() {
                row.put(part.to_le_bytes());
            }
        }
        for part in self.work.parts() {
            row.put(part.to_le_bytes());
        }
        row.put(self.used_at.as_nanos().to_le_bytes());
        debug_assert!(row.rest.is_empty(), "the row is longer than its fields");
    }

    /// The row from its bytes; see [`MemberState::decode`].
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut words = Reader::new(bytes);
        let cursor = words.number();
        let basis = match words.number() {
            1 => Basis::Work,
            _ => Basis::Requests,
        };
        let [requests, work] = [words.book(), words.book()];
        PoolState {
            cursor,
            books: Books::from_parts(requests, work, basis),
            work: WorkModel::from_parts(words.reals()),
            used_at: words.timestamp(),
        }
    }
}

/// Reads a row from its start; beyond its end there are zeros.
struct Reader<'a> {
    words: core::slice::Iter<'a, [u8; 4]>,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let (words, _) = bytes.as_chunks();
        Reader {
            words: words.iter(),
        }
    }

    #[inline]
    fn word(&mut self) -> [u8; 4] {
        self.words.next().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.word())
    }

    #[inline]
    fn reals<const N: usize>(&mut self) -> [f32; N] {
        core::array::from_fn(|_| f32::from_le_bytes(self.word()))
    }

    #[inline]
    fn timestamp(&mut self) -> Timestamp {
        timestamp(self.word(), self.word())
    }

    #[inline]
    fn book(&mut self) -> Book {
        let [variance, samples] = self.reals();
        Book {
            residuals: ResidualVariance::from_parts(variance, samples),
            observed: ObservedWork::from_parts(self.reals::<{ ObservedWork::PARTS }>()),
        }
    }
}

/// Fills a row from its start.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, value: [u8; N]) {
        debug_assert!(self.rest.len() >= N, "the row is too short for its fields");
        if let Some((place, rest)) = take(&mut self.rest).split_first_chunk_mut() {
            *place = value;
            self.rest = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::AtPick;
    use crate::estimate::{Sample, Tuning};
    use proptest::prelude::*;
    use std::time::Duration;

    fn member_row(member: &MemberState) -> [u8; MemberState::SIZE] {
        let mut row = [0; MemberState::SIZE];
        member.write(&mut row);
        row
    }

    fn pool_row(pool: &PoolState) -> [u8; PoolState::SIZE] {
        let mut row = [0; PoolState::SIZE];
        pool.write(&mut row);
        row
    }

    #[test]
    fn rows_survive_the_round_trip() {
        let now = Timestamp::from_nanos(123_456_789_012);
        let mut member = MemberState::new(now);
        member.pace.observe(0.25, 0.0, &Tuning::DEFAULT);
        member.pace_of_work.observe(0.5, 0.0, &Tuning::DEFAULT);
        member.response_time.observe(0.5, 0.0, 10.0);
        member.peak.observe(0.75, 0.0, 10.0);
        member
            .errors
            .fail(now, 0.0, Some(Duration::from_secs(3)), &Tuning::DEFAULT);
        member.turn = -7;
        member.sampled_at = now;
        assert_eq!(MemberState::decode(&member_row(&member)), member);
        assert_eq!(
            MemberState::decode(&member_row(&MemberState::default())),
            MemberState::default()
        );

        let mut pool = PoolState::new(now);
        pool.cursor = u32::MAX;
        for bytes in [10, 20] {
            let sample = Sample {
                per_request: 1.5,
                per_work: 1.0,
                bytes,
                silence: 0.0,
            };
            let (pace, pace_of_work) = (&mut member.pace, &mut member.pace_of_work);
            pool.books
                .observe(pace, pace_of_work, &sample, &Tuning::DEFAULT);
        }
        let at_pick = AtPick {
            load: 2.0,
            others_work: 1.5,
        };
        pool.work.observe(100.0, 2.0, at_pick);
        assert_eq!(PoolState::decode(&pool_row(&pool)), pool);
        assert_eq!(
            PoolState::decode(&pool_row(&PoolState::default())),
            PoolState::default()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_sound_estimates(
            member in any::<[u8; MemberState::SIZE]>(),
            pool in any::<[u8; PoolState::SIZE]>(),
        ) {
            let now = Timestamp::from_nanos(1 << 40);
            let member = MemberState::decode(&member);
            prop_assert!(member.pace.mean_log().is_finite());
            prop_assert!(member.response_time.get().is_none_or(f64::is_finite));
            prop_assert!(member.peak.get(1.0, 10.0).is_none_or(f64::is_finite));
            prop_assert!((1.0..101.0).contains(&member.errors.penalty(now, 1.0, &Tuning::DEFAULT)));
            let pool = PoolState::decode(&pool);
            for basis in [Basis::Requests, Basis::Work] {
                prop_assert!(pool.books.variance(basis).is_finite());
            }
            let work = pool.work.of(Some(500.0));
            prop_assert!((WorkModel::LEAST..=WorkModel::MOST).contains(&work));
        }

        #[test]
        fn a_row_decoded_before_is_decoded_as_if_for_the_first_time(
            rows in proptest::collection::vec(any::<[u8; MemberState::SIZE]>(), 1..4),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let mut decoded = DecodedMember::default();
            prop_assert_eq!(decoded.of(&[0; MemberState::SIZE]), MemberState::decode(&[0; MemberState::SIZE]));
            for row in order {
                let row = row.get(&rows);
                prop_assert_eq!(decoded.of(row), MemberState::decode(row));
            }
        }
    }
}
