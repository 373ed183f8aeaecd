//! One attempt on this node as a state machine: (state, event) to (state, effects).
//!
//! Pure: no IO, no clock, no process. Whatever must survive is an [`Effect::Persist`], folded into the state by the
//! same function that replays the journal. Effects of one event are carried out in order, after its records are
//! durable, so that nothing is reported or started that a restarted worker would not remember.

use gotgan_proto::v1::{self, Cause, report};

use crate::held::{AttemptKey, Entry, Held, Reported};
use crate::shim::protocol::{Ending, Exit, ShimEvent};

/// An attempt and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// What the journal holds of it.
    pub held: Held,
    /// What this daemon does about it.
    pub phase: Phase,
}

/// Where an attempt stands in the life of this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its directory is being made.
    Preparing,
    /// Accepted; the other nodes of the gang are awaited.
    Waiting,
    /// Its shim is starting, running or being found again.
    Active,
    /// Nothing of it is left, or it never was.
    Ended,
}

/// What can happen to an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scheduler gives it to this node.
    Ordered(Box<v1::RunAttempt>),
    /// The directory is ready, or it cannot run here.
    Prepared(Result<(), Refusal>),
    /// All nodes have accepted.
    StartOrdered,
    /// The scheduler wants its end.
    StopOrdered(v1::StopAttempt),
    /// Tasks of a further step.
    TasksOrdered(v1::StartTasks),
    /// The shim says something.
    Shim {
        /// Number of the shim's event.
        n: u64,
        /// When it happened, Unix microseconds.
        at_us: i64,
        /// What it says.
        event: ShimEvent,
    },
    /// The shim is gone without a last word, and so is everything it had started.
    ShimLost(String),
    /// The site's own check says that nothing new may start here until a person has looked.
    Unfit(String),
    /// The daemon has started again and remembers this attempt.
    Recovered {
        /// The machine was rebooted meanwhile.
        rebooted: bool,
    },
    /// The scheduler has reports up to this number.
    Acked(u64),
    /// The scheduler is through with it.
    ForgetOrdered,
}

/// Why an attempt cannot run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Decides who pays and whether it is tried again.
    pub cause: Cause,
    /// For a person.
    pub reason: String,
}

impl Refusal {
    /// It is this node that cannot.
    pub fn of_node(reason: String) -> Self {
        Self { cause: Cause::Node, reason }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write to the journal; `sync` where something depends on it.
    Persist(Entry),
    /// Tell the scheduler; it is in the journal already.
    Send(v1::Report),
    /// Make the directory, check what it needs; answered by [`Event::Prepared`].
    Prepare,
    /// Connect to the shim; start one if none ever was and `launch` says so.
    Attach {
        /// Whether a missing shim is started.
        launch: bool,
    },
    /// Start tasks through the shim.
    StartTasks(v1::StartTasks),
    /// Stop it through the shim.
    Stop(v1::StopAttempt),
    /// Drop it from memory.
    Drop,
}

impl Attempt {
    /// An attempt not heard of before.
    pub fn new(key: AttemptKey) -> Self {
        Self { held: Held::new(key), phase: Phase::Preparing }
    }

    /// An attempt out of the journal.
    pub fn remembered(held: Held) -> Self {
        let phase = match &held {
            Held { ended: true, .. } => Phase::Ended,
            Held { accepted: false, .. } => Phase::Preparing,
            Held { start_ordered: true, .. } => Phase::Active,
            Held { .. } => Phase::Waiting,
        };
        Self { held, phase }
    }

    /// The one transition function. `now_us` becomes the time of reports this event causes.
    pub fn transition(mut self, event: Event, now_us: i64) -> (Self, Vec<Effect>) {
        let mut effects = Vec::new();
        match event {
            Event::Ordered(order) => self.ordered(order, &mut effects),
            Event::Prepared(result) => self.prepared(result, now_us, &mut effects),
            Event::StartOrdered => self.start_ordered(&mut effects),
            Event::StopOrdered(stop) => self.stop_ordered(stop, now_us, &mut effects),
            Event::TasksOrdered(tasks) => self.tasks_ordered(tasks, &mut effects),
            Event::Shim { n, at_us, event } => self.shim_says(n, at_us, &event, &mut effects),
            Event::ShimLost(reason) => self.shim_lost(reason, now_us, &mut effects),
            Event::Unfit(reason) => self.unfit(reason, now_us, &mut effects),
            Event::Recovered { rebooted } => self.recovered(rebooted, now_us, &mut effects),
            Event::Acked(seq) => self.acked(seq, &mut effects),
            Event::ForgetOrdered => self.forget_ordered(&mut effects),
        }
        (self, effects)
    }

    fn ordered(&mut self, order: Box<v1::RunAttempt>, effects: &mut Vec<Effect>) {
        if self.held.order.is_none() && self.phase == Phase::Preparing {
            self.persist(Entry::Ordered(order), effects);
            effects.push(Effect::Prepare);
        }
    }

    fn prepared(&mut self, result: Result<(), Refusal>, now_us: i64, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Preparing || self.held.order.is_none() {
            return;
        }
        match result {
            Ok(()) => {
                self.phase = Phase::Waiting;
                let accepted = report::Event::Accepted(v1::AttemptAccepted {});
                self.report(accepted, now_us, 0, effects);
                self.start_if_ordered(effects);
            }
            Err(Refusal { cause, reason }) => {
                self.phase = Phase::Ended;
                let refused = v1::AttemptRefused { cause: cause.into(), reason };
                self.report(report::Event::Refused(refused), now_us, 0, effects);
            }
        }
    }

    fn start_ordered(&mut self, effects: &mut Vec<Effect>) {
        let known = self.held.order.is_some() && self.phase != Phase::Ended;
        if known && !self.held.start_ordered {
            self.persist(Entry::StartOrdered(self.held.key), effects);
            self.start_if_ordered(effects);
        }
    }

    fn start_if_ordered(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Waiting && self.held.start_ordered {
            self.phase = Phase::Active;
            effects.push(Effect::Attach { launch: true });
            effects.extend(self.open_steps());
        }
    }

    /// Steps of which the shim may not know all tasks yet.
    fn open_steps(&self) -> impl Iterator<Item = Effect> {
        let open = self.held.steps.iter().filter(|step| !step.tasks.is_empty());
        open.cloned().map(Effect::StartTasks)
    }

    fn stop_ordered(&mut self, stop: v1::StopAttempt, now_us: i64, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.held.stop.is_none() {
            self.persist(Entry::StopOrdered(stop.clone()), effects);
        }
        if self.phase == Phase::Active {
            effects.push(Effect::Stop(stop));
        } else {
            self.end(stop.cause, stop.reason, now_us, effects);
        }
    }

    fn tasks_ordered(&mut self, tasks: v1::StartTasks, effects: &mut Vec<Effect>) {
        let repeated = self.held.steps.iter().any(|step| step.step == tasks.step);
        let welcome = self.held.order.is_some() && self.held.stop.is_none();
        if self.phase == Phase::Ended || repeated || !welcome {
            return;
        }
        self.persist(Entry::TasksOrdered(tasks.clone()), effects);
        if self.phase == Phase::Active {
            effects.push(Effect::StartTasks(tasks));
        }
    }

    fn shim_says(&mut self, n: u64, at_us: i64, event: &ShimEvent, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Active || n <= self.held.shim_seen {
            return;
        }
        if matches!(event, ShimEvent::Ended { .. }) {
            self.phase = Phase::Ended;
        }
        let mut event = report_event(event);
        if let report::Event::Ended(ended) = &mut event {
            ended.measured = self.held.measured();
        }
        self.report(event, at_us, n, effects);
    }

    fn shim_lost(&mut self, reason: String, now_us: i64, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Active {
            self.end(Cause::Node.into(), reason, now_us, effects);
        }
    }

    fn unfit(&mut self, reason: String, now_us: i64, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Ended && self.held.order.is_some() {
            self.report(report::Event::Unfit(v1::NodeUnfit { reason }), now_us, 0, effects);
        }
    }

    fn recovered(&mut self, rebooted: bool, now_us: i64, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        if rebooted {
            let reason = "the node was rebooted".to_owned();
            return self.end(Cause::Node.into(), reason, now_us, effects);
        }
        match self.phase {
            Phase::Preparing => effects.push(Effect::Prepare),
            Phase::Active => self.find_again(effects),
            Phase::Waiting | Phase::Ended => {}
        }
    }

    fn find_again(&self, effects: &mut Vec<Effect>) {
        let stop = self.held.stop.clone();
        effects.push(Effect::Attach { launch: stop.is_none() });
        effects.extend(self.open_steps());
        effects.extend(stop.map(Effect::Stop));
    }

    fn acked(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        if self.held.reports.first().is_some_and(|report| report.seq <= seq) {
            let AttemptKey { job_id, attempt } = self.held.key;
            self.persist(Entry::Acked(v1::ReportAck { job_id, attempt, seq }), effects);
        }
    }

    /// A live attempt is not forgotten: an order to do so can only be a mistake or have overtaken its end.
    fn forget_ordered(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            self.persist(Entry::Forgotten(self.held.key), effects);
            effects.push(Effect::Drop);
        }
    }

    /// Ends it without a word of a shim. If it was told to stop, that is the cause.
    fn end(&mut self, cause: i32, reason: String, now_us: i64, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        let (cause, reason) = match &self.held.stop {
            Some(stop) => (stop.cause, stop.reason.clone()),
            None => (cause, reason),
        };
        let exit = Some(v1::ExitStatus::default());
        let measured = self.held.measured();
        let ended = v1::AttemptEnded { cause, reason, exit, measured };
        self.report(report::Event::Ended(ended), now_us, 0, effects);
    }

    fn persist(&mut self, entry: Entry, effects: &mut Vec<Effect>) {
        self.held.apply(&entry);
        effects.push(Effect::Persist(entry));
    }

    fn report(&mut self, event: report::Event, at_us: i64, n: u64, effects: &mut Vec<Effect>) {
        let AttemptKey { job_id, attempt } = self.held.key;
        let seq = self.held.last_seq + 1;
        let report = v1::Report { job_id, attempt, seq, at_us, event: Some(event) };
        let reported = Reported { report: report.clone(), shim_seen: n };
        self.persist(Entry::Reported(reported), effects);
        effects.push(Effect::Send(report));
    }
}

fn report_event(event: &ShimEvent) -> report::Event {
    match event {
        ShimEvent::Started { .. } => report::Event::Started(v1::AttemptStarted {}),
        ShimEvent::TaskStarted { step, rank, .. } => {
            report::Event::TaskStarted(v1::TaskStarted { step: *step, rank: *rank })
        }
        ShimEvent::TaskEnded { step, rank, exit, detail } => {
            report::Event::TaskEnded(v1::TaskEnded {
                step: *step,
                rank: *rank,
                exit: Some(exit_status(*exit)),
                detail: detail.clone(),
            })
        }
        ShimEvent::Unfit { reason } => {
            report::Event::Unfit(v1::NodeUnfit { reason: reason.clone() })
        }
        ShimEvent::Ended { ending, reason, exit } => report::Event::Ended(v1::AttemptEnded {
            cause: match ending {
                Ending::Own => Cause::User.into(),
                Ending::Limit => Cause::Limit.into(),
                Ending::OutOfMemory => Cause::OutOfMemory.into(),
                Ending::Stopped(cause) => *cause,
            },
            reason: reason.clone(),
            exit: Some(exit_status(*exit)),
            measured: None,
        }),
    }
}

fn exit_status(exit: Exit) -> v1::ExitStatus {
    v1::ExitStatus { code: exit.code, signal: exit.signal }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::held::Image;

    const KEY: AttemptKey = AttemptKey { job_id: 7, attempt: 2 };

    fn run_order(start_now: bool) -> Event {
        let AttemptKey { job_id, attempt } = KEY;
        Event::Ordered(Box::new(v1::RunAttempt {
            job_id,
            attempt,
            start_now,
            ..Default::default()
        }))
    }

    fn stop_order(cause: Cause) -> Event {
        let AttemptKey { job_id, attempt } = KEY;
        let cause = cause.into();
        Event::StopOrdered(v1::StopAttempt { job_id, attempt, cause, ..Default::default() })
    }

    fn tasks_order(step: u32) -> Event {
        let AttemptKey { job_id, attempt } = KEY;
        Event::TasksOrdered(v1::StartTasks { job_id, attempt, step, ..Default::default() })
    }

    fn shim(n: u64, event: ShimEvent) -> Event {
        Event::Shim { n, at_us: 5, event }
    }

    fn ended_by_itself() -> ShimEvent {
        ShimEvent::Ended { ending: Ending::Own, reason: String::new(), exit: Exit::code(3) }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let refusal = Refusal { cause: Cause::Node, reason: "no".into() };
        prop_oneof![
            any::<bool>().prop_map(run_order),
            Just(Event::Prepared(Ok(()))),
            Just(Event::Prepared(Err(refusal))),
            Just(Event::StartOrdered),
            Just(stop_order(Cause::Preempted)),
            (1..4u32).prop_map(tasks_order),
            (1..6u64).prop_map(|n| shim(
                n,
                ShimEvent::Started { pid: 1, start_ticks: 1, cgroup: None, version: 1 }
            )),
            (1..6u64).prop_map(|n| shim(n, ended_by_itself())),
            Just(Event::ShimLost("gone".into())),
            any::<bool>().prop_map(|rebooted| Event::Recovered { rebooted }),
            (0..9u64).prop_map(Event::Acked),
            Just(Event::ForgetOrdered),
        ]
    }

    /// Runs events one after another and collects all effects.
    fn play(events: impl IntoIterator<Item = Event>) -> (Attempt, Vec<Effect>) {
        let mut all = Vec::new();
        let mut attempt = Attempt::new(KEY);
        for event in events {
            let (next, effects) = attempt.transition(event, 1);
            attempt = next;
            all.extend(effects);
            if all.contains(&Effect::Drop) {
                break;
            }
        }
        (attempt, all)
    }

    fn sent(effects: &[Effect]) -> Vec<&v1::Report> {
        let reports = effects.iter().filter_map(|effect| match effect {
            Effect::Send(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    fn is_last(report: &v1::Report) -> bool {
        matches!(report.event, Some(report::Event::Ended(_) | report::Event::Refused(_)))
    }

    proptest! {
        #[test]
        fn reports_are_numbered_without_gaps_and_none_follows_the_last(
            events in prop::collection::vec(any_event(), 0..40)
        ) {
            let (_, effects) = play(events);
            let reports = sent(&effects);
            for (index, report) in reports.iter().enumerate() {
                prop_assert_eq!(report.seq, index as u64 + 1);
                prop_assert!(!is_last(report) || index + 1 == reports.len());
            }
        }

        #[test]
        fn every_report_is_in_the_journal_before_it_is_sent(
            events in prop::collection::vec(any_event(), 0..40)
        ) {
            let (_, effects) = play(events);
            for (index, effect) in effects.iter().enumerate() {
                if let Effect::Send(sent) = effect {
                    let durable = effects[..index].iter().any(|earlier| matches!(
                        earlier,
                        Effect::Persist(Entry::Reported(reported)) if reported.report == *sent
                    ));
                    prop_assert!(durable);
                }
            }
        }

        #[test]
        fn the_journal_rebuilds_what_was_there(
            events in prop::collection::vec(any_event(), 0..40)
        ) {
            let (attempt, effects) = play(events);
            let mut image = Image::default();
            for effect in &effects {
                if let Effect::Persist(entry) = effect {
                    image.apply(entry);
                }
            }
            match image.attempts.get(&KEY) {
                Some(held) => {
                    prop_assert_eq!(held, &attempt.held);
                    prop_assert_eq!(Attempt::remembered(held.clone()).phase, attempt.phase);
                }
                None => prop_assert!(
                    effects.contains(&Effect::Drop) || attempt.held == Held::new(KEY)
                ),
            }
        }

        #[test]
        fn a_shim_is_started_only_when_ordered_accepted_and_not_stopped(
            events in prop::collection::vec(any_event(), 0..40)
        ) {
            let mut attempt = Attempt::new(KEY);
            for event in events {
                let (next, effects) = attempt.transition(event, 1);
                if effects.contains(&Effect::Attach { launch: true }) {
                    prop_assert!(next.held.accepted && next.held.start_ordered);
                    prop_assert!(next.held.stop.is_none() && !next.held.ended);
                }
                attempt = next;
            }
        }

        #[test]
        fn a_repeated_order_changes_nothing(events in prop::collection::vec(any_event(), 0..20)) {
            for order in [run_order(true), Event::StartOrdered, tasks_order(1)] {
                let (attempt, _) = play(events.clone());
                let (once, _) = attempt.transition(order.clone(), 1);
                let (twice, effects) = once.clone().transition(order, 1);
                prop_assert_eq!(twice, once);
                prop_assert_eq!(effects, vec![]);
            }
        }
    }

    #[test]
    fn a_single_node_command_goes_from_order_to_end() {
        let (attempt, effects) = play([
            run_order(true),
            Event::Prepared(Ok(())),
            shim(1, ShimEvent::Started { pid: 9, start_ticks: 1, cgroup: None, version: 1 }),
            shim(2, ShimEvent::TaskStarted { step: 0, rank: 0, pid: 10 }),
            shim(3, ended_by_itself()),
        ]);
        assert_eq!(attempt.phase, Phase::Ended);
        assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Attach { .. })).count(), 1);
        assert_eq!(sent(&effects).len(), 4);
        let Some(report::Event::Ended(ended)) = &sent(&effects)[3].event else { unreachable!() };
        assert_eq!((ended.cause(), ended.exit.unwrap().code), (Cause::User, 3));
    }

    #[test]
    fn an_attempt_stopped_before_its_start_ends_with_the_cause_of_the_stop() {
        let (attempt, effects) =
            play([run_order(false), Event::Prepared(Ok(())), stop_order(Cause::Site)]);
        assert_eq!(attempt.phase, Phase::Ended);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Attach { .. })));
        let Some(report::Event::Ended(ended)) = &sent(&effects)[1].event else { unreachable!() };
        assert_eq!(ended.cause(), Cause::Site);
    }

    #[test]
    fn a_stop_of_an_unknown_attempt_is_answered_and_a_late_order_does_not_start_it() {
        let (_, effects) =
            play([stop_order(Cause::User), run_order(true), Event::Prepared(Ok(()))]);
        assert_eq!(sent(&effects).len(), 1);
        assert!(is_last(sent(&effects)[0]));
    }

    #[test]
    fn after_a_reboot_an_attempt_has_ended_because_of_the_node() {
        let (_, effects) =
            play([run_order(true), Event::Prepared(Ok(())), Event::Recovered { rebooted: true }]);
        let reports = sent(&effects);
        let Some(report::Event::Ended(ended)) = &reports[reports.len() - 1].event else {
            unreachable!()
        };
        assert_eq!(ended.cause(), Cause::Node);
    }

    #[test]
    fn a_step_whose_tasks_are_all_with_the_shim_is_remembered_by_its_number() {
        let task = |rank| v1::TaskStart { rank, ..Default::default() };
        let tasks = v1::StartTasks {
            job_id: KEY.job_id,
            attempt: KEY.attempt,
            step: 1,
            argv: vec!["program".into()],
            tasks: vec![task(0), task(1)],
            ..Default::default()
        };
        let started = |n, rank| shim(n, ShimEvent::TaskStarted { step: 1, rank, pid: 9 });
        let begin = [
            run_order(true),
            Event::Prepared(Ok(())),
            Event::TasksOrdered(tasks.clone()),
            started(1, 0),
        ];
        let (attempt, _) = play(begin.clone());
        assert_eq!(attempt.held.steps[0].tasks.len(), 1);
        let (attempt, effects) = play(begin.into_iter().chain([started(2, 1)]));
        assert!(attempt.held.steps[0].argv.is_empty());
        let again = |effect: &&Effect| matches!(effect, Effect::StartTasks(_));
        assert_eq!(effects.iter().filter(again).count(), 1);
        let (attempt, effects) = attempt.transition(Event::TasksOrdered(tasks), 1);
        assert!(effects.is_empty());
        let (_, effects) = attempt.transition(Event::Recovered { rebooted: false }, 1);
        assert_eq!(effects, [Effect::Attach { launch: true }]);
    }

    #[test]
    fn a_running_attempt_is_not_forgotten() {
        let (attempt, _) = play([run_order(true), Event::Prepared(Ok(())), Event::ForgetOrdered]);
        assert_eq!(attempt.phase, Phase::Active);
    }
}
