//! Commands on their way to a shim, as bytes: written as the socket takes them, while events are read.

use std::io;

use crate::shim::protocol::{LINE_MAX_BYTES, ShimCommand, StepSpec, TaskSpec};

/// What is to be written to a shim.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Adds a command. Tasks whose line would be too long for a shim are replaced by their refusal.
    pub fn push(&mut self, command: &ShimCommand) -> io::Result<()> {
        let mut line = line(command, LINE_MAX_BYTES)?;
        self.bytes.append(&mut line);
        self.bytes.push(b'\n');
        Ok(())
    }

    /// What is not written yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many more bytes are written.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

fn line(command: &ShimCommand, max_bytes: usize) -> io::Result<Vec<u8>> {
    let line = serde_json::to_vec(command)?;
    match command {
        ShimCommand::StartTasks(step) if line.len() > max_bytes => {
            Ok(serde_json::to_vec(&ShimCommand::StartTasks(refused(step, line.len())))?)
        }
        _ => Ok(line),
    }
}

fn refused(step: &StepSpec, bytes: usize) -> StepSpec {
    let bare = |task: &TaskSpec| TaskSpec { rank: task.rank, ..TaskSpec::default() };
    StepSpec {
        step: step.step,
        tasks: step.tasks.iter().map(bare).collect(),
        refused: format!(
            "cannot start: arguments and environments of its tasks take {bytes} bytes; at most \
             {LINE_MAX_BYTES} can be passed on"
        ),
        ..StepSpec::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn step(argument_bytes: usize, tasks: u32) -> ShimCommand {
        let task = |rank| TaskSpec { rank, ..TaskSpec::default() };
        ShimCommand::StartTasks(StepSpec {
            step: 1,
            argv: vec!["x".repeat(argument_bytes)],
            tasks: (0..tasks).map(task).collect(),
            ..StepSpec::default()
        })
    }

    #[test]
    fn arguments_are_passed_on_once_however_many_tasks_there_are() {
        let mut outbox = Outbox::default();
        outbox.push(&step(1 << 20, 100)).unwrap();
        assert!(outbox.rest().len() < 2 << 20);
    }

    #[test]
    fn a_step_too_long_for_a_shim_is_refused_task_by_task() {
        let line = line(&step(1000, 2), 1000).unwrap();
        let command: ShimCommand = serde_json::from_slice(&line).unwrap();
        let ShimCommand::StartTasks(step) = command else { panic!("{command:?}") };
        assert_eq!((step.step, step.tasks.len()), (1, 2));
        assert!(step.refused.contains("bytes"), "{}", step.refused);
    }

    #[test]
    fn what_was_written_is_not_written_again() {
        let mut outbox = Outbox::default();
        outbox.push(&step(1, 1)).unwrap();
        let all = outbox.rest().to_vec();
        outbox.advance(3);
        assert_eq!(outbox.rest(), &all[3..]);
        outbox.advance(all.len() - 3);
        assert!(outbox.rest().is_empty());
    }
}
