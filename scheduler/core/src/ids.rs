//! Ids and names as types of their own, so that no call can mix them up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Number of a job; sequential, assigned by the leader when it stores the job, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try of a job; numbers count from 1 and only increase. Shown as `job.attempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job tried.
    pub job: JobId,
    /// Which try, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.number)
    }
}

/// An attempt id that is not of the form `job.attempt`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not of the form job.attempt, as in 17.1")]
pub struct BadAttemptId(pub String);

impl FromStr for AttemptId {
    type Err = BadAttemptId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('.').and_then(|(job, number)| {
            Some(AttemptId { job: JobId(job.parse().ok()?), number: number.parse().ok()? })
        });
        parts.ok_or_else(|| BadAttemptId(text.to_owned()))
    }
}

/// Number of a leadership; every write and every order carries it, and an older one is refused.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} \"{text}\" must be {rule}")]
pub struct BadName {
    /// What the name was for.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl BadName {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        BadName { kind, text: text.chars().take(80).collect(), rule }
    }
}

/// Defines a cheap-to-clone name type with a rule that its constructor enforces.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule of this kind of name.
            ///
            /// # Errors
            /// [`BadName`] with the rule that is broken.
            pub fn new(text: &str) -> Result<Self, BadName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err(BadName::new($kind, text, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Whether `text` has 1 to `max` characters, all lower-case letters, digits or `-`, none of the ends a `-`.
fn is_label(text: &str, max: usize) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= max
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

name_type!(
    /// Name of a node, a host name label.
    NodeName,
    "node name",
    "1 to 63 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 63)
);

name_type!(
    /// Class of a GPU, for instance `b200`.
    GpuClass,
    "GPU class",
    "1 to 32 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 32)
);

name_type!(
    /// Name of a cluster, one fabric.
    ClusterName,
    "cluster name",
    "1 to 63 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 63)
);

name_type!(
    /// Name of a delivery of GPUs.
    LotName,
    "lot name",
    "1 to 63 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 63)
);

name_type!(
    /// Name of a reservation.
    ReservationName,
    "reservation name",
    "1 to 63 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 63)
);

name_type!(
    /// Name of a loan of guarantees.
    LoanName,
    "loan name",
    "1 to 63 lower-case letters, digits or inner hyphens",
    |text| is_label(text, 63)
);

name_type!(
    /// Who a person or a program is, as its token says.
    UserName,
    "user name",
    "1 to 64 letters, digits or one of . _ @ -",
    |text| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        (1..=64).contains(&text.len()) && text.chars().all(plain)
    }
);

impl UserName {
    /// The scheduler, where it does by itself what people do.
    #[must_use]
    pub fn scheduler() -> Self {
        UserName("the-scheduler".into())
    }
}

name_type!(
    /// UUID of a GPU (or of a share of one), as its driver names it.
    GpuUuid,
    "GPU UUID",
    "1 to 96 printable ASCII characters without spaces or commas",
    |text| {
        (1..=96).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && c != ',')
    }
);

name_type!(
    /// Key chosen by a client so that a repeated request is known as such.
    IdempotencyKey,
    "idempotency key",
    "1 to 128 printable ASCII characters without spaces",
    |text| (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
);

name_type!(
    /// Path of a node of the quota tree, as in `public/nup/startup-042`.
    ProjectPath,
    "project path",
    "1 to 16 parts of lower-case letters, digits or inner hyphens, joined by /, at most 255 characters",
    |text| {
        text.len() <= 255 && text.split('/').count() <= 16 && text.split('/').all(|part| is_label(part, 63))
    }
);

impl IdempotencyKey {
    /// Whether it is a key that tasks of arrays have, which no client may choose.
    #[must_use]
    pub fn is_of_task(&self) -> bool {
        self.as_str().starts_with(TASK_KEY)
    }

    /// The key under which a task of an array is stored: the client's own names the array.
    #[must_use]
    pub fn of_task(task: JobId) -> Self {
        IdempotencyKey(format!("{TASK_KEY}{task}").into())
    }
}

/// How keys of tasks begin.
const TASK_KEY: &str = "task-of-an-array/";

impl ProjectPath {
    /// The path itself, then its parent, up to the root of its tree.
    pub fn self_and_ancestors(&self) -> impl Iterator<Item = &str> {
        let mut rest = Some(self.as_str());
        std::iter::from_fn(move || {
            let path = rest?;
            rest = path.rfind('/').map(|slash| &path[..slash]);
            Some(path)
        })
    }

    /// The path above, if there is one.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.self_and_ancestors().nth(1)
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &str) -> bool {
        self.self_and_ancestors().any(|path| path == other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_yields_itself_and_every_path_above() {
        let path = ProjectPath::new("public/nup/startup-1").unwrap();
        let chain: Vec<&str> = path.self_and_ancestors().collect();
        assert_eq!(chain, ["public/nup/startup-1", "public/nup", "public"]);
        assert!(path.is_within("public/nup") && !path.is_within("public/nu"));
    }

    #[test]
    fn names_that_break_their_rule_are_refused_with_the_rule() {
        for bad in ["", "-a", "a-", "Node", "a_b", "a b"] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/B"] {
            assert!(ProjectPath::new(bad).is_err(), "{bad:?}");
        }
        let message = GpuClass::new("B200").unwrap_err().to_string();
        assert!(message.contains("lower-case"), "{message}");
    }

    #[test]
    fn an_attempt_id_reads_back_what_it_prints() {
        let id = AttemptId { job: JobId(17), number: 2 };
        assert_eq!(id.to_string().parse::<AttemptId>().unwrap(), id);
        assert!("17".parse::<AttemptId>().is_err());
    }
}
