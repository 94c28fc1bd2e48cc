use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// What one step of a continuous-batching engine costs, in milliseconds:
///
/// `max(b0 + b1 n, c0 + c1 n) + k context + h`
///
/// with `n` the tokens computed in the step (one for each decoding sequence, and the prefill chunks) and `context` the
/// sum of the decoding sequences' contexts in tokens. The first line is the step that waits for weights to come from
/// memory, the second the one that waits for arithmetic, `k` the reading of KV memory and `h` the engine's own overhead. The
/// attention of prefills is left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCost {
    /// Memory-bound: milliseconds a step.
    pub b0: f64,
    /// Memory-bound: milliseconds a token.
    pub b1: f64,
    /// Compute-bound: milliseconds a step.
    pub c0: f64,
    /// Compute-bound: milliseconds a token.
    pub c1: f64,
    /// Milliseconds a token of context.
    pub k: f64,
    /// Overhead, milliseconds a step.
    pub h: f64,
}

impl StepCost {
    /// The duration of a step in nanoseconds, at least 1.
    ///
    /// `tokens` are computed in it, its decoding sequences have `context` tokens of context together.
    pub fn nanos(&self, tokens: u64, context: u64) -> u64 {
        let millis = self.base_millis(tokens) + self.k * context as f64;
        ((millis * 1e6).round() as u64).max(1)
    }

    /// A lower bound, within a few nanoseconds a step, of what `steps` steps take that compute `tokens` tokens each
    /// and of which the first has `context`, each later one `tokens` more.
    pub(super) fn nanos_of_steps_at_least(&self, steps: u64, tokens: u64, context: u64) -> u64 {
        let count = steps as f64;
        let growth = tokens as f64 * count * (count - 1.0) / 2.0;
        let millis = count * self.base_millis(tokens) + self.k * (count * context as f64 + growth);
        // Steps are rounded to nanoseconds one by one, this sum once and in floating point.
        let nanos = millis * 1e6 * (1.0 - 1e-12);
        (nanos as u64).saturating_sub(steps)
    }

    fn base_millis(&self, tokens: u64) -> f64 {
        let n = tokens as f64;
        (self.b0 + self.b1 * n).max(self.c0 + self.c1 * n) + self.h
    }
}

/// A GPU whose step cost is built in, for a dense model of some 8 billion parameters in 16 bits.
///
/// Coefficients fitted to kernel times that Vidur (Agrawal et al., MLSys 2024) measured; `k` is 128 KB of KV memory a token over
/// 80 % of the memory bandwidth; the overhead `h` of 3 ms is an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gpu {
    /// NVIDIA H100, 80 GB.
    H100,
    /// NVIDIA A100, 80 GB.
    A100,
    /// NVIDIA A40, 48 GB.
    A40,
}

impl Gpu {
    /// The name in fleet files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H100 => "h100",
            Self::A100 => "a100",
            Self::A40 => "a40",
        }
    }

    /// What a step costs on it.
    pub const fn step_cost(self) -> StepCost {
        let (b0, b1, c0, c1, k) = match self {
            Self::H100 => (5.8, 0.006, 2.9, 0.0212, 0.000_049),
            Self::A100 => (9.8, 0.02, 6.9, 0.0669, 0.000_080),
            Self::A40 => (24.5, 0.05, 8.4, 0.130, 0.000_235),
        };
        StepCost {
            b0,
            b1,
            c0,
            c1,
            k,
            h: 3.0,
        }
    }

    /// How many tokens its KV memory holds beside the model's weights.
    pub const fn kv_tokens(self) -> NonZeroU32 {
        match self {
            Self::H100 | Self::A100 => NonZeroU32::MIN.saturating_add(426_999),
            Self::A40 => NonZeroU32::MIN.saturating_add(206_999),
        }
    }
}
