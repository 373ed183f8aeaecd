//! Fragmentation as it was published, and the policy that goes by it.
//!
//! Between zero and a hundred for a node, cut down to a whole number, a step is some 40 thousandths of a GPU. All of it is
//! counted in integers, with tables, so that a node is looked at in tens of nanoseconds.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use gotgan_core::amount::{CpuMilli, GpuMilli, MemoryMib};
use gotgan_core::fragmentation::{ClassNumber, GpuShape, Room, Shape};

use super::policy::Rank;

/// Typical are the most frequent shapes, until they are so many percent of the list.
const TYPICAL_PERCENT: u64 = 95;

/// Models that have a table; there are eight.
const CLASSES_MAX: u16 = 64;

/// The list's typical tasks; memory does not count.
#[derive(Debug, Clone)]
pub struct TypicalTasks {
    tasks: u64,
    /// Least CPUs of each level, ascending, the first is zero.
    levels: Vec<CpuMilli>,
    /// By class and level.
    tables: Vec<Vec<Level>>,
}

/// What runs beside so many free CPUs on a class.
#[derive(Debug, Clone)]
struct Level {
    /// Tasks that ask for a share of at most so many thousandths.
    shares: Vec<u64>,
    /// Tasks that ask for at most so many whole GPUs.
    whole: Vec<u64>,
}

impl TypicalTasks {
    /// Those of a list.
    #[must_use]
    pub fn of(list: &[Shape]) -> Self {
        let shapes = typical(list);
        let mut levels: Vec<_> = shapes.iter().map(|(shape, _)| shape.cpu_milli).collect();
        levels.push(CpuMilli::ZERO);
        levels.sort_unstable();
        levels.dedup();
        let table = |class| levels.iter().map(|cpu| Level::of(&shapes, class, *cpu)).collect();
        TypicalTasks {
            tasks: shapes.iter().map(|(_, tasks)| tasks).sum(),
            tables: (0..CLASSES_MAX).map(ClassNumber).map(table).collect(),
            levels,
        }
    }

    /// How many they are.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Free GPUs that they cannot use, each counted once for each task: all of them for a task that cannot run, or that
    /// needs no GPU; else what is on GPUs with less free than it asks of each.
    #[must_use]
    pub fn fragments(&self, room: &Room) -> u64 {
        let level = self.levels.partition_point(|cpu| *cpu <= room.cpu_milli).saturating_sub(1);
        let table = self.tables.get(usize::from(room.class.0)).and_then(|table| table.get(level));
        let free = room.free().0;
        let Some(level) = table else { return free * self.tasks };
        let whole = room.whole();
        let most_free = room.gpus.iter().copied().max().unwrap_or_default();
        let (shares, of_whole) = (level.shares_up_to(most_free), level.whole_up_to(whole));
        let lost = free * (self.tasks - shares - of_whole);
        let lost_to_whole = (free - GpuMilli::whole(whole).0) * of_whole;
        let gpus = room.gpus.iter();
        let lost_to_shares: u64 =
            gpus.map(|free| free.0 * (shares - level.shares_up_to(*free))).sum();
        lost + lost_to_whole + lost_to_shares
    }
}

/// Typical shapes with how many tasks they are, their memory left out.
fn typical(list: &[Shape]) -> Vec<(Shape, u64)> {
    let mut counts: BTreeMap<Shape, u64> = BTreeMap::new();
    for task in list {
        *counts.entry(Shape { memory_mib: MemoryMib::ZERO, ..*task }).or_default() += 1;
    }
    let mut shapes: Vec<_> = counts.into_iter().collect();
    shapes.sort_by_key(|(shape, tasks)| (Reverse(*tasks), *shape));
    let mut seen = 0;
    let most = list.len() as u64 * TYPICAL_PERCENT;
    let too_rare = shapes.iter().position(|(_, tasks)| {
        let enough = seen * 100 >= most;
        seen += tasks;
        enough
    });
    shapes.truncate(too_rare.unwrap_or(shapes.len()));
    shapes
}

impl Level {
    fn of(shapes: &[(Shape, u64)], class: ClassNumber, cpu: CpuMilli) -> Self {
        let mut shares = vec![0; 1 + GpuMilli::WHOLE.0 as usize];
        let mut whole = Vec::new();
        let run = |shape: &Shape| shape.cpu_milli <= cpu && shape.classes.contains(class);
        for (shape, tasks) in shapes.iter().filter(|(shape, _)| run(shape)) {
            match shape.gpus {
                GpuShape::None => {}
                GpuShape::Share(milli) => shares[milli.0 as usize] += tasks,
                GpuShape::Whole(count) => {
                    let count = count as usize;
                    whole.resize(whole.len().max(count + 1), 0);
                    whole[count] += tasks;
                }
            }
        }
        Level { shares: summed(shares), whole: summed(whole) }
    }

    fn shares_up_to(&self, milli: GpuMilli) -> u64 {
        let last = self.shares.last().copied().unwrap_or(0);
        self.shares.get(milli.0 as usize).copied().unwrap_or(last)
    }

    fn whole_up_to(&self, count: u32) -> u64 {
        let last = self.whole.last().copied().unwrap_or(0);
        self.whole.get(count as usize).copied().unwrap_or(last)
    }
}

/// Each number with all before it.
fn summed(numbers: Vec<u64>) -> Vec<u64> {
    let sum = |sum: &mut u64, number| {
        *sum += number;
        Some(*sum)
    };
    numbers.into_iter().scan(0, sum).collect()
}

/// Fragmentation gradient descent.
#[derive(Debug, Clone)]
pub struct Fgd {
    typical: TypicalTasks,
    /// By score less one: from how much less of thousandths × tasks × [`UNITS_PER_MILLI`] on it is given.
    limits: Vec<i128>,
}

/// Limits are this much finer than a thousandth of a GPU.
const UNITS_PER_MILLI: i128 = 1_000_000;

/// Fractions of the logarithm below are counted by this.
const ONE: i128 = 1_000_000_000_000;

impl Fgd {
    /// The policy that knows the typical tasks.
    #[must_use]
    pub fn of(typical: TypicalTasks) -> Self {
        let tasks = i128::from(typical.tasks());
        // 100 × sigmoid(d ÷ 1000) is at least s from d = 1000 × ln(s ÷ (100 − s)) on.
        let limit = |score| log_of_odds(score) * 1000 * UNITS_PER_MILLI / ONE * tasks;
        Fgd { limits: (1..100).map(limit).collect(), typical }
    }

    /// What it goes by.
    #[must_use]
    pub fn typical(&self) -> &TypicalTasks {
        &self.typical
    }

    /// How good it is to place the task there; the first GPU of the best score for a share.
    #[must_use]
    pub fn rank(&self, room: &Room, before: u64, shape: &Shape) -> Option<Rank> {
        let mut after = room.clone();
        let GpuShape::Share(milli) = shape.gpus else {
            let fits = after.take(shape, None);
            return fits.then(|| Rank { cost: self.cost(before, &after), gpu: None });
        };
        after.cpu_milli = room.cpu_milli.checked_sub(shape.cpu_milli)?;
        let mut best: Option<Rank> = None;
        for (gpu, free) in room.gpus.iter().enumerate().filter(|(_, free)| **free >= milli) {
            after.gpus[gpu] = *free - milli;
            let cost = self.cost(before, &after);
            after.gpus[gpu] = *free;
            if best.is_none_or(|best| cost < best.cost) {
                best = Some(Rank { cost, gpu: Some(gpu) });
            }
        }
        best
    }

    /// The score of what is less afterwards, below zero.
    fn cost(&self, before: u64, after: &Room) -> i64 {
        let less = i128::from(before) - i128::from(self.typical.fragments(after));
        let score = self.limits.partition_point(|limit| *limit <= less * UNITS_PER_MILLI);
        -i64::try_from(score).unwrap_or(0)
    }
}

/// ln(s ÷ (100 − s)), counted by [`ONE`]: twice the area tangent of (s − 50) ÷ 50, by its series.
fn log_of_odds(score: i128) -> i128 {
    let z = (score - 50) * ONE / 50;
    let mut power = z;
    let mut sum = 0;
    for odd in (1..).step_by(2) {
        sum += power / odd;
        power = power * z / ONE * z / ONE;
        if power == 0 {
            break;
        }
    }
    2 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_of_odds_is_right() {
        for (score, nano) in
            [(1, -4_595_119_850), (50, 0), (75, 1_098_612_289), (99, 4_595_119_850)]
        {
            let found = log_of_odds(score) / 1000;
            assert!((found - nano).abs() < 10, "{score}: {found}");
        }
    }
}
