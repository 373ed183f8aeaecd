//! The one task that owns all attempts: events in, the state machine's effects out.
//!
//! Effects wait until the journal has the records they rest on; as the journal is one queue, they are carried out in
//! the order they were decided. Nothing here blocks on a peer: commands to shims and reports to the scheduler go
//! through bounded queues that are filled as there is room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_proto::v1::{
    self, HeldAttempt, RunAttempt, WorkerMessage, scheduler_message::Message as Order,
    worker_message::Message,
};
use tokio::sync::mpsc;

use crate::attempt::{Attempt, Effect, Event, Phase, Refusal};
use crate::clock::now_us;
use crate::exec::launcher::Launcher;
use crate::exec::shim_client::{Followed, ShimClient};
use crate::exec::{self, NodeContext};
use crate::handle::{Attached, Handle, Input};
use crate::held::{AttemptKey, Entry, Image};
use crate::journal::{Journal, JournalError};
use crate::orders::{epoch_of, event_of, needs_sync};
use crate::shim::protocol::{EventLine, ShimCommand, ShimSpec};

/// Inputs waiting for the supervisor; senders wait when it is full.
const INBOX: usize = 1024;
/// Reports handed to a session and not yet on the wire.
const SESSION_QUEUE: usize = 1024;
/// Commands waiting for one shim; more than the steps a scheduler starts before it looks at their reports.
const SHIM_COMMANDS: usize = 256;
/// Events of one shim waiting for the supervisor.
const SHIM_EVENTS: usize = 64;
/// A report not acknowledged for this long is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// What a node has to give, in thousandths of each GPU.
pub type GpuMilli = BTreeMap<String, u32>;

/// Owner of all attempts of this node.
#[derive(Debug)]
pub struct Supervisor {
    context: Arc<NodeContext>,
    launcher: Launcher,
    journal: Journal,
    /// GPUs of this node by UUID; what is ordered must be among them and free.
    gpus: GpuMilli,
    epoch: u64,
    attempts: BTreeMap<AttemptKey, Attempt>,
    /// Attempts whose GPUs were found free when they came.
    claims: BTreeSet<AttemptKey>,
    shims: BTreeMap<AttemptKey, mpsc::Sender<ShimCommand>>,
    /// Effects waiting for a batch of the journal.
    waiting: VecDeque<(u64, AttemptKey, Vec<Effect>)>,
    session: Option<mpsc::Sender<WorkerMessage>>,
    /// Reports for the session that its queue had no room for yet.
    backlog: VecDeque<v1::Report>,
    /// When an attempt with reports that are not acknowledged was last acknowledged or sent from the first on.
    heard_at: BTreeMap<AttemptKey, Instant>,
    handle: Handle,
}

impl Supervisor {
    /// Takes over what the journal remembers. `boot_id` is of the running system.
    pub async fn start(
        context: NodeContext,
        launcher: Launcher,
        (journal, image): (Journal, Image),
        gpus: GpuMilli,
        boot_id: &str,
    ) -> Result<(Handle, impl Future<Output = Result<(), JournalError>>), JournalError> {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let handle = Handle { inbox };
        let rebooted = !image.boot_id.is_empty() && image.boot_id != boot_id;
        let remembered = |(key, held)| (key, Attempt::remembered(held));
        let mut supervisor = Self {
            context: Arc::new(context),
            launcher,
            journal,
            gpus,
            epoch: image.epoch,
            claims: claimed(&image),
            attempts: image.attempts.into_iter().map(remembered).collect(),
            shims: BTreeMap::new(),
            waiting: VecDeque::new(),
            session: None,
            backlog: VecDeque::new(),
            heard_at: BTreeMap::new(),
            handle: handle.clone(),
        };
        for key in supervisor.attempts.keys().copied().collect::<Vec<_>>() {
            supervisor.happen(key, Event::Recovered { rebooted }).await?;
        }
        // After the ends that a reboot has caused: before them, a crash between the two would lose these.
        supervisor.journal.append(vec![Entry::Boot(boot_id.to_owned())], true).await?;
        Ok((handle, supervisor.run(inputs)))
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), JournalError> {
        let mut durable = self.journal.durable();
        let mut tick = tokio::time::interval(RESEND_AFTER / 4);
        loop {
            let session = self.session.clone();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.take(input).await?,
                    None => return Ok(()),
                },
                changed = durable.changed() => {
                    changed.map_err(|_| JournalError::Stopped)?;
                    let number = *durable.borrow_and_update();
                    self.carry_out_up_to(number);
                }
                permit = reserve(session), if !self.backlog.is_empty() => self.send_next(permit),
                _ = tick.tick() => self.resend_if_due(),
            }
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), JournalError> {
        match input {
            Input::Order(order) => self.obey(order).await?,
            // What is told of an attempt after it was dropped must not bring it back.
            Input::Event(key, event) if self.attempts.contains_key(&key) => {
                self.happen(key, *event).await?;
            }
            Input::Event(..) => {}
            Input::Attach(answer) => {
                // Whoever asked and is gone again leaves a closed queue, found by the next send.
                let _ = answer.send(self.attach());
            }
            Input::Running(answer) => {
                let _ = answer.send(self.running());
            }
            Input::Held(answer) => {
                let _ = answer.send(self.attempts.keys().copied().collect());
            }
            Input::IsLive(key, answer) => {
                let live = self.attempts.get(&key).is_some_and(|a| a.phase != Phase::Ended);
                let _ = answer.send(live);
            }
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), JournalError> {
        if let Some(epoch) = epoch_of(&order) {
            if epoch < self.epoch {
                tracing::warn!(epoch, newest = self.epoch, "refused an order of an older leader");
                return Ok(());
            }
            if epoch > self.epoch {
                self.epoch = epoch;
                self.journal.append(vec![Entry::Epoch(epoch)], false).await?;
            }
        }
        let Some((key, event)) = event_of(order) else {
            return Ok(());
        };
        if let Event::Acked(seq) = event
            && self.first_open(key).is_some_and(|first| first <= seq)
        {
            self.heard_at.insert(key, Instant::now());
        }
        self.happen_to_known(key, event).await
    }

    /// Only two orders may name an attempt not heard of: the one that brings it, and a stop that came first.
    async fn happen_to_known(&mut self, key: AttemptKey, event: Event) -> Result<(), JournalError> {
        let creates = matches!(event, Event::Ordered(_) | Event::StopOrdered(_));
        if !self.attempts.contains_key(&key) && !creates {
            if !matches!(event, Event::Acked(_) | Event::ForgetOrdered) {
                tracing::warn!(?key, "ignored an order for an attempt not held here");
            }
            return Ok(());
        }
        self.happen(key, event).await
    }

    async fn happen(&mut self, key: AttemptKey, event: Event) -> Result<(), JournalError> {
        let attempt = self.attempts.remove(&key).unwrap_or_else(|| Attempt::new(key));
        let (attempt, effects) = attempt.transition(event, now_us());
        self.attempts.insert(key, attempt);
        if effects.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(entry) => records.push(entry),
                other => rest.push(other),
            }
        }
        let sync = records.iter().any(needs_sync);
        let number = self.journal.append(records, sync).await?;
        if !rest.is_empty() {
            self.waiting.push_back((number, key, rest));
        }
        Ok(())
    }

    fn carry_out_up_to(&mut self, durable: u64) {
        while self.waiting.front().is_some_and(|(number, ..)| *number <= durable) {
            if let Some((_, key, effects)) = self.waiting.pop_front() {
                effects.into_iter().for_each(|effect| self.carry_out(key, effect));
            }
        }
    }

    fn carry_out(&mut self, key: AttemptKey, effect: Effect) {
        match effect {
            Effect::Persist(_) => {}
            Effect::Send(report) => self.backlog.push_back(report),
            Effect::Prepare => self.prepare(key),
            Effect::Attach { launch } => self.attach_shim(key, launch),
            Effect::StartTasks(tasks) => {
                if let Some(order) = self.order(key) {
                    let command = exec::start_tasks_command(&self.context, order, &tasks);
                    self.command(key, command);
                }
            }
            Effect::Stop(stop) => self.command(key, exec::stop_command(&stop)),
            Effect::Drop => self.drop_attempt(key),
        }
    }

    /// Number of the first report that is not acknowledged.
    fn first_open(&self, key: AttemptKey) -> Option<u64> {
        Some(self.attempts.get(&key)?.held.reports.first()?.seq)
    }

    fn order(&self, key: AttemptKey) -> Option<&RunAttempt> {
        self.attempts.get(&key)?.held.order.as_deref()
    }

    fn drop_attempt(&mut self, key: AttemptKey) {
        self.attempts.remove(&key);
        self.shims.remove(&key);
        self.claims.remove(&key);
        self.heard_at.remove(&key);
    }

    fn prepare(&mut self, key: AttemptKey) {
        let Some(order) = self.order(key).cloned() else {
            return;
        };
        let checked = self.claim(key, &order);
        let (context, handle) = (self.context.clone(), self.handle.clone());
        tokio::spawn(async move {
            let prepare = move || checked.and_then(|()| exec::prepare(&context, &order));
            let failed = |error: tokio::task::JoinError| Refusal {
                cause: v1::Cause::Node,
                reason: error.to_string(),
            };
            let result =
                tokio::task::spawn_blocking(prepare).await.map_err(failed).and_then(|done| done);
            // Fails only when the daemon ends; the next one prepares again.
            let _ = handle.tell(Input::Event(key, Box::new(Event::Prepared(result)))).await;
        });
    }

    /// The last guard against a GPU in two attempts: what is ordered must be here and free.
    fn claim(&mut self, key: AttemptKey, order: &RunAttempt) -> Result<(), Refusal> {
        for wanted in &order.gpus {
            let Some(has_milli) = self.gpus.get(&wanted.uuid) else {
                let reason = format!("this node has no GPU {}", wanted.uuid);
                return Err(Refusal { cause: v1::Cause::Hardware, reason });
            };
            let used_milli = self.used_milli(key, &wanted.uuid);
            if used_milli.saturating_add(wanted.milli) > *has_milli {
                let reason = format!("GPU {} is in use by another attempt", wanted.uuid);
                return Err(Refusal { cause: v1::Cause::Node, reason });
            }
        }
        self.claims.insert(key);
        Ok(())
    }

    fn used_milli(&self, key: AttemptKey, uuid: &str) -> u32 {
        let others = self.claims.iter().filter(|other| **other != key);
        let attempts = others.filter_map(|other| self.attempts.get(other));
        let live = attempts.filter(|attempt| attempt.phase != Phase::Ended);
        let orders = live.filter_map(|attempt| attempt.held.order.as_ref());
        let gpus = orders.flat_map(|order| &order.gpus).filter(|gpu| gpu.uuid == uuid);
        gpus.map(|gpu| gpu.milli).sum()
    }

    fn attach_shim(&mut self, key: AttemptKey, launch: bool) {
        let Some(order) = self.order(key).cloned() else {
            return;
        };
        let seen = self.attempts.get(&key).map_or(0, |attempt| attempt.held.shim_seen);
        let (commands, inbox) = mpsc::channel(SHIM_COMMANDS);
        self.shims.insert(key, commands);
        let (events, seen_events) = mpsc::channel(SHIM_EVENTS);
        let directory = self.context.directory(key);
        let client = ShimClient::new(directory, seen, events, inbox);
        let (context, launcher) = (self.context.clone(), self.launcher.clone());
        let passing = tokio::spawn(pass_events_on(key, seen_events, self.handle.clone()));
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let followed = match spec_of(launch, context, order).await {
                Ok(spec) => client.run(&launcher, spec).await,
                Err(reason) => Followed::Lost(reason),
            };
            // Its loss must not overtake what it said before.
            let _ = passing.await;
            if let Followed::Lost(reason) = followed {
                let lost = Input::Event(key, Box::new(Event::ShimLost(reason)));
                let _ = handle.tell(lost).await;
            }
        });
    }

    fn command(&self, key: AttemptKey, command: ShimCommand) {
        let Some(shim) = self.shims.get(&key).cloned() else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(command)) = shim.try_send(command) {
            // Rare: a shim that is slow to come up. Waiting here would hold up every other attempt.
            tokio::spawn(async move { shim.send(command).await });
        }
    }

    fn attach(&mut self) -> Attached {
        let (session, reports) = mpsc::channel(SESSION_QUEUE);
        self.session = Some(session);
        self.fill_backlog();
        let held = self.attempts.values().map(|attempt| attempt.held.listed()).collect();
        Attached { epoch: self.epoch, held, reports }
    }

    fn running(&self) -> Vec<HeldAttempt> {
        let active = self.attempts.values().filter(|attempt| attempt.phase == Phase::Active);
        active.map(|attempt| attempt.held.listed()).collect()
    }

    /// Everything not acknowledged, for a new stream.
    fn fill_backlog(&mut self) {
        self.backlog.clear();
        self.send_again(&self.attempts.keys().copied().collect());
    }

    /// All reports of attempts that are not acknowledged, from the first on: a scheduler that misses one takes none
    /// of those after it. What still waits for the journal comes by itself.
    fn send_again(&mut self, keys: &BTreeSet<AttemptKey>) {
        let undurable: BTreeSet<(AttemptKey, u64)> = self
            .waiting
            .iter()
            .flat_map(|(_, key, effects)| effects.iter().map(|effect| (*key, effect)))
            .filter_map(|(key, effect)| match effect {
                Effect::Send(report) => Some((key, report.seq)),
                _ => None,
            })
            .collect();
        let now = Instant::now();
        for key in keys {
            let reports = self.attempts.get(key).map_or(&[][..], |attempt| &attempt.held.reports);
            let durable = reports.iter().filter(|report| !undurable.contains(&(*key, report.seq)));
            self.backlog.extend(durable.cloned());
            self.heard_at.insert(*key, now);
        }
    }

    /// Sends again what has not been acknowledged for long; repeated reports are harmless.
    fn resend_if_due(&mut self) {
        if !self.backlog.is_empty() || self.session.is_none() {
            return;
        }
        let now = Instant::now();
        let mut overdue = BTreeSet::new();
        for (key, attempt) in &self.attempts {
            if attempt.held.reports.is_empty() {
                self.heard_at.remove(key);
                continue;
            }
            let heard_at = *self.heard_at.entry(*key).or_insert(now);
            if now.duration_since(heard_at) >= RESEND_AFTER {
                overdue.insert(*key);
            }
        }
        self.send_again(&overdue);
    }

    fn send_next(&mut self, permit: Option<mpsc::OwnedPermit<WorkerMessage>>) {
        let Some(permit) = permit else {
            // The stream is gone. A new one begins with everything not acknowledged.
            self.session = None;
            self.backlog.clear();
            return;
        };
        if let Some(report) = self.backlog.pop_front() {
            permit.send(WorkerMessage { message: Some(Message::Report(report)) });
        }
    }
}

fn claimed(image: &Image) -> BTreeSet<AttemptKey> {
    let accepted = image.attempts.values().filter(|held| held.accepted && !held.ended);
    accepted.map(|held| held.key).collect()
}

/// What a shim that is to be launched is told.
async fn spec_of(
    launch: bool,
    context: Arc<NodeContext>,
    order: RunAttempt,
) -> Result<Option<ShimSpec>, String> {
    if !launch {
        return Ok(None);
    }
    let asking = tokio::task::spawn_blocking(move || exec::shim_spec(&context, &order));
    asking.await.map_err(|error| error.to_string())?.map(Some)
}

/// Room in the session's queue; `None` if there is no session.
async fn reserve(
    session: Option<mpsc::Sender<WorkerMessage>>,
) -> Option<mpsc::OwnedPermit<WorkerMessage>> {
    session?.reserve_owned().await.ok()
}

async fn pass_events_on(key: AttemptKey, mut events: mpsc::Receiver<EventLine>, handle: Handle) {
    while let Some(EventLine { n, at_us, event }) = events.recv().await {
        let event = Event::Shim { n, at_us, event };
        if handle.tell(Input::Event(key, Box::new(event))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_is_told_of_an_attempt_after_it_was_dropped_does_not_bring_it_back() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = Launcher::start(std::path::Path::new("/bin/false"), None).unwrap();
        let journal = Journal::open(&directory.path().join("journal")).unwrap();
        let context = NodeContext::for_tests();
        let started = Supervisor::start(context, launcher, journal, GpuMilli::new(), "boot");
        let (handle, supervising) = started.await.unwrap();
        tokio::spawn(supervising);
        let late = Event::Prepared(Ok(()));
        let late = Input::Event(AttemptKey::new(7, 1), Box::new(late));
        handle.tell(late).await.unwrap();
        assert!(handle.ask(Input::Held).await.unwrap().is_empty());
    }
}
