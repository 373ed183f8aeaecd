//! The port of the page.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::page::page;
use crate::handle::{Handle, Input};
use crate::inventory::Inventory;
use crate::renewal::Renewal;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("metrics_listen: cannot listen on {address}: {source}")]
pub struct MetricsError {
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// What the page is made of.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The machine.
    pub inventory: Arc<Inventory>,
    /// The supervisor.
    pub handle: Handle,
    /// The node's certificate; absent with `--insecure`.
    pub certificate: Option<Renewal>,
}

/// A port that is the worker's, and on which nobody is answered yet.
#[derive(Debug)]
pub struct Port(Option<TcpListener>);

impl Port {
    /// Takes the port; none where there is no address.
    ///
    /// # Errors
    /// [`MetricsError`] if somebody else has it, or it is no address of this machine.
    pub async fn take(address: Option<SocketAddr>) -> Result<Self, MetricsError> {
        let Some(address) = address else { return Ok(Self(None)) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| MetricsError { address, source })?;
        tracing::info!(%address, "metrics are shown at /metrics");
        Ok(Self(Some(listener)))
    }

    /// Answers for as long as the daemon runs.
    pub async fn serve(self, sources: Sources) {
        if let Self(Some(listener)) = self {
            let pages = Router::new().route("/metrics", get(show)).with_state(sources);
            if let Err(error) = axum::serve(listener, pages).await {
                tracing::error!(%error, "metrics are not shown any more");
            }
        }
        // Jobs matter more than the page.
        std::future::pending().await
    }
}

async fn show(State(sources): State<Sources>) -> Response {
    let Sources { inventory, handle, certificate } = sources;
    match handle.ask(Input::Using).await {
        Ok(using) => {
            // What cannot be read is told where it is to be renewed.
            let term = certificate.and_then(|certificate| certificate.term().ok());
            let text = page(&inventory.node, inventory.readings(), using, term);
            ([(header::CONTENT_TYPE, TEXT)], text).into_response()
        }
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")).into_response(),
    }
}
