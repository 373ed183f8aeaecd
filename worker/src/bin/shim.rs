//! `gotgan-shim`: the small process behind every running attempt, and the launcher that forks it.
//!
//! Started by `gotgan-worker`, never by hand. One thread, no runtime; see `gotgan_worker::shim`.

use std::io::Write;
use std::process::ExitCode;

use gotgan_worker::confine::probe;
use gotgan_worker::container::probe as images;
use gotgan_worker::shim::{launcher, protocol};
use serde::{Serialize, de::DeserializeOwned};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [mode] if mode == "--launcher" => launcher::serve(None),
        [mode, open_files] if mode == "--launcher" => launcher::serve(open_files.parse().ok()),
        [mode, question] if mode == "--probe" => {
            return answer(question, probe::look);
        }
        [mode, question] if mode == "--probe-images" => {
            return answer(question, images::look);
        }
        [mode] if mode == "--version" => return version(),
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gotgan-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what this machine can, as JSON.
fn answer<Q: DeserializeOwned, A: Serialize>(
    question: &str,
    look: impl FnOnce(&Q) -> A,
) -> ExitCode {
    let answered =
        serde_json::from_str(question).and_then(|question| serde_json::to_string(&look(&question)));
    match answered {
        Ok(answer) => say(&answer),
        Err(error) => {
            eprintln!("gotgan-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn version() -> ExitCode {
    say(&format!("gotgan-shim {}, protocol {}", env!("CARGO_PKG_VERSION"), protocol::VERSION))
}

/// A worker that has died meanwhile hears nothing of it.
fn say(line: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage() -> ExitCode {
    eprintln!("gotgan-shim is started by gotgan-worker; there is nothing to do with it by hand");
    ExitCode::from(2)
}
