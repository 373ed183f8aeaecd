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
        RpcMetricsService { metrics: Arc::clone(&self.metrics), inner }
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
        OpenCall { metrics, method, code: Code::Cancelled }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;
    use std::future::{pending, ready};

    use futures::FutureExt as _;

    use super::*;

    const SUBMIT: &str = "/gotgan.v1.Jobs/Submit";

    /// A body that is only trailers.
    #[derive(Debug)]
    struct Trailers(Option<HeaderMap>);

    impl Body for Trailers {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    fn status(code: &str) -> HeaderMap {
        [(Status::GRPC_STATUS, code.parse().unwrap())].into_iter().collect()
    }

    /// An answer whose headers or trailers carry a code.
    fn answer(headers: HeaderMap, trailers: Option<HeaderMap>) -> Response<Trailers> {
        let mut answer = Response::new(Trailers(trailers));
        *answer.headers_mut() = headers;
        answer
    }

    /// Calls a path; the body is read as far as `frames`.
    fn call(metrics: &Arc<Metrics>, path: &str, answer: Response<Trailers>, frames: usize) {
        let mut answer = Some(answer);
        let services =
            tower::service_fn(move |_| ready(Ok::<_, Infallible>(answer.take().unwrap())));
        let request = Request::builder().uri(path).body(()).unwrap();
        let layer = RpcMetricsLayer::new(Arc::clone(metrics));
        let mut body =
            layer.layer(services).call(request).now_or_never().unwrap().unwrap().into_body();
        for _ in 0..frames {
            let mut context = Context::from_waker(std::task::Waker::noop());
            assert!(Pin::new(&mut body).poll_frame(&mut context).is_ready());
        }
    }

    fn counted(metrics: &Metrics, method: &str, code: &str) -> bool {
        let line = format!("gotgan_rpcs_total{{method=\"{method}\",code=\"{code}\"}} 1\n");
        metrics.encode().contains(&line)
    }

    #[test]
    fn a_call_counts_under_the_code_of_its_trailers() {
        let metrics = Metrics::new();
        call(&metrics, SUBMIT, answer(HeaderMap::new(), Some(status("0"))), 1);
        assert!(counted(&metrics, "gotgan.v1.Jobs/Submit", "OK"), "{}", metrics.encode());
    }

    #[test]
    fn a_call_refused_without_a_body_counts_under_the_code_of_its_headers() {
        let metrics = Metrics::new();
        call(&metrics, SUBMIT, answer(status("16"), None), 0);
        assert!(counted(&metrics, "gotgan.v1.Jobs/Submit", "UNAUTHENTICATED"));
    }

    #[test]
    fn a_call_whose_caller_leaves_counts_as_cancelled() {
        let metrics = Metrics::new();
        call(&metrics, SUBMIT, answer(HeaderMap::new(), Some(status("0"))), 0);
        assert!(counted(&metrics, "gotgan.v1.Jobs/Submit", "CANCELLED"));
        let stuck = tower::service_fn(|_| pending::<Result<Response<Trailers>, Infallible>>());
        let request = Request::builder().uri("/gotgan.v1.Jobs/List").body(()).unwrap();
        drop(RpcMetricsLayer::new(Arc::clone(&metrics)).layer(stuck).call(request));
        assert!(counted(&metrics, "gotgan.v1.Jobs/List", "CANCELLED"));
    }

    #[test]
    fn methods_that_are_not_served_share_one_name() {
        let metrics = Metrics::new();
        call(&metrics, "/x.Y/Z", answer(status("12"), None), 0);
        assert!(counted(&metrics, "other", "UNIMPLEMENTED"), "{}", metrics.encode());
    }
}
