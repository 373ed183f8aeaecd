//! Caps of GPUs: the most that each may draw as long as an attempt holds it, set through the driver before the attempt starts and
//! taken back after it.
//!
//! A call of the driver may never come back, so a process of its own makes it ([`setter`]) and the daemon gives it up after a
//! while. Which GPU has which limit for whom is [`book`], a pure value; what a GPU has without a cap is written to a file before
//! the first one is set, so that whoever comes after this daemon can take it back. While there is no daemon caps stay, which is
//! the safe direction.

mod book;
pub mod setter;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gotgan_proto::v1::{self, RunAttempt};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::held::{AttemptKey, Image};
use book::Book;
use setter::{Setter, Setting};

/// What GPUs have without a cap, in the worker's state directory.
const FILE: &str = "power-limits.json";
const MW_PER_WATT: u32 = 1_000;

/// Section `[power]` of the worker's settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerConfig {
    /// Whether power limits of GPUs are set at all.
    pub set_limits: bool,
    /// The driver is given up after so long.
    pub limit_timeout_s: u64,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self { set_limits: true, limit_timeout_s: 30 }
    }
}

/// Whether GPUs of this node can be capped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ability {
    /// The site does not want it, or there is nothing to cap.
    Off,
    /// Why not.
    Unable(String),
    /// It was tried.
    Able,
}

/// Caps the GPUs of this node.
#[derive(Debug)]
pub struct Power {
    setter: Setter,
    file: PathBuf,
    ability: Ability,
    book: Mutex<Book>,
}

impl Power {
    /// Finds out whether GPUs can be capped, by setting each limit to what it is. GPUs that an earlier daemon capped are left
    /// as they are. Blocks.
    pub fn find(
        config: &PowerConfig,
        library: Option<String>,
        state: &Path,
        uuids: &[String],
    ) -> Self {
        let patience = Duration::from_secs(config.limit_timeout_s);
        let (setter, file) = (Setter { library, patience }, state.join(FILE));
        let mut book = Book::default();
        let ability = match (config.set_limits, uuids.is_empty()) {
            (true, false) => match look(&setter, &file, uuids) {
                Ok(rest_mw) => {
                    book = Book::of(rest_mw);
                    Ability::Able
                }
                Err(why) => Ability::Unable(why),
            },
            (false, _) | (true, true) => Ability::Off,
        };
        if let Ability::Unable(why) = &ability {
            tracing::warn!(why, "GPUs of this node cannot be capped");
        }
        Self { setter, file, ability, book: Mutex::new(book) }
    }

    /// Of a node that has no GPUs of its own, or invented ones.
    pub fn unable(why: Option<&str>) -> Self {
        let ability = why.map_or(Ability::Off, |why| Ability::Unable(why.to_owned()));
        let setter = Setter { library: None, patience: Duration::ZERO };
        Self { setter, file: PathBuf::new(), ability, book: Mutex::default() }
    }

    /// As it is registered.
    pub fn reported(&self) -> v1::PowerCaps {
        match &self.ability {
            Ability::Off => v1::PowerCaps::default(),
            Ability::Unable(why) => v1::PowerCaps { able: false, missing: why.clone() },
            Ability::Able => v1::PowerCaps { able: true, missing: String::new() },
        }
    }

    /// Takes over from an earlier daemon: GPUs that an attempt of the journal holds are capped for it, all others as they were
    /// before anybody capped them. After a reboot no attempt holds any.
    pub async fn take_over(&self, image: &Image, rebooted: bool) {
        if self.ability != Ability::Able {
            return;
        }
        let mut book = self.book.lock().await;
        for held in image.attempts.values().filter(|held| held.accepted && !held.ended && !rebooted)
        {
            let order = held.order.as_deref().filter(|order| order.gpu_cap_watts > 0);
            if let Some(order) = order {
                book.hold(held.key, &uuids(order), cap_mw(order));
            }
        }
        let all = book.known();
        if let Err(why) = self.set(&mut book, &all).await {
            // Whatever asks for a cap there is refused, and whoever needs none is slower than need be.
            tracing::error!(why, "power limits of an earlier run are not as they should be");
        }
    }

    /// Caps the GPUs of an attempt and reads back what is in force.
    ///
    /// # Errors
    /// Why the node is not fit, for a person.
    pub async fn cap(&self, order: &RunAttempt) -> Result<(), String> {
        if order.gpu_cap_watts == 0 {
            return Ok(());
        }
        if let Ability::Off | Ability::Unable(_) = &self.ability {
            return Err(format!("GPUs of this node cannot be capped: {:?}", self.ability));
        }
        let mut book = self.book.lock().await;
        let gpus = uuids(order);
        book.hold(AttemptKey::new(order.job_id, order.attempt), &gpus, cap_mw(order));
        self.set(&mut book, &gpus).await
    }

    /// Takes the caps of an attempt back, where no other holds the same GPU.
    ///
    /// # Errors
    /// Why the node is not fit, for a person.
    pub async fn release(&self, key: AttemptKey) -> Result<(), String> {
        let mut book = self.book.lock().await;
        let gpus = book.release(key);
        if gpus.is_empty() { Ok(()) } else { self.set(&mut book, &gpus).await }
    }

    /// Brings the limits of these GPUs to what the book says. What they have without a cap is on disk before one is set, and
    /// is struck out once none is.
    async fn set(&self, book: &mut Book, gpus: &BTreeSet<String>) -> Result<(), String> {
        let wanted = book.settings(gpus);
        if wanted.is_empty() {
            return Ok(());
        }
        let not_written =
            |error: io::Error| format!("cannot write {}: {error}", self.file.display());
        book.touch(&wanted);
        write(&self.file, &book.touched()).map_err(not_written)?;
        let (setter, ordered) = (self.setter.clone(), wanted.clone());
        let asking = tokio::task::spawn_blocking(move || setter.set(&ordered));
        let found = asking.await.map_err(|error| error.to_string())??;
        book.judge(&wanted, &found)?;
        book.settle(&wanted);
        write(&self.file, &book.touched()).map_err(not_written)
    }
}

fn uuids(order: &RunAttempt) -> BTreeSet<String> {
    order.gpus.iter().map(|gpu| gpu.uuid.clone()).collect()
}

fn cap_mw(order: &RunAttempt) -> u32 {
    order.gpu_cap_watts.saturating_mul(MW_PER_WATT)
}

/// What every GPU has without a cap, in milliwatts: what was written down, else what it has.
fn look(setter: &Setter, file: &Path, uuids: &[String]) -> Result<BTreeMap<String, Rest>, String> {
    let written = read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let as_is: Vec<Setting> =
        uuids.iter().map(|uuid| Setting { uuid: uuid.clone(), limit_mw: None }).collect();
    let mut rest = BTreeMap::new();
    for answer in setter.set(&as_is)? {
        if let Some(why) = answer.error {
            return Err(format!("GPU {}: {why}", answer.uuid));
        }
        let before = written.get(&answer.uuid).copied();
        let limit_mw = before.unwrap_or(answer.before_mw);
        rest.insert(answer.uuid, Rest { limit_mw, touched: before.is_some() });
    }
    match rest.len() == uuids.len() {
        true => Ok(rest),
        false => Err("the driver did not answer for every GPU".to_owned()),
    }
}

/// What a GPU has without a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    limit_mw: u32,
    /// It may have something else.
    touched: bool,
}

fn read(file: &Path) -> io::Result<BTreeMap<String, u32>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, and on disk.
fn write(file: &Path, limits: &BTreeMap<String, u32>) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let mut out = File::create(&fresh)?;
    out.write_all(serde_json::to_string(limits)?.as_bytes())?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    let directory = file.parent().unwrap_or(Path::new("/"));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_a_file_that_is_no_such_list_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        assert_eq!(read(&file).unwrap(), BTreeMap::new());
        let limits = BTreeMap::from([("GPU-1".to_owned(), 700_000)]);
        write(&file, &limits).unwrap();
        assert_eq!(read(&file).unwrap(), limits);
        fs::write(&file, "700").unwrap();
        assert!(read(&file).is_err());
    }

    #[tokio::test]
    async fn where_nothing_can_be_capped_an_order_that_asks_for_it_is_refused() {
        let power = Power::unable(Some("its GPUs are invented"));
        let order = RunAttempt { gpu_cap_watts: 500, ..RunAttempt::default() };
        assert!(power.cap(&order).await.unwrap_err().contains("invented"));
        power.cap(&RunAttempt::default()).await.unwrap();
        assert_eq!(power.reported().missing, "its GPUs are invented");
        assert_eq!(Power::unable(None).reported(), v1::PowerCaps::default());
    }
}
