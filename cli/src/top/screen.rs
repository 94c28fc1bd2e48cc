//! The picture in a terminal, refreshed in place.

use std::io::{Stdout, Write as _};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};

use super::Envoy;
use super::picture::{self, LAST_DECISIONS};
use super::snapshot::{Rates, Snapshot};
use crate::failure::{Exit, Failure};

/// Shows it until somebody has seen enough.
pub(super) fn show(envoy: &Envoy, first: Snapshot, interval: Duration) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Exit::NoOutput, format_args!("terminal: {error}"));
    let mut screen = Screen::open().map_err(failed)?;
    let mut before = first;
    let mut lines = vec![format!("Envoy {}: measuring ...", envoy.address)];
    let (mut top, mut looked) = (0, Instant::now());
    loop {
        top = screen.draw(&lines, top).map_err(failed)?;
        let left = interval.saturating_sub(looked.elapsed());
        if event::poll(left).map_err(failed)? {
            match wish(&event::read().map_err(failed)?) {
                Wish::End => return Ok(()),
                Wish::Scroll(by) => top = top.saturating_add_signed(by),
                Wish::Nothing => {}
            }
            continue;
        }
        looked = Instant::now();
        match envoy.look() {
            Ok(now) => {
                lines = picture::lines(
                    &Rates::between(&before, &now),
                    now.told.as_ref(),
                    envoy.address,
                );
                before = now;
            }
            // It may be restarted: what was last seen stays.
            Err(failure) => {
                if let Some(first) = lines.first_mut() {
                    *first = failure.to_string();
                }
            }
        }
    }
}

/// What somebody wants.
enum Wish {
    End,
    /// By so many lines.
    Scroll(isize),
    Nothing,
}

fn wish(event: &Event) -> Wish {
    const PAGE: isize = 10;
    let Event::Key(key) = event else {
        return Wish::Nothing;
    };
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Wish::End,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Wish::End,
        KeyCode::Up | KeyCode::Char('k') => Wish::Scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => Wish::Scroll(1),
        KeyCode::PageUp => Wish::Scroll(-PAGE),
        KeyCode::PageDown | KeyCode::Char(' ') => Wish::Scroll(PAGE),
        KeyCode::Home => Wish::Scroll(isize::MIN),
        _ => Wish::Nothing,
    }
}

/// A terminal that shows one picture. Dropping it gives the terminal back as it was.
struct Screen {
    output: Stdout,
}

impl Screen {
    fn open() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let mut this = Self {
            output: std::io::stdout(),
        };
        execute!(this.output, EnterAlternateScreen, cursor::Hide)?;
        Ok(this)
    }

    /// Draws as many lines as fit from `top` on; gives the first that it drew.
    fn draw(&mut self, lines: &[String], top: usize) -> std::io::Result<usize> {
        let (width, height) = terminal::size()?;
        let (width, height) = (usize::from(width), usize::from(height).max(2));
        let room = height - 1;
        let top = top.min(lines.len().saturating_sub(room));
        queue!(self.output, cursor::MoveTo(0, 0))?;
        for line in lines.iter().skip(top).take(room) {
            let shown: String = line.chars().take(width).collect();
            let begins = |heading| line.starts_with(heading);
            let is_heading = ["Envoy", "pool ", LAST_DECISIONS].into_iter().any(begins);
            if is_heading {
                queue!(self.output, SetAttribute(Attribute::Bold))?;
            }
            queue!(
                self.output,
                Print(shown),
                SetAttribute(Attribute::Reset),
                Clear(ClearType::UntilNewLine),
                Print("\r\n")
            )?;
        }
        let below = lines.len().saturating_sub(top + room);
        let more = match below {
            0 => String::new(),
            _ => format!(", {below} more lines below"),
        };
        let status: String = format!("q ends{more}").chars().take(width).collect();
        queue!(self.output, Clear(ClearType::FromCursorDown), Print(status))?;
        self.output.flush()?;
        Ok(top)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where that fails there is no terminal any more.
        let _ = execute!(self.output, cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}
