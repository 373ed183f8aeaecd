//! A small language for tests: build a cluster, submit jobs, say what each is expected to get, check.
//!
//! A cluster that is dropped without a check makes its test fail, so no test can forget to look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, GpuMilliSeconds, UnixMicros};
use gotgan_core::attempt::{Attempt, AttemptState, Cause, Member, Placement, Progress, Stop};
use gotgan_core::change::Change;
use gotgan_core::check::{self, Refusal};
use gotgan_core::explain::sentence;
use gotgan_core::ids::{
    AttemptId, ClusterName, Epoch, GpuClass, JobId, NodeName, ProjectPath, ReservationName,
};
use gotgan_core::job::{JobState, JobStatus};
use gotgan_core::lifecycle::{self, Draft};
use gotgan_core::meter::{Footing, Meter};
use gotgan_core::node::{Admin, Liveness};
use gotgan_core::plan::{Blocker, Decision, Plan};
use gotgan_core::planned::{PlannedStart, PlannedStarts};
use gotgan_core::planner::{Bearings, plan_after, plan_full};
use gotgan_core::policy::Policy;
use gotgan_core::power::PowerTerms;
use gotgan_core::quota::bounds::Bounds;
use gotgan_core::quota::reserve::{Fabric, ReservationTerms};
use gotgan_core::quota::{Interval, QuotaTree};
use gotgan_core::world::World;

use crate::builders::{JobBuilder, NodeBuilder};
use crate::events::hold_events_against_full;
use crate::precedence::hold_against_record;

/// Project of jobs that name none; without limits.
pub const LAB: &str = "public/lab";

pub struct TestCluster {
    pub world: World,
    pub policy: Policy,
    pub now: UnixMicros,
    /// What the last pass planned of which the decisions were taken.
    pub planned: Arc<PlannedStarts>,
    /// What that pass left for passes that follow events.
    pub bearings: Bearings,
    expected: Vec<(JobId, Vec<String>)>,
    expected_waiting: Vec<JobId>,
    checked: bool,
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        assert!(self.checked || std::thread::panicking(), "the cluster was never checked");
    }
}

impl TestCluster {
    pub fn new() -> Self {
        let mut cluster = TestCluster {
            world: World::default(),
            policy: Policy {
                planned_gangs_per_project: 0,
                planned_gangs_after_s: 0,
                ..Policy::default()
            },
            now: UnixMicros(1_000_000_000_000),
            planned: Arc::default(),
            bearings: Bearings::default(),
            expected: Vec::new(),
            expected_waiting: Vec::new(),
            checked: false,
        };
        cluster.limit("public", &[]);
        cluster.limit(LAB, &[]);
        cluster
    }

    /// The same world to try things on, which nobody checks.
    pub fn copy(&self) -> TestCluster {
        TestCluster {
            world: self.world.clone(),
            policy: self.policy.clone(),
            now: self.now,
            planned: Arc::clone(&self.planned),
            bearings: self.bearings.clone(),
            expected: Vec::new(),
            expected_waiting: Vec::new(),
            checked: true,
        }
    }

    /// What the site says of power, from the beginning on.
    pub fn power(&mut self, power: PowerTerms) {
        assert!(self.world.nodes.is_empty(), "nodes came before");
        self.policy.power = power.clone();
        self.world.power = Arc::new(power);
    }

    /// Lets something happen to the world.
    pub fn apply(&mut self, change: &Change) {
        self.world.apply(change);
        self.bearings.see(change);
    }

    /// Gives a node of the quota tree these limits in whole GPUs; `any` is the one over all classes.
    pub fn limit(&mut self, path: &str, limits: &[(&str, u32)]) {
        let mut tree = QuotaTree::clone(&self.world.quota);
        let node = tree.nodes.entry(ProjectPath::new(path).unwrap()).or_default();
        for (class, gpus) in limits {
            match *class {
                "any" => node.any_limit = Some(GpuMilli::whole(*gpus)),
                class => {
                    node.limits.insert(GpuClass::new(class).unwrap(), GpuMilli::whole(*gpus));
                }
            }
        }
        let book = Arc::new(tree.into());
        self.apply(&Change::QuotaApplied { book, at: UnixMicros(0) });
    }

    /// Gives a node of the quota tree these guarantees in whole GPUs, and a weight.
    pub fn guarantee(&mut self, path: &str, weight: u32, guarantees: &[(&str, u32)]) {
        let mut tree = QuotaTree::clone(&self.world.quota);
        let node = tree.nodes.entry(ProjectPath::new(path).unwrap()).or_default();
        node.weight = weight;
        for (class, gpus) in guarantees {
            node.guarantees.insert(GpuClass::new(class).unwrap(), GpuMilli::whole(*gpus));
        }
        let book = Arc::new(tree.into());
        self.apply(&Change::QuotaApplied { book, at: UnixMicros(0) });
    }

    /// Reserves GPUs of a cluster for a node of the quota tree, from and until so many hours from now.
    pub fn reserve(
        &mut self,
        name: &str,
        holder: &str,
        (gpus, class, cluster): (u32, &str, &str),
        [from, until]: [i64; 2],
    ) {
        let at = |hours: i64| self.now.plus_seconds(hours * 3600);
        let terms = ReservationTerms {
            holder: ProjectPath::new(holder).unwrap(),
            class: GpuClass::new(class).unwrap(),
            gpus: GpuMilli::whole(gpus),
            fabric: Fabric::Cluster(ClusterName::new(cluster).unwrap()),
            during: Interval { from: at(from), until: at(until) },
            decision: "EX-1".to_owned(),
        };
        let mut tree = QuotaTree::clone(&self.world.quota);
        tree.reservations.insert(ReservationName::new(name).unwrap(), terms);
        let book = Arc::new(tree.into());
        self.apply(&Change::QuotaApplied { book, at: self.now });
    }

    /// Gives a node of the quota tree these terms beside its guarantees and limits.
    pub fn bounds(&mut self, path: &str, bounds: Bounds) {
        let mut tree = QuotaTree::clone(&self.world.quota);
        tree.nodes.entry(ProjectPath::new(path).unwrap()).or_default().bounds = bounds;
        let book = Arc::new(tree.into());
        self.apply(&Change::QuotaApplied { book, at: UnixMicros(0) });
    }

    /// A node with 16 CPUs and 64 GiB a GPU, or 64 CPUs and 256 GiB if it has none.
    pub fn node(&mut self, name: &str) -> NodeBuilder<'_> {
        NodeBuilder::of(self, name)
    }

    pub fn drain(&mut self, name: &str, reason: &str) {
        let (by, since) = ("kim".to_owned(), self.now);
        let admin = Admin::Drain { by, reason: reason.to_owned(), since };
        let node = NodeName::new(name).unwrap();
        self.apply(&Change::NodeAdministered { node, admin });
    }

    pub fn heard(&mut self, name: &str, liveness: Liveness) {
        let node = NodeName::new(name).unwrap();
        self.apply(&Change::NodeHeard { node, liveness, at: UnixMicros::default() });
    }

    /// A job on one node with 1 CPU and 1 GiB, submitted now, after all others.
    pub fn job(&mut self) -> JobBuilder<'_> {
        JobBuilder::of(self)
    }

    pub fn expect_on(&mut self, job: JobId, nodes: &[&str]) {
        self.expected.push((job, nodes.iter().map(ToString::to_string).collect()));
    }

    pub fn expect_waiting(&mut self, job: JobId) {
        self.expected_waiting.push(job);
    }

    /// Plans, checks plan and expectations, and changes nothing.
    pub fn check(&mut self) -> Outcome {
        self.checked = true;
        let (plan, bearings) = plan_full(&self.planned, &self.world, &self.policy, self.now);
        hold_events_against_full(self, &plan, &bearings);
        let again = plan_after(&self.planned, &self.world.clone(), &self.policy, self.now);
        assert_eq!(plan, again, "the same inputs gave another plan");
        assert_eq!(check::plan(&self.world, &plan), []);
        hold_against_record(&self.world, &plan);
        self.hold_commits_against_each_other(&plan.decisions);
        let enough = plan.decisions.len() >= self.policy.max_starts_per_pass;
        assert!(enough || plan.report.deferred == 0, "some are left though not enough was decided");
        assert_eq!(check::world(&self.world), []);
        let outcome = Outcome { waiting: waiting(&self.world, &plan), plan };
        for (job, nodes) in &self.expected {
            let why = outcome.sentences(*job);
            assert_eq!(outcome.nodes_of(*job).as_ref(), Some(nodes), "job {job}: {why}");
        }
        for job in &self.expected_waiting {
            assert_eq!(outcome.nodes_of(*job), None, "job {job} was to wait");
            assert_ne!(outcome.blockers(*job), [], "job {job} waits without a reason");
        }
        outcome
    }

    /// What is reckoned once for all decisions must say of each what is found anew for it alone.
    fn hold_commits_against_each_other(&self, decisions: &[Decision]) {
        let results = |commit: &dyn Fn(&mut Draft<'_>) -> Vec<Result<(), Refusal>>| {
            let mut world = self.world.clone();
            let mut draft = Draft::new(&mut world, &self.policy, Epoch(1), self.now);
            let results = commit(&mut draft);
            assert_eq!(check::world(&world), []);
            results
        };
        // A few worlds here are too large for that.
        let some = &decisions[..decisions.len().min(64)];
        let together = results(&|draft| lifecycle::commit_each(draft, some));
        let alone = |draft: &mut Draft<'_>| {
            some.iter().map(|decision| lifecycle::commit(draft, decision)).collect()
        };
        assert_eq!(together, results(&alone));
    }

    /// Checks as [`TestCluster::check`] and lets everything start that can.
    pub fn start_all(&mut self) -> Outcome {
        let outcome = self.check();
        self.bearings = plan_full(&self.planned, &self.world, &self.policy, self.now).1;
        self.planned = Arc::clone(&outcome.plan.report.planned);
        self.expected.clear();
        self.expected_waiting.clear();
        self.take(&outcome.plan);
        assert_eq!(check::world(&self.world), []);
        outcome
    }

    /// Plans and lets everything start that can, with nothing held against anything: for measuring.
    pub fn start_unchecked(&mut self) {
        let (plan, bearings) = plan_full(&self.planned, &self.world, &self.policy, self.now);
        (self.planned, self.bearings) = (Arc::clone(&plan.report.planned), bearings);
        self.take(&plan);
    }

    /// Lets what was decided happen.
    pub fn take(&mut self, plan: &Plan) {
        for decision in &plan.decisions {
            match decision {
                Decision::Start { job, placement } => self.start(*job, placement),
                Decision::Preempt { attempt, for_job, nodes } => {
                    self.stop(*attempt);
                    self.status(*for_job, |status| status.promised.clone_from(nodes));
                }
            }
        }
    }

    fn start(&mut self, id: JobId, placement: &Arc<Placement>) {
        let job = &self.world.jobs[&id];
        let number = job.status.attempt + 1;
        let footing = if job.spec.scavenger { Footing::Scavenger } else { Footing::Budget };
        let attempt = Attempt {
            id: AttemptId { job: id, number },
            project: job.spec.project.clone(),
            placement: Arc::clone(placement),
            epoch: Epoch(1),
            leased: self.now,
            hold: GpuMilliSeconds(0),
            meter: Meter { footing, ..Meter::default() },
            state: AttemptState::Leased,
            started: None,
            ended: None,
            members: vec![
                Member { last_seq: 0, progress: Progress::Leased };
                placement.nodes.len()
            ],
            stop: None,
            outcome: None,
            next_step: 1,
            measured: None,
            idle_told: None,
        };
        let (state, attempt_number) = (JobState::Starting, number);
        let status = JobStatus {
            state,
            attempt: attempt_number,
            promised: BTreeSet::new(),
            ..job.status.clone()
        };
        self.apply(&Change::AttemptLeased(Arc::new(attempt)));
        self.apply(&Change::JobMoved { id, status: Arc::new(status) });
    }

    fn stop(&mut self, id: AttemptId) {
        let attempt = Attempt::clone(&self.world.attempts[&id]);
        let (cause, reason) = (Cause::Preempted, String::new());
        let stop = Some(Stop { cause, reason, exit: None, grace_s: 0 });
        let attempt = Attempt { state: AttemptState::Stopping, stop, ..attempt };
        self.apply(&Change::AttemptMoved(Arc::new(attempt)));
    }

    /// Starts all that can start, with its first processes there at once.
    pub fn run_all(&mut self) -> Outcome {
        let outcome = self.start_all();
        let leased = self.world.attempts.values().filter(|attempt| attempt.started.is_none());
        for attempt in leased.cloned().collect::<Vec<_>>() {
            let (state, started) = (AttemptState::Running, Some(self.now));
            let running = Attempt { state, started, ..Attempt::clone(&attempt) };
            self.apply(&Change::AttemptMoved(Arc::new(running)));
        }
        outcome
    }

    /// Lets time go by.
    pub fn later(&mut self, seconds: i64) {
        self.now = self.now.plus_seconds(seconds);
    }

    /// Ends every attempt that was told to stop; their jobs wait again.
    pub fn let_go(&mut self) {
        let stopping = self.world.attempts.values().filter(|attempt| attempt.stop.is_some());
        for attempt in stopping.cloned().collect::<Vec<_>>() {
            let (state, now) = (AttemptState::Ended, Some(self.now));
            let ended = Attempt { state, ended: now, ..Attempt::clone(&attempt) };
            self.apply(&Change::AttemptMoved(Arc::new(ended)));
            self.status(attempt.id.job, |status| status.state = JobState::Pending);
        }
    }

    /// Ends the attempt of a job, and the job with it.
    pub fn end(&mut self, id: JobId) {
        let job = &self.world.jobs[&id];
        let attempt_id = AttemptId { job: id, number: job.status.attempt };
        let status = JobStatus { state: JobState::Completed, ..job.status.clone() };
        let attempt = Attempt::clone(&self.world.attempts[&attempt_id]);
        let ended = Attempt { state: AttemptState::Ended, ended: Some(self.now), ..attempt };
        self.apply(&Change::AttemptMoved(Arc::new(ended)));
        self.apply(&Change::JobMoved { id, status: Arc::new(status) });
    }

    pub fn status(&mut self, id: JobId, change: impl FnOnce(&mut JobStatus)) {
        let mut status = self.world.jobs[&id].status.clone();
        change(&mut status);
        self.apply(&Change::JobMoved { id, status: Arc::new(status) });
    }
}

fn waiting(world: &World, plan: &Plan) -> BTreeMap<JobId, Arc<Vec<Blocker>>> {
    let starts = |decision: &Decision| match decision {
        Decision::Start { job, .. } => Some(*job),
        Decision::Preempt { .. } => None,
    };
    let starting: BTreeSet<JobId> = plan.decisions.iter().filter_map(starts).collect();
    let waiting = world.queue.iter().filter(|key| !starting.contains(&key.job));
    let why = |job: JobId| Some((job, plan.report.of(&world.jobs[&job])?));
    waiting.filter_map(|key| why(key.job)).collect()
}

/// What one check found.
pub struct Outcome {
    pub plan: Plan,
    /// Why each pending job waits that does not start.
    pub waiting: BTreeMap<JobId, Arc<Vec<Blocker>>>,
}

impl Outcome {
    pub fn placement(&self, wanted: JobId) -> Option<&Placement> {
        self.plan.decisions.iter().find_map(|decision| match decision {
            Decision::Start { job, placement } if *job == wanted => Some(placement.as_ref()),
            Decision::Start { .. } | Decision::Preempt { .. } => None,
        })
    }

    /// Jobs that are stopped, and for whom.
    pub fn victims(&self) -> Vec<(JobId, JobId)> {
        let victim = |decision: &Decision| match decision {
            Decision::Preempt { attempt, for_job, .. } => Some((attempt.job, *for_job)),
            Decision::Start { .. } => None,
        };
        self.plan.decisions.iter().filter_map(victim).collect()
    }

    pub fn nodes_of(&self, job: JobId) -> Option<Vec<String>> {
        let placement = self.placement(job)?;
        Some(placement.nodes.iter().map(|allocation| allocation.node.to_string()).collect())
    }

    /// The start that is planned for the job: in so many seconds from the pass, on these nodes.
    pub fn planned(&self, job: JobId) -> Option<(i64, Vec<String>)> {
        let start: &PlannedStart = self.plan.report.planned.of(job)?;
        let seconds = (start.at.0 - self.plan.planned.0) / 1_000_000;
        Some((seconds, start.nodes.iter().map(ToString::to_string).collect()))
    }

    pub fn blockers(&self, job: JobId) -> &[Blocker] {
        self.waiting.get(&job).map_or(&[], |list| list.as_slice())
    }

    /// Every reason on a line of its own.
    pub fn sentences(&self, job: JobId) -> String {
        let lines: Vec<_> = self.blockers(job).iter().map(sentence).collect();
        lines.join("\n")
    }
}
