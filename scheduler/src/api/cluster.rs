//! The Cluster service: the whole at a glance, and who may use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotgan_core::amount::{GpuMilli, UnixMicros};
use gotgan_core::fabric;
use gotgan_core::health::alarm::facility;
use gotgan_core::health::{Breaker, State};
use gotgan_core::ids::{GpuClass, NodeName, ProjectPath, UserName};
use gotgan_core::job::JobState;
use gotgan_core::node::{Gpu, Liveness};
use gotgan_core::power::budget::{PlaceKey, PowerPlace};
use gotgan_core::world::{Node, World};
use gotgan_proto::v1;
use gotgan_proto::v1::cluster_server::Cluster;
use gotgan_store::TokenRecord;
use tonic::{Code, Request, Response, Status};

use super::idempotent::{keyed, once_hiding};
use super::{Services, error, principal};
use crate::auth::{Role, new_join_token, new_token};
use crate::{clock, planted};

/// Lifetime of a join token when none is asked for, and the longest, seconds.
const JOIN_DEFAULT_S: i64 = 3_600;
const JOIN_MAX_S: i64 = 604_800;

/// Longest lifetime of a token that expires at all, seconds: ten years.
const TOKEN_MAX_S: i64 = 10 * 366 * 86_400;

/// Answers for the whole.
#[derive(Debug, Clone)]
pub struct ClusterService(pub Arc<Services>);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        let services = &self.0;
        let policy = Arc::clone(&services.policy);
        let summary = services.writer.read(move |world| v1::ClusterStatus {
            facility_alarms: facility(world, &policy.health)
                .iter()
                .map(|it| it.describe())
                .collect(),
            health_rules: policy.health.rules.version.clone(),
            ..summarise(world)
        });
        let summary = summary.await.map_err(|e| error::flow(&e))?;
        let pass = services.last_pass.get();
        let mut status = v1::ClusterStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            database: services.store.kind().word().to_owned(),
            epoch: services.epoch.0,
            leader: services.address.clone(),
            passes: pass.count,
            last_pass_us: u64::try_from(pass.took.as_micros()).unwrap_or(u64::MAX),
            started_us: services.started.0,
            ..summary
        };
        planted::status(&mut status);
        Ok(Response::new(status))
    }

    async fn who_am_i(
        &self,
        request: Request<v1::WhoAmIRequest>,
    ) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let who = principal(&request)?;
        Ok(Response::new(v1::WhoAmIResponse {
            subject: who.subject.to_string(),
            role: v1::Role::from(who.role).into(),
            projects: who.projects.iter().map(ToString::to_string).collect(),
            expires_us: who.expires.map_or(0, |at| at.0),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "CreateToken", &request, "")?;
        let (record, secret) = self.token_from(&request).await?;
        let authenticator = self.0.authenticator.clone();
        let known = record.clone();
        let hide = |answer: &v1::CreateTokenResponse| v1::CreateTokenResponse {
            token: String::new(),
            ..answer.clone()
        };
        let made = once_hiding(&self.0, keyed, hide, move |round| {
            let (token_id, expires_us) = (record.id.clone(), record.expires.map_or(0, |at| at.0));
            round.tokens.push(record);
            Ok(v1::CreateTokenResponse { token_id, token: secret, expires_us })
        });
        let made = made.await?;
        if made.token_id == known.id {
            authenticator.upsert(known);
        }
        Ok(Response::new(made))
    }

    async fn list_tokens(
        &self,
        _request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens = self.0.authenticator.tokens().iter().map(token_info).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "RevokeToken", &request, "")?;
        let tokens = self.0.authenticator.tokens();
        let found = tokens.into_iter().find(|token| token.id == request.token_id);
        let mut token = found.ok_or_else(|| {
            let message = format!("there is no token \"{}\"", request.token_id);
            error::status(Code::NotFound, "UNKNOWN_TOKEN", message)
        })?;
        let changed = token.revoked.is_none();
        token.revoked.get_or_insert(clock::now());
        let stored = token.clone();
        let done = super::idempotent::once(&self.0, keyed, move |round| {
            round.tokens.push(stored);
            Ok(v1::RevokeTokenResponse { changed })
        });
        let done = done.await?;
        self.0.authenticator.upsert(token);
        Ok(Response::new(done))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Result<Response<v1::CreateJoinTokenResponse>, Status> {
        let who = principal(&request)?;
        let request = request.into_inner();
        let keyed = keyed(&who, &request.idempotency_key, "CreateJoinToken", &request, "")?;
        let node = match request.node.as_str() {
            "" => None,
            name => Some(NodeName::new(name).map_err(|bad| error::bad_name("node", &bad))?),
        };
        let lifetime_s = match request.lifetime_s {
            0 => JOIN_DEFAULT_S,
            seconds if (1..=JOIN_MAX_S).contains(&seconds) => seconds,
            _ => {
                let message = format!("a join token lives 1 to {JOIN_MAX_S} seconds");
                return Err(error::invalid("lifetime_s", "OUT_OF_RANGE", message));
            }
        };
        let (record, secret) = new_join_token(node, lifetime_s, clock::now());
        let hide = |answer: &v1::CreateJoinTokenResponse| v1::CreateJoinTokenResponse {
            join_token: String::new(),
            ..answer.clone()
        };
        let made = once_hiding(&self.0, keyed, hide, move |round| {
            let expires_us = record.expires.0;
            round.join_tokens.push(record);
            Ok(v1::CreateJoinTokenResponse { join_token: secret, expires_us })
        });
        Ok(Response::new(made.await?))
    }
}

impl ClusterService {
    /// Checks what is asked of a token and makes it.
    async fn token_from(
        &self,
        request: &v1::CreateTokenRequest,
    ) -> Result<(TokenRecord, String), Status> {
        let subject =
            UserName::new(&request.subject).map_err(|bad| error::bad_name("subject", &bad))?;
        let role = Role::try_from(request.role()).ok().filter(|role| role.may_have_token());
        let role = role.ok_or_else(|| {
            let message =
                "choose admin, allocator, operator or member; workers join by certificate";
            error::invalid("role", "OUT_OF_RANGE", message)
        })?;
        let projects = self.projects_of(request, role).await?;
        if !(0..=TOKEN_MAX_S).contains(&request.lifetime_s) {
            let message = format!("a token lives 0 (for ever) or up to {TOKEN_MAX_S} seconds");
            return Err(error::invalid("lifetime_s", "OUT_OF_RANGE", message));
        }
        let lifetime = Some(request.lifetime_s).filter(|seconds| *seconds > 0);
        Ok(new_token(subject, role, projects, lifetime, clock::now()))
    }

    async fn projects_of(
        &self,
        request: &v1::CreateTokenRequest,
        role: Role,
    ) -> Result<Vec<ProjectPath>, Status> {
        if role == Role::Member && request.projects.is_empty() {
            let message = "a member needs at least one project";
            return Err(error::invalid("projects", "MISSING", message));
        }
        let context =
            self.0.admission.context(&self.0.writer).await.map_err(|e| error::flow(&e))?;
        let checked = request.projects.iter().enumerate().map(|(index, text)| {
            let field = format!("projects[{index}]");
            let path = ProjectPath::new(text).map_err(|bad| error::bad_name(&field, &bad))?;
            if context.quota.get(&path).is_some() {
                return Ok(path);
            }
            let message = format!("the quota tree has no project {text}; see `gotgan quota show`");
            Err(error::invalid(&field, "UNKNOWN_PROJECT", message))
        });
        checked.collect()
    }
}

fn token_info(token: &TokenRecord) -> v1::TokenInfo {
    let micros = |at: Option<UnixMicros>| at.map_or(0, |at| at.0);
    let role = Role::from_word(&token.role).map_or(v1::Role::Unspecified, v1::Role::from);
    v1::TokenInfo {
        token_id: token.id.clone(),
        subject: token.subject.to_string(),
        role: role.into(),
        projects: token.projects.iter().map(ToString::to_string).collect(),
        created_us: token.created.0,
        expires_us: micros(token.expires),
        revoked_us: micros(token.revoked),
    }
}

/// What follows from the world; the rest is left blank.
fn summarise(world: &World) -> v1::ClusterStatus {
    let mut status = v1::ClusterStatus::default();
    for job in world.jobs.values() {
        match job.status.state {
            JobState::Held => status.jobs_held += 1,
            JobState::Pending => status.jobs_pending += 1,
            JobState::Starting => status.jobs_starting += 1,
            JobState::Running => status.jobs_running += 1,
            JobState::Completed | JobState::Failed | JobState::Cancelled | JobState::TimedOut => {}
        }
    }
    for tasks in world.arrays.values().filter_map(|array| array.status.tasks.as_deref()) {
        status.jobs_held += u64::from(tasks.held.len());
        status.jobs_pending += u64::from(tasks.waiting.len());
    }
    for node in world.nodes.values() {
        match node.liveness {
            Liveness::Ready => status.nodes_ready += 1,
            Liveness::Unknown | Liveness::Suspect | Liveness::Lost => status.nodes_unavailable += 1,
        }
        status.any_simulated |= node.inventory.simulated;
    }
    status.gpus_out = world.nodes.values().map(|node| node.gpus_out().count() as u64).sum();
    status.gpus_suspect = world.nodes.values().map(watched).sum();
    status.broken_breakers = world.breakers.values().filter_map(|it| broken(it)).collect();
    status.classes = capacities(world).into_iter().map(|(class, it)| it.show(&class)).collect();
    status.event_seq = world.sequences.next_event - 1;
    status.power = world.power_budget.shown().into_iter().map(reserved).collect();
    status
}

fn reserved(((level, name), place): (&PlaceKey, &PowerPlace)) -> v1::PowerReserved {
    v1::PowerReserved {
        level: level.word().to_owned(),
        name: name.clone(),
        limit_watts: place.limit_watts,
        reserved_watts: place.reserved_watts,
        nodes: place.nodes,
    }
}

/// GPUs of a node that are watched.
fn watched(node: &Node) -> u64 {
    let gpus = node.health.gpus.values();
    gpus.filter(|gpu| matches!(gpu.standing.state, State::Suspect { .. })).count() as u64
}

fn broken(breaker: &Breaker) -> Option<v1::BrokenBreaker> {
    let Breaker { scope, broken, reason } = breaker;
    let (scope, reason) = (scope.clone(), reason.clone());
    broken.map(|since| v1::BrokenBreaker { scope, since_us: since.0, reason })
}

/// GPUs of one class, told apart by what becomes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) free: GpuMilli,
    pub(crate) allocated: GpuMilli,
    pub(crate) down: GpuMilli,
    pub(crate) simulated: bool,
}

impl Capacity {
    fn show(&self, class: &GpuClass) -> v1::ClassCapacity {
        v1::ClassCapacity {
            gpu_class: class.to_string(),
            capacity_gpu_milli: (self.free + self.allocated + self.down).0,
            free_gpu_milli: self.free.0,
            allocated_gpu_milli: self.allocated.0,
            down_gpu_milli: self.down.0,
            simulated: self.simulated,
        }
    }
}

/// Free, allocated and down GPUs of every class; together they are the capacity.
pub(crate) fn capacities(world: &World) -> BTreeMap<GpuClass, Capacity> {
    let mut classes: BTreeMap<GpuClass, Capacity> = BTreeMap::new();
    let standby = fabric::standby(world);
    for (name, node) in &world.nodes {
        for gpu in node.gpus_out() {
            let class = classes.entry(gpu.class.clone()).or_default();
            class.simulated |= node.registered.simulated;
            class.down += gpu.given_out().iter().map(Gpu::amount).sum();
        }
        let takes_work = node.takes_work() && !standby.contains(name);
        for (gpu, free) in node.inventory.gpus.iter().zip(&node.free.gpus) {
            let class = classes.entry(gpu.class.clone()).or_default();
            class.allocated += gpu.amount().saturating_sub(*free);
            class.simulated |= node.inventory.simulated;
            if takes_work {
                class.free += *free;
            } else {
                class.down += *free;
            }
        }
    }
    classes
}
