//! Lines of the ledger and entries of the audit chain as the API shows them.

use gotgan_core::alert::Alert;
use gotgan_core::ledger::LedgerKind;
use gotgan_core::quota::audit::AuditEntry;
use gotgan_proto::v1;

/// A line of the ledger.
pub(super) fn entry(entry: gotgan_core::ledger::LedgerEntry) -> v1::LedgerEntry {
    let kind = match entry.kind {
        LedgerKind::Hold => v1::LedgerKind::Hold,
        LedgerKind::Release => v1::LedgerKind::Release,
        LedgerKind::Charge => v1::LedgerKind::Charge,
        LedgerKind::Overuse => v1::LedgerKind::Overuse,
        LedgerKind::Refund => v1::LedgerKind::Refund,
    };
    v1::LedgerEntry {
        seq: entry.seq,
        at_us: entry.at.0,
        kind: kind.into(),
        project: entry.project.to_string(),
        gpu_class: entry.class.to_string(),
        gpu_milli_seconds: entry.amount.0,
        job_id: entry.attempt.job.0,
        attempt: entry.attempt.number,
        counter_account: entry.counter.word(),
        from_us: entry.stretch.time.from.0,
        until_us: entry.stretch.time.until.0,
        weight_milli: entry.stretch.weight_milli,
    }
}

/// What was said of a budget.
pub(super) fn alert(alert: Alert) -> v1::QuotaAlert {
    v1::QuotaAlert {
        seq: alert.seq,
        at_us: alert.at.0,
        path: alert.node.to_string(),
        percent: alert.percent,
        kind: alert.kind.word().to_owned(),
        period: alert.period,
        ngh_milli: alert.budget.thousandths_down(),
        carried_ngh_milli: alert.carried.thousandths_down(),
        used_ngh_milli: alert.used.thousandths_up(),
    }
}

/// An entry of the audit chain.
pub(super) fn audited(entry: AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        seq: entry.seq,
        revision: entry.revision,
        at_us: entry.at.0,
        source: entry.source.word().to_owned(),
        subject: entry.subject,
        body: entry.body.to_string(),
        digest: entry.digest.to_string(),
    }
}
