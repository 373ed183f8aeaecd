//! The one task that owns all attempts: events in, the state machine's effects out.
//!
//! Effects wait until the journal has the records they rest on; as the journal is one queue, they are carried out in
//! the order they were decided. Only the way to an attempt's first instruction is shorter, see [`launching`]. Nothing here
//! blocks on a peer: commands to shims and reports to the scheduler go through bounded queues that are filled as there
//! is room.

mod checking;
mod cutting;
mod hardware;
mod hooks;
mod launching;
mod measuring;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use checking::Checking;
use cutting::Cutting;
use gotgan_proto::v1::{
    self, HeldAttempt, RunAttempt, WorkerMessage, scheduler_message::Message as Order,
    worker_message::Message,
};
use hooks::{Hooking, run_prolog};
use launching::Launching;
use measuring::Remembered;
use sending::{RESEND_AFTER, reserve};
use tokio::sync::mpsc;

use crate::attempt::{Attempt, Effect, Event, Phase, Refusal};
use crate::clock::{at, now_us};
use crate::cutting::Cutter;
use crate::exec::launcher::Launcher;
use crate::exec::shim_client::{Followed, ShimClient};
use crate::exec::{self, NodeContext};
use crate::handle::{Handle, Input, Running};
use crate::health::findings::Findings;
use crate::held::{AttemptKey, Entry, Image};
use crate::inventory::cards::Cards;
use crate::journal::{Journal, JournalError};
use crate::orders::{epoch_of, event_of, needs_sync};
use crate::shim::protocol::{EventLine, ShimCommand, ShimSpec};

/// Inputs waiting for the supervisor; senders wait when it is full.
const INBOX: usize = 1024;
/// Commands waiting for one shim; more than the steps a scheduler starts before it looks at their reports.
const SHIM_COMMANDS: usize = 256;
/// Events of one shim waiting for the supervisor.
const SHIM_EVENTS: usize = 64;

/// The GPUs of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeGpus {
    /// What they are, and what each is cut into now.
    pub cards: Arc<Cards>,
    /// What it takes to cut them.
    pub cutter: Cutter,
    /// How long the end of an attempt that failed on them waits for what the driver says; zero where nobody asks it.
    pub settle: Duration,
    /// What lies between two looks at a GPU that are further apart is not known.
    pub gap: Duration,
}

/// What waits for the journal.
#[derive(Debug)]
enum Waiting {
    /// Of an attempt.
    Effects(AttemptKey, Vec<Effect>),
    /// To be sent.
    Finding(v1::Finding),
}

/// Owner of all attempts of this node.
#[derive(Debug)]
pub struct Supervisor {
    context: Arc<NodeContext>,
    launcher: Launcher,
    journal: Journal,
    /// GPUs of this node by UUID; what is ordered must be among them and free.
    gpus: NodeGpus,
    cutting: Cutting,
    checking: Checking,
    epoch: u64,
    attempts: BTreeMap<AttemptKey, Attempt>,
    /// Attempts whose GPUs were found free when they came.
    claims: BTreeSet<AttemptKey>,
    shims: BTreeMap<AttemptKey, mpsc::Sender<ShimCommand>>,
    /// What waits for which batch of the journal.
    waiting: VecDeque<(u64, Waiting)>,
    launching: Launching,
    session: Option<mpsc::Sender<WorkerMessage>>,
    /// For the session, whose queue had no room for it yet.
    backlog: VecDeque<Message>,
    /// When an attempt with reports that are not acknowledged was last acknowledged or sent from the first on.
    heard_at: BTreeMap<AttemptKey, Instant>,
    /// The same of findings.
    findings_heard_at: Option<Instant>,
    findings: Findings,
    /// Number of the error that was told last of each GPU.
    last_xids: BTreeMap<String, u32>,
    /// GPU and number of the error that was logged last, and when.
    error_logged: Option<(String, u32, Instant)>,
    /// Ends of attempts that are kept back, and until when.
    settling: BTreeMap<AttemptKey, (Instant, Event)>,
    /// What is held while the site's programs run.
    hooking: BTreeMap<AttemptKey, Hooking>,
    /// What was measured of an attempt when it was last written to the journal.
    remembered: BTreeMap<AttemptKey, Remembered>,
    /// When an attempt last let go of a GPU.
    used_until: BTreeMap<String, Instant>,
    began: Instant,
    handle: Handle,
}

impl Supervisor {
    /// Takes over what the journal remembers. `boot_id` is of the running system.
    pub async fn start(
        context: NodeContext,
        launcher: Launcher,
        (journal, image): (Journal, Image),
        gpus: NodeGpus,
        boot_id: &str,
    ) -> Result<(Handle, impl Future<Output = Result<(), JournalError>>), JournalError> {
        let (inbox, inputs) = mpsc::channel(INBOX);
        let handle = Handle { inbox };
        let rebooted = !image.boot_id.is_empty() && image.boot_id != boot_id;
        let mut image = image;
        if rebooted {
            image.findings.rebooted();
        }
        let remembered = |(key, held)| (key, Attempt::remembered(held));
        let mut supervisor = Self {
            context: Arc::new(context),
            launcher,
            journal,
            gpus,
            cutting: Cutting::default(),
            checking: Checking::default(),
            epoch: image.epoch,
            claims: claimed(&image),
            attempts: image.attempts.into_iter().map(remembered).collect(),
            shims: BTreeMap::new(),
            waiting: VecDeque::new(),
            launching: Launching::default(),
            session: None,
            backlog: VecDeque::new(),
            heard_at: BTreeMap::new(),
            findings_heard_at: None,
            findings: Findings::new(image.findings, boot_id),
            last_xids: BTreeMap::new(),
            error_logged: None,
            settling: BTreeMap::new(),
            hooking: BTreeMap::new(),
            remembered: BTreeMap::new(),
            used_until: BTreeMap::new(),
            began: Instant::now(),
            handle: handle.clone(),
        };
        supervisor.begin_findings().await?;
        for key in supervisor.attempts.keys().copied().collect::<Vec<_>>() {
            supervisor.happen(key, Event::Recovered { rebooted }).await?;
        }
        // After the ends that a reboot has caused: before them, a crash between the two would lose these.
        supervisor.journal.append(vec![Entry::Boot(boot_id.to_owned())], true).await?;
        Ok((handle, supervisor.run(inputs)))
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), JournalError> {
        let (mut written, mut durable) = (self.journal.written(), self.journal.durable());
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
                    self.launch_up_to(*written.borrow(), number);
                    self.carry_out_up_to(number);
                }
                changed = written.changed(), if self.launching.waits() => {
                    changed.map_err(|_| JournalError::Stopped)?;
                    let number = *written.borrow_and_update();
                    self.launch_up_to(number, *durable.borrow());
                }
                permit = reserve(session), if !self.backlog.is_empty() => self.send_next(permit),
                _ = tick.tick() => self.resend_if_due(),
                () = at(self.next_due()) => self.write_due().await?,
            }
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), JournalError> {
        match input {
            Input::Order(order) => self.obey(order).await?,
            // What is told of an attempt after it was dropped must not bring it back.
            Input::Event(key, event) if self.attempts.contains_key(&key) => {
                if let Some(event) = self.settle(key, *event) {
                    self.occur(key, event).await?;
                }
            }
            Input::Event(..) => {}
            Input::CleanedUp(key, outcome) => self.cleaned_up(key, outcome).await?,
            Input::Found(observed) => self.found(observed).await?,
            Input::LogRead(number) => self.log_read(number).await?,
            Input::CutEnded(order, outcome) => self.cut_ended(order, outcome),
            Input::CheckEnded(order, outcome) => self.check_ended(order, outcome),
            Input::Looked(looks) => self.looked(looks).await?,
            Input::Uncorrected { uuid, count, at_us } => self.counted(&uuid, count, at_us).await?,
            Input::Attach(answer) => {
                // Whoever asked and is gone again leaves a closed queue, found by the next send.
                let _ = answer.send(self.attach());
            }
            Input::Running(answer) => {
                let (attempts, uses) = (self.running(), self.uses());
                let (cut_failures, check_outcomes) =
                    (self.cutting.failures(), self.checking.outcomes());
                let unused = self.unused();
                let _ =
                    answer.send(Running { attempts, uses, unused, cut_failures, check_outcomes });
            }
            Input::Using(answer) => {
                let _ = answer.send(self.using());
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
        if let Order::FindingAck(ack) = &order {
            return self.finding_acked(ack).await;
        }
        match order {
            Order::CutGpu(order) => self.cut(order),
            Order::CheckHardware(order) => self.check(order),
            order => {
                if let Some((key, event)) = event_of(order) {
                    return self.be_ordered(key, event).await;
                }
            }
        }
        Ok(())
    }

    async fn be_ordered(&mut self, key: AttemptKey, event: Event) -> Result<(), JournalError> {
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
        self.occur(key, event).await
    }

    async fn happen(&mut self, key: AttemptKey, event: Event) -> Result<(), JournalError> {
        let mut attempt = self.attempts.remove(&key).unwrap_or_else(|| Attempt::new(key));
        let was = attempt.phase;
        self.let_go(&mut attempt, &event);
        let (attempt, effects) = attempt.transition(event, now_us());
        self.attempts.insert(key, attempt);
        self.note_use(key, was);
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
        let is_new = records.iter().any(|entry| matches!(entry, Entry::Ordered(_)));
        let number = self.journal.append(records, sync).await?;
        if is_new {
            self.launching.ordered(key, number);
        }
        let rest = self.prepare_and_launch(key, number, rest);
        if !rest.is_empty() {
            self.waiting.push_back((number, Waiting::Effects(key, rest)));
        }
        Ok(())
    }

    fn carry_out_up_to(&mut self, durable: u64) {
        while self.waiting.front().is_some_and(|(number, _)| *number <= durable) {
            match self.waiting.pop_front() {
                Some((_, Waiting::Effects(key, effects))) => {
                    effects.into_iter().for_each(|effect| self.carry_out(key, effect));
                }
                Some((_, Waiting::Finding(finding))) => {
                    self.backlog.push_back(Message::Finding(finding));
                }
                None => {}
            }
        }
    }

    fn carry_out(&mut self, key: AttemptKey, effect: Effect) {
        match effect {
            Effect::Persist(_) => {}
            Effect::Send(report) => self.backlog.push_back(Message::Report(report)),
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
        self.launching.forget(key);
        self.claims.remove(&key);
        self.heard_at.remove(&key);
        self.settling.remove(&key);
        self.hooking.remove(&key);
        self.remembered.remove(&key);
    }

    fn prepare(&mut self, key: AttemptKey) {
        let Some(order) = self.order(key).cloned() else {
            return;
        };
        let checked = self.claim(key, &order);
        self.begin_prolog(key);
        let (context, handle) = (self.context.clone(), self.handle.clone());
        tokio::spawn(async move {
            let result = match make_ready(context.clone(), &order, checked).await {
                Ok(()) => run_prolog(key, &context, &order, &handle).await,
                Err(refusal) => Err(refusal),
            };
            // Fails only when the daemon ends; the next one prepares again.
            let _ = handle.tell(Input::Event(key, Box::new(Event::Prepared(result)))).await;
        });
    }

    /// The last guard against a GPU in two attempts: what is ordered must be here and free.
    fn claim(&mut self, key: AttemptKey, order: &RunAttempt) -> Result<(), Refusal> {
        for wanted in &order.gpus {
            let Some(has_milli) = self.gpus.cards.milli(&wanted.uuid) else {
                let reason = format!("this node has no GPU {}", wanted.uuid);
                return Err(Refusal { cause: v1::Cause::Hardware, reason });
            };
            if has_milli == 0 {
                let reason = format!("GPU {} is cut into MIG instances by now", wanted.uuid);
                return Err(Refusal::of_node(reason));
            }
            let used_milli = self.used_milli(key, &wanted.uuid);
            if used_milli.saturating_add(wanted.milli) > has_milli {
                let reason = format!("GPU {} is in use by another attempt", wanted.uuid);
                return Err(Refusal::of_node(reason));
            }
        }
        self.claims.insert(key);
        self.begin_measuring(key);
        Ok(())
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

    fn running(&self) -> Vec<HeldAttempt> {
        let active = self.attempts.values().filter(|attempt| attempt.phase == Phase::Active);
        active.map(|attempt| attempt.held.listed()).collect()
    }
}

fn claimed(image: &Image) -> BTreeSet<AttemptKey> {
    let accepted = image.attempts.values().filter(|held| held.accepted && !held.ended);
    accepted.map(|held| held.key).collect()
}

/// Makes what an attempt needs, unless it was refused already.
async fn make_ready(
    context: Arc<NodeContext>,
    order: &RunAttempt,
    checked: Result<(), Refusal>,
) -> Result<(), Refusal> {
    let order = order.clone();
    let prepare = move || checked.and_then(|()| exec::prepare(&context, &order));
    let prepared = tokio::task::spawn_blocking(prepare).await;
    prepared.unwrap_or_else(|error| Err(Refusal::of_node(error.to_string())))
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
        let started = Supervisor::start(context, launcher, journal, NodeGpus::default(), "boot");
        let (handle, supervising) = started.await.unwrap();
        tokio::spawn(supervising);
        let late = Event::Prepared(Ok(()));
        let late = Input::Event(AttemptKey::new(7, 1), Box::new(late));
        handle.tell(late).await.unwrap();
        assert!(handle.ask(Input::Held).await.unwrap().is_empty());
    }
}
