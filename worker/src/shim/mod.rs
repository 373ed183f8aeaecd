//! The shim: one small process a running attempt, which starts its tasks and sees to its end.
//!
//! It outlives the daemon, enforces the time limit by its own monotonic clock, and ends only when nothing of the
//! attempt is left: its tasks and all they start are in one cgroup and one namespace of processes where there are such
//! ([`grip`]), and below the shim, their subreaper, everywhere. One thread, no runtime, no network.
//!
//! Once a task runs, nothing that goes wrong with a file ends the shim: that would end a healthy job.

mod connection;
mod container;
pub mod events;
pub mod grip;
pub mod launcher;
pub mod protocol;
pub mod room;
mod signals;
mod stopping;
pub mod task;
pub mod tree;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use connection::Connection;
use events::EventLog;
use grip::Grip;
use protocol::{Ending, Exit, ShimCommand, ShimEvent, ShimSpec, StepSpec, VERSION};
use signals::{Received, Signals};
use stopping::{Stopping, Why};

/// Grace for what is still there after the last task of step 0 has ended by itself, at most.
const LEFTOVER_GRACE: Duration = Duration::from_secs(5);
/// How long a shim waits, when all is over, for its file or a worker to take the last word.
const LAST_WORD_WAIT: Duration = Duration::from_secs(60);
/// How often a file that took nothing is tried again, and what cannot be waited for is looked at.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Workers connected at once; one is normal, two for a moment while one is replaced.
const CONNECTIONS_MAX: usize = 4;

/// Runs the attempt whose directory this is, to its end. The listener is bound in that directory.
pub fn run(attempt: &Path, listener: UnixListener, spec: ShimSpec) -> io::Result<()> {
    let mut shim = Shim::begin(attempt, listener, spec)?;
    while !shim.is_over() {
        shim.wait_and_act();
    }
    shim.end();
    while !shim.is_heard() {
        shim.wait_and_act();
    }
    Ok(())
}

struct RunningTask {
    step: u32,
    rank: u32,
    pid: i32,
}

struct Shim<'a> {
    attempt: &'a Path,
    spec: ShimSpec,
    listener: UnixListener,
    connections: Vec<Connection>,
    signals: Signals,
    events: EventLog,
    /// What holds its processes together.
    grip: Grip,
    running: Vec<RunningTask>,
    /// Tasks ever started, by step and rank.
    seen: std::collections::BTreeSet<(u32, u32)>,
    /// Exit that counts: of the first task of step 0 that failed, if one did.
    failed: Option<Exit>,
    /// Tasks of step 0 that have not ended.
    open_tasks: usize,
    stopping: Option<Stopping>,
    limit_at: Option<Instant>,
    warn_at: Option<Instant>,
    /// No process of the attempt is left below this one.
    childless: bool,
    /// What is left does not die, and is waited for no longer.
    given_up: bool,
    /// Since when the last event is out.
    ended_at: Option<Instant>,
}

impl<'a> Shim<'a> {
    fn begin(attempt: &'a Path, listener: UnixListener, spec: ShimSpec) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        listener.set_nonblocking(true)?;
        let now = Instant::now();
        let mut shim = Self {
            attempt,
            limit_at: stopping::limit_at(&spec, now),
            warn_at: stopping::warn_at(&spec, now),
            open_tasks: spec.step.tasks.len(),
            spec,
            listener,
            connections: Vec::new(),
            signals: Signals::block()?,
            events: EventLog::create(attempt),
            grip: Grip::default(),
            running: Vec::new(),
            seen: std::collections::BTreeSet::new(),
            failed: None,
            stopping: None,
            childless: true,
            given_up: false,
            ended_at: None,
        };
        let pid = getpid().as_raw();
        let start_ticks = tree::process(pid).map_or(0, |own| own.start_ticks);
        let cgroup = shim.spec.confinement.cgroup.as_ref().map(|it| it.path.clone());
        shim.events.push(ShimEvent::Started { pid, start_ticks, cgroup, version: VERSION });
        match shim.spec.version <= VERSION {
            true => shim.take_grip(),
            false => shim.is_too_old(),
        }
        let step = std::mem::take(&mut shim.spec.step);
        shim.start_tasks(&step);
        Ok(shim)
    }

    fn take_grip(&mut self) {
        match Grip::take(&self.spec.confinement) {
            Ok(mut grip) => {
                grip.contain(self.spec.container.take());
                self.grip = grip;
            }
            Err(error) => self.start_nothing(format!("this node cannot confine it: {error}")),
        }
    }

    /// Orders newer than this program may ask for what it would not do.
    fn is_too_old(&mut self) {
        let wanted = self.spec.version;
        self.start_nothing(format!(
            "gotgan-shim on this node is older than its worker (protocol {VERSION}, not {wanted})"
        ));
    }

    /// The scheduler looks for another node then.
    fn start_nothing(&mut self, reason: String) {
        self.stop(Why::Told(NODE_CAUSE), reason, Duration::ZERO, false);
    }

    /// Step 0 lived here and has ended, or a stop was ordered; and nothing is left, or it was given up.
    fn is_over(&self) -> bool {
        self.stopping.is_some() && (self.given_up || self.nothing_is_left())
    }

    fn nothing_is_left(&self) -> bool {
        self.childless && self.grip.is_empty()
    }

    fn end(&mut self) {
        let (ending, reason) = self.last_word();
        let exit = self.failed.unwrap_or_default();
        match self.given_up {
            true => self.events.push(ShimEvent::Unfit { reason: self.leftovers() }),
            false => self.grip.let_go(),
        }
        self.events.push(ShimEvent::Ended { ending, reason, exit });
        self.ended_at = Some(Instant::now());
        self.pump();
        self.grip.sweep(self.attempt);
    }

    /// A failure of its own is looked at once more: the kernel may know better what it was.
    fn last_word(&self) -> (Ending, String) {
        let Some(stopping) = &self.stopping else {
            return (Ending::Own, String::new());
        };
        let (ending, reason) = (stopping.ending(), stopping.reason.clone());
        if ending != Ending::Own || self.failed.is_none() {
            return (ending, reason);
        }
        match (self.grip.out_of_memory(), self.grip.out_of_processes()) {
            (Some(why), _) => (Ending::OutOfMemory, why),
            (None, Some(why)) if reason.is_empty() => (ending, why),
            (None, Some(why)) => (ending, format!("{reason}; {why}")),
            (None, None) => (ending, reason),
        }
    }

    fn leftovers(&self) -> String {
        let seconds = self.grip.patience().unwrap_or_default().as_secs();
        let below = || tree::descendants(getpid().as_raw()).unwrap_or_default();
        let mut found = self.grip.leftovers();
        if found.is_empty() {
            found = below().iter().map(|process| process.pid).collect();
        }
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let who = if found.is_empty() { "some".to_owned() } else { found.join(", ") };
        format!("processes of a job do not end, {seconds} s after SIGKILL: {who}")
    }

    /// The last word is where a worker finds it, or nobody has come for it in time.
    fn is_heard(&self) -> bool {
        let told = self.connections.iter().any(|connection| connection.has_all(&self.events));
        let late = self.ended_at.is_none_or(|at| at.elapsed() >= LAST_WORD_WAIT);
        told || late || self.events.is_kept()
    }

    fn wait_and_act(&mut self) {
        self.wait();
        self.take_signals();
        self.reap();
        self.accept();
        self.serve_connections();
        self.events.flush();
        self.act_on_time();
        // Last, since an order to stop may just have come to where nothing runs any more.
        self.leave_if_idle();
    }

    fn wait(&self) {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for connection in &self.connections {
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, connection.is_behind());
            fds.push(PollFd::new(connection.stream.as_fd(), wanted));
        }
        match poll(&mut fds, self.poll_timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            // The system is out of memory for a moment: looking less often is better than ending.
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }

    fn poll_timeout(&self) -> PollTimeout {
        if self.is_over() && self.ended_at.is_none() {
            return PollTimeout::ZERO;
        }
        let behind = self.events.is_behind() || self.ended_at.is_some();
        let retry = behind.then(|| Instant::now() + RETRY_PAUSE);
        let own = if self.stopping.is_some() { None } else { self.limit_at };
        let next_stop =
            self.stopping.as_ref().filter(|_| !self.nothing_is_left()).map(Stopping::next_at);
        match [own, self.warn_at, next_stop, retry].into_iter().flatten().min() {
            None => PollTimeout::NONE,
            // One more millisecond: the timeout is cut to whole ones, and waking early would spin.
            Some(at) => {
                let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(received)) = self.signals.next() {
            match received {
                Received::Child => {}
                Received::Terminate => self.stop(
                    Why::Told(NODE_CAUSE),
                    "the node is shutting down".into(),
                    Duration::from_millis(self.spec.grace_ms),
                    false,
                ),
            }
        }
    }

    fn reap(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.reaped(pid, Exit::code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.reaped(pid, Exit { code: 0, signal: signal as i32 });
                }
                Ok(WaitStatus::StillAlive) => {
                    self.childless = false;
                    return;
                }
                Err(Errno::ECHILD) => {
                    self.childless = true;
                    return;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// A child is dead: one of the tasks, or an orphan of theirs, of which nothing is to be told.
    fn reaped(&mut self, pid: Pid, exit: Exit) {
        let Some(index) = self.running.iter().position(|task| task.pid == pid.as_raw()) else {
            return;
        };
        let task = self.running.swap_remove(index);
        let failure = match self.grip.end_keeper(task.pid) {
            true => task::take_failure(self.attempt, task.step, task.rank),
            false => None,
        };
        if let Some(failure) = failure.filter(|_| self.stopping.is_none()) {
            return self.not_started(task.step, task.rank, failure);
        }
        let detail = match &self.stopping {
            Some(stopping) if !exit.is_success() => stopping.reason.clone(),
            None if exit.signal == KILL => self.grip.out_of_memory().unwrap_or_default(),
            Some(_) | None => String::new(),
        };
        self.task_ended(task.step, task.rank, exit, detail);
    }

    fn task_ended(&mut self, step: u32, rank: u32, exit: Exit, detail: String) {
        // A reader of output goes by the attempt's own end if the file is missing.
        let _ = write_exit(self.attempt, step, rank, exit);
        let why = if detail.is_empty() { exit.to_string() } else { detail.clone() };
        self.events.push(ShimEvent::TaskEnded { step, rank, exit, detail });
        if step == 0 {
            self.step_0_task_ended(rank, exit, &why);
        }
    }

    /// The first failure ends the others; the last end of all ends whatever is left.
    fn step_0_task_ended(&mut self, rank: u32, exit: Exit, why: &str) {
        self.open_tasks = self.open_tasks.saturating_sub(1);
        if !exit.is_success() && self.failed.is_none() {
            self.failed = Some(exit);
        }
        let grace = Duration::from_millis(self.spec.grace_ms);
        let reason = match (exit.is_success(), self.spec.batch) {
            (true, _) => String::new(),
            (false, true) => format!("the script {why}"),
            (false, false) => format!("rank {rank} {why}"),
        };
        if self.open_tasks == 0 {
            self.stop(Why::Done, reason, grace.min(LEFTOVER_GRACE), false);
        } else if !exit.is_success() {
            self.stop(Why::Done, reason, grace, false);
        }
    }

    fn start_tasks(&mut self, step: &StepSpec) {
        let place = self.attempt.join(format!("step-{}", step.step));
        let refused = match self.grip.make_place(&place) {
            Ok(()) => step.refused.clone(),
            Err(error) => format!("cannot start: no place for its output: {error}"),
        };
        for task in &step.tasks {
            let fresh = self.seen.insert((step.step, task.rank));
            if fresh && refused.is_empty() {
                self.start_task(step, task);
            } else if fresh {
                self.task_ended(step.step, task.rank, NOT_STARTED, refused.clone());
            }
        }
        self.reap();
    }

    fn start_task(&mut self, step: &StepSpec, task: &protocol::TaskSpec) {
        if let Some(stopping) = &self.stopping {
            let detail = format!("not started: {}", stopping.reason);
            return self.task_ended(step.step, task.rank, NOT_STARTED, detail);
        }
        match task::start(self.attempt, step, task, &self.grip) {
            Ok(pid) => {
                self.childless = false;
                self.running.push(RunningTask { step: step.step, rank: task.rank, pid });
                if container::has_keeper(&self.grip) {
                    self.grip.begin_keeper(pid);
                }
                let (step, rank) = (step.step, task.rank);
                self.events.push(ShimEvent::TaskStarted { step, rank, pid });
            }
            Err(failure) => self.not_started(step.step, task.rank, failure),
        }
    }

    /// What is the node's own fault ends the attempt, and is tried elsewhere.
    fn not_started(&mut self, step: u32, rank: u32, failure: task::Failure) {
        if failure.of_node {
            self.stop(Why::Told(NODE_CAUSE), failure.detail.clone(), Duration::ZERO, false);
        }
        self.task_ended(step, rank, failure.exit, failure.detail);
    }

    /// Once no task runs and none can be started any more, the room needs nobody who waits for orphans.
    fn leave_if_idle(&mut self) {
        if self.stopping.is_some() && self.running.is_empty() {
            self.grip.leave();
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX {
                self.connections.remove(0);
            }
            self.connections.extend(Connection::new(stream));
        }
    }

    fn serve_connections(&mut self) {
        for mut connection in std::mem::take(&mut self.connections) {
            // A connection that fails is dropped: its worker is gone, the next one connects anew.
            if let Ok(commands) = connection.read() {
                commands.into_iter().for_each(|command| self.obey(command, &mut connection));
                self.connections.push(connection);
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        let events = &self.events;
        self.connections.retain_mut(|connection| connection.pump(events).is_ok());
    }

    fn obey(&mut self, command: ShimCommand, connection: &mut Connection) {
        match command {
            ShimCommand::Hello { from, .. } => {
                connection.follow(usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX));
            }
            // Nothing follows the last event.
            ShimCommand::StartTasks(_) | ShimCommand::Stop { .. } if self.ended_at.is_some() => {}
            ShimCommand::StartTasks(step) => self.start_tasks(&step),
            ShimCommand::Stop { cause, reason, grace_ms, warn } => {
                self.stop(Why::Told(cause), reason, Duration::from_millis(grace_ms), warn);
            }
        }
    }

    fn stop(&mut self, why: Why, reason: String, grace: Duration, warn: bool) {
        let now = Instant::now();
        if let Some(stopping) = &mut self.stopping {
            return stopping.hasten(why, reason, now, grace);
        }
        let ahead =
            self.spec.warning.as_ref().filter(|_| warn).map(|w| Duration::from_millis(w.ahead_ms));
        if ahead.is_some() {
            self.warn();
        }
        // A warning that would come before the time limit says nothing any more.
        self.warn_at = None;
        // Acted on in this turn of the loop, once it is known whether anything is left to stop.
        self.stopping = Some(Stopping::new(why, reason, now, grace, ahead));
    }

    fn act_on_time(&mut self) {
        let now = Instant::now();
        if self.warn_at.is_some_and(|at| at <= now) {
            self.warn();
        }
        if self.stopping.is_none() && self.limit_at.is_some_and(|at| at <= now) {
            let seconds = self.spec.time_limit_ms / 1000;
            let reason = format!("the time limit of {seconds} s was reached");
            self.stop(Why::Limit, reason, Duration::from_millis(self.spec.grace_ms), false);
        }
        if self.nothing_is_left() {
            return;
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.act(now, &self.grip);
            let patience = self.grip.patience();
            self.given_up = patience.is_some_and(|patience| stopping.is_given_up(now, patience));
        }
    }

    /// Sends the warning signal, once.
    fn warn(&mut self) {
        self.warn_at = None;
        let Some(warning) = &self.spec.warning else {
            return;
        };
        let script = self.running.iter().find(|task| self.spec.batch && task.step == 0);
        let script = script.map(|task| container::process_of(task.pid, &self.grip));
        stopping::warn(warning, script, &self.grip);
    }
}

/// `CAUSE_NODE` of the API, which this process does not link.
const NODE_CAUSE: i32 = 3;
/// What kills without a word, and with what the kernel kills who takes too much memory.
const KILL: i32 = 9;
/// What a task counts as that was asked for after the end had begun.
const NOT_STARTED: Exit = Exit { code: 126, signal: 0 };

/// By rename, so that a reader sees all of it or nothing.
fn write_exit(attempt: &Path, step: u32, rank: u32, exit: Exit) -> io::Result<()> {
    let path = task::exit_path(attempt, step, rank);
    let fresh = path.with_extension("exit-new");
    std::fs::write(&fresh, serde_json::to_vec(&exit)?)?;
    std::fs::rename(fresh, path)
}
