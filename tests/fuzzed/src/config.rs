//! Files that a site writes: settings of scheduler and worker, rules of health, scenarios.

use std::path::Path;

use gotgan_core::health::{Rules, Signal};
use gotgan_sim::setup::{self, SetupError};

/// Whatever is read is checked as at a start. The first byte says what the rest is.
pub(crate) fn take(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = super::text_of(rest);
    match kind % 4 {
        0 => scheduler(&text),
        1 => worker(&text),
        2 => rules(&text),
        _ => scenario(&text),
    }
}

fn scheduler(text: &str) {
    use gotgan_scheduler::config::{Config, ConfigError};
    match Config::parse(Path::new("scheduler.toml"), text) {
        Err(error) => assert!(error.to_string().starts_with("scheduler.toml: ")),
        Ok(config) => match config.check() {
            Err(ConfigError::Value { key, message }) => {
                assert!(key.contains('.') && !message.is_empty());
            }
            Err(other) => panic!("a check says more than a value: {other}"),
            Ok(()) => {
                let _ = (config.policy.half_life(), config.database_url());
            }
        },
    }
}

fn worker(text: &str) {
    use gotgan_worker::config::Config;
    let Ok(config) = Config::parse(Path::new("worker.toml"), text) else { return };
    if let Err(error) = config.check() {
        assert!(!error.to_string().is_empty());
        return;
    }
    let _ = (config.all_labels(), config.retention(), config.reading_gap());
    assert!(config.reading_interval().as_millis() > 0);
}

/// A file of rules changes them, and every sign has a rule after it.
fn rules(text: &str) {
    if let Ok(rules) = Rules::default().changed_by(text) {
        for number in [0, 63, 1_000_000] {
            let _ = rules.of(Signal::Xid(number)).response.takes_out();
        }
    }
}

fn scenario(text: &str) {
    if let Err(SetupError::Faults(faults)) = setup::parse("a.toml", text) {
        assert!(!faults.is_empty());
    }
}
