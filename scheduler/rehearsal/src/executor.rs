//! One thread that polls tasks in an order drawn from the seed. A step is one poll of one task, so between any two awaits
//! anything else may happen, and all tasks of a process can be dropped between two of its steps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use gotgan_scheduler::clock::simulated;

use crate::draw;

/// What a task is part of, and ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What is there as long as the play lasts: people, nodes, wires, who breaks things.
    Stage,
    /// One life of a scheduler.
    Scheduler(u32),
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static SPAWNED: RefCell<Vec<(Group, Kind, Work)>> = const { RefCell::new(Vec::new()) };
}

/// How a task is woken beside by its wakers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Whoever follows it has no waker of its own.
    Followed,
    /// Woken whenever a followed task of its group was polled.
    Following,
}

/// Begins a task.
pub fn spawn(group: Group, work: impl Future<Output = ()> + 'static) {
    spawn_as(group, Kind::Plain, work);
}

/// Begins one that [`spawn_following`] tasks of its group look at.
pub fn spawn_followed(group: Group, work: impl Future<Output = ()> + 'static) {
    spawn_as(group, Kind::Followed, work);
}

/// Begins one that is polled again whenever a followed one of its group was.
pub fn spawn_following(group: Group, work: impl Future<Output = ()> + 'static) {
    spawn_as(group, Kind::Following, work);
}

fn spawn_as(group: Group, kind: Kind, work: impl Future<Output = ()> + 'static) {
    SPAWNED.with_borrow_mut(|spawned| spawned.push((group, kind, Box::pin(work))));
}

type Ready = Arc<Mutex<Vec<usize>>>;

struct Bell {
    place: usize,
    rung: AtomicBool,
    ready: Ready,
}

impl Bell {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

struct Task {
    group: Group,
    kind: Kind,
    work: Work,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The tasks.
#[derive(Default)]
pub struct Executor {
    tasks: Vec<Option<Task>>,
    vacant: Vec<usize>,
    ready: Ready,
    /// Groups that are not polled, and what waits there.
    paused: BTreeMap<Group, Vec<usize>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Executor {
    /// Takes in what was begun.
    fn settle(&mut self) {
        let spawned = SPAWNED.with_borrow_mut(std::mem::take);
        for (group, kind, work) in spawned {
            let place = self.vacant.pop().unwrap_or_else(|| {
                self.tasks.push(None);
                self.tasks.len() - 1
            });
            let ready = Arc::clone(&self.ready);
            let bell = Arc::new(Bell { place, rung: AtomicBool::new(false), ready });
            let waker = Waker::from(Arc::clone(&bell));
            bell.ring();
            self.tasks[place] = Some(Task { group, kind, work, bell, waker });
        }
    }

    /// Polls one task, or moves the clock to when one can be. Returns whose it was; `None` if nothing will ever happen.
    pub fn step(&mut self) -> Option<Group> {
        loop {
            self.settle();
            let Some(place) = self.draw_ready() else {
                if !simulated::advance_to_next() {
                    return None;
                }
                continue;
            };
            let Some(group) = self.tasks[place].as_ref().map(|task| task.group) else { continue };
            if let Some(waiting) = self.paused.get_mut(&group) {
                waiting.push(place);
                continue;
            }
            // Work takes time too.
            if draw::one_in(8) {
                simulated::advance(Duration::from_micros(draw::below(200)));
            }
            self.poll(place);
            return Some(group);
        }
    }

    fn draw_ready(&mut self) -> Option<usize> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let at = draw::below(ready.len() as u64);
        Some(ready.swap_remove(usize::try_from(at).unwrap_or(0)))
    }

    fn poll(&mut self, place: usize) {
        let Some(task) = self.tasks[place].as_mut() else { return };
        task.bell.rung.store(false, Ordering::Relaxed);
        let mut context = Context::from_waker(&task.waker);
        let is_over = task.work.as_mut().poll(&mut context).is_ready();
        let (group, kind) = (task.group, task.kind);
        if is_over {
            self.drop_task(place);
        }
        if kind == Kind::Followed {
            let following = self.tasks.iter().flatten();
            following
                .filter(|task| task.group == group && task.kind == Kind::Following)
                .for_each(|task| task.bell.ring());
        }
    }

    fn drop_task(&mut self, place: usize) {
        drop(self.tasks[place].take());
        self.vacant.push(place);
    }

    /// Ends a group between two of its steps, as a kill does.
    pub fn kill(&mut self, group: Group) {
        self.settle();
        self.resume(group);
        for place in 0..self.tasks.len() {
            if self.tasks[place].as_ref().is_some_and(|task| task.group == group) {
                self.drop_task(place);
            }
        }
        // What its ends have begun ends as well.
        SPAWNED.with_borrow_mut(|spawned| spawned.retain(|(of, _, _)| *of != group));
    }

    /// Stops polling a group.
    pub fn pause(&mut self, group: Group) {
        self.paused.entry(group).or_default();
    }

    /// Goes on with it.
    pub fn resume(&mut self, group: Group) {
        let waiting = self.paused.remove(&group).unwrap_or_default();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).extend(waiting);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.tasks.clear();
        drop(SPAWNED.with_borrow_mut(std::mem::take));
    }
}
