//! Which tasks come, in which order.

use gotgan_core::amount::GpuMilli;
use gotgan_core::fragmentation::Shape;

use super::LOAD_PERCENT;
use crate::draw::Draw;

/// All of the list, and tasks drawn from it with replacement as long as no more than [`LOAD_PERCENT`] of `capacity` is
/// asked for; all of that shuffled.
#[must_use]
pub fn of(tasks: &[Shape], capacity: GpuMilli, seed: u64) -> Vec<Shape> {
    let mut draw = Draw::named(seed, "pack arrivals");
    let mut arrivals = tasks.to_vec();
    let mut asked: GpuMilli = tasks.iter().map(|task| task.gpus.milli()).sum();
    // A list that asks for nothing would never reach the load.
    while !asked.is_zero() {
        let drawn = tasks[place(&mut draw, tasks.len())];
        asked += drawn.gpus.milli();
        if asked.times(100) > capacity.times(LOAD_PERCENT) {
            break;
        }
        arrivals.push(drawn);
    }
    for end in (2..=arrivals.len()).rev() {
        arrivals.swap(end - 1, place(&mut draw, end));
    }
    arrivals
}

/// A place below `end`.
pub fn place(draw: &mut Draw, end: usize) -> usize {
    usize::try_from(draw.below(end as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use gotgan_core::amount::{CpuMilli, MemoryMib};
    use gotgan_core::fragmentation::{ClassSet, GpuShape};

    use super::*;

    #[test]
    fn arrivals_are_the_list_and_more_of_it_up_to_the_load() {
        let task = |count| Shape {
            gpus: GpuShape::Whole(count),
            classes: ClassSet::ANY,
            cpu_milli: CpuMilli::ZERO,
            memory_mib: MemoryMib::ZERO,
        };
        let tasks: Vec<_> = (1..=4).map(task).collect();
        let arrivals = of(&tasks, GpuMilli::whole(100), 7);
        let asked: GpuMilli = arrivals.iter().map(|task| task.gpus.milli()).sum();
        assert!((GpuMilli::whole(127)..=GpuMilli::whole(130)).contains(&asked), "{asked}");
        assert!(tasks.iter().all(|task| arrivals.contains(task)));
        assert_eq!(arrivals, of(&tasks, GpuMilli::whole(100), 7));
        assert_ne!(arrivals, of(&tasks, GpuMilli::whole(100), 8));
    }
}
