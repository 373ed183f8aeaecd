//! The commands, one a file: flags, what they ask of the scheduler, and how they show the answer.

pub mod action;
pub mod admin;
pub mod cluster;
pub mod completions;
pub mod config;
mod custody;
mod derate;
mod health;
pub mod job;
pub mod jobs;
pub mod logs;
pub mod maintenance;
mod mig;
pub mod node;
pub mod nodes;
pub mod order;
pub mod quota;
mod reservation;
pub mod run;
pub mod step;
pub mod submit;
pub mod wait;
pub mod watch;
pub mod whoami;
pub mod why;

use crate::{args::Command, context::Context, error::Error};

/// Runs one command and returns the exit code.
///
/// # Errors
/// What went wrong, to be told to the caller.
pub async fn run(command: Command, context: &Context) -> Result<u8, Error> {
    match command {
        Command::Submit(command) => command.run(context).await,
        Command::Run(command) => command.run(context).await,
        Command::Jobs(command) => command.run(context).await,
        Command::Job(command) => command.run(context).await,
        Command::Why(command) => command.run(context).await,
        Command::Logs(command) => command.run(context).await,
        Command::Wait(command) => command.run(context).await,
        Command::Watch(command) => command.run(context).await,
        Command::Cancel(command) => command.run(context).await,
        Command::Hold(command) => command.run(context).await,
        Command::Release(command) => command.run(context).await,
        Command::Requeue(command) => command.run(context).await,
        Command::Nodes(command) => command.run(context).await,
        Command::Node(command) => command.run(context).await,
        Command::Quota(command) => command.run(context).await,
        Command::Cluster(command) => command.run(context).await,
        Command::Admin(command) => command.run(context).await,
        Command::Whoami(command) => command.run(context).await,
        Command::Config(command) => command.run(context),
        Command::Completions(command) => command.run(context),
    }
}
