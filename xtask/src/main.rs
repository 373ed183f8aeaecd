//! The project's own tasks, called as `cargo xtask NAME`: a cluster to look at, the tests, the
//! benchmarks and the checks that no linter knows. Nothing here is part of the product.

#![allow(clippy::print_stdout)]

mod bench;
mod child;
mod fuzz;
mod interrupt;
mod postgres;
mod quickstart;
mod simulate;
mod test;
mod tidy;
mod torment;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Project tasks of Gotgan", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build, start a small cluster here, run the example jobs on it and tell what happens
    Quickstart(quickstart::Options),
    /// Run all tests, on SQLite and on a PostgreSQL started for the purpose
    Test(test::Options),
    /// Build as for deployment and run one of the benchmarks
    Bench(bench::Options),
    /// Build, then break a cluster while it is used and judge what was seen
    Torment(torment::Options),
    /// Build, then play the scheduler's flow from seeds and judge what was seen
    Simulate(simulate::Options),
    /// Feed everything that reads what others write with whatever inputs; needs nightly Rust
    Fuzz(fuzz::Options),
    /// Check what compilers and linters do not: sizes, names, links, migrations
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Quickstart(options) => quickstart::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Torment(options) => torment::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Tidy => tidy::run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<interrupt::Interrupted>() {
        eprintln!("xtask: {interrupted}");
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}
