//! The Quota service.

mod explain;
mod movement;
mod plan;
mod proposal;
mod records;
mod show;
mod statement;

use std::sync::Arc;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{JobId, LotName, ProjectPath};
use gotgan_core::lifecycle::{self, Move};
use gotgan_core::quota::audit::edits;
use gotgan_core::quota::{MovementId, Proposal};
use gotgan_core::world::World;
use gotgan_proto::v1;
use gotgan_proto::v1::quota_server::Quota;
use gotgan_store::LedgerFilter;
use tonic::{Request, Response, Status};

use super::idempotent::{keyed, once};
use super::jobs::scope_of;
use super::page::{fitting, page_of};
use super::{Services, error, principal};
use crate::auth::Principal;
use crate::clock;

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
        let mut proposal = proposal::read(&who, request.proposal)?;
        proposal::check_digest(&proposal, &request.plan_digest)?;
        if request.dry_run {
            let dry = self.0.writer.read(move |world| compare(world, &who, &mut proposal));
            return Ok(Response::new(dry.await.map_err(|e| error::flow(&e))??));
        }
        let applied = once(&self.0, keyed, move |round| {
            let mut answer = compare(round.draft.world, &who, &mut proposal)?;
            let applied = lifecycle::apply_quota(&mut round.draft, proposal, &who.subject);
            if let Some(revision) = applied.map_err(|refusal| proposal::refusal(&refusal))? {
                answer.revision = revision;
            }
            Ok(answer)
        });
        Ok(Response::new(applied.await?))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanQuotaRequest>,
    ) -> Result<Response<v1::QuotaPlan>, Status> {
        let who = principal(&request)?;
        let mut proposal = proposal::read(&who, request.into_inner().proposal)?;
        proposal.requester = who.subject.clone();
        let world = self.0.writer.read(World::clone).await.map_err(|e| error::flow(&e))?;
        proposal.base_revision = world.book.revision;
        proposal::check_allocator(&who, &world.book, &proposal.book)?;
        let policy = Arc::clone(&self.0.policy);
        // Two passes of the planner: not for a thread that answers others.
        let planned = tokio::task::spawn_blocking(move || {
            plan::make(&world, &policy, &who, &proposal, clock::now())
        });
        let planned = planned.await.map_err(|_| Status::internal("the plan was not finished"))?;
        Ok(Response::new(planned))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveQuotaRequest>,
    ) -> Result<Response<v1::ApproveQuotaResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "ApproveQuota", &request, "")?;
        let proposal = proposal::read(&who, request.proposal)?;
        if request.plan_digest.is_empty() {
            let message = "approve a plan: see `gotgan quota plan`";
            return Err(error::invalid("plan_digest", "MISSING", message));
        }
        proposal::check_digest(&proposal, &request.plan_digest)?;
        let document = proposal::document(request.document)?;
        let approved = once(&self.0, keyed, move |round| {
            proposal::check_allocator(&who, &round.draft.world.book, &proposal.book)?;
            let draft = &mut round.draft;
            let counted = lifecycle::approve_quota(draft, &proposal, &who.subject, &document);
            let (approvers, approvers_needed) =
                counted.map_err(|refusal| proposal::refusal(&refusal))?;
            Ok(v1::ApproveQuotaResponse { approvers, approvers_needed })
        });
        Ok(Response::new(approved.await?))
    }

    async fn accept_batch(
        &self,
        request: Request<v1::AcceptBatchRequest>,
    ) -> Result<Response<v1::AcceptBatchResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "AcceptBatch", &request, "")?;
        let lot = LotName::new(&request.lot).map_err(|bad| error::bad_name("lot", &bad))?;
        let reason = proposal::reason(request.reason)?;
        let number = request.batch as usize;
        let accepted = once(&self.0, keyed, move |round| {
            proposal::check_fleet(&who, &round.draft.world.book)?;
            let by = &who.subject;
            let accepted = lifecycle::accept_batch(&mut round.draft, &lot, number, by, &reason);
            let revision = accepted.map_err(|refusal| proposal::refusal(&refusal))?;
            Ok(v1::AcceptBatchResponse { revision })
        });
        Ok(Response::new(accepted.await?))
    }

    async fn audit(
        &self,
        request: Request<v1::AuditRequest>,
    ) -> Result<Response<v1::AuditResponse>, Status> {
        let request = request.into_inner();
        let page = page_of(request.page)?;
        let subject = Some(request.subject.as_str()).filter(|subject| !subject.is_empty());
        let known = self.0.writer.read(|world| (world.audit.head.clone(), Arc::clone(&world.book)));
        let (head, book) = known.await.map_err(|e| error::flow(&e))?;
        let found = self.0.store.audited(subject, &page).await.map_err(|e| error::store(&e))?;
        // What was committed since belongs to another book.
        let found: Vec<_> = found.into_iter().filter(|entry| entry.seq <= head.seq).collect();
        let entries = found.into_iter().map(records::audited).collect();
        let (entries, next_token) = fitting(entries, page.size, |last| last.seq.to_string());
        Ok(Response::new(v1::AuditResponse {
            entries,
            next_token,
            head_seq: head.seq,
            head_digest: head.digest.to_string(),
            book_revision: book.revision,
            book_digest: book.digest().to_string(),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetQuotaRequest>,
    ) -> Result<Response<v1::QuotaTree>, Status> {
        let who = principal(&request)?;
        let v1::GetQuotaRequest { path, at_us } = request.into_inner();
        let at = UnixMicros(at_us);
        let past = if at_us == 0 || at >= clock::now() {
            None
        } else {
            let found = self.0.store.quota_at(at).await.map_err(|e| error::store(&e))?;
            Some(found.unwrap_or_default().at(at))
        };
        let tree = self.0.writer.read(move |world| match past {
            Some(tree) => show::tree(world, &who, &path, &tree),
            None if at_us == 0 => show::tree(world, &who, &path, &world.quota),
            None => show::tree(world, &who, &path, &world.book.at(at)),
        });
        let tree = tree.await.map_err(|e| error::flow(&e))?;
        Ok(Response::new(tree?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainQuotaRequest>,
    ) -> Result<Response<v1::QuotaExplanation>, Status> {
        let who = principal(&request)?;
        let Some(path) = project_of(&who, &request.into_inner().path)? else {
            return Err(error::invalid("path", "MISSING", "name a node, as in public/nup"));
        };
        let found =
            self.0.writer.read(move |world| explain::explain(world, &who, &path, clock::now()));
        Ok(Response::new(found.await.map_err(|e| error::flow(&e))??))
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
        let entries = found.into_iter().map(records::entry).collect();
        let (entries, next_token) = fitting(entries, page.size, |last| last.seq.to_string());
        Ok(Response::new(v1::LedgerResponse { entries, next_token }))
    }

    async fn statement(
        &self,
        request: Request<v1::StatementRequest>,
    ) -> Result<Response<v1::StatementResponse>, Status> {
        let who = principal(&request)?;
        let v1::StatementRequest { path, at_us, page } = request.into_inner();
        let Some(path) = project_of(&who, &path)? else {
            return Err(error::invalid("path", "MISSING", "name a node, as in public/nup"));
        };
        let mark = statement::Mark::of(page.as_ref().map_or("", |page| page.token.as_str()))?;
        let size = page.map_or(0, |page| page.size);
        let size = page_of(Some(v1::PageRequest { size, token: String::new() }))?.size;
        let store = self.0.store.as_ref();
        let audited = statement::audited(store, &path).await?;
        let (now, node) = (clock::now(), path.clone());
        let at = if at_us == 0 { now } else { UnixMicros(at_us) };
        let derived =
            self.0.writer.read(move |world| statement::derive(world, &node, &audited, at, now));
        let derived = derived.await.map_err(|e| error::flow(&e))??;
        Ok(Response::new(statement::page(store, &path, derived, mark, size).await?))
    }

    async fn transfer(
        &self,
        request: Request<v1::TransferBudgetRequest>,
    ) -> Result<Response<v1::MovedBudgetResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "TransferBudget", &request, "")?;
        let wish = movement::transfer(&who, &request)?;
        let grounds = movement::grounds(&who, request.decision, request.reason)?;
        let moved =
            once(&self.0, keyed, move |round| movement::carry_out(round, &who, &wish, grounds));
        Ok(Response::new(moved.await?))
    }

    async fn adjust(
        &self,
        request: Request<v1::AdjustBudgetRequest>,
    ) -> Result<Response<v1::MovedBudgetResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "AdjustBudget", &request, "")?;
        let wish = movement::adjust(&request)?;
        let grounds = movement::grounds(&who, request.decision, request.reason)?;
        let moved =
            once(&self.0, keyed, move |round| movement::carry_out(round, &who, &wish, grounds));
        Ok(Response::new(moved.await?))
    }

    async fn void(
        &self,
        request: Request<v1::VoidMovementRequest>,
    ) -> Result<Response<v1::MovedBudgetResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "VoidMovement", &request, "")?;
        let wish = Move::Void { number: MovementId(request.movement) };
        let grounds = movement::grounds(&who, request.decision, request.reason)?;
        let moved =
            once(&self.0, keyed, move |round| movement::carry_out(round, &who, &wish, grounds));
        Ok(Response::new(moved.await?))
    }

    async fn alerts(
        &self,
        request: Request<v1::QuotaAlertsRequest>,
    ) -> Result<Response<v1::QuotaAlertsResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let page = page_of(request.page)?;
        let within = match project_of(&who, &request.path)? {
            Some(path) => vec![path],
            None => scope_of(&who)?,
        };
        let found = self.0.store.alerts(&within, &page).await.map_err(|e| error::store(&e))?;
        let alerts = found.into_iter().map(records::alert).collect();
        let (alerts, next_token) = fitting(alerts, page.size, |last| last.seq.to_string());
        Ok(Response::new(v1::QuotaAlertsResponse { alerts, next_token }))
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
            overuse_gpu_milli_seconds: balance.overuse.0,
        });
        Ok(Response::new(v1::BalanceResponse {
            projects: projects.collect(),
            balanced: audit.differences.is_empty(),
            // The lines name other people's jobs.
            differences: if who.sees_everything() { audit.differences } else { Vec::new() },
        }))
    }
}

/// What would change. A proposal that was made for no revision in particular is for the one in force.
fn compare(
    world: &World,
    who: &Principal,
    proposal: &mut Proposal,
) -> Result<v1::ApplyQuotaResponse, Status> {
    let present = &world.book;
    proposal::check_allocator(who, present, &proposal.book)?;
    if proposal.base_revision == 0 {
        proposal.base_revision = present.revision;
    }
    lifecycle::check_revision(present, proposal).map_err(|stale| proposal::refusal(&stale))?;
    let now = clock::now();
    let edits = edits(present, &proposal.book);
    let changes = edits.iter().map(|edit| plan::change(edit, who, present, now));
    Ok(v1::ApplyQuotaResponse { revision: present.revision, changes: changes.collect() })
}

/// The project named, if one is; it must be the caller's to see.
fn project_of(who: &Principal, text: &str) -> Result<Option<ProjectPath>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = ProjectPath::new(text).map_err(|bad| error::bad_name("project", &bad))?;
    if who.may_see(&path) { Ok(Some(path)) } else { Err(error::foreign_project(text)) }
}
