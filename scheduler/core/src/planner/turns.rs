//! Whose turn it is: jobs within a guarantee before those that borrow, and of the former those first that others have
//! stopped for; then by how far their project is from its turn, level by level from the top; then by priority, by age,
//! and the larger one first. So priority says which of its own jobs a project wants first.
//!
//! Jobs of one project that want the same class stand in one line, so that only the heads of lines are compared; in a
//! line, jobs that nothing but their order tells apart are one [`Cohort`], of which only the first is looked at: where it
//! cannot start, none of them can, since within a pass what there is only shrinks. A start moves its line, and those near
//! it in the tree, back ([`Tournament`]).

mod lines;
mod members;
mod ready;
mod tournament;

use std::cmp::Reverse;
use std::collections::BTreeSet;

pub(super) use lines::{Lines, Plain, wanted};
use lines::{Parts, Unopened};
pub(super) use members::Members;
use ready::{Front, Place, Ready};
use tournament::Tournament;

use super::fair::{Fair, Tier, Wanted};
use super::limits::{Limits, ProjectIndex};
use super::pass::Want;
use super::score::ClassIndex;
use crate::amount::GpuMilli;
use crate::ids::{JobId, NodeName, ProjectPath};
use crate::quota::entitle::NodeIndex;
use crate::spec::JobSpec;
use crate::world::{self, CohortKey, CohortNumber, CohortPlace, Wish};

/// Jobs of one project that want the same, by cohorts.
#[derive(Debug)]
struct Line<'w> {
    /// `None` for a project that the tree has not; it starts nothing.
    node: Option<NodeIndex>,
    /// Once it was entered into the limits.
    project: Option<ProjectIndex>,
    path: &'w ProjectPath,
    wanted: Wanted,
    /// That of its project in the world's cohorts; `None` if it stands beside them.
    number: Option<u32>,
    /// Whether it has cohorts that nobody has looked at; they are once its turn comes.
    is_unopened: bool,
    /// Whether any of them may find room where those that waited before did not.
    roams: bool,
    /// The next job of each cohort whose turn it is in this tier.
    ready: Ready,
    /// Cohorts that must borrow.
    later: Vec<CohortId>,
}

/// A cohort of the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CohortId(usize);

/// What the jobs of a cohort have in common.
#[derive(Debug)]
pub(super) struct Common<'w> {
    /// By which the report names them.
    pub name: Name,
    /// The specification of one of them.
    pub spec: &'w JobSpec,
    /// Nodes they avoid.
    pub avoid: &'w BTreeSet<NodeName>,
    /// What each of them asks for.
    pub wish: Wish,
}

/// How a cohort of the pass is named.
#[derive(Debug, Clone)]
pub(super) enum Name {
    /// The world has it.
    World {
        /// Its number.
        number: CohortNumber,
        /// That of its kind of request.
        kind: u32,
        /// That of its project.
        project: u32,
    },
    /// All of its jobs stand beside the world's cohorts, and their moment has come.
    Apart(CohortKey),
}

/// Jobs that the pass cannot tell apart but by their order.
#[derive(Debug)]
pub(super) struct Cohort<'w> {
    /// What they have in common.
    pub common: Common<'w>,
    /// Their project in the limits.
    pub project: ProjectIndex,
    /// What they compete for; found when their turn comes.
    pub want: Option<Want>,
    line: usize,
    /// Those whose turn has not been, in their order.
    members: Members<'w>,
}

/// What a job comes with when it is its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// The best it may start in.
    pub tier: Tier,
    /// Its project in the tree.
    pub node: Option<NodeIndex>,
}

/// A job whose turn it is. Its line stands still until it is settled.
#[derive(Debug)]
pub(super) struct Turn {
    /// Which.
    pub job: JobId,
    /// Of which cohort.
    pub cohort: CohortId,
    /// With what.
    pub claim: Claim,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The next of the cohort has its turn.
    Next,
    /// It could not start within a guarantee, and none of its cohort can; they may still borrow.
    Later,
    /// It could not start, and none of its cohort can.
    Done,
}

/// All lines.
#[derive(Debug)]
pub(super) struct Turns<'w> {
    world: &'w world::Cohorts,
    /// Only lines with something that roams have turns.
    only_roaming: bool,
    lines: Vec<Line<'w>>,
    cohorts: Vec<Cohort<'w>>,
    unopened: Unopened,
    tournament: Tournament,
    /// Of what was taken, so much is known to the tournament.
    seen: usize,
    tier: Tier,
}

impl<'w> Turns<'w> {
    /// All lines; without shares nothing but places tells them apart.
    pub fn of(lines: Lines<'w>, fair: Option<&Fair>) -> Self {
        let Parts { world, mut lines, cohorts, unopened } = lines.into_parts();
        // Collected first and ordered once: faster than one by one.
        let mut fronts = vec![Vec::new(); lines.len()];
        for (at, cohort) in cohorts.iter().enumerate() {
            fronts[cohort.line].extend(cohort.front(CohortId(at)));
        }
        for (line, fronts) in lines.iter_mut().zip(fronts) {
            line.ready = Ready::of(fronts);
        }
        // Where nothing is guaranteed, all compete alike.
        let has_tiers = fair.is_some_and(|fair| fair.has_tiers);
        let tier = if has_tiers { Tier::Guaranteed } else { Tier::Borrowed };
        let tournament = Tournament::of(&lines, fair);
        let seen = fair.map_or(0, |fair| fair.taken().len());
        let only_roaming = false;
        let mut turns =
            Turns { world, only_roaming, lines, cohorts, unopened, tournament, seen, tier };
        turns.line_up();
        turns
    }

    /// Gives the head of every line its place.
    fn line_up(&mut self) {
        let (only_roaming, tier) = (self.only_roaming, self.tier);
        let lines = self.lines.iter();
        let heads = lines.map(|line| line.head(tier).filter(|_| line.roams || !only_roaming));
        self.tournament.seat_all(heads);
    }

    /// The next job, with the best tier it may start in. After all that are within a guarantee come those that
    /// are not, and those that were put off. Each must be settled before the next is asked for.
    pub fn next(&mut self, fair: &Fair, limits: &mut Limits<'w>) -> Option<Turn> {
        for taken in &fair.taken()[self.seen..] {
            self.tournament.burdened(fair, taken.node, taken.class);
        }
        self.seen = fair.taken().len();
        loop {
            let Some((line, Front { place, cohort })) = self.pop(limits) else {
                if self.tier == Tier::Borrowed {
                    return None;
                }
                self.begin_borrowing();
                continue;
            };
            let of = &self.lines[line];
            let claim = Claim { tier: self.tier, node: of.node };
            let turn = Turn { job: place.job, cohort, claim };
            if self.tier == Tier::Borrowed || of.tier(fair, place.gpus.0) == Tier::Guaranteed {
                return Some(turn);
            }
            self.put_off(line, cohort, fair);
        }
    }

    /// Puts off a cohort that is beyond its guarantee, and all behind it in its line until one that is within it.
    fn put_off(&mut self, line: usize, cohort: CohortId, fair: &Fair) {
        let of = &mut self.lines[line];
        of.later.push(cohort);
        while let Some(front) = of.ready.peek() {
            if of.tier(fair, front.place.gpus.0) == Tier::Guaranteed {
                break;
            }
            of.ready.pop();
            of.later.push(front.cohort);
        }
        self.enter_head(line);
    }

    /// The job behind the one whose turn it is, in its line; once that is settled by [`Turns::pass_over`] the line goes
    /// on.
    pub fn behind(&self, turn: &Turn) -> Option<Turn> {
        let line = &self.lines[self.cohorts[turn.cohort.0].line];
        let Front { place, cohort } = line.ready.peek()?;
        Some(Turn { job: place.job, cohort, claim: turn.claim })
    }

    /// Passes over the cohort that is next in the line of the one whose turn it is.
    pub fn pass_over(&mut self, turn: &Turn) {
        let line = self.cohorts[turn.cohort.0].line;
        self.lines[line].ready.pop();
    }

    /// Gives the head of a line its place.
    fn enter_head(&mut self, line: usize) {
        let of = &self.lines[line];
        let head = of.head(self.tier).filter(|_| of.roams || !self.only_roaming);
        self.tournament.seat(line, head);
    }

    /// Notes what became of a turn, and lets its line go on.
    pub fn settle(&mut self, turn: &Turn, fate: Fate) {
        let cohort = &mut self.cohorts[turn.cohort.0];
        let at = cohort.line;
        match fate {
            Fate::Next => {
                cohort.members.advance();
                let front = cohort.front(turn.cohort);
                if let Some(front) = front {
                    self.lines[at].ready.add(front);
                }
            }
            Fate::Later => self.lines[at].later.push(turn.cohort),
            Fate::Done => {}
        }
        self.enter_head(at);
    }

    /// A cohort.
    pub fn cohort(&self, cohort: CohortId) -> &Cohort<'w> {
        &self.cohorts[cohort.0]
    }

    /// A cohort, to note what it competes for.
    pub fn cohort_mut(&mut self, cohort: CohortId) -> &mut Cohort<'w> {
        &mut self.cohorts[cohort.0]
    }

    fn begin_borrowing(&mut self) {
        self.tier = Tier::Borrowed;
        for line in &mut self.lines {
            let later = std::mem::take(&mut line.later).into_iter();
            let fronts = later.filter_map(|cohort| self.cohorts[cohort.0].front(cohort));
            line.ready = Ready::of(fronts.collect());
        }
        self.line_up();
    }

    /// Takes the head of the line that is first. Its line has no place until it is settled.
    fn pop(&mut self, limits: &mut Limits<'w>) -> Option<(usize, Front)> {
        loop {
            let line = self.tournament.first()?;
            if std::mem::take(&mut self.lines[line].is_unopened) {
                self.open(line, limits);
                self.enter_head(line);
                continue;
            }
            self.tournament.seat(line, None);
            if let Some(front) = self.lines[line].ready.pop() {
                return Some((line, front));
            }
        }
    }

    /// From now on only lines have turns in which something may find room where those that waited before did not.
    pub fn keep_roaming(&mut self) {
        if !self.only_roaming {
            self.only_roaming = true;
            self.line_up();
        }
    }

    /// Looks at the cohorts of a line.
    fn open(&mut self, line: usize, limits: &mut Limits<'w>) {
        let of = &mut self.lines[line];
        let project = *of.project.get_or_insert_with(|| limits.project(of.path));
        let mut fronts = Vec::new();
        for number in self.unopened.of_line(line, of, self.world) {
            // Who asks for a reservation by name comes into line only where there is any, and never unopened.
            let cohort = self.world.get(number).filter(|of| !of.wish.asks_reservation);
            let Some(cohort) = cohort else { continue };
            let cohort = Cohort::open(number, cohort, (line, project));
            fronts.extend(cohort.front(CohortId(self.cohorts.len())));
            self.cohorts.push(cohort);
        }
        of.ready.add_all(fronts);
    }
}

impl<'w> Cohort<'w> {
    /// Jobs whose turn has not been.
    pub fn members(&self) -> &Members<'w> {
        &self.members
    }

    /// Goes on to the next job.
    pub fn advance(&mut self) {
        self.members.advance();
    }

    /// Goes on to the last of the tasks of an array that are all like the one whose turn it is; how many were passed
    /// over.
    pub fn advance_to_last(&mut self) -> usize {
        self.members.advance_to_last()
    }

    fn front(&self, cohort: CohortId) -> Option<Front> {
        let CohortPlace { promised, priority, queued, job, .. } = self.members.first()?;
        let place = Place { promised, priority, queued, gpus: Reverse(self.common.wish.gpus), job };
        Some(Front { place, cohort })
    }
}

impl<'w> Line<'w> {
    fn of(node: Option<NodeIndex>, path: &'w ProjectPath, wanted: Wanted) -> Self {
        let (project, number) = (None, None);
        let (is_unopened, roams) = (false, false);
        let (ready, later) = (Ready::default(), Vec::new());
        Line { node, project, path, wanted, number, is_unopened, roams, ready, later }
    }

    /// The node by whose burdens, and those of the nodes above it, it is compared with others, for a class or for all
    /// together; `None`: by nothing, and it comes before all others. Jobs without GPUs have their turn by what their project
    /// used of all classes.
    fn compared_by(&self) -> Option<(Option<ClassIndex>, NodeIndex)> {
        match (self.wanted, self.node) {
            (Wanted::Class(None), _) | (_, None) => None,
            (Wanted::Class(class), Some(node)) => Some((class, node)),
            (Wanted::Any | Wanted::Nothing, Some(node)) => Some((None, node)),
        }
    }

    /// The place of its next job.
    fn head(&self, tier: Tier) -> Option<Place> {
        // Of those with equal burdens one that was not looked at comes first, and then finds its place.
        let unopened = self.is_unopened.then_some(Place::FIRST);
        let front = unopened.or_else(|| self.ready.peek().map(|front| front.place))?;
        let promised = Reverse(front.promised.0 && tier == Tier::Guaranteed);
        Some(Place { promised, ..front })
    }

    /// The best tier the job may start in; one without GPUs takes nothing from anybody's guarantee.
    fn tier(&self, fair: &Fair, gpus: GpuMilli) -> Tier {
        let tier = |node, class| fair.tier(node, class, gpus);
        match (self.wanted, self.node) {
            (Wanted::Nothing, _) => Tier::Guaranteed,
            (Wanted::Class(None), _) | (_, None) => Tier::Borrowed,
            (Wanted::Class(Some(class)), Some(node)) => tier(node, class),
            (Wanted::Any, Some(node)) => {
                let tiers = fair.class_indexes().map(|class| tier(node, class));
                tiers.min().unwrap_or(Tier::Borrowed)
            }
        }
    }
}
