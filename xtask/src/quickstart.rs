//! `cargo xtask quickstart`.
use anyhow::Result;
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    once: bool,
}
pub fn run(_o: &Options) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
