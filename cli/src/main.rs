//! The binary `gotgan`: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(gotgan::main(std::env::args_os().collect()))
}
