//! Does this start leave what others keep of their guarantees? By a recursion over the tree, from what is held and free.

use std::ops::Bound;

use super::preempt::is_above;
use super::start::Shadow;
use crate::amount::GpuMilli;
use crate::ids::{GpuClass, ProjectPath};
use crate::job::Job;
use crate::quota::entitle::Entitlements;

impl Shadow<'_> {
    /// Whether a start beyond its project's guarantee leaves free what the nodes beside its path keep.
    pub(super) fn judge_kept(
        &mut self,
        job: &Job,
        class: Option<&GpuClass>,
        wrong: &mut Vec<String>,
    ) {
        let nodes = &self.world.quota.nodes;
        let Some(class) = class else { return };
        if nodes.values().all(|node| !node.bounds.keeps()) {
            return;
        }
        let due = self.reckoning.due(self.world, class);
        let project = job.spec.project.as_str();
        let within = self.held_with_given(project, class) <= scaled(&due, project);
        if within && !job.spec.scavenger {
            return;
        }
        let beside = nodes.keys().filter(|path| {
            let parent = path.parent();
            !is_above(path.as_str(), project) && parent.is_none_or(|up| is_above(up, project))
        });
        let kept: u64 = beside.map(|path| self.kept(&due, class, path)).sum();
        let free = self.left(class);
        if free < kept {
            wrong.push(format!(
                "leaves {free} thousandths of {class} free, of which {kept} are kept"
            ));
        }
    }

    /// Of its unused guarantee, what a node keeps itself, or what those right below it keep together if that is more.
    fn kept(&self, due: &Entitlements, class: &GpuClass, path: &ProjectPath) -> u64 {
        let below = format!("{path}/");
        let below = self
            .world
            .quota
            .nodes
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
        let below = below.take_while(|(other, _)| other.is_within(path.as_str()));
        let children = below.filter(|(other, _)| other.parent() == Some(path.as_str()));
        let below: u64 = children.map(|(child, _)| self.kept(due, class, child)).sum();
        let unused =
            scaled(due, path.as_str()).saturating_sub(self.held_with_given(path.as_str(), class));
        let Some(bounds) = self.world.quota.get(path).map(|node| &node.bounds) else {
            return below;
        };
        let amount = |of: &Option<crate::quota::bounds::ClassAmount>| {
            of.as_ref().and_then(|of| of.of(class)).map(|gpus: GpuMilli| gpus.0)
        };
        let idle = amount(&bounds.keep_idle).unwrap_or(0).min(unused);
        let beyond = unused.saturating_sub(amount(&bounds.lend_max).unwrap_or(u64::MAX));
        below.max(idle).max(beyond)
    }

    /// What is free on nodes in service once the plan so far has what it takes.
    fn left(&mut self, class: &GpuClass) -> u64 {
        let free = self.reckoning.free(self.world, class);
        let taken = self.gpu_milli.iter().filter_map(|((name, uuid), taken)| {
            let node = self.world.nodes.get(name).filter(|node| node.is_in_service())?;
            let mut gpus = node.inventory.gpus.iter().zip(&node.free.gpus);
            let (_, free) = gpus.find(|(gpu, _)| gpu.uuid == *uuid && gpu.class == *class)?;
            Some(free.0.min(*taken))
        });
        free.saturating_sub(taken.sum())
    }
}

fn scaled(due: &Entitlements, path: &str) -> u64 {
    due.arena().find(path).map_or(0, |node| due.scaled_guarantee(node).0)
}
