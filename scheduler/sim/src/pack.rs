//! The published experiment on fragmentation: how much of a cluster can be given away, if jobs come until far more was
//! asked for than there is, and nothing ever ends.
//!
//! Weng et al., *Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent*, USENIX
//! ATC 2023. docs/placement.md has the rules and what comes out. Six policies are theirs; the seventh is our own, by the
//! very functions that the planner places with ([`gotgan_core::fragmentation`]).
//!
//! Reading order: [`read`] (nodes and tasks), [`arrivals`] (what comes in which order), [`policy`] (which node is best),
//! [`board`] (finding it without looking at every node again), [`report`].

pub mod arrivals;
pub mod board;
pub mod fgd;
pub mod policy;
pub mod published;
pub mod read;
pub mod report;

use gotgan_core::amount::GpuMilli;
use gotgan_core::fragmentation::{Counts, Shape};

use crate::draw::Draw;
use board::{Board, Host};
use fgd::TypicalTasks;
use policy::{Policy, Rule};

/// So much is asked for in all, percent of the cluster.
pub const LOAD_PERCENT: u64 = 130;

/// Nodes and tasks.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Nodes with GPUs, in the order of names.
    pub hosts: Vec<Host>,
    /// The list.
    pub tasks: Vec<Shape>,
    /// The list's typical tasks, by which fragmentation is measured.
    pub typical: TypicalTasks,
}

/// What came of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Tasks that came.
    pub arrived: u64,
    /// Tasks that found a place.
    pub placed: u64,
    /// At each whole percent of the cluster's GPUs that had been asked for, from 0 to [`LOAD_PERCENT`].
    pub moments: Vec<Moment>,
}

/// What is given away, and what of the rest is fragmented.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// GPUs given away.
    pub allocated: GpuMilli,
    /// Free GPUs that typical tasks cannot use, thousandths of a GPU times a number of tasks.
    pub fragments: u64,
}

impl Experiment {
    /// Of those nodes and tasks.
    #[must_use]
    pub fn new(hosts: Vec<Host>, tasks: Vec<Shape>) -> Self {
        let typical = TypicalTasks::of(&tasks);
        Experiment { hosts, tasks, typical }
    }

    /// GPUs of all nodes.
    #[must_use]
    pub fn capacity(&self) -> GpuMilli {
        self.hosts.iter().map(|host| host.room.free()).sum()
    }

    /// One run.
    #[must_use]
    pub fn run(&self, policy: Policy, seed: u64) -> Run {
        let arrivals = arrivals::of(&self.tasks, self.capacity(), seed);
        let board = Board::new(self.hosts.clone(), Rule::of(policy, &self.typical));
        let draw = Draw::named(seed, "pack places");
        let run = Run { seed, arrived: 0, placed: 0, moments: Vec::new() };
        let mut course = Course { experiment: self, board, draw, run, now: Moment::default() };
        course.follow(&arrivals);
        course.run
    }
}

/// A run under way.
struct Course<'e> {
    experiment: &'e Experiment,
    board: Board,
    draw: Draw,
    run: Run,
    now: Moment,
}

impl Course<'_> {
    fn follow(&mut self, arrivals: &[Shape]) {
        let capacity = self.experiment.capacity();
        let (mut asked, mut lessons) = (GpuMilli::ZERO, Lessons::default());
        for shape in arrivals {
            if lessons.hear(shape) {
                self.board.learn(&lessons.counts);
            }
            self.place(shape);
            asked += shape.gpus.milli();
            while self.next_moment() < LOAD_PERCENT
                && asked.times(100) >= capacity.times(self.next_moment())
            {
                self.record();
            }
        }
        // The last task that comes is the last that stays below the load.
        while self.next_moment() <= LOAD_PERCENT {
            self.record();
        }
    }

    fn place(&mut self, shape: &Shape) {
        self.run.arrived += 1;
        if self.board.place(shape, &mut self.draw) {
            self.run.placed += 1;
            self.now.allocated += shape.gpus.milli();
        }
    }

    fn next_moment(&self) -> u64 {
        self.run.moments.len() as u64
    }

    fn record(&mut self) {
        let hosts = self.board.hosts().iter();
        let typical = &self.experiment.typical;
        self.now.fragments = hosts.map(|host| typical.fragments(&host.room)).sum();
        self.run.moments.push(self.now);
    }
}

/// What has come so far. A mix is made of it anew whenever as many tasks have come as the last one was made of.
#[derive(Debug, Default)]
struct Lessons {
    counts: Counts,
    heard: u64,
    next: u64,
}

impl Lessons {
    /// Counts a task; whether it is time to learn from all that came, this one included.
    fn hear(&mut self, shape: &Shape) -> bool {
        *self.counts.entry(*shape).or_default() += 1;
        self.heard += 1;
        let due = self.heard > self.next;
        if due {
            self.next = self.heard.saturating_mul(2);
        }
        due
    }
}
