//! Who a request comes from, once that is known, and which projects they may look at.

use std::fmt;

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{AttemptId, NodeName, ProjectPath, UserName};
use gotgan_proto::v1;

/// What a principal is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Changes quotas, sees everything.
    Allocator,
    /// Runs the machines and everybody's jobs.
    Operator,
    /// Submits to its projects and sees their jobs.
    Member,
    /// A node's daemon; only a client certificate gives this role.
    Worker,
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no role; the roles are admin, allocator, operator, member, worker")]
pub struct UnknownRole(pub String);

impl Role {
    /// Every role, in the order of listings.
    pub const ALL: [Role; 5] =
        [Role::Admin, Role::Allocator, Role::Operator, Role::Member, Role::Worker];

    /// The word in tokens, listings and errors.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Allocator => "allocator",
            Role::Operator => "operator",
            Role::Member => "member",
            Role::Worker => "worker",
        }
    }

    /// The role of a word.
    ///
    /// # Errors
    /// [`UnknownRole`] for any other word.
    pub fn from_word(word: &str) -> Result<Self, UnknownRole> {
        let cut = || UnknownRole(word.chars().take(80).collect());
        Role::ALL.into_iter().find(|role| role.word() == word).ok_or_else(cut)
    }

    /// Whether a bearer token may carry this role. A worker proves its name with a certificate, so a token that
    /// claims to be one is never honoured.
    #[must_use]
    pub fn may_have_token(self) -> bool {
        self != Role::Worker
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => v1::Role::Admin,
            Role::Allocator => v1::Role::Allocator,
            Role::Operator => v1::Role::Operator,
            Role::Member => v1::Role::Member,
            Role::Worker => v1::Role::Worker,
        }
    }
}

/// Fails for `ROLE_UNSPECIFIED` only.
impl TryFrom<v1::Role> for Role {
    type Error = UnknownRole;

    fn try_from(role: v1::Role) -> Result<Self, UnknownRole> {
        match role {
            v1::Role::Unspecified => Err(UnknownRole("unspecified".to_owned())),
            v1::Role::Admin => Ok(Role::Admin),
            v1::Role::Allocator => Ok(Role::Allocator),
            v1::Role::Operator => Ok(Role::Operator),
            v1::Role::Member => Ok(Role::Member),
            v1::Role::Worker => Ok(Role::Worker),
        }
    }
}

/// By what a principal was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person's or a program's bearer token.
    Token {
        /// The public part of the token.
        id: String,
    },
    /// The token that a running attempt finds in its environment.
    Job(AttemptId),
    /// A worker's client certificate.
    Node(NodeName),
}

/// Who a request comes from. The [`AuthLayer`](super::AuthLayer) puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Person or program; for a node its name.
    pub subject: UserName,
    /// What it is to the cluster.
    pub role: Role,
    /// Projects of a member, each with what is below it; for a job's token the one that pays.
    pub projects: Vec<ProjectPath>,
    /// When its token or certificate runs out.
    pub expires: Option<UnixMicros>,
    /// By what it was known.
    pub kind: PrincipalKind,
}

impl Principal {
    /// Whether it may see what belongs to a project: its jobs, their output, its part of the ledger.
    #[must_use]
    pub fn may_see(&self, project: &ProjectPath) -> bool {
        match (&self.kind, self.role) {
            (PrincipalKind::Job(_), _) => self.projects.contains(project),
            (_, Role::Admin | Role::Allocator | Role::Operator) => true,
            (_, Role::Member) => self.covers(project),
            (_, Role::Worker) => false,
        }
    }

    /// Whether it may submit to a project, and change the project's jobs.
    #[must_use]
    pub fn may_submit_to(&self, project: &ProjectPath) -> bool {
        match (&self.kind, self.role) {
            (PrincipalKind::Job(_), _) => false,
            (_, Role::Admin | Role::Operator) => true,
            (_, Role::Member) => self.covers(project),
            (_, Role::Allocator | Role::Worker) => false,
        }
    }

    /// Whether no project is hidden from it.
    #[must_use]
    pub fn sees_everything(&self) -> bool {
        self.project_scope().is_none()
    }

    /// The projects it is confined to, each with what is below it; `None` if it sees all. An empty scope means
    /// that it sees *nothing*: a caller whose filter reads "empty" as "all" must answer before it gets there.
    #[must_use]
    pub fn project_scope(&self) -> Option<&[ProjectPath]> {
        match (&self.kind, self.role) {
            (PrincipalKind::Job(_), _) | (_, Role::Member) => Some(&self.projects),
            (_, Role::Admin | Role::Allocator | Role::Operator) => None,
            (_, Role::Worker) => Some(&[]),
        }
    }

    /// The node whose certificate this is.
    #[must_use]
    pub fn node(&self) -> Option<&NodeName> {
        match &self.kind {
            PrincipalKind::Node(node) => Some(node),
            PrincipalKind::Token { .. } | PrincipalKind::Job(_) => None,
        }
    }

    /// The attempt whose token this is.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        match &self.kind {
            PrincipalKind::Job(attempt) => Some(*attempt),
            PrincipalKind::Token { .. } | PrincipalKind::Node(_) => None,
        }
    }

    fn covers(&self, project: &ProjectPath) -> bool {
        self.projects.iter().any(|own| project.is_within(own.as_str()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_core::ids::JobId;

    use super::*;

    fn path(text: &str) -> ProjectPath {
        ProjectPath::new(text).unwrap()
    }

    fn principal(role: Role, kind: PrincipalKind) -> Principal {
        let subject = UserName::new("kim").unwrap();
        Principal { subject, role, projects: vec![path("public/nup")], expires: None, kind }
    }

    fn with_token(role: Role) -> Principal {
        principal(role, PrincipalKind::Token { id: "0123456789ab".into() })
    }

    #[test]
    fn every_role_is_known_by_its_word_and_by_its_number() {
        for role in Role::ALL {
            assert_eq!(Role::from_word(role.word()), Ok(role));
            assert_eq!(Role::try_from(v1::Role::from(role)), Ok(role));
        }
        assert!(Role::from_word("root").is_err());
        assert!(Role::try_from(v1::Role::Unspecified).is_err());
    }

    #[test]
    fn a_member_sees_and_submits_to_its_projects_and_what_is_below() {
        let member = with_token(Role::Member);
        assert!(
            member.may_see(&path("public/nup/startup-1")) && member.may_see(&path("public/nup"))
        );
        assert!(member.may_submit_to(&path("public/nup/startup-1")));
        for foreign in ["public", "public/nup2", "private/nup"] {
            assert!(!member.may_see(&path(foreign)) && !member.may_submit_to(&path(foreign)));
        }
        assert_eq!(member.project_scope(), Some([path("public/nup")].as_slice()));
    }

    #[test]
    fn an_allocator_sees_all_projects_and_submits_to_none() {
        let allocator = with_token(Role::Allocator);
        assert!(allocator.sees_everything() && allocator.may_see(&path("private")));
        assert!(!allocator.may_submit_to(&path("public/nup")));
    }

    #[test]
    fn admins_and_operators_submit_anywhere() {
        for role in [Role::Admin, Role::Operator] {
            let principal = with_token(role);
            assert!(principal.sees_everything() && principal.may_submit_to(&path("private/x")));
        }
    }

    #[test]
    fn a_jobs_token_sees_its_own_project_only_and_submits_nothing() {
        let attempt = AttemptId { job: JobId(7), number: 1 };
        let job = principal(Role::Member, PrincipalKind::Job(attempt));
        assert!(job.may_see(&path("public/nup")) && !job.may_see(&path("public/nup/startup-1")));
        assert!(!job.may_submit_to(&path("public/nup")));
        assert_eq!(job.attempt(), Some(attempt));
    }

    #[test]
    fn a_worker_sees_no_project() {
        let node = NodeName::new("gpu-1").unwrap();
        let worker = principal(Role::Worker, PrincipalKind::Node(node.clone()));
        assert!(!worker.sees_everything() && !worker.may_see(&path("public/nup")));
        assert_eq!(worker.project_scope(), Some([].as_slice()));
        assert_eq!(worker.node(), Some(&node));
    }
}
