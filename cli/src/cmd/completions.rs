//! `gotgan completions`: the script that teaches a shell our words.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    args::Cli,
    context::Context,
    error::{Error, Exit},
};

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gotgan completions bash > ~/.local/share/bash-completion/completions/gotgan\n  gotgan completions zsh > ~/.zfunc/_gotgan"
)]
pub struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gotgan", &mut script);
        context.output.text(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Ok.code())
    }
}
