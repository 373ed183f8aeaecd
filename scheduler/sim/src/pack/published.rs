//! The published policies that need no more than the node and the task. Each score is 0 to 100 and a whole number; costs
//! are the scores below zero, so that the smaller is the better.

use std::cmp::Reverse;

use gotgan_core::amount::GpuMilli;
use gotgan_core::fragmentation::{GpuShape, Shape};

use super::board::{Host, Kind};

/// CPUs of the largest node, thousandths.
const CPU_MOST: i128 = 128_000;
/// GPUs of the largest node, thousandths.
const GPU_MOST: i128 = 8_000;

/// 100 × (1 − (CPUs free × asked ÷ 128,000² + GPUs free × asked ÷ 8,000²) ÷ 2).
#[must_use]
pub fn dot_product(host: &Host, shape: &Shape) -> i64 {
    let cpu = i128::from(host.room.cpu_milli.0) * i128::from(shape.cpu_milli.0);
    let gpu = i128::from(host.room.free().0) * i128::from(shape.gpus.milli().0);
    // Both over the common denominator 128,000², which is 256 × 8,000².
    let product = cpu + 256 * gpu;
    let most = 2 * CPU_MOST * CPU_MOST;
    cost_of((100 * (most - product)).div_euclid(most))
}

/// 100 × (1 − (CPUs left ÷ 128,000 + GPUs left ÷ 8,000) ÷ 2). To spread the scores over 0 to 100 afterwards, as published,
/// changes neither their order nor which are equal.
#[must_use]
pub fn best_fit(host: &Host, shape: &Shape) -> i64 {
    let cpu = i128::from(host.room.cpu_milli.0) - i128::from(shape.cpu_milli.0);
    let gpu = i128::from(host.room.free().0) - i128::from(shape.gpus.milli().0);
    let left = cpu + 16 * gpu;
    let most = 2 * 16 * GPU_MOST;
    cost_of((100 * (most - left)).div_euclid(most))
}

/// Used GPUs, the fuller the better; else the fewest idle GPUs of a used node; else idle nodes, the smaller the better.
#[must_use]
pub fn packing(host: &Host, shape: &Shape) -> i64 {
    if shape.gpus == GpuShape::None {
        return 0;
    }
    let whole = i64::from(host.room.whole());
    if host.room.gpus.len() == host.room.whole() as usize {
        return -(33 - whole).max(whole);
    }
    let asked = match shape.gpus {
        GpuShape::None => return 0,
        GpuShape::Share(milli) => (milli, 1),
        GpuShape::Whole(count) => (GpuMilli::WHOLE, count as usize),
    };
    let mut large: Vec<GpuMilli> = host.room.gpus.clone();
    large.retain(|free| *free >= asked.0);
    large.sort_unstable();
    large.truncate(asked.1);
    match large.iter().filter(|free| **free == GpuMilli::WHOLE).count() {
        0 => {
            let left: u64 = large.iter().map(|free| free.0 / 10).sum();
            -i64::try_from(100_u64.saturating_sub(left / 10)).unwrap_or(0).max(50)
        }
        idle => -(50 - i64::try_from(idle).unwrap_or(0)).max(33),
    }
}

/// Nodes with only tasks of the same kind, mixed ones that have that kind, idle ones, others; of each the fuller.
#[must_use]
pub fn clustering(host: &Host, shape: &Shape) -> i64 {
    let Some(kind) = Kind::of(shape) else { return 0 };
    let free = i64::try_from(host.room.free().0).unwrap_or(0);
    let fuller = 25 * (8000 - free) / 8000;
    let level = match (host.kinds.contains(&kind), host.kinds.len()) {
        (true, 1) => 75,
        (true, _) => 50,
        (false, 0) => 25,
        (false, _) => 0,
    };
    -(level + fuller)
}

/// For a share, the GPU with the least free that is enough, the first of these.
#[must_use]
pub fn fullest_gpu(host: &Host, shape: &Shape) -> Option<usize> {
    let GpuShape::Share(milli) = shape.gpus else { return None };
    let gpus = host.room.gpus.iter().enumerate().filter(|(_, free)| **free >= milli);
    gpus.max_by_key(|(place, free)| (Reverse(**free), Reverse(*place))).map(|(place, _)| place)
}

fn cost_of(score: i128) -> i64 {
    i64::try_from(-score).unwrap_or(0)
}
