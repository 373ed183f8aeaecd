//! Who calls, and what they may call.
//!
//! A request is resolved to a [`Principal`] from its bearer token, or else from its client certificate, by the
//! [`Authenticator`]; the [`AuthLayer`] checks it against the one [`table`] before any handler sees the request.
//! What a principal may see and change *inside* a service (which projects, which jobs) is asked of the principal
//! by the handlers. [`tls`] makes and keeps the certificates. Nothing here reads the store: tokens are handed in.

mod authenticator;
mod error;
pub(crate) mod hex;
mod layer;
mod principal;
pub mod table;
pub mod tls;
mod token;

#[cfg(test)]
mod wire_tests;

pub use authenticator::{Authenticator, JobCheck};
pub use error::{AuthError, Denial};
pub use layer::{AuthLayer, AuthService, NODE_HEADER};
pub use principal::{Principal, PrincipalKind, Role, UnknownRole};
pub use token::{join_token_hash, new_join_token, new_token, random_secret};
