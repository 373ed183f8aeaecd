//! Events of the scenario, as the commands they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::alert::Alert;
use gotgan_core::amount::{Ngh, UnixMicros};
use gotgan_core::attempt::{Attempt, Progress};
use gotgan_core::fairshare::History;
use gotgan_core::forecast::forecast;
use gotgan_core::health::Breaker;
use gotgan_core::ids::{AttemptId, NodeName, ProjectPath, UserName};
use gotgan_core::lifecycle::{self, Action, Actor, MaintenanceWish, QuotaRefusal};
use gotgan_core::node::Liveness;
use gotgan_core::quota::audit::edits;
use gotgan_core::quota::{Consent, Interval, Proposal, QuotaBook};
use gotgan_core::world::{Node, Snapshot, Used, World};

use super::{Engine, Step};
use crate::books::Planned;
use crate::scenario::{AcceptFile, ApplyFile, EventAction, MaintainFile};

/// Who acts.
pub(super) fn operator() -> UserName {
    UserName::new("scenario").expect("a plain word is a user name")
}

/// One of those who approve a change.
fn approver(number: u32) -> UserName {
    UserName::new(&format!("approver-{number}")).expect("a plain word is a user name")
}

impl Engine<'_> {
    pub(super) fn act(&mut self, index: usize) {
        let setup = self.setup;
        let Some(event) = setup.events.get(index) else { return };
        let by = operator();
        match &event.action {
            EventAction::Submit(submit) => self.submit_named(submit),
            EventAction::Cancel(name) => self.cancel(name, by),
            EventAction::Apply(apply) => self.apply(index, apply),
            EventAction::Plan(_) => self.plan_book(index),
            EventAction::Accept(accept) => self.accept(index, accept),
            EventAction::Lose(node) => self.lose(node),
            EventAction::Return(node) => self.bring_back(node),
            EventAction::Drain(node) => {
                self.write(|draft| lifecycle::drain(draft, node, &by, "scenario"));
            }
            EventAction::Resume(node) => {
                self.write(|draft| lifecycle::resume(draft, node, &by));
            }
            EventAction::Maintain(maintain) => self.maintain(maintain, by),
            EventAction::Restart => self.restart(),
        }
    }

    /// Plans maintenance; what is refused is a violation.
    fn maintain(&mut self, maintain: &MaintainFile, by: UserName) {
        let from = maintain.from.map_or(self.now, |from| from.0);
        let until = from.plus_millis(maintain.duration.as_millis());
        let wish = MaintenanceWish {
            nodes: maintain.nodes.iter().cloned().collect(),
            during: Interval { from, until },
            stop_running: maintain.stop_running,
            reason: "scenario".to_owned(),
            by,
        };
        if let Err(refusal) = self.write(|draft| lifecycle::plan_maintenance(draft, wish)) {
            let at = gotgan_core::quota::show_moment(self.now);
            self.record.violations.push(format!("{at} maintenance is refused: {refusal}"));
        }
    }

    /// Applies quota files, or is refused as the scenario says.
    fn apply(&mut self, index: usize, apply: &ApplyFile) {
        let books = self.books;
        let Some(book) = books.after.get(&index) else { return };
        let changed = edits(&self.world.book, book).len();
        self.record.changed.insert(index, changed);
        let consent = Consent { stop: apply.allow_stop, overwrite: !apply.as_written };
        match (self.propose(book.clone(), consent), &apply.refused) {
            (Ok(()), None) => {
                self.files = books.files.get(&index).unwrap_or(self.files);
                self.moved = self.setup.moved.1.get(&index).unwrap_or(self.moved);
            }
            (Err(refusal), Some(words)) if refusal.to_string().contains(words) => {}
            (Err(refusal), _) => self.refused_quota(&refusal),
            (Ok(()), Some(words)) => {
                let at = gotgan_core::quota::show_moment(self.now);
                let text = format!("{at} quota files were applied that should be refused: {words}");
                self.record.violations.push(text);
            }
        }
    }

    /// Notes whether a plan came out otherwise than it must, or would stop somebody.
    fn plan_book(&mut self, index: usize) {
        let wrong = match self.books.planned.get(&index) {
            None | Some(Planned::Refused) => return,
            Some(Planned::Otherwise(words)) => words.clone(),
            Some(Planned::Accepted(book)) => {
                let stopped = forecast(&self.world, &self.policy, book, self.now).stopped.len();
                if stopped == 0 {
                    return;
                }
                format!("the plan would stop {stopped} attempts")
            }
        };
        let at = gotgan_core::quota::show_moment(self.now);
        self.record.violations.push(format!("{at} {wrong}"));
    }

    /// Accepts a batch by command, or through the files where others must approve it.
    fn accept(&mut self, index: usize, accept: &AcceptFile) {
        let AcceptFile { lot, batch } = accept;
        let by = operator();
        let answer =
            self.write(|draft| lifecycle::accept_batch(draft, lot, *batch, &by, "scenario"));
        match answer {
            Ok(_) => {}
            Err(QuotaRefusal::NotApproved { .. }) => {
                if let Some(book) = self.books.after.get(&index).cloned() {
                    self.put_in_force(book);
                }
            }
            Err(refusal) => self.refused_quota(&refusal),
        }
    }

    /// Puts a book in force that nobody has anything against.
    pub(super) fn put_in_force(&mut self, book: QuotaBook) {
        if let Err(refusal) = self.propose(book, Consent { stop: false, overwrite: true }) {
            self.refused_quota(&refusal);
        }
    }

    /// Proposes a book, approved by as many as the rules ask for.
    fn propose(&mut self, book: QuotaBook, consent: Consent) -> Result<(), QuotaRefusal> {
        let by = operator();
        let proposal = Proposal {
            requester: by.clone(),
            reason: "scenario".to_owned(),
            base_revision: self.world.book.revision,
            consent,
            book,
        };
        let mut answer = self.write(|draft| lifecycle::apply_quota(draft, proposal.clone(), &by));
        if let Err(QuotaRefusal::NotApproved { needed, .. }) = answer {
            answer = self.write(|draft| {
                for number in 1..=needed {
                    lifecycle::approve_quota(draft, &proposal, &approver(number), "scenario")?;
                }
                lifecycle::apply_quota(draft, proposal, &by)
            });
        }
        answer.map(drop)
    }

    fn refused_quota(&mut self, refusal: &QuotaRefusal) {
        let at = gotgan_core::quota::show_moment(self.now);
        self.record.violations.push(format!("{at} the quota files were refused: {refusal}"));
    }

    fn cancel(&mut self, name: &str, by: UserName) {
        let Some(id) = self.record.named.get(name).copied() else { return };
        let actor = Actor { name: by, for_site: false };
        // A job that is over already is as cancelled as it gets.
        let _ = self.write(|draft| lifecycle::act(draft, id, Action::Cancel, &actor, "scenario"));
    }

    fn lose(&mut self, node: &NodeName) {
        self.workers.lose(&self.world, node, self.now);
        let pace = self.setup.pace;
        let suspect = self.now.plus_millis(pace.suspect_after.as_millis());
        let lost = self.now.plus_millis(pace.lost_after.as_millis());
        self.at(suspect, Step::Suspect(node.clone(), self.now));
        self.at(lost, Step::GiveUp(node.clone(), self.now));
    }

    /// A node that came back meanwhile is not missed.
    fn is_silent_since(&self, node: &NodeName, since: UnixMicros) -> bool {
        self.workers.silent.get(node) == Some(&since)
    }

    pub(super) fn miss(&mut self, node: &NodeName, since: UnixMicros) {
        if self.is_silent_since(node, since) {
            self.write(|draft| lifecycle::miss(draft, node));
        }
    }

    pub(super) fn give_up(&mut self, node: &NodeName, since: UnixMicros) {
        if self.is_silent_since(node, since) {
            self.write(|draft| lifecycle::give_up(draft, node));
        }
    }

    /// The machine starts anew: its worker registers and holds nothing.
    fn bring_back(&mut self, node: &NodeName) {
        for step in self.workers.come_back(&self.world, node) {
            self.at(self.now, Step::Worker(step));
        }
        let Some(known) = self.world.nodes.get(node) else { return };
        let inventory = known.registered.as_ref().clone();
        self.write(|draft| lifecycle::register(draft, inventory, &[]));
    }

    /// The scheduler comes back with what the store knows, workers register with what they hold, and all must be as it
    /// was. A silent node is waited for once more.
    fn restart(&mut self) {
        let before = self.world.clone();
        let stored = snapshot(&before, &self.history, &self.used, &self.record.alerts);
        self.world = World::restore(stored, self.now);
        self.planned = Arc::default();
        let nodes: Vec<_> =
            before.nodes.values().map(|node| Arc::clone(&node.registered)).collect();
        for inventory in nodes {
            let name = &inventory.node;
            if self.workers.silent.remove(name).is_some() {
                self.lose(name);
                continue;
            }
            let held = held_by(&self.world, name);
            self.write(|draft| lifecycle::register(draft, inventory.as_ref().clone(), &held));
        }
        // One that fell silent and was not missed yet counts as ready before, and is not heard of after.
        let unheard = |name: &NodeName| self.workers.silent.contains_key(name);
        if let Some(what) = difference(before, &self.world, unheard) {
            self.record.violations.push(format!("after the restart {what} is not what it was"));
        }
        let all: BTreeSet<AttemptId> = self.world.attempts.keys().copied().collect();
        self.dispatch(&all);
        self.service_changed();
    }
}

/// What a worker has in its journal of the attempts that the books place there.
fn held_by(world: &World, node: &NodeName) -> Vec<(AttemptId, bool)> {
    let known = world.nodes.get(node).into_iter().flat_map(|node| &node.attempts);
    let held = known.filter_map(|id| world.attempts.get(id)).filter(|attempt| {
        let member = attempt.rank_of(node).and_then(|rank| attempt.members.get(rank));
        member
            .is_some_and(|member| matches!(member.progress, Progress::Accepted | Progress::Running))
    });
    held.map(|attempt| (attempt.id, false)).collect()
}

fn snapshot(
    world: &World,
    history: &History,
    used: &BTreeMap<(ProjectPath, UnixMicros), Ngh>,
    alerts: &[Alert],
) -> Snapshot {
    let nodes = world.nodes.values();
    Snapshot {
        sequences: world.sequences,
        nodes: nodes.map(Node::stored).collect(),
        book: Arc::clone(&world.book),
        audit: world.audit.clone(),
        history: history.clone(),
        used: used
            .iter()
            .map(|((project, account), ngh)| Used {
                project: project.clone(),
                account: *account,
                ngh: *ngh,
            })
            .collect(),
        alerts: alerts.to_vec(),
        breakers: world.breakers.values().map(|breaker| Breaker::clone(breaker)).collect(),
        power: Arc::clone(&world.power),
        windows: world
            .windows
            .iter()
            .chain(world.windows.ended())
            .map(|window| window.as_ref().clone())
            .collect(),
        jobs: world.jobs.values().cloned().collect(),
        attempts: world.attempts.values().map(|one| Attempt::clone(one)).collect(),
        steps: world.steps.values().map(|step| step.as_ref().clone()).collect(),
    }
}

/// What of the world before is not there after, but for what is heard of nodes and how often anything changed.
fn difference(
    mut before: World,
    after: &World,
    unheard: impl Fn(&NodeName) -> bool,
) -> Option<&'static str> {
    for (name, node) in &mut before.nodes {
        let Some(again) = after.nodes.get(name) else { return Some("a node") };
        node.liveness_since = again.liveness_since;
        if node.liveness != Liveness::Ready || unheard(name) {
            node.liveness = again.liveness;
        }
    }
    let pairs = [
        ("what is numbered", before.sequences == after.sequences),
        ("a node", before.nodes == after.nodes),
        ("the quota book", before.book == after.book && before.audit == after.audit),
        ("the quota tree", before.quota == after.quota && before.quota_until == after.quota_until),
        ("a job", before.jobs == after.jobs && before.dependents == after.dependents),
        ("an attempt", before.attempts == after.attempts && before.steps == after.steps),
        ("the queue", before.queue == after.queue),
        ("what is held", before.usage == after.usage),
        ("what was used", before.history == after.history),
        ("an account", before.accounts == after.accounts),
        ("what was said of budgets", before.alerts == after.alerts),
        ("a window", before.windows == after.windows),
    ];
    pairs.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}
