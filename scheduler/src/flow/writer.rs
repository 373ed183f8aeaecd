//! The writer: the one task that owns the leader's world and writes the store.
//!
//! A round takes what is in the queue, and where it pays who is about to ask again ([`super::gathering`]), drafts it command by
//! command against the world, commits all of it in one transaction, and only then answers, while the next round is written. If the commit fails, the world in memory is ahead of the store, so it is
//! dropped and rebuilt from the store; every command of the round is answered with an error and may be repeated
//! under its idempotency key.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::alert::Alert;
use gotgan_core::amount::UnixMicros;
use gotgan_core::change::{Change, Event, EventKind, Subject};
use gotgan_core::ids::Epoch;
use gotgan_core::lifecycle::{self, Draft};
use gotgan_core::node::Liveness;
use gotgan_core::policy::Policy;
use gotgan_core::world::{Snapshot, World};
use gotgan_store::{AnsweredRequest, Round, Store, StoreError};
use tokio::sync::broadcast;

use super::command::{Acknowledge, Command, EventRound, FlowError, Read, WriterHandle};
use super::dispatch::Dispatcher;
use super::looks;
use super::onlooker::Onlooker;
use super::plan::PlannerFeed;
use super::quarantine::{self, Measure, Origin, Quarantine};
use super::queue::Queue;
use super::round::{OwnedKey, RECENT_MAX, RecentKeys, RoundDraft};
use super::submissions::draft_submissions;
use crate::admission::Admission;
use crate::metrics::Metrics;
use crate::{clock, planted};

/// How long looks at the world may be taken between two rounds; one that takes longer is the last.
const LOOKS_FOR: Duration = Duration::from_millis(5);

/// How long keys are looked up after a round was refused.
const CAREFUL: Duration = Duration::from_secs(60);

/// Between tries to load the world again from a store that does not answer.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// Rounds of events a slow watcher may lag behind before it must catch up from the store.
const EVENTS_MAX: usize = 4_096;

/// What the writer needs besides its queue.
#[derive(Debug)]
pub struct WriterParts {
    /// Where it writes.
    pub store: Arc<dyn Store>,
    /// Leadership it writes under.
    pub epoch: Epoch,
    /// Numbers of the site.
    pub policy: Arc<Policy>,
    /// The world as loaded.
    pub world: World,
    /// Whom it feeds.
    pub planner: PlannerFeed,
    /// Who tells workers.
    pub dispatcher: Arc<Dispatcher>,
    /// What submissions are checked against.
    pub admission: Admission,
    /// What it counts.
    pub metrics: Arc<Metrics>,
}

/// The writer's own state.
#[derive(Debug)]
pub struct Writer {
    parts: WriterParts,
    queue: Queue,
    events: broadcast::Sender<EventRound>,
    recent: RecentKeys,
    /// When a round was last refused by the store.
    careful_since: Option<Instant>,
    quarantine: Quarantine,
    /// Whose words are drafted.
    drafting: Origin,
}

/// What callers wait for.
///
/// Answers of the round that was committed last are given once the next round is on its way to the disk: callers that are
/// answered ask again at once, and the disk would wait until all of them have been heard. With nothing to do next, and where the
/// next round waits for those callers, they are given right away. Looks at the world are taken a few at a time: reports and heartbeats go before them.
#[derive(Default)]
struct Owed {
    answers: Vec<Acknowledge>,
    looks: VecDeque<Read>,
}

impl Owed {
    fn pay(&mut self) {
        acknowledge(std::mem::take(&mut self.answers), &Ok(()));
    }

    /// Takes looks for a moment; what is left is taken after the next round. Each is answered as of the present.
    fn look(&mut self, world: &World, metrics: &Metrics) {
        let begun = clock::instant();
        while let Some(look) = self.looks.pop_front() {
            looks::take(look, world, metrics);
            if clock::since(begun) >= LOOKS_FOR {
                return;
            }
        }
    }
}

/// Makes a writer and the handle to it.
#[must_use]
pub fn new(parts: WriterParts) -> (Writer, WriterHandle) {
    let (sender, queue) = Queue::new();
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let handle = WriterHandle::new(sender, events.clone());
    let (recent, quarantine) = Default::default();
    let (careful_since, drafting) = (None, Origin::Own);
    (Writer { parts, queue, events, recent, careful_since, quarantine, drafting }, handle)
}

impl Writer {
    /// What stands in its place where another leads.
    #[must_use]
    pub fn into_onlooker(self) -> Onlooker {
        let WriterParts { store, policy, metrics, .. } = self.parts;
        Onlooker::new(self.queue.into_commands(), store, policy, metrics)
    }

    /// Runs rounds until every handle is gone, or the leadership is.
    pub async fn run(mut self) -> FlowError {
        self.remember_recent().await;
        self.parts.planner.reset(&self.parts.world);
        let mut owed = Owed::default();
        loop {
            let commands = self.gather(&mut owed).await;
            let is_due = self.quarantine.is_due();
            if commands.is_empty() && owed.looks.is_empty() && !is_due {
                return FlowError::Stopping;
            }
            if (!commands.is_empty() || is_due)
                && let Err(error) = self.round(commands, &mut owed).await
            {
                return error;
            }
            owed.look(&self.parts.world, &self.parts.metrics);
        }
    }

    /// The commands of the next round; none if nobody is left to send one, or if there are only looks to take.
    async fn gather(&mut self, owed: &mut Owed) -> Vec<Command> {
        let answered = clock::instant();
        let mut commands = self.queue.ready();
        let callers = commands.len() + owed.answers.len();
        if commands.is_empty() && !self.quarantine.is_due() {
            owed.pay();
            match owed.looks.is_empty() {
                true => self.queue.first(&mut commands).await,
                // Others of this thread have their turn as well.
                false => tokio::task::yield_now().await,
            }
        }
        if !commands.is_empty()
            && owed.looks.is_empty()
            && let Some(wait) = self.queue.wait(commands.len(), callers)
        {
            owed.pay();
            self.queue.rest(&mut commands, wait, answered).await;
        }
        commands
    }

    /// One round; an error ends the writer. What was owed is paid while the store is at work.
    async fn round(&mut self, commands: Vec<Command>, owed: &mut Owed) -> Result<(), FlowError> {
        self.recent.trim();
        let commands = self.look_up_if_careful(commands).await;
        let now = clock::now();
        let measure = self.quarantine.next();
        let drafted =
            catch_unwind(AssertUnwindSafe(|| self.draft(commands, measure.as_ref(), now)));
        let (round, acknowledgements, reads) = match drafted {
            Ok(drafted) => drafted,
            Err(panic) => {
                owed.pay();
                self.lay_aside(&quarantine::words(panic.as_ref()));
                self.rebuild().await;
                return Ok(());
            }
        };
        // The commit is polled first, so it is on its way when the answers of the round before wake their callers.
        let (committed, ()) = tokio::join!(self.commit(&round, now), async { owed.pay() });
        match committed {
            Ok(took) => {
                took.into_iter().for_each(|took| self.queue.committed(round.changes.len(), took));
                self.recent.settle();
                self.publish(round);
                measure.iter().for_each(|measure| self.parts.dispatcher.cut(measure.node()));
                owed.looks.extend(reads);
                owed.answers = acknowledgements;
                Ok(())
            }
            Err(StoreError::Fenced { mine, newer }) => {
                tracing::error!(%mine, %newer, "overtaken by another leader");
                acknowledge(acknowledgements, &Err(FlowError::NotLeader));
                Err(FlowError::NotLeader)
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "round not committed");
                self.careful_since = Some(clock::instant());
                acknowledge(acknowledgements, &Err(FlowError::NotCommitted));
                measure.into_iter().for_each(|measure| self.quarantine.again(measure));
                self.rebuild().await;
                Ok(())
            }
        }
    }

    /// Counts and tells a panic, and lays aside what it was about.
    fn lay_aside(&mut self, words: &str) {
        self.parts.metrics.assertions.inc();
        let origin = std::mem::replace(&mut self.drafting, Origin::Own);
        tracing::error!(words, ?origin, "a command panicked; the world is rebuilt from the store");
        self.quarantine.lay_aside(&origin, words);
    }

    /// How long it took; nothing if nothing was to be written.
    async fn commit(&self, round: &Round, now: UnixMicros) -> Result<Option<Duration>, StoreError> {
        if round.is_empty() {
            return Ok(None);
        }
        let began = clock::instant();
        self.parts.store.commit(self.parts.epoch, now, round).await?;
        let metrics = &self.parts.metrics;
        metrics.rounds.inc();
        metrics.changes_per_round.observe(round.changes.len() as f64);
        let took = clock::since(began);
        metrics.commit_seconds.observe(took.as_secs_f64());
        Ok(Some(took))
    }

    /// Whether keys are looked up in the store before a round.
    ///
    /// The keys of the last submissions are in memory, so a key used again is nearly always known, and asking for each
    /// round would cost as much as writing it. A key older than memory is refused by the store's own constraint,
    /// which costs the whole round; for a while after such a refusal keys are looked up, and the repetition that
    /// follows finds its job.
    fn is_careful(&self) -> bool {
        self.careful_since.is_some_and(|since| clock::since(since) < CAREFUL)
    }

    /// Looks keys up where that is needed; without an answer from the store, submissions are refused.
    async fn look_up_if_careful(&mut self, commands: Vec<Command>) -> Vec<Command> {
        let keys = if self.is_careful() { self.unknown_keys(&commands) } else { Vec::new() };
        match self.look_up(keys).await {
            Ok(()) => commands,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot look up keys");
                refuse_submissions(commands)
            }
        }
    }

    /// Keys of this round's submissions that are not known here.
    fn unknown_keys(&self, commands: &[Command]) -> Vec<OwnedKey> {
        let lists = commands.iter().filter_map(|command| match command {
            Command::Submit { submissions, .. } => Some(submissions),
            Command::Write { .. } | Command::Read(_) => None,
        });
        let unknown =
            lists.flatten().filter(|one| self.recent.submission(&one.owner, &one.key).is_none());
        unknown.map(|one| (one.owner.clone(), one.key.clone())).collect()
    }

    /// Asks the store for keys.
    async fn look_up(&mut self, keys: Vec<OwnedKey>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        for found in self.parts.store.submissions(&keys).await? {
            self.recent.insert_submission(found);
        }
        Ok(())
    }

    fn draft(
        &mut self,
        commands: Vec<Command>,
        measure: Option<&Measure>,
        now: UnixMicros,
    ) -> (Round, Vec<Acknowledge>, Vec<Read>) {
        self.drafting = Origin::Own;
        let WriterParts { world, policy, epoch, .. } = &mut self.parts;
        let mut round = RoundDraft {
            draft: Draft::new(world, policy, *epoch, now),
            tokens: Vec::new(),
            join_tokens: Vec::new(),
            answered: Vec::new(),
            recent: &mut self.recent,
        };
        let mut acknowledgements: Vec<Acknowledge> = Vec::with_capacity(commands.len());
        // Looked at after the commit, so that nobody sees what is not durable.
        let mut reads = Vec::new();
        lifecycle::turn_quota(&mut round.draft);
        lifecycle::turn_windows(&mut round.draft);
        lifecycle::settle_due(&mut round.draft);
        lifecycle::end_overdue(&mut round.draft);
        lifecycle::tell_alerts(&mut round.draft);
        if let Some(measure) = measure {
            measure.draft(&mut round.draft);
        }
        for command in commands {
            match command {
                Command::Submit { submissions, reply } => {
                    self.drafting = Origin::Own;
                    acknowledgements.push(draft_submissions(&mut round, submissions, reply));
                }
                // Whoever waits for an answer hears that there is none.
                Command::Write { origin, .. } if self.quarantine.has(&origin) => {}
                Command::Write { write, origin } => {
                    self.drafting = origin;
                    acknowledgements.push(write(&mut round));
                }
                Command::Read(look) => reads.push(look),
            }
        }
        let RoundDraft { draft, tokens, join_tokens, answered, .. } = round;
        let mut round = Round { changes: draft.into_changes(), tokens, join_tokens, answered };
        planted::round(&mut round);
        (round, acknowledgements, reads)
    }

    /// Tells everybody who follows the world: planner, workers, watchers.
    fn publish(&mut self, round: Round) {
        if round.changes.is_empty() {
            return;
        }
        let changes = Arc::new(round.changes);
        self.parts.dispatcher.after_commit(&self.parts.world, self.parts.epoch, &changes);
        let events: Vec<Arc<Event>> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Happened(event) => Some(Arc::clone(event)),
                _ => None,
            })
            .collect();
        changes.iter().for_each(log_alarm);
        self.parts.metrics.events.inc_by(events.len() as u64);
        self.parts.admission.note(&changes);
        if !events.is_empty() {
            // Nobody watching is fine.
            let _ = self.events.send(Arc::new(events));
        }
        self.parts.planner.feed(changes, &self.parts.world);
    }

    /// Drops the world and loads what the store knows. Liveness survives, since it was never in the store.
    ///
    /// What was sent of a round whose outcome is not known is not known either, so everybody is told anew.
    async fn rebuild(&mut self) {
        let before = std::mem::take(&mut self.parts.world);
        let power = Arc::new(self.parts.policy.power.clone());
        let drafted = self.recent.unsettle();
        let (snapshot, answers) = self.load_again(&drafted).await;
        answers.into_iter().for_each(|answer| self.recent.insert_answer(answer));
        let snapshot = Snapshot { power, ..snapshot };
        let mut world = World::restore(snapshot, clock::now());
        for (name, node) in before.nodes {
            if let Some(again) = world.nodes.get_mut(&name) {
                again.liveness = liveness_again(node.liveness);
                again.liveness_since = node.liveness_since;
                again.leftovers = node.leftovers;
            }
            // Whether it was given up nobody knows, and what it still runs is asked by its registration alone.
            if node.liveness == Liveness::Lost {
                self.parts.dispatcher.cut(&name);
            }
        }
        self.remember_recent().await;
        self.parts.world = world;
        let WriterParts { world, dispatcher, admission, planner, epoch, .. } = &mut self.parts;
        dispatcher.reset(world);
        dispatcher.redrive(world, *epoch);
        admission.note_all();
        planner.reset(world);
    }

    /// Takes the keys of the last submissions into memory.
    async fn remember_recent(&mut self) {
        match self.parts.store.recent_submissions(RECENT_MAX).await {
            Ok(recent) => {
                recent.into_iter().rev().for_each(|one| self.recent.insert_submission(one));
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "recent keys not loaded");
                self.careful_since = Some(clock::instant());
            }
        }
    }

    /// Loads until it works; if the store stays away, the lease runs out and with it this process.
    async fn load_again(&self, asked: &[OwnedKey]) -> (Snapshot, Vec<AnsweredRequest>) {
        loop {
            match self.load_settled(asked).await {
                Ok(loaded) => return loaded,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot reload the world"
                    );
                }
            }
            clock::sleep(RELOAD_PAUSE).await;
        }
    }

    /// The round of which it is not known whether it was committed is so by then, or never will be.
    async fn load_settled(
        &self,
        asked: &[OwnedKey],
    ) -> Result<(Snapshot, Vec<AnsweredRequest>), StoreError> {
        let store = &self.parts.store;
        store.settle().await?;
        let snapshot = store.load(self.parts.policy.half_life(), clock::now()).await?;
        let mut answers = Vec::new();
        for (owner, key) in asked {
            answers.extend(store.answered(owner, key).await?);
        }
        Ok((snapshot, answers))
    }
}

/// What is known of a node after a round of which it is not known whether it was committed. One that was given up in it may
/// have attempts that live, so it is judged again; but it is not ready before it has registered, since the round may have
/// been committed after all, and then its attempts have ended in the books and may still run there.
fn liveness_again(before: Liveness) -> Liveness {
    match before {
        Liveness::Lost => Liveness::Unknown,
        Liveness::Unknown | Liveness::Ready | Liveness::Suspect => before,
    }
}

/// Answers the submissions, which need their keys looked up, and leaves the rest.
fn refuse_submissions(commands: Vec<Command>) -> Vec<Command> {
    let mut rest = Vec::with_capacity(commands.len());
    for command in commands {
        match command {
            Command::Submit { reply, .. } => {
                // A caller that went away needs no answer.
                let _ = reply.send(Err(FlowError::NotCommitted.into()));
            }
            Command::Write { .. } | Command::Read(_) => rest.push(command),
        }
    }
    rest
}

/// What somebody who reads logs must hear: of a budget, and of hardware that goes out.
fn log_alarm(change: &Change) {
    match change {
        Change::QuotaAlerted(alert) => {
            let Alert { node, percent, period, budget, carried, used, .. } = &**alert;
            let happened = alert.kind.word();
            tracing::warn!(%node, percent, happened, %period, %budget, %carried, %used, "quota alert");
        }
        Change::Happened(event) => log_hardware(event),
        _ => {}
    }
}

fn log_hardware(event: &Event) {
    let (Subject::Node(node), text) = (&event.subject, &event.text) else { return };
    match event.kind {
        EventKind::HardwareOut => tracing::warn!(%node, text, "hardware goes out"),
        EventKind::BreakerBroke => tracing::error!(%node, text, "a breaker broke"),
        EventKind::FacilityAlarm => tracing::error!(%node, text, "an alarm of the building"),
        _ => {}
    }
}

fn acknowledge(acknowledgements: Vec<Acknowledge>, outcome: &Result<(), FlowError>) {
    for acknowledge in acknowledgements {
        acknowledge(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_given_up_in_a_round_of_unknown_outcome_is_not_ready_before_it_registers() {
        assert_eq!(liveness_again(Liveness::Lost), Liveness::Unknown);
        for kept in [Liveness::Ready, Liveness::Suspect, Liveness::Unknown] {
            assert_eq!(liveness_again(kept), kept);
        }
    }
}
