//! A node's daemon: keeps a stream to whoever leads, falls silent, loses its connection, or is set up anew.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use gotgan_core::ids::NodeName;
use gotgan_proto::v1::scheduler_message::Message as Order;
use gotgan_proto::v1::worker_message::Message as Said;
use gotgan_proto::v1::{Report, SchedulerMessage, WorkerMessage};
use gotgan_scheduler::api::WorkersService;
use gotgan_scheduler::clock::{self, simulated};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::executor::{self, Group};
use crate::node::Journal;
use crate::stage::{Served, Stage};
use crate::{draw, judge, weather, wire};

/// Reports that were not acknowledged are sent again so often.
const RESEND_EVERY: Duration = Duration::from_secs(5);
/// Messages that may wait at one place of a connection; one on which more do breaks.
const MESSAGES_MAX: usize = 4_096;
/// A scheduler that does not answer a registration is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The stream has ended.
    Closed,
    /// It loses its connection, or its daemon is started again.
    Cut,
    /// It says and hears nothing for a while, and the connection holds.
    Deaf,
    /// The daemon is away.
    Silent,
    /// The machine is set up anew.
    Wiped,
}

/// Lives until the play is over.
pub async fn live(stage: Rc<Stage>, journal: Rc<RefCell<Journal>>) {
    loop {
        let Some(served) = stage.leader() else {
            clock::sleep(draw::millis(50, 500)).await;
            continue;
        };
        let stream = Stream::open(&served, &journal);
        // What a life has is gone when it ends, and not kept by who speaks with it.
        drop(served);
        let fate = stream.run(&stage).await;
        match fate {
            Fate::Closed | Fate::Cut | Fate::Deaf => clock::sleep(draw::millis(1, 300)).await,
            Fate::Silent | Fate::Wiped => {
                let most = if draw::one_in(3) { 30_000 } else { 3_000 };
                clock::sleep(draw::millis(100, most)).await;
            }
        }
        let name = journal.borrow().name.clone();
        judge::with(|judge| {
            judge.note(judge::SITE, || format!("{name} had its stream end: {fate:?}"))
        });
        if fate == Fate::Wiped {
            journal.borrow_mut().lose_everything();
        }
    }
}

/// One stream.
struct Stream {
    journal: Rc<RefCell<Journal>>,
    say: mpsc::Sender<WorkerMessage>,
    told: mpsc::Receiver<SchedulerMessage>,
}

impl Stream {
    fn open(served: &Served, journal: &Rc<RefCell<Journal>>) -> Self {
        let (say, mut said) = mpsc::channel::<WorkerMessage>(MESSAGES_MAX);
        let (put, heard) = mpsc::channel(MESSAGES_MAX);
        let (tell, told) = mpsc::channel(MESSAGES_MAX);
        let is_report = |message: &WorkerMessage| matches!(message.message, Some(Said::Report(_)));
        let next = move |context: &mut std::task::Context<'_>| said.poll_recv(context);
        executor::spawn(
            Group::Stage,
            wire::carry(next, move |it| put.try_send(Ok(it)).is_ok(), is_report),
        );
        let name = journal.borrow().name.clone();
        executor::spawn(served.group, serve(served.workers.clone(), name, heard, tell));
        Stream { journal: Rc::clone(journal), say, told }
    }

    fn send(&self, message: Said) {
        // A stream that has ended is found by what is told no more.
        let _ = self.say.try_send(WorkerMessage { message: Some(message) });
    }

    fn report(&self, reports: Vec<Report>) {
        reports.into_iter().for_each(|report| self.send(Said::Report(report)));
    }

    async fn run(mut self, stage: &Stage) -> Fate {
        let register = self.journal.borrow().register();
        self.send(Said::Register(register));
        let first = clock::within(PATIENCE, self.told.recv()).await.flatten();
        let Some(Some(Order::Registered(welcome))) = first.map(|first| first.message) else {
            return Fate::Closed;
        };
        self.journal.borrow_mut().obey(Order::Registered(welcome));
        let unacked = self.journal.borrow().unacked();
        self.report(unacked);
        let name = self.journal.borrow().name.clone();
        judge::with(|judge| judge.note(judge::SITE, || format!("{name} is registered")));
        judge::with(|judge| judge.counts.streams += 1);
        loop {
            match self.speak(stage).await {
                Fate::Deaf => clock::sleep(draw::millis(500, 15_000)).await,
                fate => return fate,
            }
        }
    }

    async fn speak(&mut self, stage: &Stage) -> Fate {
        let heartbeat = Duration::from_millis(stage.timing.heartbeat_ms.into());
        let (mut beats, mut resend) = (clock::every(heartbeat), clock::every(RESEND_EVERY));
        resend.tick().await;
        let (mut seq, node_ms) = (0, weather::now().node_ms);
        let lives =
            if node_ms == 0 { Duration::from_secs(1 << 20) } else { draw::millis(1, node_ms * 2) };
        let mut fate = std::pin::pin!(clock::sleep(lives));
        loop {
            let next_end = self.journal.borrow().next_end();
            let until_end = next_end.map(|end| end.saturating_sub(simulated::passed()));
            tokio::select! {
                biased;
                order = self.told.recv() => {
                    let Some(order) = order else { return Fate::Closed };
                    let reports = order.message.map(|it| self.journal.borrow_mut().obey(it));
                    self.report(reports.unwrap_or_default());
                }
                () = clock::sleep(until_end.unwrap_or_default()), if until_end.is_some() => {
                    let reports = self.journal.borrow_mut().end_due();
                    self.report(reports);
                }
                () = beats.tick() => {
                    seq += 1;
                    let beat = self.journal.borrow().beat(seq);
                    self.send(Said::Heartbeat(beat));
                }
                () = resend.tick() => {
                    let unacked = self.journal.borrow().unacked();
                    self.report(unacked);
                }
                () = &mut fate, if !stage.calm.get() => return drawn_fate(),
            }
        }
    }
}

fn drawn_fate() -> Fate {
    judge::with(|judge| judge.counts.faults += 1);
    match draw::below(12) {
        0..5 => Fate::Cut,
        5..8 => Fate::Deaf,
        8..11 => Fate::Silent,
        _ => Fate::Wiped,
    }
}

/// The scheduler's end.
async fn serve(
    workers: WorkersService,
    name: String,
    heard: mpsc::Receiver<Result<WorkerMessage, Status>>,
    tell: mpsc::Sender<SchedulerMessage>,
) {
    let Ok(node) = NodeName::new(&name) else { return };
    let note =
        |what: &str| judge::with(|judge| judge.note(judge::SITE, || format!("{name} {what}")));
    if let Ok((session, mut orders)) = workers.open(node, ReceiverStream::new(heard)).await {
        note("is taken in by a scheduler");
        let next = move |context: &mut std::task::Context<'_>| orders.poll_recv(context);
        executor::spawn(
            Group::Stage,
            wire::carry(next, move |it| tell.try_send(*it).is_ok(), |_| false),
        );
        session.await;
        note("is listened to no more");
    }
}
