//! The streams of the Jobs service: events and output.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::change::{Event, EventKind, Subject};
use gotgan_core::ids::{JobId, NodeName};
use gotgan_core::job::JobState;
use gotgan_core::step::TaskState;
use gotgan_proto::v1;
use gotgan_store::JobDetail;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{Services, convert, error};
use crate::auth::Principal;
use crate::clock;

/// Answers that may wait for a slow reader; the task that fills them then waits too, and only that task.
const STREAM_BUFFER: usize = 64;

/// Events read from the store at once when catching up.
const CATCH_UP_PAGE: u32 = 1_000;

/// How often a stream without news looks whether its caller may still see it.
const RECHECK: Duration = Duration::from_secs(5);

/// How long a worker waits for output when it is followed, and how much it sends at once.
const FOLLOW_WAIT_MS: u32 = 5_000;
const CHUNK_MAX: u32 = 256 * 1024;

/// Between tries to read from a node that is away.
const AWAY_RETRY: Duration = Duration::from_secs(1);

type Sender<T> = mpsc::Sender<Result<T, Status>>;
type Rounds = Receiver<Arc<Vec<Arc<Event>>>>;

/// A job that the caller may see.
pub(super) async fn visible_job(
    services: &Services,
    who: &Principal,
    id: u64,
) -> Result<JobDetail, Status> {
    let found = services.store.job(JobId(id)).await.map_err(|e| error::store(&e))?;
    let mine = |detail: &JobDetail| {
        let own_job = who.attempt().is_none_or(|attempt| attempt.job == detail.job.id);
        own_job && who.may_see(&detail.job.spec.project)
    };
    found.filter(mine).ok_or_else(|| error::no_such_job(id))
}

/// Events of jobs as they are committed.
pub(super) async fn watch(
    services: Arc<Services>,
    who: Principal,
    request: v1::WatchJobsRequest,
) -> Result<ReceiverStream<Result<v1::JobEvent, Status>>, Status> {
    // Subscribed first, so that nothing falls between the present state and the first event.
    let rounds = services.writer.events();
    let (mut open, mut arrays) = (BTreeSet::new(), BTreeSet::new());
    let mut first = Vec::new();
    for id in &request.job_ids {
        let detail = visible_job(&services, &who, *id).await?;
        if !detail.job.status.state.is_terminal() {
            open.insert(detail.job.id);
            arrays.extend(detail.job.array);
        }
        if request.after_seq == 0 {
            first.push(present_state(&detail));
        }
    }
    let named: BTreeSet<JobId> = request.job_ids.iter().map(|id| JobId(*id)).collect();
    let watcher = Watcher {
        services,
        who,
        named,
        open,
        arrays,
        visible: BTreeMap::new(),
        last_seq: request.after_seq,
    };
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(watcher.run(first, rounds, sender));
    Ok(ReceiverStream::new(receiver))
}

fn present_state(detail: &JobDetail) -> v1::JobEvent {
    let status = &detail.job.status;
    v1::JobEvent {
        seq: 0,
        at_us: clock::now().0,
        job_id: detail.job.id.0,
        attempt: status.attempt,
        kind: "state".to_owned(),
        text: status.detail.clone(),
        state: convert::job_state(status.state).into(),
    }
}

/// One watching caller.
struct Watcher {
    services: Arc<Services>,
    who: Principal,
    /// Empty: all that the caller may see.
    named: BTreeSet<JobId>,
    /// Of those named, the ones that have not ended.
    open: BTreeSet<JobId>,
    /// Arrays that some of those are tasks of.
    arrays: BTreeSet<JobId>,
    /// Whether the caller may see a job, as far as it was asked.
    visible: BTreeMap<JobId, bool>,
    last_seq: u64,
}

impl Watcher {
    async fn run(mut self, first: Vec<v1::JobEvent>, rounds: Rounds, to: Sender<v1::JobEvent>) {
        for event in first {
            if to.send(Ok(event)).await.is_err() {
                return;
            }
        }
        if let Err(status) = self.follow(rounds, &to).await {
            // A caller that went away needs no error.
            let _ = to.send(Err(status)).await;
        }
    }

    /// Whether all jobs named have ended.
    fn is_over(&self) -> bool {
        !self.named.is_empty() && self.open.is_empty()
    }

    async fn follow(
        &mut self,
        mut rounds: Rounds,
        to: &Sender<v1::JobEvent>,
    ) -> Result<(), Status> {
        if self.last_seq > 0 && !self.catch_up(to).await? {
            return Ok(());
        }
        while !self.is_over() {
            let going_on = match tokio::time::timeout(RECHECK, rounds.recv()).await {
                Err(_) => !to.is_closed(),
                Ok(Ok(events)) => self.pass_on(&events, to).await?,
                Ok(Err(RecvError::Lagged(_))) => self.catch_up(to).await?,
                Ok(Err(RecvError::Closed)) => {
                    return Err(error::flow(&crate::flow::command::FlowError::Stopping));
                }
            };
            if !going_on {
                return Ok(());
            }
            if !self.services.authenticator.still_valid(&self.who, clock::now()) {
                return Err(Status::unauthenticated("the token is no longer valid"));
            }
        }
        Ok(())
    }

    /// Reads what the broadcast no longer has; false when the caller is gone.
    async fn catch_up(&mut self, to: &Sender<v1::JobEvent>) -> Result<bool, Status> {
        loop {
            let named: Vec<JobId> = self.named.union(&self.arrays).copied().collect();
            let named = Some(named.as_slice()).filter(|named| !named.is_empty());
            let events = self.services.store.events(self.last_seq, named, CATCH_UP_PAGE);
            let events = events.await.map_err(|e| error::store(&e))?;
            let full = events.len() >= CATCH_UP_PAGE as usize;
            let events: Vec<Arc<Event>> = events.into_iter().map(Arc::new).collect();
            if !self.pass_on(&events, to).await? {
                return Ok(false);
            }
            if !full {
                return Ok(true);
            }
        }
    }

    /// Sends what the caller asked for; false when it is gone.
    async fn pass_on(
        &mut self,
        events: &[Arc<Event>],
        to: &Sender<v1::JobEvent>,
    ) -> Result<bool, Status> {
        for event in events {
            if event.seq <= self.last_seq {
                continue;
            }
            self.last_seq = event.seq;
            let Subject::Job { id, state, .. } = &event.subject else {
                continue;
            };
            if event.kind == EventKind::TasksCancelled && !self.tell_dropped(*id, event, to).await?
            {
                return Ok(false);
            }
            if !self.wants(*id).await? {
                continue;
            }
            if let Some(message) = convert::event(event)
                && to.send(Ok(message)).await.is_err()
            {
                return Ok(false);
            }
            if state.is_terminal() {
                self.open.remove(id);
            }
        }
        Ok(true)
    }

    /// Tells of tasks of an array that were cancelled before they started: they have no events of their own. False when
    /// the caller is gone.
    async fn tell_dropped(
        &mut self,
        array: JobId,
        event: &Event,
        to: &Sender<v1::JobEvent>,
    ) -> Result<bool, Status> {
        if !self.arrays.contains(&array) {
            return Ok(true);
        }
        for id in self.open.clone() {
            let detail = visible_job(&self.services, &self.who, id.0).await?;
            let is_dropped = detail.job.array == Some(array) && detail.job.status.attempt == 0;
            if !is_dropped || !detail.job.status.state.is_terminal() {
                continue;
            }
            self.open.remove(&id);
            let told = v1::JobEvent { seq: event.seq, ..present_state(&detail) };
            if to.send(Ok(told)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn wants(&mut self, id: JobId) -> Result<bool, Status> {
        if !self.named.is_empty() {
            return Ok(self.named.contains(&id));
        }
        if let Some(own) = self.who.attempt() {
            return Ok(own.job == id);
        }
        if self.who.sees_everything() {
            return Ok(true);
        }
        if let Some(visible) = self.visible.get(&id) {
            return Ok(*visible);
        }
        let found = self.services.store.job(id).await.map_err(|e| error::store(&e))?;
        let visible = found.is_some_and(|detail| self.who.may_see(&detail.job.spec.project));
        self.visible.insert(id, visible);
        Ok(visible)
    }
}

/// Output of one task.
pub(super) fn logs(
    services: Arc<Services>,
    who: Principal,
    request: v1::LogsRequest,
) -> ReceiverStream<Result<v1::LogChunk, Status>> {
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(async move {
        let reader = LogReader { services, who, request };
        if let Err(status) = reader.run(&sender).await {
            // A caller that went away needs no error.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// One reading caller.
struct LogReader {
    services: Arc<Services>,
    who: Principal,
    request: v1::LogsRequest,
}

/// Where the output is.
struct Place {
    node: NodeName,
    attempt: u32,
}

/// Where the output is, or will be.
enum Found {
    Here(Place),
    NotYet,
    Never,
}

impl LogReader {
    async fn run(mut self, to: &Sender<v1::LogChunk>) -> Result<(), Status> {
        let Some(place) = self.find(to).await? else {
            return Ok(());
        };
        let mut offset = self.request.offset;
        loop {
            let Some(data) = self.read(&place, offset, to).await? else {
                return Ok(());
            };
            if !data.error.is_empty() {
                return Err(error::status(Code::NotFound, "NO_OUTPUT", data.error));
            }
            offset = data.offset.saturating_add(data.data.len() as u64);
            let nothing = data.data.is_empty();
            let chunk = v1::LogChunk { offset: data.offset, data: data.data, end: data.end };
            if (!nothing || data.end) && to.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
            if data.end || (nothing && !self.request.follow) || to.is_closed() {
                return Ok(());
            }
            if !self.services.authenticator.still_valid(&self.who, clock::now()) && !self.is_job() {
                return Err(Status::unauthenticated("the token is no longer valid"));
            }
        }
    }

    /// A job's own token ends with its attempt, while the last of its output is still read.
    fn is_job(&self) -> bool {
        self.who.attempt().is_some()
    }

    /// Waits, when following, until the task is somewhere; `None` if there will be no output.
    async fn find(&mut self, to: &Sender<v1::LogChunk>) -> Result<Option<Place>, Status> {
        let mut rounds = self.services.writer.events();
        loop {
            match self.look().await? {
                Found::Here(place) => return Ok(Some(place)),
                Found::Never => return Ok(None),
                Found::NotYet if !self.request.follow => {
                    let message = format!(
                        "job {} has no such output yet; add -f to wait",
                        self.request.job_id
                    );
                    return Err(error::status(Code::FailedPrecondition, "NOT_STARTED", message));
                }
                Found::NotYet => {}
            }
            if to.is_closed() {
                return Ok(None);
            }
            self.wait_for_news(&mut rounds).await;
        }
    }

    async fn look(&mut self) -> Result<Found, Status> {
        let request = &mut self.request;
        let detail = visible_job(&self.services, &self.who, request.job_id).await?;
        let state = detail.job.status.state;
        if detail.job.is_array() {
            let id = request.job_id;
            let message = format!("job {id} is an array; name one of its tasks, as in {id}_4");
            return Err(error::status(Code::FailedPrecondition, "IS_ARRAY", message));
        }
        if request.attempt == 0 {
            request.attempt = detail.job.status.attempt;
        }
        let waits = if state.is_terminal() { Found::Never } else { Found::NotYet };
        if request.attempt == 0 {
            return Ok(waits);
        }
        let step = detail
            .steps
            .iter()
            .find(|step| step.attempt.number == request.attempt && step.number == request.step);
        let Some(step) = step else {
            let known = detail.attempts.iter().any(|it| it.id.number == request.attempt);
            if known && matches!(state, JobState::Running) {
                return Ok(Found::NotYet);
            }
            return Err(no_such_task(request));
        };
        let task = step.tasks.iter().find(|task| task.rank == request.rank);
        let task = task.ok_or_else(|| no_such_task(request))?;
        if task.state == TaskState::Pending {
            return Ok(waits);
        }
        Ok(Found::Here(Place { node: task.node.clone(), attempt: request.attempt }))
    }

    /// Returns when something happened to the job, or after a while.
    async fn wait_for_news(&self, rounds: &mut Rounds) {
        let about_it = |events: &Vec<Arc<Event>>| {
            events.iter().any(|event| {
                matches!(&event.subject, Subject::Job { id, .. } if id.0 == self.request.job_id)
            })
        };
        let news = async {
            loop {
                match rounds.recv().await {
                    Ok(events) if !about_it(&events) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        };
        // Task starts make no event, so look again soon in any case.
        let _ = tokio::time::timeout(Duration::from_millis(200), news).await;
    }

    /// Reads once; while following, a node that is away is waited for. `None` when the caller is gone.
    async fn read(
        &self,
        place: &Place,
        offset: u64,
        to: &Sender<v1::LogChunk>,
    ) -> Result<Option<v1::LogData>, Status> {
        loop {
            let read = v1::ReadLog {
                request: 0,
                job_id: self.request.job_id,
                attempt: place.attempt,
                step: self.request.step,
                rank: self.request.rank,
                stream: self.request.stream,
                offset,
                max_bytes: CHUNK_MAX,
                wait_ms: if self.request.follow { FOLLOW_WAIT_MS } else { 0 },
            };
            match self.services.logs.read(&place.node, read).await {
                Ok(data) => return Ok(Some(data)),
                Err(failed) if !self.request.follow => return Err(error::log(&failed)),
                Err(_) if to.is_closed() => return Ok(None),
                Err(_) => tokio::time::sleep(AWAY_RETRY).await,
            }
        }
    }
}

fn no_such_task(request: &v1::LogsRequest) -> Status {
    let message = format!(
        "job {} attempt {} has no step {} with rank {}",
        request.job_id, request.attempt, request.step, request.rank
    );
    error::status(Code::NotFound, "UNKNOWN_TASK", message)
}
