//! Where the scheduler is and who we are to it: flags over environment over the configuration file.
//!
//! Resolving is pure (the environment is a function); only `load` touches the disk.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{args::Global, error::Error};

/// Bundles of public authorities as Debian and Red Hat install them, used when no CA is named.
const SYSTEM_BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The configuration file's content.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    server: Option<Servers>,
    ca: Option<String>,
    token_file: Option<String>,
}

/// One address, several with commas, or a list.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged, expecting = "an address, or a list of addresses")]
enum Servers {
    One(String),
    Several(Vec<String>),
}

impl Servers {
    fn text(self) -> String {
        match self {
            Self::One(server) => server,
            Self::Several(servers) => servers.join(","),
        }
    }
}

/// A setting with where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sourced {
    pub value: Option<String>,
    /// A flag, a variable, "config file", or "not set".
    pub source: &'static str,
}

/// A bearer token; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Everything that is in force, not yet read or checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub server: Sourced,
    pub ca: Sourced,
    pub token_file: Sourced,
    /// Given directly; wins over the file of the same source.
    pub token: Option<Secret>,
    pub token_source: &'static str,
    pub config_path: Option<PathBuf>,
    pub config_found: bool,
    pub insecure: bool,
}

impl Settings {
    /// Settings of these flags, the process's environment and the configuration file.
    ///
    /// # Errors
    /// When the configuration file is there but cannot be read or is malformed.
    pub fn load(flags: &Global) -> Result<Self, Error> {
        let lookup = |key: &str| std::env::var(key).ok().filter(|value| !value.is_empty());
        let path = config_path(&lookup);
        let text = match &path {
            Some(path) => match fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(problem) if problem.kind() == io::ErrorKind::NotFound => None,
                Err(source) => {
                    return Err(Error::File { path: path.display().to_string(), source });
                }
            },
            None => None,
        };
        let found = text.is_some();
        let file = parse_config(&text.unwrap_or_default()).map_err(|problem| {
            let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            Error::invalid(format!("{path}: {problem}"), "its keys are server, ca and token_file")
        })?;
        Ok(Self { config_path: path, config_found: found, ..Self::resolve(flags, lookup, file) })
    }

    fn resolve(flags: &Global, lookup: impl Fn(&str) -> Option<String>, file: ConfigFile) -> Self {
        let pick = |flag: (&Option<String>, &'static str),
                    variable: &'static str,
                    file: Option<String>| {
            if let Some(value) = flag.0 {
                return Sourced { value: Some(value.clone()), source: flag.1 };
            }
            if let Some(value) = lookup(variable) {
                return Sourced { value: Some(value), source: variable };
            }
            let source = if file.is_some() { "config file" } else { "not set" };
            Sourced { value: file, source }
        };
        let (token, token_source) = direct_token(flags, &lookup);
        Self {
            server: pick(
                (&flags.server, "--server"),
                "GOTGAN_SERVER",
                file.server.map(Servers::text),
            ),
            ca: pick((&flags.ca, "--ca"), "GOTGAN_CA", file.ca),
            token_file: pick(
                (&flags.token_file, "--token-file"),
                "GOTGAN_TOKEN_FILE",
                file.token_file,
            ),
            token,
            token_source,
            config_path: None,
            config_found: false,
            insecure: flags.insecure,
        }
    }

    /// The addresses of the schedulers, at least one.
    ///
    /// # Errors
    /// When none is set, one is malformed, or one is without TLS and that was not asked for.
    pub fn servers(&self) -> Result<Vec<String>, Error> {
        let text = self.server.value.as_deref().unwrap_or_default();
        let servers: Vec<String> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if servers.is_empty() {
            return Err(Error::invalid(
                "no scheduler is named",
                "set GOTGAN_SERVER=https://HOST:PORT, give --server, or write `server` into the configuration file (`gotgan config` shows which)",
            ));
        }
        for server in &servers {
            self.check_server(server)?;
        }
        Ok(servers)
    }

    fn check_server(&self, server: &str) -> Result<(), Error> {
        if server.starts_with("https://") {
            return Ok(());
        }
        if !server.starts_with("http://") {
            return Err(Error::invalid(
                format!("{server} is not an address (from {})", self.server.source),
                "write https://HOST:PORT",
            ));
        }
        if self.insecure {
            return Ok(());
        }
        Err(Error::invalid(
            format!(
                "REFUSED: {server} is not encrypted; your token would cross the network for all to read"
            ),
            "use https://, or --insecure if that is what you want",
        ))
    }

    /// The token to send, if there is one.
    ///
    /// # Errors
    /// When the token file cannot be read, or the token has other than printable characters.
    pub fn token(&self) -> Result<Option<Secret>, Error> {
        let text = match (&self.token, &self.token_file.value) {
            (Some(token), _) => token.0.clone(),
            (None, Some(path)) => read_file(path)?,
            (None, None) => return Ok(None),
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::invalid(
                "the token is empty or has characters that no token has",
                "it is the one line that `gotgan admin token create` printed",
            ));
        }
        Ok(Some(Secret(token.to_owned())))
    }

    /// The certificates of the authorities to believe, in PEM.
    ///
    /// # Errors
    /// When the file cannot be read, or none is named and the system has none.
    pub fn ca_pem(&self) -> Result<String, Error> {
        let Some(value) = &self.ca.value else {
            let system = SYSTEM_BUNDLES.iter().find_map(|path| fs::read_to_string(path).ok());
            return system.ok_or_else(|| {
                Error::invalid(
                    "no CA is named and the system has none",
                    "give --ca FILE or set GOTGAN_CA",
                )
            });
        };
        // The value itself may be the certificate, where a file is hard to place (containers).
        let pem = if value.starts_with("-----BEGIN") { value.clone() } else { read_file(value)? };
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Error::invalid(
                format!("the CA (from {}) holds no certificate in PEM", self.ca.source),
                "it is the file ca.pem that the scheduler wrote when it first started",
            ));
        }
        Ok(pem)
    }
}

/// A token given as such; a flag for a token file beats a variable with a token.
fn direct_token(
    flags: &Global,
    lookup: &impl Fn(&str) -> Option<String>,
) -> (Option<Secret>, &'static str) {
    if let Some(token) = &flags.token {
        return (Some(Secret(token.clone())), "--token");
    }
    if flags.token_file.is_some() {
        return (None, "token file");
    }
    match lookup("GOTGAN_TOKEN") {
        Some(token) => (Some(Secret(token)), "GOTGAN_TOKEN"),
        None => (None, "token file"),
    }
}

fn config_path(lookup: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = lookup("GOTGAN_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let base = lookup("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| lookup("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("gotgan/config.toml"))
}

fn parse_config(text: &str) -> Result<ConfigFile, String> {
    toml::from_str(text).map_err(|problem| problem.message().to_owned())
}

fn read_file(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn environment(key: &str) -> Option<String> {
        match key {
            "GOTGAN_SERVER" => Some("https://environment:1".to_owned()),
            "GOTGAN_TOKEN" => Some("secret".to_owned()),
            "HOME" => Some("/home/min".to_owned()),
            _ => None,
        }
    }

    fn file() -> ConfigFile {
        parse_config("server = \"https://file:1\"\nca = \"/ca.pem\"\ntoken_file = \"/token\"")
            .unwrap()
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let settings = Settings::resolve(&Global::default(), environment, file());
        assert_eq!(settings.servers().unwrap(), ["https://environment:1"]);
        assert_eq!(
            (settings.ca.value.as_deref(), settings.ca.source),
            (Some("/ca.pem"), "config file")
        );
        assert_eq!(settings.token().unwrap(), Some(Secret("secret".to_owned())));
        let flags = Global {
            server: Some("https://flag:1, https://flag:2".to_owned()),
            token_file: Some("/nowhere/token".to_owned()),
            ..Global::default()
        };
        let settings = Settings::resolve(&flags, environment, file());
        assert_eq!(settings.servers().unwrap(), ["https://flag:1", "https://flag:2"]);
        assert!(matches!(settings.token(), Err(Error::File { .. })));
    }

    #[test]
    fn an_address_without_encryption_is_refused_unless_asked_for() {
        let plain = Some("http://here:1".to_owned());
        let flags = Global { server: plain.clone(), ..Global::default() };
        let settings = Settings::resolve(&flags, |_| None, ConfigFile::default());
        assert!(settings.servers().unwrap_err().to_string().starts_with("REFUSED"));
        let flags = Global { server: plain, insecure: true, ..Global::default() };
        let settings = Settings::resolve(&flags, |_| None, ConfigFile::default());
        assert_eq!(settings.servers().unwrap(), ["http://here:1"]);
    }

    #[test]
    fn the_file_may_list_several_schedulers() {
        let listed = parse_config("server = [\"https://a:1\", \"https://b:1\"]").unwrap();
        let commas = parse_config("server = \"https://a:1, https://b:1\"").unwrap();
        for file in [listed, commas] {
            let settings = Settings::resolve(&Global::default(), |_| None, file);
            assert_eq!(settings.servers().unwrap(), ["https://a:1", "https://b:1"]);
        }
        assert!(parse_config("server = 1").unwrap_err().contains("a list of addresses"));
    }

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(format!("{:?}", Secret("abc".to_owned())), "Secret(…)");
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused() {
        assert!(parse_config("servr = 1").is_err());
        assert_eq!(config_path(&environment), Some("/home/min/.config/gotgan/config.toml".into()));
    }
}
