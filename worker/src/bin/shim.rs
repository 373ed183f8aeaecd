//! `gotgan-shim`: the small process behind every running attempt, and the launcher that forks it.
//!
//! Started by `gotgan-worker`, never by hand. One thread, no runtime; see `gotgan_worker::shim`.

use std::process::ExitCode;

use gotgan_worker::confine::probe;
use gotgan_worker::container::probe as images;
use gotgan_worker::shim::launcher;
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
#[expect(clippy::print_stdout, reason = "asked for by the worker")]
fn answer<Q: DeserializeOwned, A: Serialize>(
    question: &str,
    look: impl FnOnce(&Q) -> A,
) -> ExitCode {
    let answered =
        serde_json::from_str(question).and_then(|question| serde_json::to_string(&look(&question)));
    match answered {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gotgan-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "asked for on the command line")]
fn version() -> ExitCode {
    println!("gotgan-shim {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("gotgan-shim is started by gotgan-worker; there is nothing to do with it by hand");
    ExitCode::from(2)
}
