//! Counts calls by method and gRPC code.
//!
//! The code of a call is only known from its trailers, so the body of the answer is watched to its end. A call
//! whose caller left earlier counts as cancelled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Metrics;
use crate::auth::table;

/// What calls of methods that are not served are counted under: their names come from outside and have no limit.
const UNKNOWN_METHOD: &str = "other";

/// Puts an [`RpcMetricsService`] in front of a server's services. To be the outermost layer, so that refused calls
/// are counted as well.
#[derive(Debug, Clone)]
pub struct RpcMetricsLayer {
    metrics: Arc<Metrics>,
}

impl RpcMetricsLayer {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        RpcMetricsLayer { metrics }
    }
}

impl<S> Layer<S> for RpcMetricsLayer {
    type Service = RpcMetricsService<S>;

    fn layer(&self, inner: S) -> RpcMetricsService<S> {
        RpcMetricsService {
            metrics: Arc::clone(&self.metrics),
            inner,
        }
    }
}

/// A service whose calls are counted. See [`RpcMetricsLayer`].
#[derive(Debug, Clone)]
pub struct RpcMetricsService<S> {
    metrics: Arc<Metrics>,
    inner: S,
}

impl<S, Asked, Answer> Service<Request<Asked>> for RpcMetricsService<S>
where
    S: Service<Request<Asked>, Response = Response<Answer>>,
    S::Future: Send + 'static,
{
    type Response = Response<CountedBody<Answer>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Asked>) -> Self::Future {
        let mut call = OpenCall::begin(Arc::clone(&self.metrics), request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.inspect_err(|_| call.code = Code::Unknown)?;
            call.learn(answer.headers());
            Ok(answer.map(|body| CountedBody { body, call }))
        })
    }
}

/// A call that is counted when it is dropped, under the code learnt until then.
#[derive(Debug)]
struct OpenCall {
    metrics: Arc<Metrics>,
    method: &'static str,
    code: Code,
}

impl OpenCall {
    fn begin(metrics: Arc<Metrics>, path: &str) -> Self {
        let method = table::find(path).map_or(UNKNOWN_METHOD, |(_, rule)| &rule.method[1..]);
        OpenCall {
            metrics,
            method,
            code: Code::Cancelled,
        }
    }

    /// Takes the code from headers (of an answer without a body) or trailers.
    fn learn(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.metrics.count_rpc(self.method, code_word(self.code));
    }
}

/// The body of an answer, watched for its trailers.
#[derive(Debug)]
pub struct CountedBody<B> {
    body: B,
    call: OpenCall,
}

impl<B: Body + Unpin> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.learn(trailers);
                }
            }
            Some(Err(_)) => self.call.code = Code::Unknown,
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The code as the gRPC specification spells it.
fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
