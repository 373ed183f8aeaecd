//! The gate in front of every service: resolves the caller, asks the table, and only then lets a request in.
//!
//! Methods that are not in the table pass: the server has none of them and answers `UNIMPLEMENTED` itself.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::NodeName;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::transport::CertificateDer;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use super::authenticator::Authenticator;
use super::error::{AuthError, Denial};
use super::principal::{Principal, PrincipalKind};
use super::table::{self, Access, Rule};
use super::tls;

/// Header that names the node in a cluster without TLS; ignored in any other.
pub const NODE_HEADER: &str = "x-gotgan-node";

/// Puts an [`AuthService`] in front of a server's services.
#[derive(Debug, Clone)]
pub struct AuthLayer {
    gate: Gate,
}

#[derive(Debug, Clone)]
struct Gate {
    authenticator: Authenticator,
    clock: fn() -> UnixMicros,
    trusts_node_header: bool,
}

impl AuthLayer {
    /// Knows callers by their tokens and by the client certificates that the TLS handshake verified.
    #[must_use]
    pub fn new(authenticator: Authenticator, clock: fn() -> UnixMicros) -> Self {
        AuthLayer {
            gate: Gate {
                authenticator,
                clock,
                trusts_node_header: false,
            },
        }
    }

    /// Also believes the header [`NODE_HEADER`]: anybody can then pose as any worker. For a server without TLS,
    /// which is for tests and for machines nobody else reaches.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.gate.trusts_node_header = true;
        self
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            gate: self.gate.clone(),
            inner,
        }
    }
}

/// A service behind the gate. See [`AuthLayer`].
#[derive(Debug, Clone)]
pub struct AuthService<S> {
    gate: Gate,
    inner: S,
}

impl<S, Body, Answer> Service<Request<Body>> for AuthService<S>
where
    S: Service<Request<Body>, Response = Response<Answer>>,
    Answer: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.gate.admit(
            request.uri().path(),
            request.headers(),
            request.extensions(),
        ) {
            Ok(principal) => {
                if let Some(principal) = principal {
                    request.extensions_mut().insert(principal);
                }
                Either::Right(self.inner.call(request))
            }
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

impl Gate {
    /// The principal to go on with (none where none is needed), or the answer that ends the call.
    fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &http::Extensions,
    ) -> Result<Option<Principal>, Status> {
        let Some((_, rule)) = table::find(path) else {
            return Ok(None);
        };
        if rule.access == Access::Public {
            return Ok(None);
        }
        let principal = self.principal(headers, extensions).map_err(|error| {
            tracing::info!(
                method = rule.method,
                reason = error.reason(),
                "caller is not known"
            );
            Status::from(error)
        })?;
        check(&principal, rule).map_err(|denial| {
            let (reason, subject) = (denial.reason(), principal.subject.as_str());
            tracing::info!(
                method = rule.method,
                reason,
                subject,
                "caller is not allowed"
            );
            Status::from(denial)
        })?;
        Ok(Some(principal))
    }

    fn principal(
        &self,
        headers: &HeaderMap,
        extensions: &http::Extensions,
    ) -> Result<Principal, AuthError> {
        let now = (self.clock)();
        // A token counts before a certificate, whatever the certificate says.
        let peer = if headers.contains_key(AUTHORIZATION) {
            None
        } else {
            self.peer(headers, extensions, now)?
        };
        let expires = peer.as_ref().and_then(|peer| peer.expires);
        let principal =
            self.authenticator
                .authenticate(headers, peer.map(|peer| peer.node), now)?;
        let mut principal = principal.ok_or(AuthError::MissingToken)?;
        principal.expires = principal.expires.or(expires);
        Ok(principal)
    }

    fn peer(
        &self,
        headers: &HeaderMap,
        extensions: &http::Extensions,
        now: UnixMicros,
    ) -> Result<Option<Peer>, AuthError> {
        if let Some(certificates) = peer_certificates(extensions) {
            let leaf = certificates.first().ok_or(AuthError::ForeignCertificate)?;
            return Peer::from_certificate(leaf, now).map(Some);
        }
        let header = headers.get(NODE_HEADER).filter(|_| self.trusts_node_header);
        header.map(|value| Peer::from_header(value)).transpose()
    }
}

/// The node at the other end of a connection.
struct Peer {
    node: NodeName,
    expires: Option<UnixMicros>,
}

impl Peer {
    /// The handshake has verified that our CA signed the certificate; here only what it says is read.
    fn from_certificate(leaf: &[u8], now: UnixMicros) -> Result<Self, AuthError> {
        let named = tls::node_of_certificate(leaf).ok_or(AuthError::ForeignCertificate)?;
        if named.expires <= now {
            return Err(AuthError::ExpiredCertificate);
        }
        Ok(Peer {
            node: named.node,
            expires: Some(named.expires),
        })
    }

    fn from_header(value: &http::HeaderValue) -> Result<Self, AuthError> {
        let node = value
            .to_str()
            .ok()
            .and_then(|name| NodeName::new(name).ok());
        node.map(|node| Peer {
            node,
            expires: None,
        })
        .ok_or(AuthError::ForeignCertificate)
    }
}

fn peer_certificates(extensions: &http::Extensions) -> Option<Arc<Vec<CertificateDer<'static>>>> {
    extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()?
        .peer_certs()
}

/// Whether the table gives the method to this principal.
fn check(principal: &Principal, rule: &'static Rule) -> Result<(), Denial> {
    if matches!(principal.kind, PrincipalKind::Job(_)) && !rule.job_token {
        return Err(Denial::JobToken { rule });
    }
    if rule.access.allows(principal.role) {
        Ok(())
    } else {
        Err(Denial::Role {
            role: principal.role,
            rule,
        })
    }
}
