//! Tells who a request comes from, from the tokens it was handed.
//!
//! Holds a copy of all token records in memory; whoever commits a change of one to the store hands it in here
//! afterwards, and it counts from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{AttemptId, NodeName, ProjectPath, UserName};
use gotgan_store::TokenRecord;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::hmac;

use super::error::AuthError;
use super::principal::{Principal, PrincipalKind, Role};
use super::token::{BearerToken, JobToken, PersonToken, job_token};

/// Whether an attempt still runs.
pub type JobCheck = Box<dyn Fn(AttemptId) -> bool + Send + Sync>;

/// Knows the tokens. Clones share what they know.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    job_key: hmac::Key,
    tokens: RwLock<BTreeMap<String, TokenRecord>>,
    job_check: RwLock<Arc<dyn Fn(AttemptId) -> bool + Send + Sync>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("tokens", &read(&self.inner.tokens).len()).finish()
    }
}

impl Authenticator {
    /// Knows no token yet. `job_secret` signs the tokens of jobs and must be the same for every leader. Until a
    /// job check is set, no job's token is honoured.
    #[must_use]
    pub fn new(job_secret: String) -> Self {
        let inner = Inner {
            job_key: hmac::Key::new(hmac::HMAC_SHA256, job_secret.as_bytes()),
            tokens: RwLock::default(),
            job_check: RwLock::new(Arc::new(|_| false)),
        };
        Authenticator { inner: Arc::new(inner) }
    }

    /// How to tell whether an attempt still runs. Called for every request with a job's token: it must be quick.
    pub fn set_job_check(&self, check: JobCheck) {
        *write(&self.inner.job_check) = Arc::from(check);
    }

    /// Forgets all tokens but these.
    pub fn replace(&self, tokens: Vec<TokenRecord>) {
        let by_id = tokens.into_iter().map(|token| (token.id.clone(), token)).collect();
        *write(&self.inner.tokens) = by_id;
    }

    /// Takes a new or changed token.
    pub fn upsert(&self, token: TokenRecord) {
        write(&self.inner.tokens).insert(token.id.clone(), token);
    }

    /// All tokens by subject and id, revoked and expired ones included.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenRecord> {
        let mut tokens: Vec<TokenRecord> = read(&self.inner.tokens).values().cloned().collect();
        tokens.sort_by(|a, b| (&a.subject, &a.id).cmp(&(&b.subject, &b.id)));
        tokens
    }

    /// A token for a running attempt: good for as long as the attempt runs.
    #[must_use]
    pub fn mint_job_token(
        &self,
        attempt: &AttemptId,
        owner: &UserName,
        project: &ProjectPath,
    ) -> String {
        job_token(&self.inner.job_key, *attempt, owner, project)
    }

    /// A number of this cluster's own, the same after a restart: two clusters that share a machine differ in it.
    #[must_use]
    pub fn cluster_number(&self) -> u64 {
        let mac = hmac::sign(&self.inner.job_key, b"cluster number");
        mac.as_ref().iter().take(4).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Who sent these headers over a connection of `peer_node`. A token counts before a certificate. `None` if
    /// there is neither.
    ///
    /// # Errors
    /// [`AuthError`] if a token was sent that does not count; a certificate does not make up for it.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        peer_node: Option<NodeName>,
        now: UnixMicros,
    ) -> Result<Option<Principal>, AuthError> {
        match bearer(headers)? {
            Some(BearerToken::Person(token)) => self.person(token, now).map(Some),
            Some(BearerToken::Job(token)) => self.job(token).map(Some),
            None => peer_node.map(node_principal).transpose(),
        }
    }

    /// Whether what the principal was known by still counts; for streams that outlive the first check.
    #[must_use]
    pub fn still_valid(&self, principal: &Principal, now: UnixMicros) -> bool {
        match &principal.kind {
            PrincipalKind::Token { id } => {
                read(&self.inner.tokens).get(id).is_some_and(|token| usable(token, now).is_ok())
            }
            PrincipalKind::Job(attempt) => self.runs(*attempt),
            PrincipalKind::Node(_) => principal.expires.is_none_or(|expires| now < expires),
        }
    }

    /// The secret is checked first: whether a token is expired or revoked is told to its holder only.
    fn person(&self, token: PersonToken<'_>, now: UnixMicros) -> Result<Principal, AuthError> {
        let tokens = read(&self.inner.tokens);
        let record = tokens.get(token.id).filter(|record| token.proves(record));
        let record = record.ok_or(AuthError::UnknownToken)?;
        let role = usable(record, now)?;
        Ok(Principal {
            subject: record.subject.clone(),
            role,
            projects: record.projects.clone(),
            expires: record.expires,
            kind: PrincipalKind::Token { id: record.id.clone() },
        })
    }

    fn job(&self, token: JobToken<'_>) -> Result<Principal, AuthError> {
        if !token.proves(&self.inner.job_key) {
            return Err(AuthError::UnknownToken);
        }
        if !self.runs(token.attempt) {
            return Err(AuthError::JobEnded);
        }
        Ok(Principal {
            subject: token.owner,
            role: Role::Member,
            projects: vec![token.project],
            expires: None,
            kind: PrincipalKind::Job(token.attempt),
        })
    }

    /// The check runs outside our lock, since it takes locks of its own.
    fn runs(&self, attempt: AttemptId) -> bool {
        let check = Arc::clone(&read(&self.inner.job_check));
        check(attempt)
    }
}

/// The role of a token that counts at `now`.
fn usable(token: &TokenRecord, now: UnixMicros) -> Result<Role, AuthError> {
    if token.revoked.is_some() {
        return Err(AuthError::RevokedToken);
    }
    if token.expires.is_some_and(|expires| expires <= now) {
        return Err(AuthError::ExpiredToken);
    }
    let role = Role::from_word(&token.role).ok().filter(|role| role.may_have_token());
    role.ok_or(AuthError::UnusableToken)
}

fn node_principal(node: NodeName) -> Result<Principal, AuthError> {
    // Every node name is also a valid user name; should the rules ever part, the node is turned away.
    let subject = UserName::new(node.as_str()).map_err(|_| AuthError::ForeignCertificate)?;
    let kind = PrincipalKind::Node(node);
    Ok(Principal { subject, role: Role::Worker, projects: Vec::new(), expires: None, kind })
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Result<Option<BearerToken<'_>>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| AuthError::MalformedToken)?;
    let (scheme, token) = text.split_once(' ').ok_or(AuthError::MalformedToken)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::MalformedToken);
    }
    BearerToken::parse(token.trim()).map(Some).ok_or(AuthError::MalformedToken)
}

/// A panic elsewhere leaves whole records behind, so a poisoned lock is still good.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_core::ids::JobId;

    use super::super::token::new_token;
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000);

    fn headers(token: &str) -> HeaderMap {
        [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
    }

    fn member(lifetime_s: Option<i64>) -> (TokenRecord, String) {
        let projects = vec![ProjectPath::new("public/nup").unwrap()];
        new_token(UserName::new("kim").unwrap(), Role::Member, projects, lifetime_s, NOW)
    }

    fn knowing(token: &TokenRecord) -> Authenticator {
        let authenticator = Authenticator::new("secret".into());
        authenticator.upsert(token.clone());
        authenticator
    }

    #[test]
    fn a_good_token_names_its_subject_role_and_projects() {
        let (record, text) = member(Some(60));
        let found = knowing(&record).authenticate(&headers(&text), None, NOW).unwrap().unwrap();
        assert_eq!((found.subject.as_str(), found.role), ("kim", Role::Member));
        assert_eq!((found.projects, found.expires), (record.projects, record.expires));
        assert_eq!(found.kind, PrincipalKind::Token { id: record.id });
    }

    #[test]
    fn an_expired_or_revoked_token_is_told_apart_from_an_unknown_one() {
        let (mut record, text) = member(Some(60));
        let authenticator = knowing(&record);
        let ask = |now| authenticator.authenticate(&headers(&text), None, now).unwrap_err();
        assert_eq!(ask(NOW.plus_seconds(60)), AuthError::ExpiredToken);
        record.revoked = Some(NOW);
        authenticator.upsert(record);
        assert_eq!(ask(NOW), AuthError::RevokedToken);
        authenticator.replace(vec![]);
        assert_eq!(ask(NOW), AuthError::UnknownToken);
    }

    #[test]
    fn whoever_does_not_hold_the_secret_learns_nothing_about_a_token() {
        let (mut record, _) = member(None);
        record.revoked = Some(NOW);
        let guess = format!("gotgan_{}_{}", record.id, "00".repeat(32));
        let error = knowing(&record).authenticate(&headers(&guess), None, NOW).unwrap_err();
        assert_eq!(error, AuthError::UnknownToken);
    }

    #[test]
    fn a_token_with_a_workers_or_an_unknown_role_is_not_honoured() {
        for role in ["worker", "root"] {
            let (mut record, text) = member(None);
            record.role = role.to_owned();
            let error = knowing(&record).authenticate(&headers(&text), None, NOW).unwrap_err();
            assert_eq!(error, AuthError::UnusableToken, "{role}");
        }
    }

    #[test]
    fn headers_that_hold_no_single_bearer_token_are_malformed() {
        let (record, text) = member(None);
        let authenticator = knowing(&record);
        let mut twice = headers(&text);
        twice.append(AUTHORIZATION, format!("Bearer {text}").parse().unwrap());
        let basic = [(AUTHORIZATION, "Basic a2ltOmtpbQ==".parse().unwrap())].into_iter().collect();
        for bad in [twice, basic, headers(""), headers("abc")] {
            let error = authenticator.authenticate(&bad, None, NOW).unwrap_err();
            assert_eq!(error, AuthError::MalformedToken, "{bad:?}");
        }
    }

    #[test]
    fn without_a_token_the_certificate_counts_and_without_both_nobody_is_known() {
        let authenticator = Authenticator::new("secret".into());
        let node = NodeName::new("gpu-1").unwrap();
        let found = authenticator.authenticate(&HeaderMap::new(), Some(node.clone()), NOW);
        assert_eq!(found.unwrap().unwrap().kind, PrincipalKind::Node(node.clone()));
        assert_eq!(authenticator.authenticate(&HeaderMap::new(), None, NOW), Ok(None));
        let bad = authenticator.authenticate(&headers("abc"), Some(node), NOW);
        assert_eq!(bad, Err(AuthError::MalformedToken));
    }

    #[test]
    fn a_jobs_token_counts_while_its_attempt_runs() {
        let authenticator = Authenticator::new("secret".into());
        let attempt = AttemptId { job: JobId(7), number: 1 };
        let (owner, project) = (UserName::new("kim").unwrap(), ProjectPath::new("a/b").unwrap());
        let token = headers(&authenticator.mint_job_token(&attempt, &owner, &project));
        let ask = || authenticator.authenticate(&token, None, NOW);
        assert_eq!(ask(), Err(AuthError::JobEnded), "no check is set yet");
        authenticator.set_job_check(Box::new(move |asked| asked == attempt));
        let found = ask().unwrap().unwrap();
        assert_eq!((&found.subject, &found.projects), (&owner, &vec![project]));
        assert!(authenticator.still_valid(&found, NOW));
        authenticator.set_job_check(Box::new(|_| false));
        assert_eq!(ask(), Err(AuthError::JobEnded));
        assert!(!authenticator.still_valid(&found, NOW));
    }

    #[test]
    fn two_clusters_have_different_numbers_and_keep_them() {
        let number = |secret: &str| Authenticator::new(secret.into()).cluster_number();
        assert_eq!(number("one"), number("one"));
        assert_ne!(number("one"), number("two"));
    }

    #[test]
    fn a_stream_learns_that_its_token_was_revoked_or_ran_out() {
        let (mut record, text) = member(Some(60));
        let authenticator = knowing(&record);
        let found = authenticator.authenticate(&headers(&text), None, NOW).unwrap().unwrap();
        assert!(authenticator.still_valid(&found, NOW));
        assert!(!authenticator.still_valid(&found, NOW.plus_seconds(60)));
        record.revoked = Some(NOW);
        authenticator.upsert(record);
        assert!(!authenticator.still_valid(&found, NOW));
    }

    #[test]
    fn tokens_are_listed_by_subject_then_id_and_debug_shows_none_of_them() {
        let (first, _) = member(None);
        let (mut second, _) = member(None);
        second.subject = UserName::new("ahn").unwrap();
        let authenticator = Authenticator::new("secret".into());
        authenticator.replace(vec![first.clone(), second.clone()]);
        assert_eq!(authenticator.tokens(), vec![second, first.clone()]);
        assert!(!format!("{authenticator:?}").contains(&first.secret_sha256));
    }
}
