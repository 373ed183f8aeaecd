//! Whose turn it is, for the order `fair`: the scheduler's own fair share, of use that fades over shares.
//!
//! A tenant's use is what it held, up to the moment, halved for each 14 days; it asked while a job of it waited or
//! ran. Both are counted as they change, so that the order of a moment is known from sums.

use std::collections::BTreeMap;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fairshare::decay::Moment;
use gotgan_core::fairshare::{DecayedUse, HalfLife, OrderRule, Part, Standing, order};
use gotgan_core::ids::ProjectPath;

use super::trace::TenantIndex;

/// What each tenant used and asked for so far.
#[derive(Debug, Clone)]
pub struct Turns {
    half_life: HalfLife,
    tenants: Vec<Tenant>,
    places: BTreeMap<ProjectPath, usize>,
}

#[derive(Debug, Clone)]
struct Tenant {
    path: ProjectPath,
    share: u32,
    used: DecayedUse,
    asked: DecayedUse,
    /// GPUs it holds.
    held: GpuMilli,
    /// Jobs that wait or run.
    jobs: u64,
    /// Both were so since then, and what was before is counted.
    since: UnixMicros,
}

impl Tenant {
    fn new(path: ProjectPath, share: u32, half_life: HalfLife) -> Self {
        let (used, asked) = (DecayedUse::new(half_life), DecayedUse::new(half_life));
        let (held, jobs, since) = (GpuMilli::ZERO, 0, UnixMicros(0));
        Tenant { path, share, used, asked, held, jobs, since }
    }

    fn count_until(&mut self, now: UnixMicros) {
        if !self.held.is_zero() {
            self.used.add(self.held, self.since, now);
        }
        if self.jobs > 0 {
            self.asked.add(GpuMilli::WHOLE, self.since, now);
        }
        self.since = now;
    }

    fn standing(&self, moment: Moment, now: UnixMicros) -> Standing {
        let value = |used: &DecayedUse| u64::try_from(used.value_at(now).0).unwrap_or(0);
        let always = moment.always_s().saturating_mul(GpuMilli::WHOLE.0);
        let asked = Part::of(value(&self.asked), always).min(Part::WHOLE);
        Standing { share: self.share, used: value(&self.used), asked }
    }
}

impl Turns {
    /// Nobody used anything yet; a share for each tenant.
    #[must_use]
    pub fn new(shares: &[u32], half_life: HalfLife) -> Self {
        let paths = (0..shares.len()).filter_map(|place| ProjectPath::new(&name(place)).ok());
        let tenants = paths.zip(shares).map(|(path, share)| Tenant::new(path, *share, half_life));
        let tenants: Vec<Tenant> = tenants.collect();
        let places = tenants.iter().map(|tenant| tenant.path.clone()).zip(0..).collect();
        Turns { half_life, tenants, places }
    }

    /// Tenants, whose turn is first to first; equals by their names.
    pub fn order(&mut self, now: UnixMicros) -> Vec<usize> {
        let moment = Moment::of(self.half_life, now);
        let mut tree = BTreeMap::new();
        for tenant in &mut self.tenants {
            tenant.count_until(now);
            tree.insert(tenant.path.clone(), tenant.standing(moment, now));
        }
        let turns = order(&tree, OrderRule::UsePerShare);
        turns.iter().filter_map(|turn| self.places.get(&turn.project).copied()).collect()
    }

    /// A job is submitted.
    pub fn submit(&mut self, tenant: TenantIndex, now: UnixMicros) {
        self.change(tenant, now, |tenant| tenant.jobs += 1);
    }

    /// A job of so many GPUs starts.
    pub fn start(&mut self, tenant: TenantIndex, gpus: u32, now: UnixMicros) {
        self.change(tenant, now, |tenant| tenant.held += GpuMilli::whole(gpus));
    }

    /// A job of so many GPUs is over.
    pub fn end(&mut self, tenant: TenantIndex, gpus: u32, now: UnixMicros) {
        self.change(tenant, now, |tenant| {
            tenant.held = tenant.held.saturating_sub(GpuMilli::whole(gpus));
            tenant.jobs = tenant.jobs.saturating_sub(1);
        });
    }

    fn change(&mut self, tenant: TenantIndex, now: UnixMicros, change: impl FnOnce(&mut Tenant)) {
        let Some(tenant) = self.tenants.get_mut(tenant.0) else { return };
        tenant.count_until(now);
        change(tenant);
    }
}

/// A name that is in the order of places.
fn name(place: usize) -> String {
    format!("tenant-{place:08}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: i64 = 3600;

    fn at(hours: i64) -> UnixMicros {
        UnixMicros(0).plus_seconds(hours * HOUR_S)
    }

    #[test]
    fn who_used_least_for_its_share_is_first() {
        let mut turns = Turns::new(&[1, 1, 4], HalfLife::default());
        for tenant in 0..3 {
            turns.submit(TenantIndex(tenant), at(0));
        }
        turns.start(TenantIndex(0), 2, at(0));
        turns.start(TenantIndex(1), 1, at(0));
        turns.start(TenantIndex(2), 3, at(0));
        assert_eq!(turns.order(at(10)), [2, 1, 0]);
    }

    #[test]
    fn old_use_fades() {
        let mut turns = Turns::new(&[1, 1], HalfLife::default());
        for tenant in 0..2 {
            turns.submit(TenantIndex(tenant), at(0));
            turns.submit(TenantIndex(tenant), at(0));
        }
        turns.start(TenantIndex(0), 4, at(0));
        turns.end(TenantIndex(0), 4, at(10));
        let later = 24 * 14 * 8;
        turns.start(TenantIndex(1), 4, at(later));
        turns.end(TenantIndex(1), 4, at(later + 1));
        assert_eq!(turns.order(at(later + 1)), [0, 1]);
    }

    #[test]
    fn equals_are_by_name() {
        let mut turns = Turns::new(&[1, 1, 1], HalfLife::default());
        assert_eq!(turns.order(at(1)), [0, 1, 2]);
    }
}
