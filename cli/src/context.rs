//! What every command has at hand: how to print, and the connection, made when first needed.

use std::{ffi::OsString, time::Duration};

use crate::{
    args::Global,
    client::{self, Client},
    config::Settings,
    error::Error,
    output::Output,
};

/// The surroundings of one invocation.
#[derive(Debug)]
pub struct Context {
    pub output: Output,
    global: Global,
    arguments: Vec<OsString>,
}

impl Context {
    /// The surroundings given by the common flags and the raw arguments.
    #[must_use]
    pub fn new(global: &Global, arguments: Vec<OsString>) -> Self {
        Self { output: Output::new(global), global: global.clone(), arguments }
    }

    /// What is configured.
    ///
    /// # Errors
    /// When the configuration file is malformed.
    pub fn settings(&self) -> Result<Settings, Error> {
        Settings::load(&self.global)
    }

    /// A connection by what is configured.
    ///
    /// # Errors
    /// When something configured cannot be used.
    pub fn client(&self) -> Result<Client, Error> {
        let retry_for = Duration::from_secs(self.global.retry_for);
        let client = Client::new(&self.settings()?, retry_for, self.output.progress())?;
        Ok(if self.global.stale { client.stale() } else { client })
    }

    /// The key of this invocation: the one given, or a new one.
    ///
    /// # Errors
    /// When the one given cannot be a key.
    pub fn idempotency_key(&self) -> Result<String, Error> {
        let Some(key) = &self.global.idempotency_key else {
            return client::new_idempotency_key();
        };
        let fits =
            (1..=128).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !fits {
            return Err(Error::invalid(
                "--idempotency-key: not 1 to 128 printable ASCII characters",
                "leave it out and one is made",
            ));
        }
        Ok(key.clone())
    }

    /// Whether the trailing words were written after `--`, which makes them a command.
    #[must_use]
    pub fn follows_dashes(&self, words: &[String]) -> bool {
        let before = self.arguments.len().checked_sub(words.len() + 1);
        before.and_then(|index| self.arguments.get(index)).is_some_and(|word| word == "--")
    }
}
