//! Hardware that was out comes back once it has been well for a while; the site's own program repairs what it can.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use gotgan_core::health::Repair;
use gotgan_core::lifecycle::{self, Place, Repaired};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{Health, Timing};
use crate::flow::command::{FlowError, WriterHandle};

/// How much of what a repair says is read, and how much of that is shown.
const SAID_MAX_BYTES: u64 = 64 << 10;
const SHOWN_MAX: usize = 200;

/// Looks until the writer is gone.
pub async fn run(writer: WriterHandle, health: Health, timing: Timing) {
    let mut ticks = clock::every(Duration::from_millis(timing.repair_every_ms));
    let mut repairs =
        Repairs { writer, health, under_way: BTreeSet::new(), running: JoinSet::new() };
    loop {
        tokio::select! {
            biased;
            () = ticks.tick() => match repairs.look().await {
                Ok(()) | Err(FlowError::NotCommitted) => {}
                Err(FlowError::NotLeader | FlowError::Stopping) => return,
            },
            Some(ended) = repairs.running.join_next() => {
                // A repair that panicked is one that is tried again.
                if let Ok(place) = ended {
                    repairs.under_way.remove(&place);
                }
            }
        }
    }
}

/// Repairs by the site's own program.
struct Repairs {
    writer: WriterHandle,
    health: Health,
    under_way: BTreeSet<Place>,
    running: JoinSet<Place>,
}

impl Repairs {
    async fn look(&mut self) -> Result<(), FlowError> {
        let by_program = !self.health.repair_command.is_empty();
        let looked = self.writer.read(move |world| {
            let verifying = world.nodes.values().any(|node| node.health.is_verifying());
            (verifying, if by_program { lifecycle::due_repairs(world) } else { Vec::new() })
        });
        let (verifying, due) = looked.await?;
        if verifying {
            self.writer.write(|round| lifecycle::settle_verified(&mut round.draft)).await?;
        }
        for place in due {
            if self.running.len() < self.health.repairs_at_once && !self.under_way.contains(&place)
            {
                self.begin(place).await?;
            }
        }
        Ok(())
    }

    async fn begin(&mut self, place: Place) -> Result<(), FlowError> {
        let of = place.clone();
        let begun = self.writer.write(move |round| lifecycle::begin_repair(&mut round.draft, &of));
        let Some(repair) = begun.await? else { return Ok(()) };
        self.under_way.insert(place.clone());
        let (writer, health) = (self.writer.clone(), self.health.clone());
        self.running.spawn(async move {
            let outcome = carry_out(&health, &place, repair).await;
            tracing::info!(node = %place.node, repair = repair.word(), ?outcome, "a repair ended");
            let of = place.clone();
            let told = writer.write(move |round| {
                lifecycle::repaired(&mut round.draft, &of, &outcome);
            });
            // What was not committed is due still, and done again.
            let _ = told.await;
            place
        });
        Ok(())
    }
}

/// Runs the program: its own arguments, then the node, what is to be done, and the UUID of the GPU if it is about one.
async fn carry_out(health: &Health, place: &Place, repair: Repair) -> Repaired {
    let Some((program, arguments)) = health.repair_command.split_first() else {
        return Repaired::Failed("there is no program for it".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(place.node.as_str()).arg(repair.word());
    command.args(place.gpu.as_ref().map(|gpu| gpu.as_str()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Repaired::Failed(format!("{program}: {error}")),
    };
    let said = child.stderr.take();
    let ended = async {
        let said = last_line(said).await;
        (child.wait().await, said)
    };
    match tokio::time::timeout(Duration::from_secs(health.repair_timeout_s), ended).await {
        Ok((Ok(status), _)) if status.success() => Repaired::Done,
        Ok((Ok(status), said)) if said.is_empty() => Repaired::Failed(status.to_string()),
        Ok((Ok(_), said)) => Repaired::Failed(said),
        Ok((Err(error), _)) => Repaired::Failed(error.to_string()),
        Err(_) => Repaired::Failed(format!("not done within {} s", health.repair_timeout_s)),
    }
}

/// The last line of what a program says.
async fn last_line(said: Option<impl AsyncRead + Unpin>) -> String {
    let Some(said) = said else { return String::new() };
    let mut bytes = Vec::new();
    let mut said = said.take(SAID_MAX_BYTES);
    // Whatever could be read is what is shown.
    let _ = said.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default()
        .chars()
        .take(SHOWN_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_core::ids::{GpuUuid, NodeName};

    use super::*;

    fn by(script: &str) -> Health {
        let repair_command = ["/bin/sh", "-c", script, "repair"].map(str::to_owned).to_vec();
        Health { repair_command, repair_timeout_s: 5, ..Health::default() }
    }

    fn place() -> Place {
        let gpu = Some(GpuUuid::new("GPU-1").unwrap());
        Place { node: NodeName::new("gpu-17").unwrap(), gpu }
    }

    #[tokio::test]
    async fn the_program_is_told_the_node_what_is_to_be_done_and_the_gpu() {
        let script = r#"[ "$*" = "gpu-17 reset GPU-1" ]"#;
        assert_eq!(carry_out(&by(script), &place(), Repair::Reset).await, Repaired::Done);
        let outcome = carry_out(&by(script), &place(), Repair::Reboot).await;
        assert!(matches!(outcome, Repaired::Failed(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_repair_that_fails_says_why_by_the_last_line_of_its_errors() {
        let script = "echo first >&2; echo 'the board does not answer' >&2; exit 3";
        let outcome = carry_out(&by(script), &place(), Repair::Reset).await;
        assert_eq!(outcome, Repaired::Failed("the board does not answer".to_owned()));
    }

    #[tokio::test]
    async fn a_repair_that_hangs_is_given_up() {
        let health = Health { repair_timeout_s: 1, ..by("exec sleep 1000") };
        let outcome = carry_out(&health, &place(), Repair::Reset).await;
        assert_eq!(outcome, Repaired::Failed("not done within 1 s".to_owned()));
    }
}
