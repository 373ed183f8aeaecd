//! The HTTP port: `/metrics`, `/healthz` (the process answers) and `/readyz` (it can do its work).

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve as serve_http};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Metrics;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells whether the daemon can do its work now, and if not, why. Asked for every request: it must be quick.
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

impl Readiness {
    /// Asks `check`; its error is shown to whoever asked.
    pub fn new(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Readiness(Arc::new(check))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&(self.0)()).finish()
    }
}

/// The pages, for a server that has others as well.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    let pages = Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(metrics);
    let ready = Router::new()
        .route("/readyz", get(show_readiness))
        .with_state(readiness);
    pages
        .merge(ready)
        .route("/healthz", get(|| async { "ok\n" }))
}

/// Serves the pages until `stop` is cancelled.
///
/// # Errors
/// What the listener says when it fails for good.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_http(listener, router(metrics, readiness))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn show_metrics(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode())
}

async fn show_readiness(State(readiness): State<Readiness>) -> impl IntoResponse {
    match (readiness.0)() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    }
}
