//! The one table of who may call what. Nothing else in the scheduler decides that.
//!
//! Which project's jobs a caller may touch is not in here: that depends on the job, and the handlers ask the
//! [`Principal`](super::Principal). `docs/permissions.md` shows this table to people; a test keeps them equal.

use super::principal::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, known or not.
    Public,
    /// Anybody with a valid token or certificate.
    AnyPrincipal,
    /// Whoever has one of these roles.
    Roles(&'static [Role]),
}

impl Access {
    /// Whether a principal of this role may call.
    #[must_use]
    pub fn allows(self, role: Role) -> bool {
        match self {
            Access::Public | Access::AnyPrincipal => true,
            Access::Roles(roles) => roles.contains(&role),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Path of the method, as in `/gotgan.v1.Jobs/Submit`.
    pub method: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether the token of a running job may call it.
    pub job_token: bool,
    /// Whether a standby answers it to who takes an answer that may be stale: it changes nothing, and needs nothing that
    /// a leader alone knows, as what nodes said last.
    pub stale: bool,
}

const fn rule(method: &'static str, access: Access) -> Rule {
    Rule { method, access, job_token: false, stale: false }
}

const fn job_rule(method: &'static str, access: Access) -> Rule {
    Rule { job_token: true, ..rule(method, access) }
}

impl Rule {
    const fn or_standby(self) -> Rule {
        Rule { stale: true, ..self }
    }
}

const PEOPLE: Access = Access::Roles(&[Role::Admin, Role::Allocator, Role::Operator, Role::Member]);
const JOB_WRITERS: Access = Access::Roles(&[Role::Admin, Role::Operator, Role::Member]);
const MACHINES: Access = Access::Roles(&[Role::Admin, Role::Operator]);
const ALLOCATION: Access = Access::Roles(&[Role::Admin, Role::Allocator]);
const ADMIN: Access = Access::Roles(&[Role::Admin]);
const NODE: Access = Access::Roles(&[Role::Worker]);

/// Every method that is served.
pub const TABLE: &[Rule] = &[
    rule("/gotgan.v1.Cluster/CreateJoinToken", MACHINES),
    rule("/gotgan.v1.Cluster/CreateToken", ADMIN),
    rule("/gotgan.v1.Cluster/ListTokens", ADMIN),
    rule("/gotgan.v1.Cluster/RevokeToken", ADMIN),
    rule("/gotgan.v1.Cluster/Status", PEOPLE),
    job_rule("/gotgan.v1.Cluster/WhoAmI", Access::AnyPrincipal),
    rule("/gotgan.v1.Jobs/Cancel", JOB_WRITERS),
    job_rule("/gotgan.v1.Jobs/Explain", PEOPLE),
    rule("/gotgan.v1.Jobs/ExplainOrder", PEOPLE).or_standby(),
    job_rule("/gotgan.v1.Jobs/Get", PEOPLE).or_standby(),
    rule("/gotgan.v1.Jobs/Hold", JOB_WRITERS),
    rule("/gotgan.v1.Jobs/List", PEOPLE).or_standby(),
    job_rule("/gotgan.v1.Jobs/Logs", PEOPLE),
    rule("/gotgan.v1.Jobs/Release", JOB_WRITERS),
    rule("/gotgan.v1.Jobs/Requeue", JOB_WRITERS),
    job_rule("/gotgan.v1.Jobs/StartStep", JOB_WRITERS),
    rule("/gotgan.v1.Jobs/Submit", JOB_WRITERS),
    rule("/gotgan.v1.Jobs/SubmitMany", JOB_WRITERS),
    job_rule("/gotgan.v1.Jobs/Watch", PEOPLE),
    rule("/gotgan.v1.Nodes/CancelMaintenance", MACHINES),
    rule("/gotgan.v1.Nodes/CancelReservation", MACHINES),
    rule("/gotgan.v1.Nodes/CreateReservation", MACHINES),
    rule("/gotgan.v1.Nodes/CutGpu", MACHINES),
    rule("/gotgan.v1.Nodes/Derate", MACHINES),
    rule("/gotgan.v1.Nodes/Drain", MACHINES),
    rule("/gotgan.v1.Nodes/ExtendReservation", MACHINES),
    rule("/gotgan.v1.Nodes/Get", PEOPLE),
    rule("/gotgan.v1.Nodes/History", PEOPLE).or_standby(),
    rule("/gotgan.v1.Nodes/List", PEOPLE),
    rule("/gotgan.v1.Nodes/ListMaintenance", PEOPLE).or_standby(),
    rule("/gotgan.v1.Nodes/ListReservations", PEOPLE).or_standby(),
    rule("/gotgan.v1.Nodes/PlanMaintenance", MACHINES),
    rule("/gotgan.v1.Nodes/ResetBreaker", MACHINES),
    rule("/gotgan.v1.Nodes/Resume", MACHINES),
    rule("/gotgan.v1.Nodes/Verify", MACHINES),
    rule("/gotgan.v1.Quota/AcceptBatch", ALLOCATION),
    rule("/gotgan.v1.Quota/Adjust", ADMIN),
    rule("/gotgan.v1.Quota/Alerts", PEOPLE).or_standby(),
    rule("/gotgan.v1.Quota/Apply", ALLOCATION),
    rule("/gotgan.v1.Quota/Approve", ALLOCATION),
    rule("/gotgan.v1.Quota/Audit", ALLOCATION),
    rule("/gotgan.v1.Quota/Balance", PEOPLE).or_standby(),
    rule("/gotgan.v1.Quota/Explain", PEOPLE).or_standby(),
    rule("/gotgan.v1.Quota/Get", PEOPLE).or_standby(),
    rule("/gotgan.v1.Quota/Ledger", PEOPLE).or_standby(),
    rule("/gotgan.v1.Quota/Plan", ALLOCATION),
    rule("/gotgan.v1.Quota/Statement", PEOPLE),
    rule("/gotgan.v1.Quota/Transfer", ALLOCATION),
    rule("/gotgan.v1.Quota/Void", ALLOCATION),
    rule("/gotgan.v1.Workers/Join", Access::Public),
    rule("/gotgan.v1.Workers/Renew", NODE),
    rule("/gotgan.v1.Workers/Session", NODE),
    rule("/grpc.health.v1.Health/Check", Access::Public),
    rule("/grpc.health.v1.Health/Watch", Access::Public),
    rule("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::AnyPrincipal),
    rule("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Access::AnyPrincipal),
];

/// Position and row of a method path; `None` for a method that is not served.
#[must_use]
pub fn find(path: &str) -> Option<(usize, &'static Rule)> {
    let index = TABLE.binary_search_by(|rule| rule.method.cmp(path)).ok()?;
    Some((index, &TABLE[index]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    const PERMISSIONS_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md");

    /// Every method of every service that the daemon serves, by path.
    fn served_methods() -> BTreeSet<String> {
        let sets = [
            gotgan_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = BTreeSet::new();
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let paths = service.method.iter().map(|method| {
                        format!("/{}.{}/{}", file.package(), service.name(), method.name())
                    });
                    methods.extend(paths);
                }
            }
        }
        methods
    }

    fn cell(allowed: bool) -> &'static str {
        if allowed { "yes" } else { "" }
    }

    /// The table as people read it.
    fn permissions_page() -> String {
        let mut page = String::from(PAGE_HEAD);
        for rule in TABLE {
            write!(page, "| `{}` | ", &rule.method[1..]).unwrap();
            for role in Role::ALL {
                write!(page, "{} | ", cell(rule.access.allows(role))).unwrap();
            }
            let nobody = cell(rule.access == Access::Public);
            let job = cell(rule.job_token || rule.access == Access::Public);
            writeln!(page, "{job} | {nobody} | {} |", cell(rule.stale)).unwrap();
        }
        page
    }

    const PAGE_HEAD: &str = "# Who may call what\n\n\
        Made from `scheduler/src/auth/table.rs`; a test fails when the two differ. Change the table, then run\n\
        `GOTGAN_WRITE_DOCS=1 cargo test -p gotgan-scheduler permissions` to write this page again.\n\n\
        A member sees and changes only jobs of its own projects and what is below them; the token of a running job\n\
        sees only its own project, and works only while its attempt runs. *Nobody* means a caller without a token\n\
        or certificate. *A standby* answers a call to people who take an answer that may be stale.\n\n\
        | method | admin | allocator | operator | member | worker | a job's token | nobody | a standby |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";

    #[test]
    fn every_served_method_has_a_row_and_every_row_a_method() {
        let rows: BTreeSet<String> = TABLE.iter().map(|rule| rule.method.to_owned()).collect();
        let served = served_methods();
        let missing: Vec<_> = served.difference(&rows).collect();
        let idle: Vec<_> = rows.difference(&served).collect();
        assert!(missing.is_empty(), "served, but not in the table: {missing:?}");
        assert!(idle.is_empty(), "in the table, but not served: {idle:?}");
    }

    #[test]
    fn the_table_is_sorted_so_that_lookups_find_every_row() {
        assert!(TABLE.is_sorted_by(|a, b| a.method < b.method));
        for (index, rule) in TABLE.iter().enumerate() {
            assert_eq!(find(rule.method).unwrap(), (index, rule));
        }
        assert_eq!(find("/gotgan.v1.Jobs/Delete"), None);
    }

    #[test]
    fn a_jobs_token_may_call_exactly_what_a_job_needs() {
        let calls: Vec<&str> =
            TABLE.iter().filter(|rule| rule.job_token).map(|rule| rule.method).collect();
        let needed = [
            "Cluster/WhoAmI",
            "Jobs/Explain",
            "Jobs/Get",
            "Jobs/Logs",
            "Jobs/StartStep",
            "Jobs/Watch",
        ];
        assert_eq!(calls, needed.map(|method| format!("/gotgan.v1.{method}")));
    }

    #[test]
    fn the_permissions_page_shows_every_method_for_every_role() {
        let page = permissions_page();
        if std::env::var_os("GOTGAN_WRITE_DOCS").is_some() {
            std::fs::write(PERMISSIONS_FILE, &page).unwrap();
        }
        let written = std::fs::read_to_string(PERMISSIONS_FILE).unwrap_or_default();
        assert!(
            written == page,
            "docs/permissions.md differs from the table; if the change is meant, run \
             GOTGAN_WRITE_DOCS=1 cargo test -p gotgan-scheduler permissions"
        );
    }
}
