//! Installs PostgreSQL with the system's package manager, where this user may; says how where not.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::child;

/// A package manager, what brings its lists up to date, and what installs the server.
struct Manager {
    program: &'static str,
    refresh: &'static [&'static str],
    install: &'static [&'static str],
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        refresh: &["update"],
        install: &["install", "--yes", "--no-install-recommends", "postgresql"],
    },
    Manager {
        program: "dnf",
        refresh: &[],
        install: &["install", "--assumeyes", "postgresql-server"],
    },
    Manager {
        program: "zypper",
        refresh: &[],
        install: &["--non-interactive", "install", "postgresql-server"],
    },
    Manager { program: "pacman", refresh: &[], install: &["-Sy", "--noconfirm", "postgresql"] },
    Manager { program: "apk", refresh: &[], install: &["add", "postgresql"] },
];

pub fn run() -> Result<()> {
    let Some(manager) = MANAGERS.iter().find(|manager| is_on_path(manager.program)) else {
        bail!(
            "PostgreSQL is missing and so is a package manager known here: install its server \
             (the programs initdb and postgres) and put them on the PATH, or set \
             GOTGAN_TEST_POSTGRES to a server's URL"
        );
    };
    let by_hand = format!("{} {}", manager.program, manager.install.join(" "));
    let Some(prefix) = privilege() else {
        bail!(
            "PostgreSQL is missing and this user may not install it: run `sudo {by_hand}`, or set \
             GOTGAN_TEST_POSTGRES to a server's URL, or skip its tests with --no-postgres"
        );
    };
    eprintln!("xtask: PostgreSQL is missing; installing it: {by_hand}");
    if !manager.refresh.is_empty() {
        // A stale list often still serves; the installation itself decides.
        call(prefix, manager.program, manager.refresh)?;
    }
    if !call(prefix, manager.program, manager.install)? {
        bail!("`{by_hand}` failed; install PostgreSQL by hand and try again");
    }
    Ok(())
}

/// What to put before a command to run it as root, if that needs no password.
fn privilege() -> Option<&'static [&'static str]> {
    if geteuid().is_root() {
        return Some(&[]);
    }
    let mut probe = Command::new("sudo");
    probe.args(["--non-interactive", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success()).then_some(&["sudo", "--non-interactive"])
}

fn call(prefix: &[&str], program: &str, arguments: &[&str]) -> Result<bool> {
    let mut words = prefix.iter().chain([&program]).chain(arguments);
    let mut command = Command::new(words.next().unwrap_or(&program));
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    Ok(child::run_in_foreground(&mut command)?.success())
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .any(|file: PathBuf| file.is_file())
}
