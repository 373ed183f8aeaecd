//! Where this checkout is, where cargo puts what it builds, and how to call cargo from any directory.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child;

#[derive(Debug)]
pub struct Workspace {
    pub root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask lies in no workspace")?.to_path_buf();
        let target = target_directory(&root)?;
        Ok(Self { root, target })
    }

    /// A cargo of the toolchain that built this program, working on this checkout.
    pub fn cargo(&self) -> Command {
        cargo(&self.root)
    }

    /// Runs `cargo build` with these arguments; its progress is shown.
    pub fn build(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.cargo();
        command.arg("build").args(arguments);
        let status = child::run_in_foreground(&mut command)?;
        if !status.success() {
            bail!("`cargo build {}` failed", arguments.join(" "));
        }
        Ok(())
    }

    /// Directory of finished programs of a profile, as `debug` or `dist`.
    pub fn programs(&self, profile: &str) -> PathBuf {
        self.target.join(profile)
    }
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // Set for this program by `cargo run`; a cargo below must not take them for its own.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Asks cargo, because settings and environment can move it.
fn target_directory(root: &Path) -> Result<PathBuf> {
    let output = cargo(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed in {}", root.display());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let target =
        metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(target.into())
}
