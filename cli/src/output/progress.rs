//! The line that says what is being waited for, on a terminal only.

use std::{cell::RefCell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// Ten frames a second: alive to the eye, nothing to the machine.
const TICK: Duration = Duration::from_millis(100);

/// A spinner with a message; nothing at all where there is no terminal.
#[derive(Debug)]
pub struct Progress {
    enabled: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Progress {
    /// A line that is shown if `enabled`, from its first note on.
    #[must_use]
    pub fn new(enabled: bool) -> Self {
        Self { enabled, bar: RefCell::default() }
    }

    /// Shows this message from now on.
    pub fn note(&self, message: &str) {
        if !self.enabled {
            return;
        }
        let mut bar = self.bar.borrow_mut();
        let bar = bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(crate::error::printable(message));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
