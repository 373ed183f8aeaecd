//! What one caller may have at once, so that whoever asks for too much hurts nobody else.
//!
//! A few calls of each caller are at work; the next ones wait, in turn, and the ones after are refused. Of those that list much,
//! fewer are at work, and of all callers together no more than keep a few processors busy: what waits behind them is a heartbeat or
//! a submission. Streams that are followed are counted by themselves. Workers are not limited here: a node has one stream, which
//! is read one message after the other.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use gotgan_core::ids::{AttemptId, UserName};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::api::error;
use crate::auth::{Principal, PrincipalKind};

/// Calls whose answers go on for as long as the caller wants.
const STREAMS: [&str; 2] = ["/gotgan.v1.Jobs/Watch", "/gotgan.v1.Jobs/Logs"];
/// Calls that look at much: milliseconds of a processor each, where others take a tenth of one.
const LISTINGS: [&str; 8] = [
    "/gotgan.v1.Cluster/Status",
    "/gotgan.v1.Jobs/List",
    "/gotgan.v1.Nodes/List",
    "/gotgan.v1.Nodes/ListMaintenance",
    "/gotgan.v1.Nodes/ListReservations",
    "/gotgan.v1.Quota/Audit",
    "/gotgan.v1.Quota/Ledger",
    "/gotgan.v1.Quota/Statement",
];
/// Callers that are remembered although they have nothing here.
const CALLERS_IDLE_MAX: usize = 4_096;

/// What a caller may have at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Calls at work.
    pub calls_per_caller: usize,
    /// Calls that wait for the ones at work.
    pub waiting_calls_per_caller: usize,
    /// Calls at work that list jobs, nodes or entries of books.
    pub listings_per_caller: usize,
    /// Those of all callers together, until their answers begin.
    pub listings: usize,
    /// Streams that are followed.
    pub streams_per_caller: usize,
    /// Streams of all callers together.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            calls_per_caller: 64,
            waiting_calls_per_caller: 1_024,
            listings_per_caller: 4,
            listings: 16,
            streams_per_caller: 1_000,
            streams: 20_000,
        }
    }
}

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Person(UserName),
    Job(AttemptId),
}

/// What one caller has.
#[derive(Debug)]
struct Caller {
    calls: Arc<Semaphore>,
    listings: Arc<Semaphore>,
    waiting: AtomicUsize,
    streams: Arc<Semaphore>,
}

#[derive(Debug)]
struct Table {
    limits: Limits,
    callers: Mutex<BTreeMap<Key, Arc<Caller>>>,
    listings: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A call's place among those of its caller; given up when dropped.
#[derive(Debug)]
struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
    /// Of a listing until its answer begins: whoever does not read it keeps nobody waiting.
    work: Option<OwnedSemaphorePermit>,
    /// So that it is not forgotten.
    _caller: Arc<Caller>,
}

impl Table {
    fn caller(&self, key: Key) -> Arc<Caller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() > CALLERS_IDLE_MAX {
            callers.retain(|_, caller| Arc::strong_count(caller) > 1);
        }
        let fresh = || Caller {
            calls: Arc::new(Semaphore::new(self.limits.calls_per_caller.max(1))),
            listings: Arc::new(Semaphore::new(self.limits.listings_per_caller.max(1))),
            waiting: AtomicUsize::new(0),
            streams: Arc::new(Semaphore::new(self.limits.streams_per_caller)),
        };
        Arc::clone(callers.entry(key).or_insert_with(|| Arc::new(fresh())))
    }

    /// A place for a call, once there is one.
    async fn place(&self, key: Key, path: &str) -> Result<Place, Status> {
        let caller = self.caller(key);
        let permits = if STREAMS.contains(&path) {
            self.stream(&caller)?
        } else if LISTINGS.contains(&path) {
            // The narrower first: what waits for it takes no place of other calls.
            let listing = self.turn(&caller, &caller.listings).await?;
            vec![listing, self.turn(&caller, &caller.calls).await?]
        } else {
            vec![self.turn(&caller, &caller.calls).await?]
        };
        Ok(Place { _permits: permits, work: self.work(path).await, _caller: caller })
    }

    /// A listing's turn among those of all callers; `None` for other calls.
    async fn work(&self, path: &str) -> Option<OwnedSemaphorePermit> {
        if !LISTINGS.contains(&path) {
            return None;
        }
        // Nobody closes it.
        Arc::clone(&self.listings).acquire_owned().await.ok()
    }

    fn stream(&self, caller: &Caller) -> Result<Vec<OwnedSemaphorePermit>, Status> {
        let own = Arc::clone(&caller.streams).try_acquire_owned();
        let own = own.map_err(|_| {
            let most = self.limits.streams_per_caller;
            too_many("TOO_MANY_STREAMS", format!("you follow {most} streams already; end some"))
        })?;
        let shared = Arc::clone(&self.streams).try_acquire_owned();
        let shared = shared.map_err(|_| {
            let message = "as many streams are followed as this scheduler serves; try again later";
            too_many("TOO_MANY_STREAMS", message.to_owned())
        })?;
        Ok(vec![own, shared])
    }

    /// One of a caller's places at work.
    async fn turn(
        &self,
        caller: &Caller,
        places: &Arc<Semaphore>,
    ) -> Result<OwnedSemaphorePermit, Status> {
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            return Ok(permit);
        }
        let Some(_waiting) = Waiting::begin(caller, self.limits.waiting_calls_per_caller) else {
            let message = "too many of your calls wait already; send fewer at once";
            return Err(too_many("TOO_MANY_CALLS", message.to_owned()));
        };
        let permit = Arc::clone(places).acquire_owned().await;
        // Nobody closes it.
        permit.map_err(|_| Status::unavailable("the scheduler is shutting down"))
    }
}

/// One that waits; also one that goes away while it does is not counted any more.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(caller: &'a Caller, most: usize) -> Option<Self> {
        let before = caller.waiting.fetch_add(1, Ordering::Relaxed);
        let begun = Self(&caller.waiting);
        (before < most).then_some(begun)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn too_many(reason: &str, message: String) -> Status {
    error::status(Code::ResourceExhausted, reason, message)
}

/// Puts a [`LimitsService`] in front of services; behind the one that knows the callers.
#[derive(Debug, Clone)]
pub struct LimitsLayer(Arc<Table>);

impl LimitsLayer {
    /// With these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let streams = Arc::new(Semaphore::new(limits.streams));
        let listings = Arc::new(Semaphore::new(limits.listings.max(1)));
        Self(Arc::new(Table { limits, callers: Mutex::default(), listings, streams }))
    }
}

impl<S> Layer<S> for LimitsLayer {
    type Service = LimitsService<S>;

    fn layer(&self, inner: S) -> LimitsService<S> {
        LimitsService { table: Arc::clone(&self.0), inner }
    }
}

/// A service of which no caller can have too much. See [`LimitsLayer`].
#[derive(Debug, Clone)]
pub struct LimitsService<S> {
    table: Arc<Table>,
    inner: S,
}

impl<S, Asked, Answer> Service<Request<Asked>> for LimitsService<S>
where
    S: Service<Request<Asked>, Response = Response<Answer>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
    Asked: Send + 'static,
    Answer: Default + Send,
{
    type Response = Response<LimitedBody<Answer>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        // The one that said that it is ready is used; the fresh one waits for the next call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let table = Arc::clone(&self.table);
        Box::pin(async move {
            let mut place = match key_of(&request) {
                Some(key) => match table.place(key, request.uri().path()).await {
                    Ok(place) => Some(place),
                    Err(status) => return Ok(status.into_http()),
                },
                None => None,
            };
            let answer = inner.call(request).await?;
            place.iter_mut().for_each(|place| place.work = None);
            Ok(answer.map(|body| LimitedBody { body, place }))
        })
    }
}

fn key_of<Asked>(request: &Request<Asked>) -> Option<Key> {
    let principal = request.extensions().get::<Principal>()?;
    match &principal.kind {
        PrincipalKind::Token { .. } => Some(Key::Person(principal.subject.clone())),
        PrincipalKind::Job(attempt) => Some(Key::Job(*attempt)),
        PrincipalKind::Node(_) => None,
    }
}

/// The body of an answer; its call keeps its place until it is read or given up.
#[derive(Debug, Default)]
pub struct LimitedBody<B> {
    body: B,
    #[allow(dead_code, reason = "it is held")]
    place: Option<Place>,
}

impl<B: Body + Unpin> Body for LimitedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::table;

    const CALL: &str = "/gotgan.v1.Jobs/Submit";
    const STREAM: &str = STREAMS[0];

    fn table(limits: Limits) -> Arc<Table> {
        LimitsLayer::new(limits).0
    }

    fn key(name: &str) -> Key {
        Key::Person(UserName::new(name).unwrap())
    }

    fn few() -> Arc<Table> {
        let (calls_per_caller, waiting_calls_per_caller) = (2, 1);
        table(Limits {
            calls_per_caller,
            waiting_calls_per_caller,
            listings_per_caller: 1,
            listings: 1,
            streams_per_caller: 2,
            streams: 3,
        })
    }

    #[tokio::test]
    async fn a_call_beyond_the_limit_waits_until_one_before_it_is_done_and_one_more_is_refused() {
        let table = few();
        let first = table.place(key("a"), CALL).await.unwrap();
        let _second = table.place(key("a"), CALL).await.unwrap();
        let waiting = tokio::spawn({
            let table = Arc::clone(&table);
            async move { table.place(key("a"), CALL).await.map(drop) }
        });
        while table.caller(key("a")).waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = table.place(key("a"), CALL).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(table.place(key("b"), CALL).await.is_ok(), "others are not disturbed");
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!(table.caller(key("a")).waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn listings_wait_for_each_other_and_keep_no_place_of_other_calls() {
        let table = few();
        let first = table.place(key("a"), LISTINGS[0]).await.unwrap();
        let second = table.place(key("a"), LISTINGS[1]);
        let mut second = std::pin::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        assert!(table.place(key("a"), CALL).await.is_ok());
        drop(first);
        assert!(second.await.is_ok());
    }

    #[test]
    fn what_is_told_apart_by_its_path_is_a_call_of_the_api() {
        for path in STREAMS.iter().chain(&LISTINGS) {
            assert!(table::find(path).is_some(), "{path}");
        }
    }

    #[tokio::test]
    async fn of_all_listings_together_few_are_at_work() {
        let table = few();
        let first = table.work(LISTINGS[0]).await;
        let mut second = std::pin::pin!(table.work(LISTINGS[0]));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(table.work(CALL).await.is_none(), "other calls need none");
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn streams_have_limits_of_their_own_each_and_together() {
        let table = few();
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(table.place(key("a"), STREAM).await.unwrap());
        }
        assert!(table.place(key("a"), STREAM).await.is_err(), "its own limit");
        assert!(table.place(key("a"), CALL).await.is_ok(), "calls are counted by themselves");
        held.push(table.place(key("b"), STREAM).await.unwrap());
        assert!(table.place(key("c"), STREAM).await.is_err(), "the limit of all");
        held.clear();
        assert!(table.place(key("c"), STREAM).await.is_ok());
    }

    #[tokio::test]
    async fn one_that_goes_away_while_it_waits_is_not_counted_any_more() {
        let table = few();
        let _held = [table.place(key("a"), CALL).await, table.place(key("a"), CALL).await];
        let waiting = table.place(key("a"), CALL);
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(1), waiting).await;
        assert!(given_up.is_err());
        assert_eq!(table.caller(key("a")).waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn callers_that_have_nothing_are_forgotten() {
        let table = few();
        let _held = table.place(key("held"), CALL).await.unwrap();
        for number in 0..=CALLERS_IDLE_MAX + 1 {
            drop(table.place(key(&format!("c{number}")), CALL).await.unwrap());
        }
        let callers = table.callers.lock().unwrap();
        assert!(callers.len() < 10, "{} callers", callers.len());
        assert!(callers.contains_key(&key("held")));
    }
}
