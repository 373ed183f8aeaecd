//! How a node of the quota tree stands, as the API shows it.

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::ProjectPath;
use gotgan_core::overview::{Standing, standings};
use gotgan_core::quota::loan::LoanView;
use gotgan_core::world::World;
use gotgan_proto::v1;
use tonic::Status;

use super::show::no_such_node;
use crate::auth::Principal;

/// How the node at `path` stands.
pub(super) fn explain(
    world: &World,
    who: &Principal,
    path: &ProjectPath,
    now: UnixMicros,
) -> Result<v1::QuotaExplanation, Status> {
    let found = standings(world, path, now).ok_or_else(|| no_such_node(path))?;
    let usage = world.usage.get(path.as_str()).cloned().unwrap_or_default();
    Ok(v1::QuotaExplanation {
        path: path.to_string(),
        pending_jobs: usage.waiting,
        running_jobs: usage.active,
        classes: found.into_iter().map(|standing| told(standing, who)).collect(),
        loans: world.book.loans_of(path, now).into_iter().map(|loan| lent(&loan, who)).collect(),
    })
}

fn lent(loan: &LoanView<'_>, who: &Principal) -> v1::QuotaLoan {
    let terms = loan.terms;
    let seen = |path: &ProjectPath| {
        if who.may_see(path) { path.to_string() } else { String::new() }
    };
    v1::QuotaLoan {
        name: loan.name.to_string(),
        lends: loan.lends,
        lender: seen(&terms.lender),
        borrower: seen(&terms.borrower),
        gpu_class: terms.class.to_string(),
        gpu_milli: terms.gpus.0,
        from_us: terms.during.from.0,
        until_us: terms.during.until.0,
        consent: terms.consent.clone().unwrap_or_default(),
        gpu_milli_seconds: terms.gpu_time().0,
    }
}

fn told(standing: Standing, who: &Principal) -> v1::QuotaStanding {
    v1::QuotaStanding {
        gpu_class: standing.class.to_string(),
        guarantee_gpu_milli: standing.guarantee.0,
        scaled_gpu_milli: standing.scaled.0,
        entitled_gpu_milli: standing.entitled.0,
        held_gpu_milli: standing.held.0,
        asked_gpu_milli: standing.asked.0,
        borrowed_gpu_milli: standing.borrowed().0,
        lent_gpu_milli: standing.lent.0,
        kept_gpu_milli: standing.kept.0,
        scavenged_gpu_milli: standing.scavenged.0,
        limit: standing.limit.map(|binding| v1::BindingLimit {
            path: binding.path.to_string(),
            limit_gpu_milli: binding.limit.0,
            held_gpu_milli: binding.held.0,
        }),
        borrowers: standing
            .borrowers
            .into_iter()
            .map(|(path, gpus)| v1::Borrower {
                path: if who.may_see(&path) { path.to_string() } else { String::new() },
                gpu_milli: gpus.0,
            })
            .collect(),
        waits_for: standing
            .waits_for
            .into_iter()
            .map(|(lot, number)| v1::WaitingBatch {
                lot: lot.to_string(),
                batch: u32::try_from(number).unwrap_or(u32::MAX),
            })
            .collect(),
    }
}
