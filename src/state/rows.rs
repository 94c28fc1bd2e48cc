//! The meaning of a row: what is stored about a member and about a pool.

use std::mem::take;
use std::time::Duration;

use super::layout::{Field, size_of};
use crate::estimate::{
    Basis, Book, Books, ConcurrencyLimit, ErrorRate, Evidence, MeanLatency, ObservedWork, Pace,
    PeakResponseTime, Refusals, ResidualVariance, ResponseTime, WorkModel,
};
use crate::outlier::{Health, Moment, Typical};
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
    /// What it was seen to serve.
    pub evidence: Evidence,
    /// Failures.
    pub errors: ErrorRate,
    /// Answers that said that the request was wrong.
    pub refusals: Refusals,
    /// How many requests its upstream takes at once, where that is to be learned.
    pub limit: ConcurrencyLimit,
    /// Whether it is ejected, full or cold.
    pub health: Health,
    /// When the last response time was taken in; zero where none was.
    pub sampled_at: Timestamp,
    /// When the last success, failure or refusal was seen, or the member was
    /// first heard of.
    pub outcome_at: Timestamp,
    /// When a worker that could pick it last said so; [`Moment::BEGINNING`] where none
    /// ever did.
    pub present_at: Moment,
}

/// How long after [`MemberState::present_at`] its pool must have been in use for the
/// member to have been away.
const AWAY: Duration = Duration::from_secs(10);
/// When it is to be said again that a member can be picked.
const PRESENT: Duration = Duration::from_secs(3);

impl MemberState {
    /// What a row is made of, in this order. A number is never used again for
    /// another meaning.
    pub const FIELDS: &[Field] = &[
        Field::new(1, 2),                        // pace: mean logarithm, uncertainty
        Field::new(2, 2),                        // pace of work: mean logarithm, uncertainty
        Field::new(3, 1),                        // mean response time, seconds
        Field::new(4, 1),                        // peak response time, seconds
        Field::new(10, 1),                       // evidence: seconds served
        Field::new(5, 1),                        // failure rate
        Field::new(8, 3),                        // refusals: answers, of them refused, rate
        Field::new(9, 2),                        // when the back-off ends
        Field::new(6, 2),                        // when the last response time was taken in
        Field::new(7, 2),                        // when the last success or failure was seen
        Field::new(17, 1),                       // when a worker last could pick it
        Field::new(16, Health::SIZE as u16 / 4), // health
        Self::LEARNED_CAP,
    ];
    /// The limit: requests, and how it was learned. The last field, so that rows with it
    /// and without it are the same but for their ends.
    const LEARNED_CAP: Field = Field::new(11, Self::LIMIT as u16);
    /// Bytes of an encoded row.
    pub const SIZE: usize = size_of(Self::FIELDS);
    /// The parts of a limit, and a moment.
    const LIMIT: usize = ConcurrencyLimit::PARTS + 2;

    /// What is kept where caps are to be learned, or are not. A field that is there stays,
    /// since another configuration may need it.
    #[must_use]
    pub fn fields(learns_caps: bool) -> &'static [Field] {
        match Self::FIELDS.split_last() {
            Some((_, others)) if !learns_caps => others,
            _ => Self::FIELDS,
        }
    }

    /// A member first heard of at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        MemberState {
            outcome_at: now,
            ..MemberState::default()
        }
    }

    /// A member that joined a pool in use at `now`.
    #[must_use]
    pub fn joined(now: Timestamp) -> Self {
        MemberState {
            health: Health::new(now),
            ..MemberState::new(now)
        }
    }

    /// Whether its pool, last used at `used_at`, was in use for a while without it: it
    /// was taken out, and is there again.
    #[must_use]
    pub fn was_away(&self, used_at: Timestamp) -> bool {
        self.present_at > Moment::BEGINNING && used_at.since(self.present_at.time()) > AWAY
    }

    /// Whether it was not said for a while before `now` that it can be picked.
    #[must_use]
    pub fn is_overlooked(&self, now: Timestamp) -> bool {
        now.since(self.present_at.time()) > PRESENT
    }

    /// It has started anew at `now`: it is cold, and nothing is held against it.
    pub fn restart(&mut self, now: Timestamp) {
        self.health.restart(now);
        self.errors.forgive();
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, row: &mut [u8; Self::SIZE]) {
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
        row.put(self.evidence.seconds().to_le_bytes());
        row.put(error_rate.to_le_bytes());
        for part in self.refusals.parts() {
            row.put(part.to_le_bytes());
        }
        row.put(back_off_until.as_nanos().to_le_bytes());
        row.put(self.sampled_at.as_nanos().to_le_bytes());
        row.put(self.outcome_at.as_nanos().to_le_bytes());
        row.put(self.present_at.to_bytes());
        row.put(self.health.encode());
        let (parts, cut_at) = self.limit.parts();
        for part in parts {
            row.put(part.to_le_bytes());
        }
        row.put(cut_at.as_nanos().to_le_bytes());
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
            served,
            error_rate,
            answers,
            refused,
            refusal_rate,
            back_off_low,
            back_off_high,
            sampled_low,
            sampled_high,
            outcome_low,
            outcome_high,
            present_at,
            ref rest @ ..,
        ] = words
        else {
            return MemberState::default();
        };
        let Some((health, limit)) = rest.split_first_chunk() else {
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
            evidence: Evidence::from_seconds(f32::from_le_bytes(served)),
            errors: ErrorRate::from_parts(
                f32::from_le_bytes(error_rate),
                timestamp(back_off_low, back_off_high),
            ),
            refusals: Refusals::from_parts(
                [answers, refused, refusal_rate].map(f32::from_le_bytes),
            ),
            sampled_at: timestamp(sampled_low, sampled_high),
            outcome_at: timestamp(outcome_low, outcome_high),
            present_at: Moment::from_bytes(present_at),
            health: Health::decode(*health),
            limit: limit
                .try_into()
                .map_or_else(|_| ConcurrencyLimit::default(), decode_limit),
        }
    }
}

fn decode_limit(words: &[[u8; 4]; MemberState::LIMIT]) -> ConcurrencyLimit {
    let mut words = Reader {
        words: words.iter(),
    };
    ConcurrencyLimit::from_parts(words.reals(), words.timestamp())
}

/// A member's row that is decoded again only when its bytes have changed: hardly
/// any has changed from one look to the next.
#[derive(Clone, Copy, Debug)]
pub struct DecodedMember {
    bytes: [u8; MemberState::SIZE],
    state: MemberState,
}

impl DecodedMember {
    /// A row that says this.
    #[must_use]
    pub fn new(state: MemberState) -> Self {
        DecodedMember {
            bytes: state.encode(),
            state,
        }
    }

    /// What the row says.
    #[inline]
    #[must_use]
    pub fn state(&self) -> &MemberState {
        &self.state
    }

    /// The row's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; MemberState::SIZE] {
        &self.bytes
    }

    /// The row is these bytes now.
    #[inline]
    pub fn follow(&mut self, bytes: [u8; MemberState::SIZE]) {
        if self.bytes != bytes {
            self.state = MemberState::decode(&bytes);
            self.bytes = bytes;
        }
    }
}

#[inline]
fn timestamp(low: [u8; 4], high: [u8; 4]) -> Timestamp {
    let (low, high) = (u32::from_le_bytes(low), u32::from_le_bytes(high));
    Timestamp::from_nanos(u64::from(high) << 32 | u64::from(low))
}

/// What comes within so much time of a pool's beginning was there from the beginning: its
/// endpoints may be discovered one after the other.
const BEGINNING: Duration = Duration::from_secs(10);

/// What is kept of a pool as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolState {
    /// How well requests and work predict latency, what answers tell besides, and
    /// which basis is in use.
    pub books: Books,
    /// The latencies of the last requests.
    pub latency: MeanLatency,
    /// How the work of a request follows its size.
    pub work: WorkModel,
    /// How long its requests take, to see who is slow.
    pub typical: Typical,
    /// When it was first heard of.
    pub began_at: Moment,
    /// When the pool was last used.
    pub used_at: Timestamp,
}

impl PoolState {
    /// What a row is made of, in this order. A number is never used again for
    /// another meaning.
    pub const FIELDS: &[Field] = &[
        Field::new(1, 1),                       // basis: 1 for work
        Field::new(2, Self::BOOK),              // the book of requests: residuals, observed work
        Field::new(3, Self::BOOK),              // the book of work
        Field::new(6, 2),                       // mean latency: seconds, samples
        Field::new(4, WorkModel::PARTS as u16), // how work follows size
        Field::new(5, 2),                       // when the pool was last used
        Field::new(16, Typical::PARTS as u16),  // typical: level, variance, samples, silence
        Field::new(17, 1),                      // when it was first heard of
    ];
    /// Bytes of an encoded row.
    pub const SIZE: usize = size_of(Self::FIELDS);
    const BOOK: u16 = 2 + ObservedWork::PARTS as u16;

    /// A pool first heard of at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        PoolState {
            began_at: Moment::of(now),
            used_at: now,
            ..PoolState::default()
        }
    }

    /// Whether it was in use for a while at `now`: what joins it then is new, while all
    /// are new that a pool begins with.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        now.since(self.began_at.time()) > BEGINNING
    }

    /// The row's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, row: &mut [u8; Self::SIZE]) {
        let mut row = Writer { rest: row };
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
        let (seconds, samples) = self.latency.parts();
        row.put(seconds.to_le_bytes());
        row.put(samples.to_le_bytes());
        for part in self.work.parts() {
            row.put(part.to_le_bytes());
        }
        row.put(self.used_at.as_nanos().to_le_bytes());
        for part in self.typical.parts() {
            row.put(part.to_le_bytes());
        }
        row.put(self.began_at.to_bytes());
        debug_assert!(row.rest.is_empty(), "the row is longer than its fields");
    }

    /// The row from its bytes; see [`MemberState::decode`].
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut words = Reader::new(bytes);
        let basis = match words.number() {
            1 => Basis::Work,
            _ => Basis::Requests,
        };
        let [requests, work] = [words.book(), words.book()];
        PoolState {
            books: Books::from_parts(requests, work, basis),
            latency: words.mean_latency(),
            work: WorkModel::from_parts(words.reals()),
            used_at: words.timestamp(),
            typical: Typical::from_parts(words.reals::<{ Typical::PARTS }>()),
            began_at: Moment::from_bytes(words.word()),
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
    fn mean_latency(&mut self) -> MeanLatency {
        let [seconds, samples] = self.reals();
        MeanLatency::from_parts(seconds, samples)
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
    use crate::estimate::{Credit, Sample, Tuning};
    use proptest::prelude::*;

    #[test]
    fn zeros_say_that_nothing_is_known() {
        let member = MemberState::decode(&[0; MemberState::SIZE]);
        assert_eq!(member, MemberState::default());
        let pool = PoolState::decode(&[0; PoolState::SIZE]);
        assert_eq!(pool, PoolState::default());
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
        member.refusals.refuse(0.0, &Tuning::DEFAULT);
        member.evidence.observe(0.5, None, 100.0);
        member.sampled_at = now;
        member.limit.succeed(4.0, 5.0, 0.5, now);
        member.limit.overload(4.0, now, now);
        assert_eq!(MemberState::decode(&member.encode()), member);
        assert_eq!(
            MemberState::decode(&MemberState::default().encode()),
            MemberState::default()
        );

        let mut pool = PoolState::new(now);
        for bytes in [10, 20] {
            let sample = Sample {
                per_request: 1.5,
                per_work: 1.0,
                bytes,
                silence: 0.0,
                credit: Credit::FULL,
            };
            let (pace, pace_of_work) = (&mut member.pace, &mut member.pace_of_work);
            pool.books
                .observe(pace, pace_of_work, &sample, &Tuning::DEFAULT);
        }
        let at_pick = AtPick {
            load: 2.0,
            others_work: 1.5,
        };
        pool.latency.observe(0.5);
        pool.work.observe(100.0, 2.0, at_pick);
        assert_eq!(PoolState::decode(&pool.encode()), pool);
        assert_eq!(
            PoolState::decode(&PoolState::default().encode()),
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
            prop_assert!((1..=5120).contains(&member.limit.at(now)));
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
            let mut decoded = DecodedMember::new(MemberState::default());
            for row in order {
                let row = row.get(&rows);
                decoded.follow(*row);
                prop_assert_eq!(decoded.state(), &MemberState::decode(row));
            }
        }
    }
}
