//! Dividing an amount among siblings: guarantees by largest remainder, the rest by weight. Integers, exact sums, and
//! what rounding leaves goes by position.

/// What one sibling wants of the amount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// It gets this in any case; never more than it asks, and all of these together are never more than there is.
    pub sure: u64,
    /// Most it takes.
    pub asked: u64,
    /// Its part of what is left, at least 1.
    pub weight: u64,
}

/// Thousandths of a whole GPU.
const WHOLE: u64 = crate::amount::GpuMilli::WHOLE.0;

/// What is left of each wish if there is too little for all: whole GPUs in proportion, those that remain to the
/// largest remainders, and among equal ones to the earlier.
pub(super) fn scale(has: u64, wanted: &[u64]) -> Vec<u64> {
    let sum: u128 = wanted.iter().map(|want| u128::from(*want)).sum();
    if sum <= u128::from(has) {
        return wanted.to_vec();
    }
    let whole = u128::from(has / WHOLE);
    let parts: Vec<u128> = wanted.iter().map(|want| u128::from(*want) * whole).collect();
    let mut gpus: Vec<u128> = parts.iter().map(|part| part / sum).collect();
    let left = usize::try_from(whole - gpus.iter().sum::<u128>()).unwrap_or(usize::MAX);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(parts[*at] % sum), *at));
    for at in order.into_iter().take(left) {
        gpus[at] += 1;
    }
    let scaled = |(gpus, want): (u128, &u64)| {
        u64::try_from(gpus * u128::from(WHOLE)).unwrap_or(u64::MAX).min(*want)
    };
    gpus.into_iter().zip(wanted).map(scaled).collect()
}

/// What each gets: its sure part, and of what is left so much for each unit of its weight until it has all it asks.
/// Together they get exactly the least of `has` and what they ask.
pub(super) fn spread(has: u64, claims: &[Claim]) -> Vec<u64> {
    let asked = claims.iter().map(|claim| claim.asked).fold(0, u64::saturating_add);
    if asked <= has {
        return claims.iter().map(|claim| claim.asked).collect();
    }
    let sure: u64 = claims.iter().map(|claim| claim.sure).sum();
    let rest = has.saturating_sub(sure);
    let level = level(rest, claims);
    let mut left = rest - filled(level, claims);
    let mut shares = Vec::with_capacity(claims.len());
    for claim in claims {
        let room = claim.asked - claim.sure;
        let flat = room.min(level.saturating_mul(claim.weight));
        // One more step of the level would pass the rest, so what is left of it goes to those in front.
        let more = left.min(claim.weight).min(room - flat);
        left -= more;
        shares.push(claim.sure + flat + more);
    }
    shares
}

/// The highest level at which no more than `rest` is filled.
fn level(rest: u64, claims: &[Claim]) -> u64 {
    let top = |claim: &Claim| (claim.asked - claim.sure).div_ceil(claim.weight);
    let (mut low, mut high) = (0, claims.iter().map(top).max().unwrap_or(0).min(rest));
    while low < high {
        let middle = high - (high - low) / 2;
        if filled(middle, claims) <= rest {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

fn filled(level: u64, claims: &[Claim]) -> u64 {
    let part = |claim: &Claim| (claim.asked - claim.sure).min(level.saturating_mul(claim.weight));
    claims.iter().map(part).fold(0, u64::saturating_add)
}
