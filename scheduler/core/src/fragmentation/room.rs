//! What a node has left for jobs, and what a job asks of it.

use super::{ClassNumber, ClassSet};
use crate::amount::{CpuMilli, GpuMilli, MemoryMib};

/// What one node of a job gives, as far as it decides where jobs fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// GPUs.
    pub gpus: GpuShape,
    /// Classes that will do.
    pub classes: ClassSet,
    /// CPUs.
    pub cpu_milli: CpuMilli,
    /// Memory.
    pub memory_mib: MemoryMib,
}

/// GPUs of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuShape {
    /// None.
    None,
    /// A share of one, less than a whole.
    Share(GpuMilli),
    /// Whole ones that nobody has a part of, at least one.
    Whole(u32),
}

impl GpuShape {
    /// Thousandths on the node.
    #[must_use]
    pub fn milli(self) -> GpuMilli {
        match self {
            GpuShape::None => GpuMilli::ZERO,
            GpuShape::Share(milli) => milli,
            GpuShape::Whole(count) => GpuMilli::whole(count),
        }
    }
}

/// What is free on a node, its GPUs of one class only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Class of these GPUs.
    pub class: ClassNumber,
    /// Free CPUs.
    pub cpu_milli: CpuMilli,
    /// Free memory.
    pub memory_mib: MemoryMib,
    /// What is free of each GPU, by its place on the node.
    pub gpus: Vec<GpuMilli>,
}

impl Room {
    /// Free GPUs, broken ones with what is left of them.
    #[must_use]
    pub fn free(&self) -> GpuMilli {
        self.gpus.iter().copied().sum()
    }

    /// GPUs that nobody has a part of.
    #[must_use]
    pub fn whole(&self) -> u32 {
        let whole = self.gpus.iter().filter(|free| **free == GpuMilli::WHOLE).count();
        u32::try_from(whole).unwrap_or(u32::MAX)
    }

    /// Whether a job of that shape fits now.
    #[must_use]
    pub fn fits(&self, shape: &Shape) -> bool {
        self.cpu_milli >= shape.cpu_milli
            && self.memory_mib >= shape.memory_mib
            && shape.classes.contains(self.class)
            && match shape.gpus {
                GpuShape::None => true,
                GpuShape::Share(milli) => self.gpus.iter().any(|free| *free >= milli),
                GpuShape::Whole(count) => self.whole() >= count,
            }
    }

    /// Takes what the shape asks, a share from the GPU at `gpu`, whole ones from the first; `false`, and nothing is
    /// taken, if that is not there.
    pub fn take(&mut self, shape: &Shape, gpu: Option<usize>) -> bool {
        if !self.fits(shape) {
            return false;
        }
        match shape.gpus {
            GpuShape::None => {}
            GpuShape::Share(milli) => {
                let Some(free) = gpu.and_then(|gpu| self.gpus.get_mut(gpu)) else { return false };
                let Some(left) = free.checked_sub(milli) else { return false };
                *free = left;
            }
            GpuShape::Whole(count) => {
                let whole = self.gpus.iter_mut().filter(|free| **free == GpuMilli::WHOLE);
                whole.take(count as usize).for_each(|free| *free = GpuMilli::ZERO);
            }
        }
        self.cpu_milli -= shape.cpu_milli;
        self.memory_mib -= shape.memory_mib;
        true
    }
}
