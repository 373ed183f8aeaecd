//! Starting further steps inside a running attempt.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::draft::Draft;
use super::start::task;
use crate::attempt::{Attempt, AttemptState};
use crate::change::{Change, EventKind};
use crate::ids::AttemptId;
use crate::job::JobState;
use crate::step::{Step, StepKind, Task};

/// Steps one attempt may have; a script that starts more is most likely a loop gone wrong.
pub const STEPS_MAX: u32 = 100_000;

/// Tasks one step may have on one node.
pub const TASKS_PER_NODE_MAX: u32 = 1_024;

/// What `gotgan run` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRequest {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Nodes from the first on; 0: all.
    pub nodes: u32,
    /// Tasks in all; 0: `tasks_per_node` times nodes.
    pub tasks: u32,
    /// 0: 1, or as many as `tasks` needs.
    pub tasks_per_node: u32,
    /// Whole GPUs for each task; 0: all of its node.
    pub gpus_per_task: u32,
    /// Added to the job's.
    pub environment: BTreeMap<String, String>,
    /// Empty: the job's.
    pub working_directory: String,
    /// Empty: the program's name.
    pub name: String,
}

/// Why a step cannot start. `field` is the path in the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepRefusal {
    /// The attempt does not run.
    #[error("attempt {0} is not running; a step starts inside a running attempt")]
    NotRunning(AttemptId),
    /// Its first process is there, as it asks, but its node's report of that is still on its way. It passes.
    #[error("attempt {0} is starting; a step starts once it runs")]
    Starting(AttemptId),
    /// A field asks for what the allocation does not have.
    #[error("{message}")]
    Invalid {
        /// Path in the request.
        field: &'static str,
        /// What is wrong and how to mend it.
        message: String,
    },
}

fn invalid(field: &'static str, message: String) -> StepRefusal {
    StepRefusal::Invalid { field, message }
}

/// Starts a step; returns its number and how many tasks it has.
///
/// # Errors
/// [`StepRefusal`]; then nothing was drafted.
pub fn start_step(
    draft: &mut Draft<'_>,
    request: StepRequest,
) -> Result<(u32, usize), StepRefusal> {
    let id = request.attempt;
    let mut attempt = running(draft, id)?;
    if attempt.next_step > STEPS_MAX {
        return Err(invalid("attempt", format!("an attempt has at most {STEPS_MAX} steps")));
    }
    let program = request.argv.first().filter(|program| !program.is_empty());
    let program = program.ok_or_else(|| invalid("argv", "name a program to run".to_owned()))?;
    let name = if request.name.is_empty() { base_name(program) } else { request.name.clone() };
    let tasks = lay_out(&attempt, &request)?;
    let (number, count) = (attempt.next_step, tasks.len());
    attempt.next_step += 1;
    draft.move_attempt(attempt);
    let text = format!("step {number} ({name}) with {count} tasks");
    draft.push(Change::StepCreated(Arc::new(Step {
        attempt: id,
        number,
        kind: StepKind::Run,
        name,
        argv: request.argv,
        environment: request.environment,
        working_directory: request.working_directory,
        created: draft.now,
        tasks,
        gpus_per_task: request.gpus_per_task,
    })));
    draft.tell_job(id.job, id.number, JobState::Running, EventKind::StepStarted, text);
    Ok((number, count))
}

/// A copy of the attempt, if it runs.
fn running(draft: &Draft<'_>, id: AttemptId) -> Result<Attempt, StepRefusal> {
    let attempt = draft.world.attempts.get(&id).ok_or(StepRefusal::NotRunning(id))?;
    match attempt.state {
        AttemptState::Running => Ok(Attempt::clone(attempt)),
        AttemptState::Leased | AttemptState::Accepted | AttemptState::Prolog => {
            Err(StepRefusal::Starting(id))
        }
        AttemptState::Stopping | AttemptState::Ended => Err(StepRefusal::NotRunning(id)),
    }
}

fn base_name(program: &str) -> String {
    program.rsplit('/').next().unwrap_or(program).chars().take(128).collect()
}

/// Places the tasks: ranks fill node after node.
fn lay_out(attempt: &Attempt, request: &StepRequest) -> Result<Vec<Task>, StepRefusal> {
    let have = u32::try_from(attempt.placement.nodes.len()).unwrap_or(u32::MAX);
    let nodes = if request.nodes == 0 { have } else { request.nodes };
    if nodes > have {
        return Err(invalid(
            "nodes",
            format!("the allocation has {have} nodes, {nodes} were asked"),
        ));
    }
    let per_node = match (request.tasks_per_node, request.tasks) {
        (0, 0) => 1,
        (0, tasks) => tasks.div_ceil(nodes),
        (per_node, _) => per_node,
    };
    if per_node > TASKS_PER_NODE_MAX {
        let message = format!("a node starts at most {TASKS_PER_NODE_MAX} tasks of a step");
        return Err(invalid("tasks_per_node", message));
    }
    let most = per_node.saturating_mul(nodes);
    let total = if request.tasks == 0 { most } else { request.tasks };
    if total > most {
        let message = format!("{total} tasks do not fit {nodes} nodes with {per_node} each");
        return Err(invalid("tasks", message));
    }
    check_gpus(attempt, request, per_node)?;
    let places = attempt.placement.nodes.iter().take(nodes as usize);
    let places = places.flat_map(|place| (0..per_node).map(move |local| (&place.node, local)));
    Ok((0..total)
        .zip(places)
        .map(|(rank, (node, local))| task(rank, node.clone(), local))
        .collect())
}

fn check_gpus(attempt: &Attempt, request: &StepRequest, per_node: u32) -> Result<(), StepRefusal> {
    let wanted = u64::from(per_node) * u64::from(request.gpus_per_task);
    let fewest = attempt.placement.nodes.iter().map(|place| place.gpus.len() as u64).min();
    let fewest = fewest.unwrap_or(0);
    if wanted <= fewest {
        return Ok(());
    }
    let each = request.gpus_per_task;
    let message =
        format!("{per_node} tasks with {each} GPUs each need {wanted}, a node has {fewest}");
    Err(invalid("gpus_per_task", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::amount::{GpuMilliSeconds, UnixMicros};
    use crate::attempt::Placement;
    use crate::ids::{Epoch, JobId, ProjectPath};
    use crate::meter::Meter;
    use crate::policy::Policy;
    use crate::world::World;

    const ID: AttemptId = AttemptId { job: JobId(1), number: 1 };

    fn asked_in(state: AttemptState) -> Result<(u32, usize), StepRefusal> {
        let attempt = Attempt {
            id: ID,
            project: ProjectPath::new("public").unwrap(),
            placement: Arc::new(Placement { class: None, nodes: Vec::new(), gpu_cap_watts: None }),
            epoch: Epoch(1),
            leased: UnixMicros(0),
            hold: GpuMilliSeconds(0),
            meter: Meter::default(),
            state,
            started: None,
            ended: None,
            members: Vec::new(),
            stop: None,
            outcome: None,
            next_step: 1,
            measured: None,
            idle_told: None,
        };
        let (mut world, policy) = (World::default(), Policy::default());
        world.attempts.insert(ID, Arc::new(attempt));
        let request = StepRequest {
            attempt: ID,
            argv: vec!["true".to_owned()],
            nodes: 0,
            tasks: 0,
            tasks_per_node: 0,
            gpus_per_task: 0,
            environment: BTreeMap::new(),
            working_directory: String::new(),
            name: String::new(),
        };
        start_step(&mut Draft::new(&mut world, &policy, Epoch(1), UnixMicros(0)), request)
    }

    #[test]
    fn a_script_that_is_quicker_than_its_nodes_report_is_told_to_ask_again() {
        for early in [AttemptState::Leased, AttemptState::Accepted, AttemptState::Prolog] {
            assert_eq!(asked_in(early), Err(StepRefusal::Starting(ID)), "{early:?}");
        }
        for late in [AttemptState::Stopping, AttemptState::Ended] {
            assert_eq!(asked_in(late), Err(StepRefusal::NotRunning(ID)), "{late:?}");
        }
        assert!(asked_in(AttemptState::Running).is_ok());
    }
}
