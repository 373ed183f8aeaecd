//! How answers reach people and programs: tables and lines on a terminal or in a pipe, or JSON.

pub mod json;
pub mod progress;
pub mod table;
pub mod text;
pub mod time;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    args::{ColorWhen, Global},
    error::{Error, printable},
    output::{progress::Progress, table::Table},
};

/// Says one line on standard error; lost if nobody listens.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// Where and how to print.
#[derive(Clone, Debug)]
pub struct Output {
    pub json: bool,
    pub color: bool,
    /// Columns of the terminal; none in a pipe, where nothing is shortened.
    pub width: Option<u16>,
    /// Standard error is a terminal: progress may be shown.
    pub shows_progress: bool,
}

impl Output {
    /// As the flags, the environment and the terminal have it.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match global.color.unwrap_or(ColorWhen::Auto) {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => terminal && !no_color,
        };
        let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = asked.or_else(|| terminal.then(terminal_width).flatten());
        Self { json: global.json, color, width, shows_progress: io::stderr().is_terminal() }
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&self, text: &str) -> Result<(), Error> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&self, text: &str) -> Result<(), Error> {
        self.text(&format!("{text}\n"))
    }

    /// Prints a table that fits the terminal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn table(&self, table: &Table) -> Result<(), Error> {
        self.text(&table.render(self.width, self.color))
    }

    /// Prints the one document of a command.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn document<T: Serialize>(&self, schema: &'static str, body: &T) -> Result<(), Error> {
        self.text(&json::document(schema, body)?)
    }

    /// Prints one line of a stream of documents.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn event<T: Serialize>(&self, schema: &'static str, body: &T) -> Result<(), Error> {
        self.text(&json::line(schema, body)?)
    }

    /// Says something beside the answer, on standard error.
    pub fn warn(&self, text: &str) {
        self.aside(&format!("warning: {text}"));
    }

    /// Says one line on standard error; lost if nobody listens.
    pub fn aside(&self, text: &str) {
        aside(text);
    }

    /// A progress line, silent where standard error is no terminal.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::new(self.shows_progress)
    }
}

fn terminal_width() -> Option<u16> {
    let mut table = comfy_table::Table::new();
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.width()
}
