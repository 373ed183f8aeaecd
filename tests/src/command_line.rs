//! The command line as a person uses it, with nothing of the machine's or the tester's own settings in it.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::process::Process;
use crate::programs;

/// Width for which tables are made.
const COLUMNS: &str = "80";

/// `gotgan` as one person.
#[derive(Debug, Clone)]
pub struct Gotgan {
    home: PathBuf,
    variables: Vec<(&'static str, String)>,
    directory: PathBuf,
}

/// What a command said and how it ended.
#[derive(Debug, Clone)]
#[must_use = "look at what the command said"]
pub struct Ran {
    words: String,
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Gotgan {
    pub(crate) fn new(home: &Path, server: &str, ca: &Path, token: &str) -> Self {
        let variables = vec![
            ("GOTGAN_SERVER", server.to_owned()),
            ("GOTGAN_CA", ca.display().to_string()),
            ("GOTGAN_TOKEN", token.to_owned()),
        ];
        Self { home: home.to_path_buf(), variables, directory: home.to_path_buf() }
    }

    /// With a variable set, or set otherwise.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Without a variable.
    #[must_use]
    pub fn without(mut self, name: &'static str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self
    }

    /// In another directory.
    #[must_use]
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = directory.to_path_buf();
        self
    }

    /// Runs `gotgan` with these words.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ran {
        self.run_with_input(words, b"")
    }

    /// Runs `gotgan` with something on its standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run_with_input<S: AsRef<OsStr>>(&self, words: &[S], input: &[u8]) -> Ran {
        let mut command = self.command(programs::path("gotgan").as_os_str());
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("gotgan can be started");
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without having read everything.
            let _ = stdin.write_all(input);
        }
        Ran::of(words, &child.wait_with_output().expect("gotgan can be waited for"))
    }

    /// Runs `gotgan` with its output in a file, as somebody does who wants much of it.
    ///
    /// # Panics
    /// If it cannot be run, or the file cannot be written.
    pub fn run_into<S: AsRef<OsStr>>(&self, words: &[S], file: &Path) -> Ran {
        let out = std::fs::File::create(file).expect("a file for the output");
        let mut command = self.command(programs::path("gotgan").as_os_str());
        let output = command.args(words).stdin(Stdio::null()).stdout(out).output();
        Ran::of(words, &output.expect("gotgan can be run"))
    }

    /// Starts `gotgan` and does not wait; its output goes into a log.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(&self, words: &[S], log: &Path) -> Process {
        let mut command = self.command(programs::path("gotgan").as_os_str());
        Process::spawn("gotgan", command.args(words), log)
    }

    /// Runs shell commands in which `gotgan` is known by its name.
    ///
    /// # Panics
    /// If no shell can be run.
    pub fn shell(&self, script: &str) -> Ran {
        let mut command = self.command(OsStr::new("/bin/sh"));
        let output = command.args(["-e", "-c", script]).stdin(Stdio::null()).output();
        Ran::of(&["sh", "-c", script], &output.expect("a shell can be run"))
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.directory);
        let path = env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(programs::directory()).chain(env::split_paths(&path));
        command.env("PATH", env::join_paths(all).unwrap_or(path));
        command.env("HOME", &self.home).env("NO_COLOR", "1").env("COLUMNS", COLUMNS);
        command.env("LANG", "C.UTF-8").env("TZ", "UTC").env("USER", "tester");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Ran {
    fn of<S: AsRef<OsStr>>(words: &[S], output: &Output) -> Self {
        let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        Self {
            words: words.join(" "),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "`{}` failed\n{}{}", self.words, self.stdout, self.stderr);
        self.stdout
    }

    /// Its JSON.
    ///
    /// # Panics
    /// If it failed or printed something else.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let words = self.words.clone();
        let text = self.ok();
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("`{words}` printed no JSON ({error}):\n{text}"),
        }
    }

    /// Checks that it failed with this exit code and said all of these words on standard error.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn fails_with(self, code: i32, says: &[&str]) {
        let shown = format!("`{}`\n{}{}", self.words, self.stdout, self.stderr);
        assert_eq!(self.code, code, "exit code of {shown}");
        for word in says {
            assert!(self.stderr.contains(word), "no {word:?} in the complaint of {shown}");
        }
        assert!(!self.stderr.contains("panicked"), "{shown}");
    }
}
