//! The command line as a whole: the common flags and the list of commands.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cmd;

/// Submits jobs to a Gotgan cluster, shows them, and administers it.
#[derive(Debug, Parser)]
#[command(name = "gotgan", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gotgan submit --project public/nup/startup-042 --gpus b200:8 train.sh
  gotgan why 42                 why job 42 waits
  gotgan logs -f 42             its output as it comes
  gotgan jobs --state running --json

Exit codes: 0 ok, 1 failed, 2 usage, 3 invalid, 4 not found, 5 not permitted, 6 not authenticated,
7 conflict, 8 limit reached, 9 unavailable, 10 job cancelled, 11 job timed out, 12 internal;
`gotgan run` ends with its task's own code.";

/// Flags every command takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection and output")]
pub struct Global {
    /// Scheduler, https://HOST:PORT; several with commas [env: GOTGAN_SERVER]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub server: Option<String>,
    /// CA certificate of the scheduler, a PEM file [env: GOTGAN_CA]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub ca: Option<String>,
    /// Bearer token; better in a file, as others can see arguments [env: GOTGAN_TOKEN]
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        hide_short_help = true,
        conflicts_with = "token_file"
    )]
    pub token: Option<String>,
    /// File with the bearer token [env: GOTGAN_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub token_file: Option<String>,
    /// Allow http://, which anybody on the network can read
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure: bool,
    /// Seconds to keep trying while no scheduler answers
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400), hide_short_help = true)]
    pub retry_for: u64,
    /// Take answers that may be seconds old: schedulers that stand by give them as well
    #[arg(long, global = true, hide_short_help = true)]
    pub stale: bool,
    /// Key under which this request counts once, however often it is sent [default: random]
    #[arg(long, global = true, value_name = "KEY", hide_short_help = true)]
    pub idempotency_key: Option<String>,
    /// Print JSON of a stable form instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours [default: auto, on a terminal unless NO_COLOR is set]
    #[arg(long, global = true, value_enum, value_name = "WHEN", hide_short_help = true)]
    pub color: Option<ColorWhen>,
}

/// When to print colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Submit(cmd::submit::Submit),
    Run(cmd::run::Run),
    Jobs(cmd::jobs::Jobs),
    Job(cmd::job::JobCommand),
    Why(cmd::why::Why),
    Logs(cmd::logs::Logs),
    Wait(cmd::wait::Wait),
    Watch(cmd::watch::Watch),
    Cancel(cmd::action::Cancel),
    Hold(cmd::action::Hold),
    Release(cmd::action::Release),
    Requeue(cmd::action::Requeue),
    Nodes(cmd::nodes::Nodes),
    Node(cmd::node::NodeCommand),
    Quota(cmd::quota::QuotaCommand),
    Cluster(cmd::cluster::ClusterCommand),
    Admin(cmd::admin::Admin),
    Whoami(cmd::whoami::WhoAmI),
    Config(cmd::config::ConfigCommand),
    Completions(cmd::completions::Completions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
}
