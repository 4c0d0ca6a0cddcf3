//! Brings the picture to a terminal, in place; or a line now and then to where no terminal is.
//!
//! While a picture stands, the cursor is hidden and long lines are cut rather than wrapped, so that a narrow
//! terminal shows less but is never messed up. Both are undone when the screen is dropped.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::picture::{Ink, Scene, grouped, seconds};

const PICTURE_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What can be shown: as a picture, or as one line of progress.
pub trait Shown {
    fn lines(&self, ink: &Ink) -> Vec<String>;
    fn line(&self) -> String;
}

#[derive(Debug)]
pub struct Screen {
    /// `None`: plain lines.
    ink: Option<Ink>,
    lines_shown: usize,
    next_at: Instant,
}

/// The ink for a stream that may be a terminal.
pub fn ink(is_terminal: bool) -> Ink {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_terminal && !plain { Ink::ANSI } else { Ink::NONE }
}

fn can_redraw() -> bool {
    std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

impl Screen {
    pub fn open(wants_picture: bool) -> Screen {
        let ink = (wants_picture && can_redraw()).then(|| ink(true));
        if ink.is_some() {
            show("\x1b[?25l\x1b[?7l");
        }
        Screen { ink, lines_shown: 0, next_at: Instant::now() }
    }

    /// Shows the scene if it is time to.
    pub fn show(&mut self, now: Instant, scene: &dyn Shown) {
        if now < self.next_at {
            return;
        }
        let Some(ink) = self.ink else {
            self.next_at = now + LINE_EVERY;
            show(&(scene.line() + "\n"));
            return;
        };
        self.next_at = now + PICTURE_EVERY;
        let lines = scene.lines(&ink);
        let mut frame = self.back();
        for text in &lines {
            frame.push_str(text);
            frame.push_str("\x1b[K\n");
        }
        self.lines_shown = lines.len();
        show(&frame);
    }

    /// What takes the cursor back to where the picture begins.
    fn back(&self) -> String {
        if self.lines_shown == 0 { String::new() } else { format!("\r\x1b[{}A", self.lines_shown) }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.ink.is_some() {
            show(&format!("{}\x1b[J\x1b[?7h\x1b[?25h", self.back()));
        }
    }
}

impl Shown for Scene<'_> {
    fn lines(&self, ink: &Ink) -> Vec<String> {
        self.lines(ink)
    }

    fn line(&self) -> String {
        let last = self.meter.last();
        let breaker = last.breaker.map_or(String::new(), |phase| format!("  breaker {}", phase.as_str()));
        format!(
            "{:>7}  {:<10} accepted {:>11}  settled {:>11}  backlog {:>11}  expected wait {}{breaker}",
            seconds(last.at),
            self.doing,
            grouped(last.accepted),
            grouped(last.settled),
            grouped(last.backlog),
            seconds(self.meter.wait())
        )
    }
}

fn show(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // A picture that cannot be shown is no reason to stop.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
