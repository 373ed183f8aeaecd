//! Where every GPU was at every moment, and whether that adds up. In integers; a GPU for a millisecond is one unit.
//!
//! Capacity is counted from inventories, what is held from attempts, and what is free from nodes, so that no part is
//! found by subtracting the others. The ledger's lines are held against the same attempts by the rule of whole
//! seconds, written down here once more.

use std::collections::{BTreeMap, BTreeSet};

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::attempt::Attempt;
use gotgan_core::fabric::{self, ReservationSet};
use gotgan_core::ids::{GpuClass, JobId, NodeName, ProjectPath};
use gotgan_core::ledger::{CounterAccount, LedgerEntry, LedgerKind};
use gotgan_core::meter::Footing;
use gotgan_core::node::{Admin, Liveness};
use gotgan_core::quota::entitle::Entitlements;
use gotgan_core::world::{Node, World};

/// What the GPUs of a class are doing; of whatever unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// All there are.
    pub capacity: u128,
    /// Held by projects within what they are guaranteed.
    pub guaranteed: u128,
    /// Held beyond that.
    pub borrowed: u128,
    /// Held by attempts that started beyond a budget.
    pub overuse: u128,
    /// Held by scavengers.
    pub scavenged: u128,
    /// Free, on nodes that take work and that a reservation keeps for its holder now.
    pub reserved: u128,
    /// Free, on other nodes that take work, and within what quotas may use.
    pub idle: u128,
    /// Free, on nodes that people took out of service.
    pub draining: u128,
    /// Free, on nodes that are not heard.
    pub down: u128,
    /// Kept out of quotas: on spare nodes, or more than the lots' accepted batches have.
    pub spare: u128,
}

impl Parts {
    /// Everything but the capacity.
    #[must_use]
    pub fn sum(&self) -> u128 {
        self.held() + self.reserved + self.idle + self.draining + self.down + self.spare
    }

    /// What attempts hold.
    #[must_use]
    pub fn held(&self) -> u128 {
        self.guaranteed + self.borrowed + self.overuse + self.scavenged
    }

    /// What came since it was like `before`.
    #[must_use]
    pub fn without(&self, before: &Parts) -> Self {
        Parts {
            capacity: self.capacity - before.capacity,
            guaranteed: self.guaranteed - before.guaranteed,
            borrowed: self.borrowed - before.borrowed,
            overuse: self.overuse - before.overuse,
            scavenged: self.scavenged - before.scavenged,
            reserved: self.reserved - before.reserved,
            idle: self.idle - before.idle,
            draining: self.draining - before.draining,
            down: self.down - before.down,
            spare: self.spare - before.spare,
        }
    }

    fn add(&mut self, other: &Parts, times: u128) {
        self.capacity += other.capacity * times;
        self.guaranteed += other.guaranteed * times;
        self.borrowed += other.borrowed * times;
        self.overuse += other.overuse * times;
        self.scavenged += other.scavenged * times;
        self.reserved += other.reserved * times;
        self.idle += other.idle * times;
        self.draining += other.draining * times;
        self.down += other.down * times;
        self.spare += other.spare * times;
    }
}

/// Sums of one class that must be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// What is compared.
    pub what: &'static str,
    /// Of which class.
    pub class: GpuClass,
    /// By the one count.
    pub left: u128,
    /// By the other.
    pub right: u128,
}

/// Everything that is integrated.
#[derive(Debug, Default)]
pub struct Meter {
    last: UnixMicros,
    now: BTreeMap<GpuClass, Parts>,
    /// Thousandths of GPUs times milliseconds.
    totals: BTreeMap<GpuClass, Parts>,
    /// What attempts that have ended held, from lease to end, in the same unit.
    lived: BTreeMap<GpuClass, u128>,
    /// What they cost by the rule of whole seconds, in thousandths of GPU-seconds.
    owed: BTreeMap<GpuClass, u128>,
    booked: BTreeMap<(JobId, GpuClass), Booked>,
}

/// Sums of the ledger for a job, in thousandths of GPU-seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booked {
    /// Charged, overuse included.
    pub charged: u128,
    /// Of that, what was used beyond a budget.
    pub overuse: u128,
    /// Given back.
    pub refunded: u128,
    /// Set aside.
    pub held: u128,
    /// No longer set aside.
    pub released: u128,
}

impl Meter {
    /// Nothing integrated yet.
    #[must_use]
    pub fn from(start: UnixMicros) -> Self {
        Meter { last: start, ..Meter::default() }
    }

    /// Time passes with everything as it was seen last.
    pub fn advance(&mut self, to: UnixMicros) {
        let passed = u128::try_from(to.millis_since(self.last)).unwrap_or(0);
        for (class, parts) in &self.now {
            self.totals.entry(class.clone()).or_default().add(parts, passed);
        }
        self.last = to;
    }

    /// From now on it is like this.
    pub fn see(&mut self, world: &World, due: &BTreeMap<GpuClass, Entitlements>) {
        self.now = parts_of(world, due, self.last);
    }

    /// An attempt has ended.
    pub fn ended(&mut self, attempt: &Attempt) {
        let (Some(class), Some(ended)) = (&attempt.placement.class, attempt.ended) else { return };
        let gpus = u128::from(attempt.gpus().0);
        let millis = u128::try_from(ended.millis_since(attempt.leased)).unwrap_or(0);
        *self.lived.entry(class.clone()).or_default() += gpus * millis;
        let seconds = seconds_between(attempt.leased, ended);
        *self.owed.entry(class.clone()).or_default() += gpus * seconds;
    }

    /// A line of the ledger was written.
    pub fn book(&mut self, entry: &LedgerEntry) {
        let booked = self.booked.entry((entry.attempt.job, entry.class.clone())).or_default();
        let amount = u128::try_from(entry.amount.0).unwrap_or(0);
        match entry.kind {
            LedgerKind::Hold => booked.held += amount,
            LedgerKind::Release => booked.released += amount,
            LedgerKind::Charge => booked.charged += amount,
            LedgerKind::Overuse => {
                booked.charged += amount;
                booked.overuse += amount;
            }
            // What was charged beyond an end that was told late is no use at all.
            LedgerKind::Refund if entry.counter == CounterAccount::Pool => {
                booked.charged = booked.charged.saturating_sub(amount);
            }
            LedgerKind::Refund => booked.refunded += amount,
        }
    }

    /// The ledger's sums for a job, of one class or of all.
    #[must_use]
    pub fn booked(&self, job: JobId, class: Option<&GpuClass>) -> Booked {
        let classes = self.totals.keys().filter(|of| class.is_none_or(|class| class == *of));
        let lines = classes.filter_map(|of| self.booked.get(&(job, of.clone())));
        lines.fold(Booked::default(), |sum, one| sum.plus(one))
    }

    /// Every class with what became of its GPUs, in GPU-milliseconds.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<GpuClass, Parts> {
        let whole = |parts: &Parts| Parts {
            capacity: parts.capacity / 1000,
            guaranteed: parts.guaranteed / 1000,
            borrowed: parts.borrowed / 1000,
            overuse: parts.overuse / 1000,
            scavenged: parts.scavenged / 1000,
            reserved: parts.reserved / 1000,
            idle: parts.idle / 1000,
            draining: parts.draining / 1000,
            down: parts.down / 1000,
            spare: parts.spare / 1000,
        };
        self.totals.iter().map(|(class, parts)| (class.clone(), whole(parts))).collect()
    }

    /// What must be equal, class by class; nothing here has been compared yet.
    #[must_use]
    pub fn balances(&self, world: &World) -> Vec<Balance> {
        let mut found = Vec::new();
        for (class, parts) in &self.totals {
            let mut balance = |what, left, right| {
                found.push(Balance { what, class: class.clone(), left, right });
            };
            let live = live(world, class, self.last);
            let lived = self.lived.get(class).copied().unwrap_or_default() + live.lived;
            let booked = self.booked_of(class);
            balance("capacity = all its parts (mGPU-ms)", parts.capacity, parts.sum());
            balance("held = attempts from lease to end (mGPU-ms)", parts.held(), lived);
            let owed = self.owed.get(class).copied().unwrap_or_default() + live.paid;
            balance("charged = whole seconds of attempts (mGPU-s)", booked.charged, owed);
            let aside = booked.held.saturating_sub(booked.released);
            balance("set aside = holds of live attempts (mGPU-s)", aside, live.hold);
        }
        found
    }

    fn booked_of(&self, class: &GpuClass) -> Booked {
        let of = self.booked.iter().filter(|((_, of), _)| of == class);
        of.fold(Booked::default(), |sum, (_, one)| sum.plus(one))
    }
}

impl Booked {
    fn plus(self, other: &Booked) -> Self {
        Booked {
            charged: self.charged + other.charged,
            overuse: self.overuse + other.overuse,
            refunded: self.refunded + other.refunded,
            held: self.held + other.held,
            released: self.released + other.released,
        }
    }
}

/// Attempts that have not ended.
struct Live {
    lived: u128,
    hold: u128,
    /// What slices that are over were charged.
    paid: u128,
}

fn live(world: &World, class: &GpuClass, now: UnixMicros) -> Live {
    let of = world.attempts.values().filter(|one| one.placement.class.as_ref() == Some(class));
    of.fold(Live { lived: 0, hold: 0, paid: 0 }, |sum, attempt| {
        let millis = u128::try_from(now.millis_since(attempt.leased)).unwrap_or(0);
        let hold = u128::try_from(attempt.hold.0).unwrap_or(0);
        let gpus = u128::from(attempt.gpus().0);
        let seconds = seconds_between(attempt.leased, attempt.meter.settled);
        Live {
            lived: sum.lived + gpus * millis,
            hold: sum.hold + hold,
            paid: sum.paid + gpus * seconds,
        }
    })
}

/// Whole seconds of the wall clock.
fn seconds_between(from: UnixMicros, until: UnixMicros) -> u128 {
    let seconds = until.0.div_euclid(1_000_000) - from.0.div_euclid(1_000_000);
    u128::try_from(seconds).unwrap_or(0)
}

fn parts_of(
    world: &World,
    due: &BTreeMap<GpuClass, Entitlements>,
    now: UnixMicros,
) -> BTreeMap<GpuClass, Parts> {
    let standby = fabric::standby(world);
    let reserved = reserved_now(world, &standby, now);
    let mut parts: BTreeMap<GpuClass, Parts> = BTreeMap::new();
    let mut ready: BTreeMap<&GpuClass, Ready> = BTreeMap::new();
    for (name, node) in &world.nodes {
        let Some(class) = node.inventory.gpus.first().map(|gpu| &gpu.class) else { continue };
        let all = u128::from(GpuMilli::WHOLE.0) * node.inventory.gpus.len() as u128;
        let free: GpuMilli = node.free.gpus.iter().copied().sum();
        let free = u128::from(free.0);
        let parts = parts.entry(class.clone()).or_default();
        let ready = ready.entry(class).or_default();
        parts.capacity += all;
        let stands_by = standby.contains(name);
        match place_of(node, stands_by) {
            Place::Ready if reserved.contains(name) => parts.reserved += free,
            Place::Ready => ready.free += free,
            Place::Down => parts.down += free,
            Place::Draining => parts.draining += free,
            Place::Spare => parts.spare += free,
        }
        if node.is_in_service() && !stands_by {
            ready.in_service += all;
        }
    }
    for (class, ready) in ready {
        let parts = parts.entry(class.clone()).or_default();
        let beyond = ready.in_service.saturating_sub(most_at_once(world, class));
        let kept = beyond.min(ready.free);
        parts.spare += kept;
        parts.idle += ready.free - kept;
    }
    hold(world, due, &mut parts);
    parts
}

/// Nodes that take work.
#[derive(Default)]
struct Ready {
    free: u128,
    in_service: u128,
}

/// Adds what attempts hold: by their footing, and of those within budgets to what is guaranteed to their project first.
fn hold(
    world: &World,
    due: &BTreeMap<GpuClass, Entitlements>,
    parts: &mut BTreeMap<GpuClass, Parts>,
) {
    let mut held: BTreeMap<(&GpuClass, &ProjectPath), u64> = BTreeMap::new();
    for attempt in world.attempts.values() {
        let Some(class) = &attempt.placement.class else { continue };
        let gpus = attempt.gpus().0;
        let parts = parts.entry(class.clone()).or_default();
        match attempt.meter.footing {
            Footing::Budget => *held.entry((class, &attempt.project)).or_default() += gpus,
            Footing::Overuse => parts.overuse += u128::from(gpus),
            Footing::Scavenger => parts.scavenged += u128::from(gpus),
        }
    }
    for ((class, project), held) in held {
        let parts = parts.entry(class.clone()).or_default();
        let due = due
            .get(class)
            .and_then(|due| Some(due.scaled_guarantee(due.arena().find(project.as_str())?).0));
        let guaranteed = held.min(due.unwrap_or_default());
        parts.guaranteed += u128::from(guaranteed);
        parts.borrowed += u128::from(held - guaranteed);
    }
}

/// What the limits of the tree's roots allow of a class together.
fn most_at_once(world: &World, class: &GpuClass) -> u128 {
    let roots = world.quota.nodes.iter().filter(|(path, _)| path.parent().is_none());
    let limits = roots.map(|(_, root)| root.limits.get(class).map_or(u64::MAX, |limit| limit.0));
    limits.map(u128::from).sum()
}

enum Place {
    Ready,
    Down,
    Draining,
    Spare,
}

/// Nodes that a reservation keeps for its holder at that moment.
fn reserved_now<'w>(
    world: &'w World,
    standby: &BTreeSet<&NodeName>,
    now: UnixMicros,
) -> BTreeSet<&'w NodeName> {
    let mut holding = ReservationSet::EMPTY;
    for (place, terms) in world.quota.reservations.values().enumerate() {
        if terms.during.contains(now) {
            holding.insert(place);
        }
    }
    let nodes = fabric::reserved(world, standby).into_iter();
    nodes.filter(|(_, set)| set.meets(holding)).map(|(name, _)| name).collect()
}

fn place_of(node: &Node, stands_by: bool) -> Place {
    match (&node.admin, node.liveness) {
        (_, Liveness::Unknown | Liveness::Suspect | Liveness::Lost) => Place::Down,
        (Admin::Drain { .. }, Liveness::Ready) => Place::Draining,
        (Admin::Active, Liveness::Ready) if node.maintenance.is_some() => Place::Draining,
        (Admin::Active, Liveness::Ready) if stands_by => Place::Spare,
        (Admin::Active, Liveness::Ready) => Place::Ready,
    }
}
