//! The planner's copy of the world: what has changed in it since the last pass, and when the next one is due. While nodes
//! come back to a scheduler that has just begun to lead, those that have not reported are counted on in it, and in it alone.

use std::time::{Duration, Instant};

use gotgan_core::attempt::AttemptState;
use gotgan_core::change::Change;
use gotgan_core::ids::NodeName;
use gotgan_core::job::JobState;
use gotgan_core::muster::{self, Count, Standing, Terms};
use gotgan_core::node::Liveness;
use gotgan_core::plan::{Plan, Report};
use gotgan_core::planner::Bearings;
use gotgan_core::world::World;

use super::pace::{Depth, News, Pace};
use crate::clock;

/// A pass at least this often while jobs wait, for retry delays that run out and starts that are to be planned.
pub(super) const IDLE_PASS: Duration = Duration::from_secs(1);

/// While nodes come back they are counted this often: not once for each that comes, as there are thousands.
const MUSTER_LOOK: Duration = Duration::from_millis(10);

/// And passes begin no sooner than so long after the last one: thousands of nodes need the processors to come back.
const MUSTER_REST: Duration = Duration::from_millis(50);

/// How far the nodes are in coming back to a scheduler that has just begun to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Muster {
    /// The world is not here yet.
    Unbegun,
    /// Nodes that have not reported are counted on, and only those start jobs that have.
    Awaiting { began: Instant, counted: Option<Instant> },
    /// Whoever has not reported is not counted on.
    Over,
}

impl Muster {
    pub fn is_over(self) -> bool {
        self == Muster::Over
    }
}

/// What the planner's thread knows.
#[derive(Debug)]
pub(super) struct Replica {
    /// As committed; but nodes that have not reported are counted on while they come back.
    pub world: World,
    /// What the last full pass left for passes that follow events.
    pub bearings: Bearings,
    /// When what pass is due.
    pub pace: Pace,
    /// A plan is on its way through the writer.
    pub in_flight: bool,
    /// How far nodes are in coming back.
    pub muster: Muster,
    /// When a pass for an event was last held against the long way.
    pub cross_checked: Instant,
}

impl Replica {
    /// Before the world is here. From this length of a full pass on, passes for events go between.
    pub fn new(events_beyond: Duration) -> Self {
        Replica {
            world: World::default(),
            bearings: Bearings::default(),
            pace: Pace::new(events_beyond),
            in_flight: false,
            muster: Muster::Unbegun,
            cross_checked: clock::instant(),
        }
    }

    /// How long there is nothing to do if nothing arrives.
    pub fn rest(&self) -> Duration {
        let idle = if self.muster.is_over() { IDLE_PASS } else { MUSTER_LOOK };
        let due = self.next_pass().map(|(due, _)| due.saturating_duration_since(clock::instant()));
        due.map_or(idle, |due| due.min(idle))
    }

    /// What pass comes next, and when; `None` while there is nothing to plan or a plan is on its way.
    pub fn next_pass(&self) -> Option<(Instant, Depth)> {
        let can_event = || self.bearings.suffice_for(&self.world);
        if self.in_flight {
            return None;
        }
        match self.muster {
            Muster::Unbegun => None,
            Muster::Awaiting { .. } => {
                let (due, depth) = self.pace.next(can_event)?;
                Some((due.max(self.pace.rested(MUSTER_REST)), depth))
            }
            Muster::Over => self.pace.next(can_event),
        }
    }

    /// Leaves of a plan what can be done now.
    pub fn hold_back(&self, plan: &mut Plan) {
        if !self.muster.is_over() {
            muster::hold_back(plan, &self.world);
        }
    }

    /// Looks whether enough nodes have reported, until they have once. From then on nobody is counted on who has not.
    pub fn look_around(&mut self, terms: Terms) {
        let Muster::Awaiting { began, counted } = self.muster else { return };
        if counted.is_some_and(|counted| clock::since(counted) < MUSTER_LOOK) {
            return;
        }
        self.muster = Muster::Awaiting { began, counted: Some(clock::instant()) };
        let waited_ms = u64::try_from(clock::since(began).as_millis()).unwrap_or(u64::MAX);
        match muster::standing(terms, muster::count(&self.world), waited_ms) {
            Standing::Awaiting { .. } => return,
            Standing::Gathered(Count { known, heard }) => {
                tracing::info!(
                    known,
                    heard,
                    "enough nodes have reported, the others are not awaited"
                );
            }
            Standing::GraceOver(Count { known, heard }) => {
                tracing::warn!(known, heard, "few nodes have reported, the others are not awaited");
            }
        }
        self.muster = Muster::Over;
        muster::count_on_none(&mut self.world);
        self.bearings = Bearings::default();
        self.pace.note(News::Ground);
    }

    /// Takes in what was committed. The last full pass found `report`.
    pub fn see(&mut self, changes: &[Change], report: &Report) {
        let owes_full = self.pace.owes_full();
        for change in changes {
            if let Some(node) = self.reporting(change) {
                self.pace.note(News::Starts);
                self.bearings.see_reported(node);
            } else {
                self.pace.note(news_of(change, report, owes_full));
                self.bearings.see(change);
            }
            self.world.apply(change);
        }
    }

    /// Begins anew with this world.
    pub fn reset(&mut self, world: World) {
        self.world = world;
        if let Muster::Unbegun = self.muster {
            self.muster = Muster::Awaiting { began: clock::instant(), counted: None };
        }
        if !self.muster.is_over() {
            muster::count_on_all(&mut self.world);
        }
        self.bearings = Bearings::default();
        self.pace.note(News::Ground);
    }

    /// The node that was counted on and has reported with this change.
    fn reporting<'c>(&self, change: &'c Change) -> Option<&'c NodeName> {
        let Change::NodeHeard { node, liveness: Liveness::Ready, .. } = change else { return None };
        self.world.nodes.get(node).is_some_and(|known| known.awaited).then_some(node)
    }
}

/// What a pass after this change could use that the pass before could not. The last full pass found `report`; where one is
/// owed, that no longer says for whom there is no room.
fn news_of(change: &Change, report: &Report, owes_full: bool) -> News {
    match change {
        // A task of an array becomes a job when it starts, which leaves less room and no more jobs.
        Change::JobSubmitted(job) if job.array.is_some() => News::None,
        Change::JobSubmitted(job) if !owes_full && report.joins_queue(job) => News::Jobs,
        Change::JobSubmitted(_) => News::Starts,
        // Some of its tasks may have been released.
        Change::JobMoved { status, .. } if status.tasks.is_some() => News::Jobs,
        Change::NodeRegistered(_)
        | Change::NodeAdministered { .. }
        | Change::NodeHealth { changes_room: true, .. }
        | Change::WindowMoved(_)
        | Change::NodeHeard { .. }
        | Change::NodeLeftovers { .. }
        | Change::QuotaApplied { .. }
        | Change::QuotaTurned { .. } => News::Ground,
        Change::JobMoved { status, .. } if status.state == JobState::Pending => News::Starts,
        Change::AttemptMoved(attempt) if attempt.state == AttemptState::Ended => News::Starts,
        Change::JobMoved { .. }
        | Change::AttemptMoved(_)
        | Change::AttemptLeased(_)
        | Change::StepCreated(_)
        | Change::TaskMoved { .. }
        | Change::PassRecorded(_)
        | Change::NodeHealth { changes_room: false, .. }
        | Change::BreakerMoved(_)
        | Change::Booked(_)
        | Change::QuotaAudited(_)
        | Change::QuotaApproved(_)
        | Change::QuotaAlerted(_)
        | Change::Happened(_) => News::None,
    }
}
