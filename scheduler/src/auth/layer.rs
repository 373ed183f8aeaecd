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
use rustls::pki_types::CertificateDer;
use tonic::Status;
use tower::{Layer, Service};

use super::authenticator::Authenticator;
use super::error::{AuthError, Denial};
use super::principal::{Principal, PrincipalKind};
use super::table::{self, Access, Rule};
use super::tls;
use crate::connections::Shown;

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
        AuthLayer { gate: Gate { authenticator, clock, trusts_node_header: false } }
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
        AuthService { gate: self.gate.clone(), inner }
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
        match self.gate.admit(request.uri().path(), request.headers(), request.extensions()) {
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
            tracing::info!(method = rule.method, reason = error.reason(), "caller is not known");
            Status::from(error)
        })?;
        check(&principal, rule).map_err(|denial| {
            let (reason, subject) = (denial.reason(), principal.subject.as_str());
            tracing::info!(method = rule.method, reason, subject, "caller is not allowed");
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
            self.authenticator.authenticate(headers, peer.map(|peer| peer.node), now)?;
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
        header.map(Peer::from_header).transpose()
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
        Ok(Peer { node: named.node, expires: Some(named.expires) })
    }

    fn from_header(value: &http::HeaderValue) -> Result<Self, AuthError> {
        let node = value.to_str().ok().and_then(|name| NodeName::new(name).ok());
        node.map(|node| Peer { node, expires: None }).ok_or(AuthError::ForeignCertificate)
    }
}

fn peer_certificates(extensions: &http::Extensions) -> Option<Arc<[CertificateDer<'static>]>> {
    extensions.get::<Shown>()?.certificates.clone()
}

/// Whether the table gives the method to this principal.
fn check(principal: &Principal, rule: &'static Rule) -> Result<(), Denial> {
    if matches!(principal.kind, PrincipalKind::Job(_)) && !rule.job_token {
        return Err(Denial::JobToken { rule });
    }
    if rule.access.allows(principal.role) {
        Ok(())
    } else {
        Err(Denial::Role { role: principal.role, rule })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use futures::FutureExt as _;
    use gotgan_core::ids::{AttemptId, JobId, ProjectPath, UserName};
    use tonic::Code;

    use super::super::principal::Role;
    use super::super::token::new_token;
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000);

    /// Who asks in a test.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Caller {
        Nobody,
        Person(Role),
        Node,
        Job,
    }

    fn callers() -> Vec<Caller> {
        let people = Role::ALL.into_iter().filter(|role| role.may_have_token());
        let others = [Caller::Nobody, Caller::Node, Caller::Job];
        people.map(Caller::Person).chain(others).collect()
    }

    fn request(authenticator: &Authenticator, caller: Caller, path: &str) -> Request<()> {
        let (user, project) = (UserName::new("kim").unwrap(), ProjectPath::new("nup").unwrap());
        let attempt = AttemptId { job: JobId(1), number: 1 };
        let token = match caller {
            Caller::Nobody | Caller::Node => None,
            Caller::Job => Some(authenticator.mint_job_token(&attempt, &user, &project)),
            Caller::Person(role) => {
                let (record, text) = new_token(user, role, vec![project], None, NOW);
                authenticator.upsert(record);
                Some(text)
            }
        };
        let mut builder = Request::builder().uri(path);
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if caller == Caller::Node {
            builder = builder.header(NODE_HEADER, "gpu-1");
        }
        builder.body(()).unwrap()
    }

    /// The answer of a gate whose services answer OK, with the principal they were shown.
    fn ask(layer: &AuthLayer, request: Request<()>) -> (Code, Option<Principal>) {
        let services = tower::service_fn(|request: Request<()>| {
            let mut response = Response::new(String::new());
            response.extensions_mut().extend(request.extensions().clone());
            ready(Ok::<_, Infallible>(response))
        });
        let answer = layer.layer(services).call(request).now_or_never().unwrap().unwrap();
        let code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |s| s.code());
        (code, answer.extensions().get().cloned())
    }

    fn expected(caller: Caller, rule: &Rule) -> Code {
        let allowed = |yes: bool| {
            if yes { Code::Ok } else { Code::PermissionDenied }
        };
        match caller {
            _ if rule.access == Access::Public => Code::Ok,
            Caller::Nobody => Code::Unauthenticated,
            Caller::Person(role) => allowed(rule.access.allows(role)),
            Caller::Node => allowed(rule.access.allows(Role::Worker)),
            Caller::Job => allowed(rule.job_token),
        }
    }

    #[test]
    fn the_gate_does_what_the_table_says_for_every_method_and_caller() {
        let authenticator = Authenticator::new("secret".into());
        authenticator.set_job_check(Box::new(|_| true));
        let layer = AuthLayer::new(authenticator.clone(), || NOW).insecure();
        for rule in table::TABLE {
            for caller in callers() {
                let (code, principal) = ask(&layer, request(&authenticator, caller, rule.method));
                assert_eq!(code, expected(caller, rule), "{caller:?} calls {}", rule.method);
                let shown = code == Code::Ok && rule.access != Access::Public;
                assert_eq!(principal.is_some(), shown, "{caller:?} calls {}", rule.method);
            }
        }
    }

    #[test]
    fn a_method_that_is_not_served_passes_without_a_principal() {
        let authenticator = Authenticator::new("secret".into());
        let layer = AuthLayer::new(authenticator.clone(), || NOW);
        let asked = request(&authenticator, Caller::Person(Role::Admin), "/gotgan.v1.Jobs/Delete");
        assert_eq!(ask(&layer, asked), (Code::Ok, None));
    }

    #[test]
    fn the_node_header_counts_only_where_it_is_trusted() {
        let authenticator = Authenticator::new("secret".into());
        let session = "/gotgan.v1.Workers/Session";
        let layer = AuthLayer::new(authenticator.clone(), || NOW);
        let asked = || request(&authenticator, Caller::Node, session);
        assert_eq!(ask(&layer, asked()), (Code::Unauthenticated, None));
        let (code, principal) = ask(&layer.insecure(), asked());
        assert_eq!(code, Code::Ok);
        assert_eq!(principal.unwrap().node().unwrap().as_str(), "gpu-1");
    }

    #[test]
    fn a_public_method_answers_even_to_a_token_that_does_not_count() {
        let layer = AuthLayer::new(Authenticator::new("secret".into()), || NOW);
        let health = Request::builder().uri("/grpc.health.v1.Health/Check");
        let asked = health.header(AUTHORIZATION, "Bearer nonsense").body(()).unwrap();
        assert_eq!(ask(&layer, asked), (Code::Ok, None));
    }
}
