//! Policies by name, and what of each decides which node is best.

use std::str::FromStr;

use gotgan_core::fragmentation::{Counts, Fragments, Mix, Shape};

use super::board::Host;
use super::fgd::{Fgd, TypicalTasks};
use super::published;

/// Who chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Any node that fits, and any GPU of it.
    Random,
    /// Where what is free points least in the direction of what is asked.
    DotProd,
    /// Where least is left.
    BestFit,
    /// Used GPUs first, then idle ones of used nodes, then idle nodes.
    GpuPacking,
    /// Nodes with tasks of the same kind first.
    GpuClustering,
    /// Where expected fragmentation grows least, as published.
    Fgd,
    /// Our own.
    Gotgan,
}

/// A name that no policy has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such policy: one of random, dotprod, bestfit, gpupacking, gpuclustering, fgd, gotgan")]
pub struct UnknownPolicy;

impl Policy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Policy::Random,
        Policy::DotProd,
        Policy::BestFit,
        Policy::GpuPacking,
        Policy::GpuClustering,
        Policy::Fgd,
        Policy::Gotgan,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::Random => "random",
            Policy::DotProd => "dotprod",
            Policy::BestFit => "bestfit",
            Policy::GpuPacking => "gpupacking",
            Policy::GpuClustering => "gpuclustering",
            Policy::Fgd => "fgd",
            Policy::Gotgan => "gotgan",
        }
    }

    /// What happens to a score that is no whole number.
    #[must_use]
    pub fn rounding(self) -> &'static str {
        match self {
            Policy::Random => "none",
            Policy::DotProd
            | Policy::BestFit
            | Policy::GpuPacking
            | Policy::GpuClustering
            | Policy::Fgd => "scores of 0 to 100, cut down to a whole number",
            Policy::Gotgan => "growth in tenths of a GPU, rounded down",
        }
    }

    /// What decides between nodes with the same score.
    #[must_use]
    pub fn ties(self) -> &'static str {
        match self {
            Policy::Random => "drawn",
            Policy::DotProd
            | Policy::BestFit
            | Policy::GpuPacking
            | Policy::GpuClustering
            | Policy::Fgd
            | Policy::Gotgan => "the smallest name of a node",
        }
    }

    /// What it takes for the jobs to come.
    #[must_use]
    pub fn mix(self) -> &'static str {
        match self {
            Policy::Random
            | Policy::DotProd
            | Policy::BestFit
            | Policy::GpuPacking
            | Policy::GpuClustering => "none",
            Policy::Fgd => "the list's typical tasks, known beforehand",
            Policy::Gotgan => "tasks that came so far",
        }
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Policy::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}

/// A policy with what it knows.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Policies that look at the node and the task alone; random ones are all alike here.
    Published(fn(&Host, &Shape) -> i64),
    /// Drawn.
    Random,
    /// By the published measure.
    Fgd(Fgd),
    /// By ours, and what was learnt so far.
    Gotgan(Mix),
}

/// How good a node is for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// The smaller, the better.
    pub cost: i64,
    /// The GPU for a share.
    pub gpu: Option<usize>,
}

impl Rule {
    /// That of a policy, which may know the typical tasks of the list.
    #[must_use]
    pub fn of(policy: Policy, typical: &TypicalTasks) -> Self {
        match policy {
            Policy::Random => Rule::Random,
            Policy::DotProd => Rule::Published(published::dot_product),
            Policy::BestFit => Rule::Published(published::best_fit),
            Policy::GpuPacking => Rule::Published(published::packing),
            Policy::GpuClustering => Rule::Published(published::clustering),
            Policy::Fgd => Rule::Fgd(Fgd::of(typical.clone())),
            Policy::Gotgan => Rule::Gotgan(Mix::default()),
        }
    }

    /// Learns from tasks that came; whether what it said before no longer holds.
    pub fn learn(&mut self, counts: &Counts) -> bool {
        match self {
            Rule::Published(_) | Rule::Random | Rule::Fgd(_) => false,
            Rule::Gotgan(mix) => {
                *mix = Mix::of(counts);
                true
            }
        }
    }

    /// Fragments of a node as it is, for those that go by them.
    #[must_use]
    pub fn fragments(&self, host: &Host) -> u64 {
        match self {
            Rule::Published(_) | Rule::Random => 0,
            Rule::Fgd(fgd) => fgd.typical().fragments(&host.room),
            Rule::Gotgan(mix) => mix.fragments(&host.room).0,
        }
    }

    /// How good the node is, whose fragments are `before`; `None` if the task does not fit.
    #[must_use]
    pub fn rank(&self, host: &Host, before: u64, shape: &Shape) -> Option<Rank> {
        if !host.room.fits(shape) {
            return None;
        }
        match self {
            Rule::Published(cost) => {
                Some(Rank { cost: cost(host, shape), gpu: published::fullest_gpu(host, shape) })
            }
            Rule::Random => Some(Rank { cost: 0, gpu: None }),
            Rule::Fgd(fgd) => fgd.rank(&host.room, before, shape),
            Rule::Gotgan(mix) => {
                let choice = mix.choose(&host.room, Fragments(before), shape)?;
                Some(Rank { cost: choice.growth.0, gpu: choice.gpu })
            }
        }
    }
}
