//! The HTTP port: `/metrics`, `/healthz` (the process answers) and `/readyz` (it can do its work).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
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
    let pages = Router::new().route("/metrics", get(show_metrics)).with_state(metrics);
    let ready = Router::new().route("/readyz", get(show_readiness)).with_state(readiness);
    pages.merge(ready).route("/healthz", get(|| async { "ok\n" }))
}

/// Answers at an address, as `HOST:PORT` or "off" for none, from the start of a scheduler on: so that a standby is seen to
/// live and not to be ready.
///
/// # Errors
/// If it cannot listen there.
pub async fn answer(
    address: &str,
    metrics: &Arc<Metrics>,
    leads: &Arc<AtomicBool>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if address == "off" {
        return Ok(());
    }
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (server.http_listen)"))?;
    let leads = Arc::clone(leads);
    let readiness = Readiness::new(move || {
        leads.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "it does not lead".to_owned())
    });
    let (metrics, stop) = (Arc::clone(metrics), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = serve(listener, metrics, readiness, stop).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the metrics page ended");
        }
    });
    Ok(())
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
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// The whole answer to a GET.
    async fn get_page(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_port_shows_metrics_health_and_readiness_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        metrics.rounds.inc();
        let leads = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&leads);
        let readiness = Readiness::new(move || {
            asked.load(Ordering::Relaxed).then_some(()).ok_or("another leads".to_owned())
        });
        let server = tokio::spawn(serve(listener, metrics, readiness, stop.clone()));
        let metrics_page = get_page(address, "/metrics").await;
        assert!(metrics_page.contains("gotgan_rounds_total 1"), "{metrics_page}");
        assert!(metrics_page.contains(OPENMETRICS), "{metrics_page}");
        assert!(get_page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready_page = get_page(address, "/readyz").await;
        assert!(ready_page.starts_with("HTTP/1.1 503"), "{ready_page}");
        assert!(ready_page.contains("not ready: another leads"), "{ready_page}");
        leads.store(true, Ordering::Relaxed);
        assert!(get_page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
