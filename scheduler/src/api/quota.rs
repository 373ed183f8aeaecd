//! The Quota service.

use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::ids::{GpuClass, JobId, ProjectPath};
use gotgan_core::ledger::LedgerKind;
use gotgan_core::lifecycle;
use gotgan_core::quota::{self, QuotaBook, QuotaFault, QuotaNode};
use gotgan_core::world::World;
use gotgan_proto::v1;
use gotgan_proto::v1::quota_server::Quota;
use gotgan_store::LedgerFilter;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::idempotent::{keyed, once};
use super::jobs::{page_of, scope_of};
use super::{Services, error, principal};
use crate::auth::{Principal, Role};

/// Files of one apply, and the largest file, bytes.
const FILES_MAX: usize = 1_000;
const FILE_MAX_BYTES: usize = 1 << 20;

/// Answers for quotas and the ledger.
#[derive(Debug, Clone)]
pub struct QuotaService(pub Arc<Services>);

#[tonic::async_trait]
impl Quota for QuotaService {
    async fn apply(
        &self,
        request: Request<v1::ApplyQuotaRequest>,
    ) -> Result<Response<v1::ApplyQuotaResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "ApplyQuota", &request, "")?;
        let book = parse(&request.files)?;
        let base = request.base_revision;
        if request.dry_run {
            let dry = self.0.writer.read(move |world| {
                check_allocator(&who, &world.book, &book)?;
                compare(world, &book, base)
            });
            return Ok(Response::new(dry.await.map_err(|e| error::flow(&e))??));
        }
        let applied = once(&self.0, keyed, move |round| {
            check_allocator(&who, &round.draft.world.book, &book)?;
            let mut answer = compare(round.draft.world, &book, base)?;
            if !answer.changes.is_empty() {
                answer.revision = lifecycle::apply_quota(&mut round.draft, book, &who.subject);
            }
            Ok(answer)
        });
        Ok(Response::new(applied.await?))
    }

    async fn get(
        &self,
        request: Request<v1::GetQuotaRequest>,
    ) -> Result<Response<v1::QuotaTree>, Status> {
        let who = principal(&request)?;
        let v1::GetQuotaRequest { path, at_us } = request.into_inner();
        let at = Some(UnixMicros(at_us)).filter(|at| at.0 != 0);
        let tree = self.0.writer.read(move |world| show_tree(world, &who, &path, at));
        let tree = tree.await.map_err(|e| error::flow(&e))?;
        Ok(Response::new(tree?))
    }

    async fn ledger(
        &self,
        request: Request<v1::LedgerRequest>,
    ) -> Result<Response<v1::LedgerResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let page = page_of(request.page)?;
        let within = match project_of(&who, &request.project)? {
            Some(project) => vec![project],
            None => scope_of(&who)?,
        };
        let job = Some(JobId(request.job_id)).filter(|job| job.0 != 0);
        let filter = LedgerFilter { within, job };
        let found = self.0.store.ledger(&filter, &page).await.map_err(|e| error::store(&e))?;
        let full = found.len() >= page.size as usize;
        let next = found.last().filter(|_| full).map(|last| last.seq.to_string());
        let entries = found.into_iter().map(entry).collect();
        Ok(Response::new(v1::LedgerResponse { entries, next_token: next.unwrap_or_default() }))
    }

    async fn balance(
        &self,
        request: Request<v1::BalanceRequest>,
    ) -> Result<Response<v1::BalanceResponse>, Status> {
        let who = principal(&request)?;
        let project = project_of(&who, &request.into_inner().project)?;
        let scope = scope_of(&who)?;
        let store = &self.0.store;
        let found = store.balances(project.as_ref()).await.map_err(|e| error::store(&e))?;
        let _turn = self.0.audits.lock().await;
        let audit = store.audit_ledger().await.map_err(|e| error::store(&e))?;
        let mine = |path: &ProjectPath| {
            scope.is_empty() || scope.iter().any(|own| path.is_within(own.as_str()))
        };
        let projects = found.into_iter().filter(|balance| mine(&balance.project));
        let projects = projects.map(|balance| v1::ProjectBalance {
            project: balance.project.to_string(),
            gpu_class: balance.class.to_string(),
            charged_gpu_milli_seconds: balance.charged.0,
            refunded_gpu_milli_seconds: balance.refunded.0,
            held_gpu_milli_seconds: balance.held.0,
        });
        Ok(Response::new(v1::BalanceResponse {
            projects: projects.collect(),
            balanced: audit.differences.is_empty(),
            // The lines name other people's jobs.
            differences: if who.sees_everything() { audit.differences } else { Vec::new() },
        }))
    }
}

fn parse(files: &[v1::QuotaFile]) -> Result<QuotaBook, Status> {
    if files.is_empty() || files.len() > FILES_MAX {
        let message = format!("send 1 to {FILES_MAX} files");
        return Err(error::invalid("files", "OUT_OF_RANGE", message));
    }
    for (index, file) in files.iter().enumerate() {
        if file.text.len() > FILE_MAX_BYTES {
            let message = format!("{} is larger than {FILE_MAX_BYTES} bytes", file.name);
            return Err(error::invalid(&format!("files[{index}].text"), "TOO_LONG", message));
        }
    }
    let texts: Vec<(String, String)> =
        files.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
    let book = quota::parse(&texts).map_err(|faults| refused("INVALID_QUOTA", &faults))?;
    let beyond = book.beyond_this_version();
    if beyond.is_empty() { Ok(book) } else { Err(refused("NOT_ENFORCED", &beyond)) }
}

fn refused(reason: &str, faults: &[QuotaFault]) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, gotgan_proto::ERROR_DOMAIN, std::collections::HashMap::new());
    let mut lines = Vec::with_capacity(faults.len());
    for fault in faults {
        let place = format!("{}:{}: {}", fault.file, fault.line, fault.field);
        details.add_bad_request_violation(&place, &fault.message);
        lines.push(format!("{place}: {}", fault.message));
    }
    Status::with_error_details(Code::InvalidArgument, lines.join("; "), details)
}

/// Most paths that a refusal names.
const NAMED_MAX: usize = 3;

/// Refuses an allocator who changes what is not below a node that names them in the book in force.
fn check_allocator(who: &Principal, present: &QuotaBook, wanted: &QuotaBook) -> Result<(), Status> {
    if who.role != Role::Allocator || !present.names_allocators() {
        return Ok(());
    }
    let (paths, fleet) = wanted.differs_from(present);
    let foreign = paths.iter().filter(|path| !present.may_change(&who.subject, path));
    let mut foreign: Vec<&str> = foreign.map(|path| path.as_str()).collect();
    if fleet {
        foreign.insert(0, "classes, clusters or lots");
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let more = foreign.len().saturating_sub(NAMED_MAX);
    foreign.truncate(NAMED_MAX);
    let named = foreign.join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "{} allocates below the nodes that name them, and this changes {named}{rest}; leave that as it is or \
         ask an administrator",
        who.subject
    );
    Err(error::status(Code::PermissionDenied, "NOT_YOUR_SUBTREE", message))
}

/// What would change; refuses if the tree is not at the revision the caller looked at.
fn compare(world: &World, book: &QuotaBook, base: u64) -> Result<v1::ApplyQuotaResponse, Status> {
    let present = &world.book;
    if base != 0 && base != present.revision {
        let message = format!(
            "the tree is at revision {}, not {base}; look at it again before applying",
            present.revision
        );
        return Err(error::status(Code::FailedPrecondition, "STALE_REVISION", message));
    }
    let changes = quota::diff(present, book).into_iter().map(|change| v1::QuotaChange {
        path: change.path,
        kind: change.kind.word().to_owned(),
        text: change.text,
    });
    Ok(v1::ApplyQuotaResponse { revision: present.revision, changes: changes.collect() })
}

/// The tree in force, or the one that the book has for `at`.
fn show_tree(
    world: &World,
    who: &Principal,
    below: &str,
    at: Option<UnixMicros>,
) -> Result<v1::QuotaTree, Status> {
    let tree = at.map_or_else(|| Arc::clone(&world.quota), |at| Arc::new(world.book.at(at)));
    let below = project_of(who, below)?;
    if let Some(path) = below.as_ref().filter(|path| tree.get(path).is_none()) {
        let message = format!("the quota tree has no node {path}; see `gotgan quota show`");
        return Err(error::status(Code::NotFound, "UNKNOWN_PROJECT", message));
    }
    let wanted = |path: &ProjectPath| {
        who.may_see(path) && below.as_ref().is_none_or(|below| path.is_within(below.as_str()))
    };
    let nodes = tree.nodes.iter().filter(|(path, _)| wanted(path));
    let nodes = nodes.map(|(path, node)| show_node(world, path, node));
    Ok(v1::QuotaTree { revision: tree.revision, nodes: nodes.collect() })
}

fn show_node(world: &World, path: &ProjectPath, node: &QuotaNode) -> v1::QuotaNode {
    let mut limits: Vec<v1::QuotaLimit> =
        node.limits.iter().map(|(class, most)| limit(class.as_str(), *most)).collect();
    limits.extend(node.any_limit.map(|most| limit("any", most)));
    limits.sort_by(|a, b| a.gpu_class.cmp(&b.gpu_class));
    let usage = world.usage.get(path.as_str()).cloned().unwrap_or_default();
    let amount = |(class, gpus): (&GpuClass, &GpuMilli)| v1::QuotaUse {
        gpu_class: class.to_string(),
        gpu_milli: gpus.0,
    };
    v1::QuotaNode {
        path: path.to_string(),
        title: node.title.clone(),
        limits,
        in_use: usage.held.iter().map(amount).collect(),
        pending_jobs: usage.waiting,
        running_jobs: usage.active,
        guarantees: node.guarantees.iter().map(amount).collect(),
        weight: node.weight,
    }
}

fn limit(class: &str, most: GpuMilli) -> v1::QuotaLimit {
    v1::QuotaLimit { gpu_class: class.to_owned(), gpu_milli: Some(most.0) }
}

/// The project named, if one is; it must be the caller's to see.
fn project_of(who: &Principal, text: &str) -> Result<Option<ProjectPath>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = ProjectPath::new(text).map_err(|bad| error::bad_name("project", &bad))?;
    if who.may_see(&path) { Ok(Some(path)) } else { Err(error::foreign_project(text)) }
}

fn entry(entry: gotgan_core::ledger::LedgerEntry) -> v1::LedgerEntry {
    let kind = match entry.kind {
        LedgerKind::Hold => v1::LedgerKind::Hold,
        LedgerKind::Release => v1::LedgerKind::Release,
        LedgerKind::Charge => v1::LedgerKind::Charge,
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
    }
}
