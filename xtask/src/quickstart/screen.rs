//! How the story looks: numbered chapters, the words of the flow, output of jobs behind their names.

use std::env;
use std::io::{IsTerminal, Write, stdout};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";
/// Width of the word before each line; the longest is `dispatched`.
const WORD_WIDTH: usize = 11;

#[derive(Debug, Clone, Copy)]
pub struct Screen {
    colours: bool,
}

impl Screen {
    pub fn new() -> Self {
        Self { colours: stdout().is_terminal() && env::var_os("NO_COLOR").is_none() }
    }

    pub fn title(self, text: &str) {
        self.line(&format!("\n{}", self.painted(BOLD, text)));
    }

    /// One step of the flow by its word, and what it did.
    pub fn step(self, word: &str, text: &str) {
        let word = self.painted(GREEN, &format!("{word:<WORD_WIDTH$}"));
        self.line(&format!("  {word} {text}"));
    }

    /// A line that a job wrote.
    pub fn output(self, source: &str, text: &str) {
        let source = self.painted(CYAN, &format!("{source:<WORD_WIDTH$}"));
        self.line(&format!("  {source} {} {text}", self.painted(DIM, "|")));
    }

    /// What a command printed, after the command itself, as in a terminal.
    pub fn transcript(self, command: &str, output: &str) {
        self.line(&format!("  {}", self.painted(BOLD, &format!("$ {command}"))));
        for line in output.trim_end().lines() {
            self.line(&format!("  {line}"));
        }
    }

    pub fn note(self, text: &str) {
        self.line(&format!("  {}", self.painted(DIM, text)));
    }

    pub fn line(self, text: &str) {
        // Nobody reads any more: the work goes on and its result is the exit code.
        let _ = writeln!(stdout().lock(), "{text}");
    }

    fn painted(self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }
}
