//! The progress bar.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use lab::load::Progress;

/// How often a terminal is drawn anew, a second: what is measured runs on the same machine.
const DRAWS_A_SECOND: u8 = 4;

/// A bar on standard error, hidden where that is no terminal.
pub(super) fn bar(total: usize) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND);
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    // The template is fixed, so it is right or it never is; the default serves as well.
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:.bold} [{bar:32}] {pos} of {len} requests, {elapsed} of about {duration}",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Shows how far a run has come, of which so many requests came before.
pub(super) fn show(bar: &ProgressBar, before: usize, progress: Progress) {
    bar.set_position((before + progress.ended) as u64);
}
