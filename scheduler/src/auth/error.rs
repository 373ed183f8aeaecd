//! Why a caller is not let in, each with a reason word for programs and a next step for people.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::principal::Role;
use super::table::{Access, Rule};

/// Who the caller is could not be told. All of these are `UNAUTHENTICATED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither a token nor a certificate came along.
    #[error(
        "no token was sent; set GOTGAN_TOKEN or the client's token file (an administrator makes one with `gotgan admin token`)"
    )]
    MissingToken,
    /// What came along does not look like a token.
    #[error(
        "the authorization header does not hold one whole token; copy the token again, it begins with gotgan_"
    )]
    MalformedToken,
    /// No token like this was ever made here.
    #[error(
        "the token is not one of this cluster; check which cluster the client talks to, or ask an administrator for a new one"
    )]
    UnknownToken,
    /// The token was good once.
    #[error("the token has expired; ask an administrator for a new one (`gotgan admin token`)")]
    ExpiredToken,
    /// The token was taken back.
    #[error("the token was revoked; ask an administrator for a new one (`gotgan admin token`)")]
    RevokedToken,
    /// The stored token carries a role that tokens may not have.
    #[error(
        "the token carries a role that no token may have; ask an administrator to revoke it and make a new one"
    )]
    UnusableToken,
    /// The token belongs to an attempt that does not run (any more).
    #[error(
        "the token belongs to a job that is not running any more; outside a job use a person's token"
    )]
    JobEnded,
    /// The certificate does not name a node of this cluster.
    #[error(
        "the client certificate does not name a node of this cluster; join again with a join token (`gotgan admin join-token`)"
    )]
    ForeignCertificate,
    /// The certificate was good when the connection was made.
    #[error(
        "the client certificate has expired; join again with a join token (`gotgan admin join-token`)"
    )]
    ExpiredCertificate,
}

impl AuthError {
    /// Every error, for tests and documentation.
    pub const ALL: [AuthError; 9] = [
        AuthError::MissingToken,
        AuthError::MalformedToken,
        AuthError::UnknownToken,
        AuthError::ExpiredToken,
        AuthError::RevokedToken,
        AuthError::UnusableToken,
        AuthError::JobEnded,
        AuthError::ForeignCertificate,
        AuthError::ExpiredCertificate,
    ];

    /// The reason in `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            AuthError::MissingToken => "TOKEN_MISSING",
            AuthError::MalformedToken => "TOKEN_MALFORMED",
            AuthError::UnknownToken => "TOKEN_UNKNOWN",
            AuthError::ExpiredToken => "TOKEN_EXPIRED",
            AuthError::RevokedToken => "TOKEN_REVOKED",
            AuthError::UnusableToken => "TOKEN_UNUSABLE",
            AuthError::JobEnded => "JOB_ENDED",
            AuthError::ForeignCertificate => "CERTIFICATE_FOREIGN",
            AuthError::ExpiredCertificate => "CERTIFICATE_EXPIRED",
        }
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Status {
        refusal(Code::Unauthenticated, error.reason(), error.to_string(), HashMap::new())
    }
}

/// The caller is known and may not call this method. All of these are `PERMISSION_DENIED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The table does not give the method to this role.
    #[error("role {role} may not call {}; it takes {}", rule_name(rule), needed(rule.access))]
    Role {
        /// Whom it was refused to.
        role: Role,
        /// The row of the table.
        rule: &'static Rule,
    },
    /// The table does not give the method to the tokens of jobs.
    #[error("a job's own token may not call {}; use a person's token for it", rule_name(rule))]
    JobToken {
        /// The row of the table.
        rule: &'static Rule,
    },
}

impl Denial {
    /// The reason in `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Denial::Role { .. } => "ROLE_NOT_ALLOWED",
            Denial::JobToken { .. } => "JOB_TOKEN_NOT_ALLOWED",
        }
    }

    fn metadata(self) -> HashMap<String, String> {
        let (role, rule) = match self {
            Denial::Role { role, rule } => (role.word(), rule),
            Denial::JobToken { rule } => ("job", rule),
        };
        let entries = [("role", role), ("method", rule_name(rule))];
        entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Status {
        let metadata = denial.metadata();
        refusal(Code::PermissionDenied, denial.reason(), denial.to_string(), metadata)
    }
}

fn refusal(code: Code, reason: &str, message: String, metadata: HashMap<String, String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, gotgan_proto::ERROR_DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

fn rule_name(rule: &'static Rule) -> &'static str {
    rule.method.trim_start_matches('/')
}

fn needed(access: Access) -> String {
    match access {
        Access::Public | Access::AnyPrincipal => "any role".to_owned(),
        Access::Roles(roles) => {
            let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
            format!("one of: {}", words.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::super::table;
    use super::*;

    #[test]
    fn every_error_has_a_reason_of_its_own_and_says_what_to_do() {
        let reasons: BTreeSet<&str> = AuthError::ALL.iter().map(|error| error.reason()).collect();
        assert_eq!(reasons.len(), AuthError::ALL.len());
        for error in AuthError::ALL {
            assert!(error.to_string().contains([';']), "{error}");
        }
    }

    #[test]
    fn a_denial_names_role_method_and_who_may() {
        let (_, rule) = table::find("/gotgan.v1.Quota/Apply").unwrap();
        let status = Status::from(Denial::Role { role: Role::Member, rule });
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("one of: admin, allocator"), "{}", status.message());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ROLE_NOT_ALLOWED", "gotgan"));
        assert_eq!(info.metadata["role"], "member");
        assert_eq!(info.metadata["method"], "gotgan.v1.Quota/Apply");
    }
}
