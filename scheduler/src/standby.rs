//! What a scheduler that stands by answers: calls that only read, to who takes an answer that may be stale.
//!
//! Jobs, the ledger and history are read from the database itself and are as new as what it holds; what is worked out from
//! the state of the cluster comes from a [copy](crate::flow::onlooker) that may be some seconds old. What a leader alone
//! knows, as what nodes said last or why a job waits, is not answered here. Which calls are is in the
//! [table](crate::auth::table).

use std::sync::Arc;
use std::time::{Duration, Instant};

use gotgan_core::estimate::estimator::Learnt;
use gotgan_core::ids::Epoch;
use gotgan_core::world::World;
use gotgan_proto::{STALE_MS, STALE_READ};
use gotgan_store::{Store, StoreError};
use http::{HeaderValue, Request, Response};
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::answers::{self, Answers, Gate};
use crate::assembly::{Assembly, Ground};
use crate::auth::{Authenticator, random_secret, table};
use crate::clock;
use crate::config::Config;
use crate::flow::onlooker::AsOf;
use crate::metrics::Metrics;

/// How long tokens are believed that were read from the store; one that was revoked is honoured for no longer.
const TOKENS_FOR: Duration = Duration::from_secs(1);

/// What a standby reads by.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    /// Where everything is.
    pub store: &'a Arc<dyn Store>,
    /// Policy, limits and beats.
    pub config: &'a Config,
    /// What is counted.
    pub metrics: &'a Arc<Metrics>,
}

/// Answers beside the leader. Clones are the same one.
#[derive(Clone)]
pub struct Aside {
    tokens: Arc<Tokens>,
    answers: Answers,
    as_of: AsOf,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aside").field("as_of", &self.as_of).finish_non_exhaustive()
    }
}

impl Reads<'_> {
    /// The services of a leader whose writer only looks. Nothing is loaded before somebody asks.
    #[must_use]
    pub fn aside(self) -> Aside {
        // Tokens of jobs are the leader's matter, which knows what runs: no secret that they were made with is here.
        let authenticator = Authenticator::new(random_secret());
        let ground = Ground {
            store: Arc::clone(self.store),
            epoch: Epoch(0),
            policy: Arc::new(self.config.policy.clone()),
            timing: self.config.timing,
            authenticator: authenticator.clone(),
            identity: None,
            address: String::new(),
            metrics: Arc::clone(self.metrics),
        };
        let Assembly { services, writer, .. } = ground.around(World::default(), Learnt::default());
        let onlooker = writer.into_onlooker();
        let as_of = onlooker.as_of();
        tokio::spawn(onlooker.run());
        let gate = Gate { limits: self.config.limits, insecure: false };
        let store = Arc::clone(self.store);
        let tokens = Arc::new(Tokens { store, authenticator, read: Mutex::default() });
        Aside { tokens, answers: answers::of_standby(&services, gate), as_of }
    }
}

impl Aside {
    /// The answer; `None` if it is for the leader to give.
    pub async fn answer(&self, request: Request<Body>) -> Option<Response<Body>> {
        if !may_be_stale(&request) {
            return None;
        }
        if let Err(error) = self.tokens.refresh().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a standby cannot read");
            return None;
        }
        let Ok(mut answer) = self.answers.clone().oneshot(request).await;
        if is_for_the_leader(&answer) {
            return None;
        }
        let age_ms = u64::try_from(self.as_of.age().as_millis()).unwrap_or(u64::MAX);
        answer.headers_mut().insert(STALE_MS, HeaderValue::from(age_ms));
        Some(answer)
    }
}

fn may_be_stale(request: &Request<Body>) -> bool {
    let is_read = || table::find(request.uri().path()).is_some_and(|(_, rule)| rule.stale);
    request.headers().contains_key(STALE_READ) && is_read()
}

/// Who is not known here may be so to the leader, and what cannot be looked at here can be there.
fn is_for_the_leader(answer: &Response<Body>) -> bool {
    let status = Status::from_header_map(answer.headers());
    status.is_some_and(|status| matches!(status.code(), Code::Unauthenticated | Code::Unavailable))
}

/// People's tokens, read again from time to time.
struct Tokens {
    store: Arc<dyn Store>,
    authenticator: Authenticator,
    read: Mutex<Option<Instant>>,
}

impl Tokens {
    async fn refresh(&self) -> Result<(), StoreError> {
        let mut read = self.read.lock().await;
        if read.is_some_and(|read| clock::since(read) < TOKENS_FOR) {
            return Ok(());
        }
        let begun = clock::instant();
        self.authenticator.replace(self.store.tokens().await?);
        *read = Some(begun);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use gotgan_core::ids::UserName;
    use gotgan_store::Round;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::auth::{Role, new_token};

    /// A store with one administrator, whose token is told.
    async fn store(place: &tempfile::TempDir) -> (Arc<dyn Store>, String) {
        let url = format!("sqlite://{}", place.path().join("gotgan.db").display());
        let store = gotgan_store::open(&url).await.unwrap();
        let now = clock::now();
        let led = store.take_leadership("one", "https://one:1", now, 60_000).await.unwrap();
        let (record, token) =
            new_token(UserName::new("admin").unwrap(), Role::Admin, Vec::new(), None, now);
        let round = Round { tokens: vec![record], ..Round::default() };
        store.commit(led.epoch, now, &round).await.unwrap();
        (store, token)
    }

    /// What answers beside a leader on a store of its own, and the token of its administrator.
    async fn aside(place: &tempfile::TempDir) -> (Aside, String) {
        let (store, token) = store(place).await;
        let (config, metrics) = (Config::default(), Metrics::new());
        (Reads { store: &store, config: &config, metrics: &metrics }.aside(), token)
    }

    fn request(path: &str, token: &str, stale: bool) -> Request<Body> {
        let mut request = Request::post(path).header(AUTHORIZATION, format!("Bearer {token}"));
        if stale {
            request = request.header(STALE_READ, "1");
        }
        let request = request.header("content-type", "application/grpc");
        // A message of no fields.
        request.body(Body::new("\0".repeat(5))).unwrap()
    }

    #[tokio::test]
    async fn only_reads_of_who_is_known_and_asked_for_them_are_answered() {
        let place = tempfile::tempdir().unwrap();
        let (aside, token) = aside(&place).await;
        let list = "/gotgan.v1.Jobs/List";
        let answer = aside.answer(request(list, &token, true)).await.expect("an answer");
        assert!(answer.headers().contains_key(STALE_MS));
        assert!(Status::from_header_map(answer.headers()).is_none_or(|it| it.code() == Code::Ok));
        for (path, token, stale) in [
            (list, token.as_str(), false),
            (list, "gotgan_some_body", true),
            ("/gotgan.v1.Jobs/Submit", &token, true),
            ("/gotgan.v1.Nodes/List", &token, true),
            ("/gotgan.v1.Jobs/None", &token, true),
        ] {
            assert!(aside.answer(request(path, token, stale)).await.is_none(), "{path} {stale}");
        }
    }

    #[tokio::test]
    async fn a_look_sees_a_copy_that_is_loaded_for_it() {
        let place = tempfile::tempdir().unwrap();
        let (aside, token) = aside(&place).await;
        assert_eq!(aside.as_of.age(), Duration::ZERO, "nothing is loaded");
        let before = clock::instant();
        assert!(aside.answer(request("/gotgan.v1.Quota/Get", &token, true)).await.is_some());
        assert!(aside.as_of.age() > Duration::ZERO && aside.as_of.age() <= clock::since(before));
    }
}
