//! docs/states.md: diagrams that the core draws from its own state machines, so they cannot lie.

use std::fs;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

pub const PAGE: &str = "docs/states.md";

pub fn write() -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let page = workspace.root.join(PAGE);
    fs::write(&page, draw(&workspace)?).with_context(|| format!("{PAGE} cannot be written"))?;
    println!("{PAGE} is up to date");
    Ok(ExitCode::SUCCESS)
}

/// What to do if the page is not what the code says.
pub fn difference(workspace: &Workspace) -> Result<Option<String>> {
    let written = fs::read_to_string(workspace.root.join(PAGE)).unwrap_or_default();
    let text = "differs from the state machines in the code: run `cargo xtask states`";
    Ok((written != draw(workspace)?).then(|| text.to_owned()))
}

/// An example of the core prints the page; so only the core needs to be built for it.
fn draw(workspace: &Workspace) -> Result<String> {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--package", "gotgan-core", "--example", "states"]);
    let output = command.stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("the example `states` of gotgan-core failed");
    }
    String::from_utf8(output.stdout).context("the diagrams are not text")
}
