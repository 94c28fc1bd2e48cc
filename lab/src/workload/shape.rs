//! Workloads known by their published figures alone.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::lognormal::Lognormal;
use super::{Arrivals, Request, SizeHint, Streams};

/// What a request for images shows of itself.
const STEPS_TIMES_IMAGES: SizeHint = SizeHint {
    correlation: 0.29,
    mean: 40.0,
    cv: None,
};

/// A workload drawn from published figures of a production service, with no trace of it at hand.
///
/// Sizes are lognormal, fitted to the figures given. Prompt and output are joined by a Gaussian copula where
/// their correlation is published, and independent where it is not. Tokens are whole, at least 1, and prompt and output
/// are each cut at the context window that such a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Chat. Prompt tokens: mean 1155, p99 4142. Output tokens: mean 211, p99 601. Their correlation -0.11. Poisson arrivals.
    /// Azure LLM inference trace 2023, conversation (Patel et al., "Splitwise", ISCA 2024).
    Conversation,
    /// Code completion. Prompt tokens: mean 2048, p99 7436. Output tokens: mean 28, p99 252. Arrivals in bursts, with a coefficient
    /// of variation of 13. Azure LLM inference trace 2023, code.
    CodeCompletion,
    /// Long documents. Prompt tokens: mean 12,000, p99 85,000, cut at 131,072. Output tokens: mean 343, with the spread of
    /// a conversation's, as no other figure is published. Poisson arrivals.
    LongContext,
    /// Image generation, for slot servers. Service time: p50 23 s and coefficient of variation 0.73, which give a mean of 28.5 s
    /// (published 28.7), a p90 of 53 s (53) and a p99 of 105 s (106); cut at the published maximum, 567 s. Its size, steps times
    /// images, correlates 0.29 with that, as published. Poisson arrivals.
    Diffusion,
}

/// How tokens of a shape are distributed.
struct Tokens {
    prompt: Lognormal,
    output: Lognormal,
    correlation: f64,
    context_window: u32,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Conversation,
        Self::CodeCompletion,
        Self::LongContext,
        Self::Diffusion,
    ];

    /// Its name, as [`FromStr`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::CodeCompletion => "code-completion",
            Self::LongContext => "long-context",
            Self::Diffusion => "diffusion",
        }
    }

    /// How its requests arrive.
    pub fn arrivals(self) -> Arrivals {
        match self {
            Self::CodeCompletion => Arrivals::Bursty { cv: 13.0 },
            Self::Conversation | Self::LongContext | Self::Diffusion => Arrivals::Poisson,
        }
    }

    /// Draws the sizes of `count` requests; their arrivals are all zero.
    pub(super) fn sample(self, count: usize, streams: &mut Streams) -> Vec<Request> {
        let rng = &mut streams.sizes;
        match self {
            Self::Conversation => Tokens {
                prompt: Lognormal::from_mean_and_p99(1155.0, 4142.0),
                output: Lognormal::from_mean_and_p99(211.0, 601.0),
                correlation: -0.11,
                context_window: 16_384,
            }
            .sample(count, rng),
            Self::CodeCompletion => Tokens {
                prompt: Lognormal::from_mean_and_p99(2048.0, 7436.0),
                output: Lognormal::from_mean_and_p99(28.0, 252.0),
                correlation: 0.0,
                context_window: 32_768,
            }
            .sample(count, rng),
            Self::LongContext => Tokens {
                prompt: Lognormal::from_mean_and_p99(12_000.0, 85_000.0),
                output: Lognormal::from_mean_and_p99(343.0, 343.0 * 601.0 / 211.0),
                correlation: 0.0,
                context_window: 131_072,
            }
            .sample(count, rng),
            Self::Diffusion => {
                let service = Lognormal::from_median_and_cv(23.0, 0.73);
                let draw = || {
                    let seconds = service.at(rng.sample(StandardNormal)).min(567.0);
                    Request {
                        arrival: Duration::ZERO,
                        prompt_tokens: NonZeroU32::MIN,
                        output_tokens: NonZeroU32::MIN,
                        service: Some(Duration::from_secs_f64(seconds)),
                        size: None,
                    }
                };
                let mut requests: Vec<Request> = std::iter::repeat_with(draw).take(count).collect();
                STEPS_TIMES_IMAGES.assign(&mut requests, service, &mut streams.hints);
                requests
            }
        }
    }
}

impl Tokens {
    fn sample(&self, count: usize, rng: &mut impl Rng) -> Vec<Request> {
        let shared = self
            .prompt
            .normal_correlation(self.output, self.correlation);
        let own = (1.0 - shared * shared).sqrt();
        let draw = || {
            let prompt: f64 = rng.sample(StandardNormal);
            let independent: f64 = rng.sample(StandardNormal);
            let output = shared * prompt + own * independent;
            let prompt_tokens = self.whole(self.prompt.at(prompt));
            Request {
                arrival: Duration::ZERO,
                prompt_tokens,
                output_tokens: self.whole(self.output.at(output)),
                service: None,
                size: Some(u64::from(prompt_tokens.get())),
            }
        };
        std::iter::repeat_with(draw).take(count).collect()
    }

    fn whole(&self, tokens: f64) -> NonZeroU32 {
        let cut = tokens.round().min(f64::from(self.context_window));
        NonZeroU32::new(cut as u32).unwrap_or(NonZeroU32::MIN)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|shape| shape.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("no workload is called {name:?}: allowed are {names}")
            })
    }
}
