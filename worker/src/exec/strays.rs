//! Shims that run though the journal does not know them: after damage, or a journal that was moved away.
//!
//! The scheduler would give their GPUs to others, since this node does not name them when it registers. So they are
//! ended before it does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gotgan_proto::v1::Cause;
use tokio::sync::mpsc;

use super::shim_client::{ShimClient, connect};
use crate::held::AttemptKey;
use crate::shim::protocol::ShimCommand;

/// Time that their tasks have between TERM and KILL.
const GRACE_MS: u64 = 10_000;

/// Ends every attempt of this directory that lives and is not `held`, and waits until nothing is left of it.
pub async fn end(attempts: &Path, held: &BTreeSet<AttemptKey>) {
    let mut ends = Vec::new();
    for directory in unknown(attempts, held) {
        // A directory is kept long after its attempt: most of them have nobody to connect to.
        if connect(&directory).await.is_ok() {
            tracing::warn!(directory = %directory.display(), "ending an attempt not in the journal");
            ends.push(tokio::spawn(end_one(directory)));
        }
    }
    for end in ends {
        if let Err(error) = end.await {
            tracing::error!(%error, "could not end an attempt not in the journal");
        }
    }
}

fn unknown(attempts: &Path, held: &BTreeSet<AttemptKey>) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(attempts) else {
        return Vec::new();
    };
    let directories = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let key = AttemptKey::from_directory_name(entry.file_name().to_str()?)?;
        (!held.contains(&key)).then(|| entry.path())
    });
    directories.collect()
}

async fn end_one(directory: PathBuf) {
    let (commands, inbox) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(1);
    let stop = ShimCommand::Stop {
        cause: Cause::Node.into(),
        reason: "the node has lost its record of it".into(),
        grace_ms: GRACE_MS,
        warn: false,
    };
    let client = ShimClient::new(directory, 0, sender, inbox);
    // There is room for one command, and nobody to report the events to.
    let _ = commands.send(stop).await;
    let dropping = async { while events.recv().await.is_some() {} };
    tokio::join!(client.follow_to_the_end(), dropping);
}
