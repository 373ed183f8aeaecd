//! The forms of tokens, how they are made, and what of them is stored.
//!
//! | form | who holds it | what is stored |
//! | --- | --- | --- |
//! | `gotgan_<id>_<secret>` | a person or a program | the id and the SHA-256 of the secret |
//! | `gotgan-join_<secret>` | a worker, until it has joined | the SHA-256 of the whole token |
//! | `gotgan-job_<job>.<attempt>_<owner>_<project>_<mac>` | a running attempt | nothing: the MAC proves it |

use gotgan_core::amount::UnixMicros;
use gotgan_core::ids::{AttemptId, NodeName, ProjectPath, UserName};
use gotgan_store::{JoinTokenRecord, TokenRecord};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use super::hex;
use super::principal::Role;

const TOKEN_PREFIX: &str = "gotgan_";
const JOIN_PREFIX: &str = "gotgan-join_";
const JOB_PREFIX: &str = "gotgan-job_";

/// Bytes of the public id: short enough to read out, and collisions stay unlikely for millions of tokens.
const ID_BYTES: usize = 6;

/// Bytes of a secret: 256 bits, beyond any guessing.
const SECRET_BYTES: usize = 32;

/// Makes a token for `subject`. The text is the only place where its secret is; it is shown once and not kept.
/// `lifetime_s` is in seconds; `None` never runs out.
#[must_use]
pub fn new_token(
    subject: UserName,
    role: Role,
    projects: Vec<ProjectPath>,
    lifetime_s: Option<i64>,
    now: UnixMicros,
) -> (TokenRecord, String) {
    let id = hex::encode(&random::<ID_BYTES>());
    let secret = hex::encode(&random::<SECRET_BYTES>());
    let text = format!("{TOKEN_PREFIX}{id}_{secret}");
    let record = TokenRecord {
        id,
        secret_sha256: sha256(&secret),
        subject,
        role: role.word().to_owned(),
        projects,
        created: now,
        expires: lifetime_s.map(|seconds| now.plus_seconds(seconds)),
        revoked: None,
    };
    (record, text)
}

/// Makes a token with which one worker joins once, as `node` or under any free name, within `lifetime_s` seconds.
#[must_use]
pub fn new_join_token(
    node: Option<NodeName>,
    lifetime_s: i64,
    now: UnixMicros,
) -> (JoinTokenRecord, String) {
    let text = format!("{JOIN_PREFIX}{}", hex::encode(&random::<SECRET_BYTES>()));
    let record = JoinTokenRecord {
        secret_sha256: join_token_hash(&text),
        node,
        expires: now.plus_seconds(lifetime_s),
        used: None,
    };
    (record, text)
}

/// What of a join token is stored and looked up; any text has one, only a token that was made is found.
#[must_use]
pub fn join_token_hash(token: &str) -> String {
    sha256(token.trim())
}

/// A bearer token taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BearerToken<'a> {
    /// A person's or a program's.
    Person(PersonToken<'a>),
    /// A running attempt's.
    Job(JobToken<'a>),
}

/// `gotgan_<id>_<secret>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PersonToken<'a> {
    /// The public part.
    pub(super) id: &'a str,
    secret: &'a str,
}

/// `gotgan-job_…`: claims, and the MAC over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobToken<'a> {
    pub(super) attempt: AttemptId,
    pub(super) owner: UserName,
    pub(super) project: ProjectPath,
    claims: &'a str,
    mac: Vec<u8>,
}

impl<'a> BearerToken<'a> {
    /// `None` if the text is no token of any form.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        if let Some(claims) = text.strip_prefix(JOB_PREFIX) {
            return JobToken::parse(text, claims).map(BearerToken::Job);
        }
        let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        let is_hex = |part: &str, bytes: usize| hex::decode(part).is_some_and(|b| b.len() == bytes);
        let whole = is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES);
        whole.then_some(BearerToken::Person(PersonToken { id, secret }))
    }
}

impl PersonToken<'_> {
    /// Whether its secret is the one of the record, told in a time that does not depend on where they differ.
    pub(super) fn proves(&self, record: &TokenRecord) -> bool {
        sha256(self.secret).as_bytes().ct_eq(record.secret_sha256.as_bytes()).into()
    }
}

impl<'a> JobToken<'a> {
    fn parse(text: &'a str, after_prefix: &str) -> Option<Self> {
        let mut parts = after_prefix.split('_');
        let (attempt, owner) = (parts.next()?, parts.next()?);
        let (project, mac, None) = (parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let word = |part: &str| String::from_utf8(hex::decode(part)?).ok();
        Some(JobToken {
            attempt: attempt.parse().ok()?,
            owner: UserName::new(&word(owner)?).ok()?,
            project: ProjectPath::new(&word(project)?).ok()?,
            claims: &text[..text.len() - mac.len()],
            mac: hex::decode(mac)?,
        })
    }

    /// Whether the claims were signed with this key.
    pub(super) fn proves(&self, key: &hmac::Key) -> bool {
        hmac::verify(key, self.claims.as_bytes(), &self.mac).is_ok()
    }
}

/// The token of a running attempt.
pub(super) fn job_token(
    key: &hmac::Key,
    attempt: AttemptId,
    owner: &UserName,
    project: &ProjectPath,
) -> String {
    let (owner, project) = (owner.as_str().as_bytes(), project.as_str().as_bytes());
    let claims = format!("{JOB_PREFIX}{attempt}_{}_{}_", hex::encode(owner), hex::encode(project));
    let mac = hmac::sign(key, claims.as_bytes());
    claims + &hex::encode(mac.as_ref())
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// A secret nobody can guess, in hexadecimal.
///
/// # Panics
/// If the operating system has no randomness to give.
#[must_use]
pub fn random_secret() -> String {
    hex::encode(&random::<SECRET_BYTES>())
}

/// # Panics
/// If the operating system has no randomness to give: then no secret can be made at all.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use gotgan_core::ids::JobId;

    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000_000);

    fn kim() -> UserName {
        UserName::new("kim_h").unwrap()
    }

    #[test]
    fn a_new_token_proves_its_own_record_and_no_other() {
        let (record, text) = new_token(kim(), Role::Member, vec![], Some(60), NOW);
        let (other, _) = new_token(kim(), Role::Member, vec![], None, NOW);
        let Some(BearerToken::Person(token)) = BearerToken::parse(&text) else { panic!("{text}") };
        assert_eq!((token.id, record.id.len()), (record.id.as_str(), 12));
        assert!(token.proves(&record) && !token.proves(&other));
        assert_eq!((record.expires, other.expires), (Some(UnixMicros(61_000_000)), None));
    }

    #[test]
    fn the_record_does_not_hold_the_secret() {
        let (record, text) = new_token(kim(), Role::Admin, vec![], None, NOW);
        let secret = text.rsplit('_').next().unwrap();
        assert!(!format!("{record:?}").contains(secret));
    }

    #[test]
    fn a_join_token_is_found_by_its_hash_also_with_a_line_end() {
        let (record, text) = new_join_token(None, 60, NOW);
        assert_eq!(join_token_hash(&format!("{text}\n")), record.secret_sha256);
        assert_ne!(join_token_hash("gotgan-join_"), record.secret_sha256);
    }

    #[test]
    fn a_job_token_says_whose_attempt_it_is_and_proves_it_with_the_same_key_only() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"one");
        let attempt = AttemptId { job: JobId(17), number: 2 };
        let project = ProjectPath::new("public/nup").unwrap();
        let text = job_token(&key, attempt, &kim(), &project);
        let Some(BearerToken::Job(token)) = BearerToken::parse(&text) else { panic!("{text}") };
        assert_eq!((token.attempt, &token.owner, &token.project), (attempt, &kim(), &project));
        assert!(token.proves(&key));
        assert!(!token.proves(&hmac::Key::new(hmac::HMAC_SHA256, b"another")));
    }

    #[test]
    fn a_job_token_with_a_changed_claim_proves_nothing() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"one");
        let attempt = AttemptId { job: JobId(17), number: 2 };
        let text = job_token(&key, attempt, &kim(), &ProjectPath::new("a").unwrap());
        let changed = text.replace("_17.2_", "_18.2_");
        let Some(BearerToken::Job(token)) = BearerToken::parse(&changed) else { panic!() };
        assert!(!token.proves(&key));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let (_, text) = new_token(kim(), Role::Member, vec![], None, NOW);
        let cut = &text[..text.len() - 2];
        let bad =
            ["", "gotgan", "gotgan_", "gotgan_0123456789ab", "gotgan-job_1.1_aa_bb", cut, "ghp_x"];
        for text in bad {
            assert_eq!(BearerToken::parse(text), None, "{text:?}");
        }
    }
}
