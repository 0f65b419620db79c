//! A line on standard error that is drawn over itself, for commands that take a while. Where standard error is no terminal,
//! there is no such line.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Between two drawings: often enough to look alive, and rare enough to cost nothing.
pub const STEP: Duration = Duration::from_millis(250);
const WIDTH: usize = 24;

/// The line. Dropping it erases it.
#[derive(Debug)]
pub struct Line(());

impl Line {
    /// `None` if standard error is no terminal.
    pub fn on_terminal() -> Option<Self> {
        std::io::stderr().is_terminal().then(|| Self(()))
    }

    /// Draws the text over what was drawn before.
    pub fn draw(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // Back to the start of the line, and erase what is left of the previous text.
        let _ = write!(stderr, "\r{text}\x1b[K");
        let _ = stderr.flush();
    }

    /// Makes room for a line of another kind.
    pub fn erase(&self) {
        self.draw("");
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.erase();
    }
}

/// `[######------------------]` for a quarter; what is more than all is all.
pub fn bar(done: f64) -> String {
    let filled = ((done.clamp(0.0, 1.0) * WIDTH as f64) as usize).min(WIDTH);
    format!("[{}{}]", "#".repeat(filled), "-".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_filled_as_far_as_things_are_done() {
        for (done, filled) in [(-1.0, 0), (0.0, 0), (0.25, 6), (0.999, 23), (1.0, 24), (7.0, 24), (f64::NAN, 0)] {
            assert_eq!(bar(done), format!("[{}{}]", "#".repeat(filled), "-".repeat(WIDTH - filled)), "{done}");
        }
    }
}
