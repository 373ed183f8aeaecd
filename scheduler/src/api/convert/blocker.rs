//! Why a job waits.

use gotgan_core::explain;
use gotgan_core::plan::{Blocker, BlockerKind, Unit};
use gotgan_proto::v1;

/// A blocker as the API's, with its sentence.
#[must_use]
pub fn blocker(blocker: &Blocker) -> v1::Blocker {
    v1::Blocker {
        kind: kind(blocker.kind).into(),
        subject: blocker.subject.clone(),
        text: explain::sentence(blocker),
        needed: number(blocker.needed),
        available: number(blocker.available),
        limit: number(blocker.limit),
        unit: unit(blocker.unit).to_owned(),
        hint: explain::hint(blocker),
    }
}

fn kind(kind: BlockerKind) -> v1::BlockerKind {
    match kind {
        BlockerKind::Held => v1::BlockerKind::Held,
        BlockerKind::Dependency => v1::BlockerKind::Dependency,
        BlockerKind::ProjectLimit => v1::BlockerKind::ProjectLimit,
        BlockerKind::ParentLimit => v1::BlockerKind::ParentLimit,
        BlockerKind::Term => v1::BlockerKind::Term,
        BlockerKind::Kept => v1::BlockerKind::Kept,
        BlockerKind::Budget => v1::BlockerKind::Budget,
        BlockerKind::Constraints => v1::BlockerKind::Constraints,
        BlockerKind::NodesUnavailable => v1::BlockerKind::NodesUnavailable,
        BlockerKind::Reservation => v1::BlockerKind::Reservation,
        BlockerKind::AskedReservation => v1::BlockerKind::AskedReservation,
        BlockerKind::Maintenance => v1::BlockerKind::Maintenance,
        BlockerKind::Recall => v1::BlockerKind::Recall,
        BlockerKind::Lent => v1::BlockerKind::Lent,
        BlockerKind::Tier => v1::BlockerKind::Tier,
        BlockerKind::FairShare => v1::BlockerKind::FairShare,
        BlockerKind::Capacity => v1::BlockerKind::Capacity,
        BlockerKind::Power => v1::BlockerKind::Power,
        BlockerKind::Order => v1::BlockerKind::Order,
        BlockerKind::Planned => v1::BlockerKind::Planned,
        BlockerKind::ArrayLimit => v1::BlockerKind::ArrayLimit,
        BlockerKind::Deadline => v1::BlockerKind::Deadline,
        BlockerKind::Elastic => v1::BlockerKind::Elastic,
        BlockerKind::RetryDelay => v1::BlockerKind::RetryDelay,
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::GpuMilli => "gpu_milli",
        Unit::Instances => "instances",
        Unit::CpuMilli => "cpu_milli",
        Unit::MemoryMib => "memory_mib",
        Unit::NghMilli => "ngh_milli",
        Unit::Nodes => "nodes",
        Unit::Job => "job",
        Unit::Millis => "ms",
        Unit::PerMille => "per_mille",
        Unit::Watts => "watts",
        Unit::None => "",
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
