//! `cargo xtask fuzz`: feeds the doors of gotgan-fuzzed for as long as wanted.
//!
//! What fuzzers need is not needed for anything else: nightly Rust and cargo-fuzz. Where they are absent, this says how to get them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{child, interrupt};

/// An input that takes longer is a finding, seconds.
const SLOW_S: u32 = 10;
/// Most memory of a fuzzer; what an input takes at once is held against its length by the fuzzer itself.
const MEMORY_MIB: u32 = 2_048;
/// Longest inputs, bytes: what is long is mostly more of the same.
const INPUT_MAX_BYTES: u32 = 4_096;
/// What the targets have been found to tell apart, below `fuzz`.
const ARCHIVE: &str = "corpus.tar.xz";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                                 every target, five minutes each
  cargo xtask fuzz --target quota --minutes 120    one of them for two hours
  cargo xtask fuzz --target quota --shrink         keep a few inputs that reach all that is reached
  cargo xtask fuzz --pack                          keep what was reached by all
  cargo xtask fuzz --target quota --input FILE     one input once more

docs/fuzzing.md says what is fed and what was found.")]
pub struct Options {
    /// Only this one [default: all]
    #[arg(long)]
    target: Option<String>,
    /// How long each is fed
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Processes at once
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// With a sanitizer for memory, at half the speed; the project has next to no unsafe code
    #[arg(long)]
    sanitize: bool,
    /// Write the smallest set of inputs that reaches all that is reached to fuzz/seeds, instead of feeding
    #[arg(long, conflicts_with = "input")]
    shrink: bool,
    /// Make the inputs that this machine has found as few as reach the same, and pack those of all targets into
    /// fuzz/corpus.tar.xz, which is kept; instead of feeding
    #[arg(long, conflicts_with_all = ["input", "shrink", "target"])]
    pack: bool,
    /// Feed this file alone
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::watch()?;
    let workspace = Workspace::find()?;
    require_tools(&workspace)?;
    let known = targets(&workspace.root)?;
    let chosen: Vec<&String> =
        known.iter().filter(|name| options.target.as_ref().is_none_or(|it| it == *name)).collect();
    if chosen.is_empty() {
        let named = options.target.as_deref().unwrap_or_default();
        bail!("there is no target {named}; there are: {}", known.join(", "));
    }
    let folder = workspace.root.join("fuzz");
    unpack(&folder)?;
    for name in chosen {
        if options.pack {
            make_few(&workspace, options, name)?;
        } else if options.shrink {
            shrink(&workspace, options, name)?;
        } else if !feed(&workspace, options, name)? {
            println!(
                "fuzz: {name} found something; see fuzz/artifacts/{name}, and docs/fuzzing.md"
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    if options.pack {
        pack(&folder)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of all targets.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).context("fuzz/fuzz_targets cannot be read")?;
    let names = entries.map(|entry| {
        let path = entry?.path();
        let name = path.file_stem().context("a target without a name")?;
        Ok(name.to_string_lossy().into_owned())
    });
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn require_tools(workspace: &Workspace) -> Result<()> {
    let mut nightly = rustup_cargo(workspace);
    let has = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    if !has(nightly.arg("--version")) {
        bail!(
            "fuzzers are built by nightly Rust: rustup toolchain install nightly --profile minimal"
        );
    }
    if !has(rustup_cargo(workspace).args(["fuzz", "--version"])) {
        bail!("fuzzers are run by cargo-fuzz: cargo install cargo-fuzz --locked");
    }
    Ok(())
}

/// The cargo of the nightly toolchain; that of this program would be asked for its own toolchain.
fn rustup_cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root.join("fuzz"));
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    command.arg("+nightly");
    command
}

fn fuzz(workspace: &Workspace, options: &Options, what: &str, name: &str) -> Command {
    let mut command = rustup_cargo(workspace);
    command.args(["fuzz", what]);
    if !options.sanitize {
        command.args(["--sanitizer", "none"]);
    }
    command.arg(name);
    command
}

/// Whether nothing was found.
fn feed(workspace: &Workspace, options: &Options, name: &str) -> Result<bool> {
    let mut command = fuzz(workspace, options, "run", name);
    match &options.input {
        Some(file) => {
            command.arg(std::path::absolute(file).context("no path for the input")?);
            command.arg("--");
        }
        None => {
            // What is new goes into the first, which is nobody's but this machine's.
            let folders = folders(workspace, name);
            for folder in &folders {
                fs::create_dir_all(folder)?;
            }
            command.args(folders).arg("--");
            command.arg(format!("-max_total_time={}", (options.minutes * 60.0).ceil()));
            command.arg(format!("-fork={}", options.jobs));
            command.arg(format!("-max_len={INPUT_MAX_BYTES}"));
        }
    }
    command.arg(format!("-timeout={SLOW_S}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    Ok(child::run_in_foreground(&mut command)?.success())
}

/// What other machines have found is where this one begins, if it has found nothing yet.
fn unpack(folder: &Path) -> Result<()> {
    if folder.join("corpus").exists() || !folder.join(ARCHIVE).exists() {
        return Ok(());
    }
    tar(folder, &["--extract", "--file", ARCHIVE])
}

/// The same inputs make the same archive, whoever packs them and when.
fn pack(folder: &Path) -> Result<()> {
    let alike = ["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "--mode=u=rwX,go=rX"];
    let what = ["--create", "--xz", "--file", ARCHIVE, "corpus"];
    tar(folder, &[alike.as_slice(), what.as_slice()].concat())
}

fn tar(folder: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("tar").args(arguments).current_dir(folder).status();
    let status = status.context("tar cannot be started; it is asked to use xz")?;
    if !status.success() {
        bail!("tar {} failed with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Where inputs of a target are that this machine has found, and where its seeds are.
fn folders(workspace: &Workspace, name: &str) -> [PathBuf; 2] {
    ["corpus", "seeds"].map(|below| workspace.root.join("fuzz").join(below).join(name))
}

/// As few of the seeds and of what this machine has found as reach the same.
fn make_few(workspace: &Workspace, options: &Options, name: &str) -> Result<()> {
    let [all, seeds] = folders(workspace, name);
    fs::create_dir_all(&all)?;
    for file in files_of(&seeds)? {
        let place = all.join(file.file_name().context("a seed without a name")?);
        fs::copy(&file, place)?;
    }
    let mut command = fuzz(workspace, options, "cmin", name);
    if !child::run_in_foreground(&mut command)?.success() {
        bail!("cargo fuzz cmin failed for {name}");
    }
    Ok(())
}

/// Replaces the seeds by as few inputs of theirs and of this machine's as reach the same.
fn shrink(workspace: &Workspace, options: &Options, name: &str) -> Result<()> {
    make_few(workspace, options, name)?;
    let [all, seeds] = folders(workspace, name);
    for file in files_of(&seeds)? {
        fs::remove_file(file)?;
    }
    for file in files_of(&all)? {
        let place = seeds.join(file.file_name().context("an input without a name")?);
        fs::copy(&file, place)?;
    }
    Ok(())
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_where_nothing_is_and_only_there() {
        if Command::new("xz").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: no xz on this machine");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let folder = place.path();
        let input = folder.join("corpus/units/one");
        fs::create_dir_all(input.parent().unwrap()).unwrap();
        fs::write(&input, "n[1-4]").unwrap();
        pack(folder).unwrap();
        let packed = fs::read(folder.join(ARCHIVE)).unwrap();
        fs::write(&input, "newer").unwrap();
        unpack(folder).unwrap();
        assert_eq!(fs::read_to_string(&input).unwrap(), "newer", "this machine has its own");
        fs::remove_dir_all(folder.join("corpus")).unwrap();
        unpack(folder).unwrap();
        assert_eq!(fs::read_to_string(&input).unwrap(), "n[1-4]");
        pack(folder).unwrap();
        assert_eq!(fs::read(folder.join(ARCHIVE)).unwrap(), packed, "the same makes the same");
    }
}
