//! `gotgan config`: what is in force and where it comes from, without secrets. Asks no scheduler.

use clap::Args;
use serde::Serialize;

use crate::{
    config::{Settings, Sourced},
    context::Context,
    error::{Error, Exit},
    output::table::{Table, column, fields},
};

/// Show the configuration in force, without secrets
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ConfigCommand {}

const EXAMPLES: &str = "\
Example:
  gotgan config

The configuration file is ~/.config/gotgan/config.toml, or the one GOTGAN_CONFIG names:
  server = \"https://scheduler.example:7443\"
  ca = \"/etc/gotgan/ca.pem\"
  token_file = \"/home/kim/.config/gotgan/token\"
Flags win over variables, variables over the file.";

#[derive(Serialize)]
struct View {
    config_file: Option<String>,
    config_file_found: bool,
    server: Sourced,
    ca: Sourced,
    token_file: Sourced,
    token: &'static str,
    insecure: bool,
}

impl ConfigCommand {
    pub(crate) fn run(self, context: &Context) -> Result<u8, Error> {
        let view = view(context.settings()?);
        let output = &context.output;
        if output.json {
            output.document("gotgan.config/1", &view)?;
            return Ok(Exit::Ok.code());
        }
        let found = if view.config_file_found { "" } else { " (not there)" };
        let path = view.config_file.clone().unwrap_or_default();
        output.text(&fields(&[("Config file", format!("{path}{found}"))]))?;
        let mut table =
            Table::new(&[column("SETTING"), column("VALUE").shrink(12), column("FROM")]);
        for (name, setting) in
            [("server", &view.server), ("ca", &view.ca), ("token_file", &view.token_file)]
        {
            let value = setting.value.clone().unwrap_or_else(|| "-".to_owned());
            table.row([name.to_owned(), value, setting.source.to_owned()]);
        }
        table.row(["token".to_owned(), "(not shown)".to_owned(), view.token.to_owned()]);
        output.table(&table)?;
        Ok(Exit::Ok.code())
    }
}

fn view(settings: Settings) -> View {
    let token = match (&settings.token, &settings.token_file.value) {
        (Some(_), _) => settings.token_source,
        (None, Some(_)) => "token file",
        (None, None) => "not set",
    };
    View {
        config_file: settings.config_path.map(|path| path.display().to_string()),
        config_file_found: settings.config_found,
        server: settings.server,
        ca: settings.ca,
        token_file: settings.token_file,
        token,
        insecure: settings.insecure,
    }
}
