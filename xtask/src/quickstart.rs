//! `cargo xtask quickstart`: a cluster on this machine, and the whole life of some jobs on it, told
//! while it happens.
//!
//! Nothing is staged: the scheduler, the workers and the command line are the released programs, and
//! what the screen shows was printed by them. Everything started here ends with this program.

mod client;
mod cluster;
mod directory;
mod follow;
mod screen;
mod story;
mod verdict;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{child, interrupt};
use cluster::Cluster;
use directory::Directory;
use screen::Screen;

const BUILD: [&str; 7] =
    ["--release", "-p", "gotgan", "-p", "gotgan-scheduler", "-p", "gotgan-worker"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask quickstart          and then look around in another terminal; Ctrl-C ends it
  cargo xtask quickstart --once   ends by itself; its last line is JSON")]
pub struct Options {
    /// End after the story instead of leaving the cluster running
    #[arg(long)]
    once: bool,
    /// Where the cluster keeps its files [default: .gotgan/quickstart of this checkout]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    child::adopt_orphans()?;
    let workspace = Workspace::find()?;
    insist_on_python()?;
    let directory = Directory::prepare(&workspace.root, options.dir.as_deref())?;
    let screen = Screen::new();
    screen.title("Gotgan quickstart");
    screen.note("building in release; the first time takes some minutes");
    workspace.build(&BUILD)?;
    let result = play(options, &workspace, &directory, screen);
    // Jobs outlive daemons by design; not this program, though.
    child::end_descendants();
    let result = result.with_context(|| {
        format!("the quickstart failed; its logs are in {}", directory.path.join("log").display())
    });
    if let Some(line) = result? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The example jobs are Python programs; better to know before the build than after it.
fn insist_on_python() -> Result<()> {
    let mut probe = Command::new("python3");
    probe.arg("--version").stdout(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        bail!("the example jobs need python3, which is not on the PATH: install Python 3");
    }
    Ok(())
}

/// Returns the last line to print, if there is one.
fn play(
    options: &Options,
    workspace: &Workspace,
    directory: &Directory,
    screen: Screen,
) -> Result<Option<String>> {
    let mut cluster = Cluster::start(workspace, directory, screen)?;
    let verdict = story::tell(&cluster, workspace, directory, screen).or_else(|error| {
        // A daemon that died is the reason behind whatever else went wrong.
        cluster.check(directory)?;
        Err(error)
    })?;
    if options.once {
        return Ok(Some(verdict.to_json()));
    }
    invite(&cluster, screen);
    while !interrupt::requested() {
        thread::sleep(Duration::from_millis(100));
    }
    screen.line("\nending the cluster");
    Ok(None)
}

/// The lines to type next.
fn invite(cluster: &Cluster, screen: Screen) {
    let admin = &cluster.admin;
    screen.title("Your turn");
    screen.note("The cluster stays until Ctrl-C. In another terminal:");
    screen.line("");
    screen.line(&format!("  export PATH={}:$PATH", cluster.programs.display()));
    screen.line(&format!("  export GOTGAN_SERVER={}", admin.server));
    screen.line(&format!("  export GOTGAN_CA={}", admin.ca.display()));
    screen.line(&format!("  export GOTGAN_TOKEN_FILE={}", admin.token_file.display()));
    screen.line("");
    screen.line("  gotgan nodes");
    screen.line("  gotgan submit --project public/nup/startup-042 --gpus-per-node 1 \\");
    screen.line("      --cpus-per-node 1 --mem 256M -- sh -c 'echo from $GOTGAN_NODE'");
    screen.line("  gotgan jobs --all");
    screen.line("  gotgan job 1");
    screen.line("  gotgan quota show");
}
