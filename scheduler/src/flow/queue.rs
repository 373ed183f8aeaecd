//! The writer's queue: what is in it becomes the next round.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::command::Command;
use super::gathering::{Gathering, Wait};
use crate::clock;

/// Commands waiting for the writer; past that, callers wait in turn, which slows them and nobody else.
const QUEUE_MAX: usize = 8_192;

/// Commands drafted into one transaction; more only makes the first wait longer for its answer.
const ROUND_MAX: usize = 2_048;

/// Commands that wait, and what was learned of those who send them.
#[derive(Debug)]
pub(super) struct Queue {
    commands: mpsc::Receiver<Command>,
    gathering: Gathering,
}

impl Queue {
    /// An empty one, and the end that fills it.
    pub fn new() -> (mpsc::Sender<Command>, Self) {
        let (sender, commands) = mpsc::channel(QUEUE_MAX);
        (sender, Queue { commands, gathering: Gathering::default() })
    }

    /// What is in it.
    pub fn ready(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        while commands.len() < ROUND_MAX
            && let Ok(next) = self.commands.try_recv()
        {
            commands.push(next);
        }
        commands
    }

    /// Waits for the first; there is none if nobody is left to send one.
    pub async fn first(&mut self, commands: &mut Vec<Command>) {
        self.commands.recv_many(commands, ROUND_MAX).await;
    }

    /// Whether a round with so many commands waits for the rest of `callers`: those in the queue and those answered last.
    pub fn wait(&mut self, commands: usize, callers: usize) -> Option<Wait> {
        self.gathering.wait(commands, callers.min(ROUND_MAX))
    }

    /// Waits for callers that were answered at `answered`.
    pub async fn rest(&mut self, commands: &mut Vec<Command>, wait: Wait, answered: Instant) {
        let mut last = None;
        let end = clock::sleep(wait.limit.saturating_sub(clock::since(answered)));
        tokio::pin!(end);
        while commands.len() < wait.commands {
            let room = ROUND_MAX - commands.len();
            tokio::select! {
                biased;
                more = self.commands.recv_many(commands, room) => match more {
                    0 => break,
                    _ => last = Some(clock::since(answered)),
                },
                () = &mut end => break,
            }
        }
        self.gathering.waited(wait, commands.len(), last);
    }

    /// Notes how long a commit of so many changes took.
    pub fn committed(&mut self, changes: usize, took: Duration) {
        self.gathering.committed(changes, took);
    }

    /// For another to take them.
    pub fn into_commands(self) -> mpsc::Receiver<Command> {
        self.commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1);

    fn look() -> Command {
        Command::Read(Box::new(|_| {}))
    }

    async fn send(sender: &mpsc::Sender<Command>, commands: usize) {
        for _ in 0..commands {
            sender.send(look()).await.expect("the queue is there");
        }
    }

    #[tokio::test]
    async fn what_is_waited_for_is_in_the_round() {
        let (sender, mut queue) = Queue::new();
        let mut commands = vec![look()];
        let wait = Wait { commands: 3, limit: Duration::from_secs(3_600) };
        let rest = queue.rest(&mut commands, wait, clock::instant());
        tokio::join!(rest, send(&sender, 2));
        assert_eq!(commands.len(), 3);
    }

    #[tokio::test]
    async fn who_does_not_come_in_time_is_in_the_next_round() {
        let (sender, mut queue) = Queue::new();
        send(&sender, 1).await;
        let mut commands = queue.ready();
        queue.rest(&mut commands, Wait { commands: 2, limit: LIMIT }, clock::instant()).await;
        assert_eq!(commands.len(), 1);
        send(&sender, 1).await;
        assert_eq!(queue.ready().len(), 1);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_when_nobody_is_left_to_come() {
        let (sender, mut queue) = Queue::new();
        drop(sender);
        let mut commands = vec![look()];
        let wait = Wait { commands: 2, limit: Duration::from_secs(3_600) };
        queue.rest(&mut commands, wait, clock::instant()).await;
        assert_eq!(commands.len(), 1);
    }

    #[tokio::test]
    async fn no_round_is_waited_for_beyond_its_size() {
        let (sender, mut queue) = Queue::new();
        send(&sender, ROUND_MAX + 1).await;
        let commands = queue.ready();
        assert_eq!(commands.len(), ROUND_MAX);
        queue.committed(2, Duration::from_millis(1));
        assert_eq!(queue.wait(commands.len(), 2 * ROUND_MAX), None);
    }
}
