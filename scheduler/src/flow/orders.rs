//! Orders as messages to workers.

use std::collections::BTreeMap;

use gotgan_core::attempt::{Attempt, NodeAllocation};
use gotgan_core::ids::{AttemptId, Epoch, GpuUuid, NodeName};
use gotgan_core::job::Job;
use gotgan_core::lifecycle::Check;
use gotgan_core::lifecycle::orders::Order;
use gotgan_core::mig::CutPlan;
use gotgan_core::spec::GpuRequest;
use gotgan_core::step::{Step, TaskState};
use gotgan_core::world::World;
use gotgan_proto::v1::scheduler_message::Message;
use gotgan_proto::v1::{self, SchedulerMessage};

use crate::api::convert;
use crate::auth::Authenticator;

/// First of the ports gangs rendezvous at, and how many there are: below the range Linux gives out by itself.
const MASTER_PORTS: (u64, u64) = (20_000, 12_000);

/// Writes orders as messages.
#[derive(Debug, Clone)]
pub struct OrderWriter {
    /// Mints the tokens with which a job's processes may call back.
    pub authenticator: Authenticator,
}

/// The state that orders follow from, and under whom.
#[derive(Debug)]
pub struct Source<'a> {
    /// The world, as committed.
    pub world: &'a World,
    /// The leadership that gives the orders.
    pub epoch: Epoch,
    /// What all nodes of the gang that was told last are told alike.
    shared: Option<(AttemptId, SharedRun)>,
}

/// The part of the order to run an attempt that is the same for all its nodes. Every node hears of every other, so
/// making it anew for each would cost the square of their number in look-ups.
#[derive(Debug)]
struct SharedRun {
    template: v1::RunAttempt,
    ranks: BTreeMap<NodeName, usize>,
}

impl<'a> Source<'a> {
    /// A source of nothing yet.
    #[must_use]
    pub fn new(world: &'a World, epoch: Epoch) -> Self {
        Self { world, epoch, shared: None }
    }
}

impl OrderWriter {
    /// The message, or `None` if the job has gone meanwhile and there is nothing to say.
    #[must_use]
    pub fn message(
        &self,
        source: &mut Source<'_>,
        node: &NodeName,
        order: Order,
    ) -> Option<SchedulerMessage> {
        let (world, epoch) = (source.world, source.epoch);
        let message = match order {
            Order::Run { attempt, step, start_now } => {
                Message::RunAttempt(self.run(source, node, &attempt, &step, start_now)?)
            }
            Order::Start(id) => Message::StartAttempt(v1::StartAttempt {
                epoch: epoch.0,
                job_id: id.job.0,
                attempt: id.number,
            }),
            Order::StartTasks(step) => Message::StartTasks(start_tasks(world, epoch, node, &step)),
            Order::Stop(id, stop) => Message::StopAttempt(v1::StopAttempt {
                epoch: epoch.0,
                job_id: id.job.0,
                attempt: id.number,
                cause: convert::cause(stop.cause).into(),
                reason: stop.reason,
                grace_s: stop.grace_s,
            }),
            Order::Forget(id) => forget(epoch, id),
        };
        Some(SchedulerMessage { message: Some(message) })
    }

    fn run(
        &self,
        source: &mut Source<'_>,
        node: &NodeName,
        attempt: &Attempt,
        step: &Step,
        start_now: bool,
    ) -> Option<v1::RunAttempt> {
        let shared = match source.shared.take().filter(|(of, _)| *of == attempt.id) {
            Some((_, shared)) => shared,
            None => self.shared_run(source, attempt)?,
        };
        let rank = *shared.ranks.get(node)?;
        let allocation = attempt.placement.nodes.get(rank)?;
        let order = v1::RunAttempt {
            node_rank: u32::try_from(rank).ok()?,
            gpus: convert::gpu_allocations(allocation),
            cpu_milli: allocation.cpu_milli.0,
            memory_mib: allocation.memory_mib.0,
            tasks: task_starts(step, node, Some(allocation), false),
            start_now,
            imex_channel: allocation.imex.as_ref().map_or(0, |lease| lease.channel),
            ..shared.template.clone()
        };
        source.shared = Some((attempt.id, shared));
        Some(order)
    }

    fn shared_run(&self, source: &Source<'_>, attempt: &Attempt) -> Option<SharedRun> {
        let Attempt { id, placement, .. } = attempt;
        let job = source.world.jobs.get(&id.job)?;
        let master_port = master_port(self.authenticator.cluster_number(), *id);
        let template = v1::RunAttempt {
            epoch: source.epoch.0,
            job_id: id.job.0,
            attempt: id.number,
            gang: placement.nodes.iter().map(|place| gang_node(source.world, job, place)).collect(),
            spec: Some(convert::job_spec(&job.spec)),
            owner: job.owner.to_string(),
            time_limit_s: job.spec.time_limit_s,
            grace_s: job.spec.grace_s,
            master_port: u32::try_from(master_port).ok()?,
            job_token: self.authenticator.mint_job_token(id, &job.owner, &job.spec.project),
            array_task: array_task(job),
            gpu_cap_watts: placement.gpu_cap_watts.unwrap_or_default(),
            ..v1::RunAttempt::default()
        };
        let ranks = placement.nodes.iter().enumerate();
        let ranks = ranks.map(|(rank, place)| (place.node.clone(), rank)).collect();
        Some(SharedRun { template, ranks })
    }
}

/// Where a gang's ranks meet. Attempts that follow each other differ, and so do clusters on one machine: otherwise the
/// ranks of one would join the gang of the other.
fn master_port(cluster: u64, attempt: AttemptId) -> u64 {
    let port = attempt.job.0.wrapping_mul(31).wrapping_add(u64::from(attempt.number));
    MASTER_PORTS.0 + cluster.wrapping_add(port) % MASTER_PORTS.1
}

fn array_task(job: &Job) -> Option<v1::ArrayTask> {
    let (array, index, asked) = (job.array?, job.task_index()?, job.spec.array.as_ref()?);
    let (count, min, max) = (asked.len(), asked.min(), asked.max());
    Some(v1::ArrayTask { array_job_id: array.0, index, count, min, max })
}

/// The order to cut a GPU as planned.
#[must_use]
pub fn cut(epoch: Epoch, gpu: &GpuUuid, plan: &CutPlan) -> SchedulerMessage {
    let profiles = plan.profiles.iter().flatten().map(ToString::to_string).collect();
    let order = v1::CutGpu {
        epoch: epoch.0,
        gpu_uuid: gpu.to_string(),
        planned_us: plan.since.0,
        profiles,
        whole: plan.profiles.is_none(),
    };
    SchedulerMessage { message: Some(Message::CutGpu(order)) }
}

/// The order to run the site's check of hardware.
#[must_use]
pub fn check(epoch: Epoch, check: &Check) -> SchedulerMessage {
    let order = v1::CheckHardware {
        epoch: epoch.0,
        gpu_uuid: check.gpu.as_ref().map(ToString::to_string).unwrap_or_default(),
        since_us: check.since.0,
    };
    SchedulerMessage { message: Some(Message::CheckHardware(order)) }
}

fn forget(epoch: Epoch, id: AttemptId) -> Message {
    Message::ForgetAttempt(v1::ForgetAttempt {
        epoch: epoch.0,
        job_id: id.job.0,
        attempt: id.number,
    })
}

fn gang_node(world: &World, job: &Job, place: &NodeAllocation) -> v1::GangNode {
    let address = world.nodes.get(&place.node).map(|node| node.inventory.address.clone());
    let of_share = matches!(job.spec.per_node.gpus, GpuRequest::Share { .. });
    v1::GangNode {
        node: place.node.to_string(),
        address: address.unwrap_or_default(),
        gpus: if of_share { 0 } else { count(place.gpus.len()) },
    }
}

fn start_tasks(world: &World, epoch: Epoch, node: &NodeName, step: &Step) -> v1::StartTasks {
    let attempt = world.attempts.get(&step.attempt);
    let allocation = attempt.and_then(|attempt| {
        attempt.placement.nodes.iter().find(|allocation| allocation.node == *node)
    });
    v1::StartTasks {
        epoch: epoch.0,
        job_id: step.attempt.job.0,
        attempt: step.attempt.number,
        step: step.number,
        argv: step.argv.clone(),
        environment: step.environment.clone().into_iter().collect(),
        working_directory: step.working_directory.clone(),
        tasks: task_starts(step, node, allocation, true),
        world_size: count(step.tasks.len()),
    }
}

/// The step's tasks on the node; with `only_pending` those nobody has reported on yet.
fn task_starts(
    step: &Step,
    node: &NodeName,
    allocation: Option<&NodeAllocation>,
    only_pending: bool,
) -> Vec<v1::TaskStart> {
    let here: Vec<_> = step.tasks.iter().filter(|task| task.node == *node).collect();
    let local_world_size = count(here.len());
    let wanted = here.iter().filter(|task| !only_pending || task.state == TaskState::Pending);
    wanted
        .map(|task| v1::TaskStart {
            rank: task.rank,
            local_rank: task.local_rank,
            local_world_size,
            gpu_uuids: gpus_of_task(step, task.local_rank, allocation),
            world_size: count(step.tasks.len()),
        })
        .collect()
}

/// All GPUs of the node, or the task's own slice of them.
fn gpus_of_task(step: &Step, local_rank: u32, allocation: Option<&NodeAllocation>) -> Vec<String> {
    let all = allocation.map(|allocation| allocation.gpus.as_slice()).unwrap_or_default();
    let names = |gpus: &[gotgan_core::attempt::GpuAllocation]| {
        gpus.iter().map(|gpu| gpu.uuid.to_string()).collect()
    };
    if step.gpus_per_task == 0 {
        return names(all);
    }
    let first = (local_rank as usize).saturating_mul(step.gpus_per_task as usize);
    let last = first.saturating_add(step.gpus_per_task as usize);
    names(all.get(first..last).unwrap_or_default())
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use gotgan_core::ids::JobId;

    use super::*;

    #[test]
    fn the_same_attempt_of_two_clusters_meets_at_two_ports() {
        let attempt = AttemptId { job: JobId(2), number: 1 };
        assert_ne!(master_port(7, attempt), master_port(8, attempt));
        let next = AttemptId { job: JobId(3), number: 1 };
        assert_ne!(master_port(7, attempt), master_port(7, next));
        assert!((20_000..32_000).contains(&master_port(u64::MAX, attempt)));
    }
}
