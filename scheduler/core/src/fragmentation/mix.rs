//! How often each shape comes, and what of a node's free GPUs that mix cannot use.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{ClassSet, GpuShape, Room, Shape};
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};

/// Most shapes a mix keeps, the most frequent ones: the rest is a few in a hundred of all jobs, and what a node costs to
/// look at is bounded.
pub const MIX_SHAPES_MAX: usize = 64;

/// Jobs by shape; what a mix is made of.
pub type Counts = BTreeMap<Shape, u64>;

/// GPU thousandths times the jobs that cannot use them: the mean over a mix is this divided by its jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fragments(pub u64);

/// Typical jobs. Shapes without GPUs are none: no free GPU is lost to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mix {
    jobs: u64,
    groups: Vec<Group>,
}

/// Shapes with the same GPUs: what of a node's GPUs serves one of them serves all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    gpus: GpuShape,
    classes: ClassSet,
    jobs: u64,
    beside: Vec<Beside>,
}

/// What is asked beside the GPUs, and by how many jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beside {
    cpu_milli: CpuMilli,
    memory_mib: MemoryMib,
    jobs: u64,
}

impl Mix {
    /// The most frequent shapes with GPUs among `counts`, [`MIX_SHAPES_MAX`] at most; of equally frequent ones the first
    /// in their order.
    #[must_use]
    pub fn of(counts: &Counts) -> Self {
        let with_gpus = counts.iter().filter(|(shape, _)| shape.gpus != GpuShape::None);
        let mut shapes: Vec<_> = with_gpus.map(|(shape, jobs)| (Reverse(*jobs), *shape)).collect();
        shapes.sort_unstable();
        shapes.truncate(MIX_SHAPES_MAX);
        let mut mix = Mix::default();
        for (Reverse(jobs), shape) in shapes {
            mix.add(&shape, jobs);
        }
        mix
    }

    fn add(&mut self, shape: &Shape, jobs: u64) {
        let Shape { gpus, classes, cpu_milli, memory_mib } = *shape;
        let known = |group: &Group| group.gpus == gpus && group.classes == classes;
        let place = self.groups.iter().position(known).unwrap_or_else(|| {
            self.groups.push(Group { gpus, classes, jobs: 0, beside: Vec::new() });
            self.groups.len() - 1
        });
        let group = &mut self.groups[place];
        group.beside.push(Beside { cpu_milli, memory_mib, jobs });
        group.jobs += jobs;
        self.jobs += jobs;
    }

    /// Jobs that it counts.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.jobs
    }

    /// Whether it says nothing: no job has asked for a GPU yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// What of the room's free GPUs the mix cannot use.
    #[must_use]
    pub fn fragments(&self, room: &Room) -> Fragments {
        let free = room.free();
        if free.is_zero() {
            return Fragments::default();
        }
        let whole = room.whole();
        let lost = self.groups.iter().map(|group| group.lost(room, free, whole));
        Fragments(lost.fold(0, u64::saturating_add))
    }
}

impl Group {
    /// What all its jobs cannot use of `free`, of which so many GPUs are `whole`.
    fn lost(&self, room: &Room, free: GpuMilli, whole: u32) -> u64 {
        let usable = self.usable(room, whole);
        if usable.is_zero() {
            return free.times(self.jobs).0;
        }
        let each = self.gpus.milli();
        // So many jobs of this kind have more than the GPUs for them; fewer than that end at CPUs or memory.
        let enough = usable.0.div_ceil(each.0.max(1));
        let lost = self.beside.iter().map(|beside| {
            let used = usable.min(each.times(beside.fit(room, enough)));
            (free - used).times(beside.jobs).0
        });
        lost.fold(0, u64::saturating_add)
    }

    /// What its jobs could use of the GPUs, if CPUs and memory had no end.
    fn usable(&self, room: &Room, whole: u32) -> GpuMilli {
        match self.gpus {
            _ if !self.classes.contains(room.class) => GpuMilli::ZERO,
            GpuShape::None => GpuMilli::ZERO,
            GpuShape::Whole(count) if whole < count => GpuMilli::ZERO,
            GpuShape::Whole(_) => GpuMilli::whole(whole),
            GpuShape::Share(milli) => room.gpus.iter().copied().filter(|free| *free >= milli).sum(),
        }
    }
}

impl Beside {
    /// For how many jobs the room has CPUs and memory; no more than `enough` are counted.
    fn fit(&self, room: &Room, enough: u64) -> u64 {
        let by_cpu = times(room.cpu_milli.0, self.cpu_milli.0, enough);
        times(room.memory_mib.0, self.memory_mib.0, by_cpu)
    }
}

/// How often `part` is in `all`, at most `most` times; dividing is what costs, and is rarely needed.
fn times(all: u64, part: u64, most: u64) -> u64 {
    if part.saturating_mul(most) <= all { most } else { all / part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragmentation::ClassNumber;

    fn shape(gpus: GpuShape, cpus: u64) -> Shape {
        let (cpu_milli, memory_mib) = (CpuMilli(cpus * 1000), MemoryMib(cpus * 1024));
        Shape { gpus, classes: ClassSet::ANY, cpu_milli, memory_mib }
    }

    fn room(cpus: u64, gpus: &[u64]) -> Room {
        Room {
            class: ClassNumber(0),
            cpu_milli: CpuMilli(cpus * 1000),
            memory_mib: MemoryMib(cpus * 1024),
            gpus: gpus.iter().map(|milli| GpuMilli(*milli)).collect(),
        }
    }

    fn fragments(shapes: &[(Shape, u64)], room: &Room) -> u64 {
        Mix::of(&shapes.iter().copied().collect()).fragments(room).0
    }

    #[test]
    fn a_broken_gpu_is_lost_to_jobs_of_whole_ones() {
        let pair = [(shape(GpuShape::Whole(2), 4), 10)];
        assert_eq!(fragments(&pair, &room(64, &[1000, 1000, 400])), 4000);
        assert_eq!(fragments(&pair, &room(64, &[1000, 400, 400])), 18_000);
    }

    #[test]
    fn shares_can_use_what_is_large_enough() {
        let shares = [(shape(GpuShape::Share(GpuMilli(500)), 1), 1)];
        assert_eq!(fragments(&shares, &room(64, &[400, 500, 1000])), 400);
    }

    #[test]
    fn gpus_without_cpus_are_lost() {
        let single = [(shape(GpuShape::Whole(1), 8), 1)];
        assert_eq!(fragments(&single, &room(64, &[1000; 8])), 0);
        assert_eq!(fragments(&single, &room(17, &[1000; 8])), 6000);
        assert_eq!(fragments(&single, &room(7, &[1000; 8])), 8000);
    }

    #[test]
    fn jobs_without_gpus_and_of_other_classes_are_told_apart() {
        let other =
            Shape { classes: ClassSet::only(ClassNumber(1)), ..shape(GpuShape::Whole(1), 1) };
        let mix = [(shape(GpuShape::None, 100), 5), (other, 2)];
        assert_eq!(fragments(&mix, &room(64, &[1000])), 2000);
        assert_eq!(fragments(&mix[..1], &room(0, &[1000])), 0);
    }

    #[test]
    fn rare_shapes_are_left_out() {
        let many = (1..=100).map(|cpus| (shape(GpuShape::Whole(1), cpus), cpus));
        let mix = Mix::of(&many.collect());
        assert_eq!(mix.jobs(), (37..=100).sum::<u64>());
    }
}
