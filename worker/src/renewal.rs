//! A certificate is renewed while it still counts: by it, over the line to the leader, for the key that the node has. A node
//! that is there all the time then stays in the cluster, and nobody joins it anew each year.

use std::path::PathBuf;
use std::time::Duration;

use gotgan_proto::v1::workers_client::WorkersClient;
use gotgan_proto::v1::{RenewRequest, RenewResponse};
use tonic::transport::Channel;
use x509_parser::pem::Pem;

use crate::clock::now_us;
use crate::join::{self, JoinError};

/// A scheduler that takes longer to sign a certificate hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Clocks are set and machines sleep, so that no pause is longer.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Two tries, and the moments at which nodes that joined together begin, are apart by this part of a certificate's life, and
/// by [`LOOK_EVERY`] at most.
const PARTS: i64 = 24;

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// It cannot be read, asked for, or stored.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The scheduler said no.
    #[error("the scheduler refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// The scheduler did not answer in time.
    #[error("the scheduler does not answer")]
    Silent,
    /// What was given would not serve as long as what is there.
    #[error("the scheduler gave a certificate that is no better")]
    NoBetter,
    /// What is there is none.
    #[error("the certificate that is there cannot be read; join again")]
    Unreadable,
}

/// When a certificate counts, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// From then on.
    pub from_s: i64,
    /// Until then.
    pub until_s: i64,
}

impl Term {
    /// Of the first certificate of a PEM text; `None` if there is none.
    #[must_use]
    pub fn of(certificate_pem: &str) -> Option<Self> {
        let pem = Pem::iter_from_buffer(certificate_pem.as_bytes()).next()?.ok()?;
        let certificate = pem.parse_x509().ok()?;
        let validity = certificate.validity();
        let (from_s, until_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self { from_s, until_s })
    }

    /// From when on it is to be renewed: once a third of its life is left. Nodes that joined in the same hour come one after
    /// the other; `chance` is below 1000 and says when this one does.
    fn due_s(self, chance: u32) -> i64 {
        let third = self.until_s.saturating_sub(self.from_s) / 3;
        let later_ms = self.pause().as_millis() * u128::from(chance.min(1_000)) / 1_000;
        self.until_s - third + i64::try_from(later_ms / 1_000).unwrap_or(0)
    }

    /// Between two tries.
    fn pause(self) -> Duration {
        let part_s = self.until_s.saturating_sub(self.from_s) / PARTS;
        Duration::from_secs(u64::try_from(part_s).unwrap_or(0).max(1)).min(LOOK_EVERY)
    }

    /// How long to rest until then, in pieces.
    fn rest(self, now_s: i64, chance: u32) -> Option<Duration> {
        let left_s = u64::try_from(self.due_s(chance) - now_s).ok().filter(|left_s| *left_s > 0);
        left_s.map(|left_s| Duration::from_secs(left_s).min(LOOK_EVERY))
    }
}

/// The certificate of a node, where it keeps it.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Name of the node.
    pub node: String,
    /// Where it lies.
    pub state_directory: PathBuf,
}

impl Renewal {
    /// When what lies there counts.
    ///
    /// # Errors
    /// [`RenewalError::Unreadable`] and [`RenewalError::Join`].
    pub fn term(&self) -> Result<Term, RenewalError> {
        let stored = join::stored_certificate(&self.state_directory)?;
        stored.and_then(|pem| Term::of(&pem)).ok_or(RenewalError::Unreadable)
    }

    /// Renews it again and again over this line, for ever. `chance` is below 1000.
    pub async fn keep(&self, client: WorkersClient<Channel>, chance: u32) {
        loop {
            let pause = match self.look(client.clone(), chance).await {
                Ok(pause) => pause,
                Err((error, term)) => {
                    let until_s = term.map(|term| term.until_s);
                    tracing::warn!(%error, until_s, "the certificate of this node is not renewed");
                    term.map_or(LOOK_EVERY, Term::pause)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews it if that is due; how long to rest then.
    async fn look(
        &self,
        client: WorkersClient<Channel>,
        chance: u32,
    ) -> Result<Duration, (RenewalError, Option<Term>)> {
        let term = self.term().map_err(|error| (error, None))?;
        if let Some(rest) = term.rest(now_us() / 1_000_000, chance) {
            return Ok(rest);
        }
        let renewed = self.renew(client, term).await.map_err(|error| (error, Some(term)))?;
        tracing::info!(until_s = renewed.until_s, "the certificate of this node was renewed");
        Ok(renewed.pause())
    }

    async fn renew(
        &self,
        mut client: WorkersClient<Channel>,
        term: Term,
    ) -> Result<Term, RenewalError> {
        let certificate_request_pem = join::request_again(&self.state_directory, &self.node)?;
        let asked = client.renew(RenewRequest { certificate_request_pem });
        let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await;
        let answer = answer.map_err(|_| RenewalError::Silent)?;
        let answer = answer.map_err(|status| RenewalError::Refused(Box::new(status)))?;
        let RenewResponse { certificate_pem, ca_pem } = answer.into_inner();
        let better = Term::of(&certificate_pem).filter(|renewed| renewed.until_s > term.until_s);
        let renewed = better.filter(|_| !ca_pem.is_empty()).ok_or(RenewalError::NoBetter)?;
        join::keep(&self.state_directory, &ca_pem, &certificate_pem)?;
        Ok(renewed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY_S: i64 = 86_400;
    const YEAR: Term = Term { from_s: 0, until_s: 366 * DAY_S };

    #[test]
    fn a_certificate_of_a_year_is_renewed_when_four_months_are_left() {
        assert_eq!(YEAR.rest(244 * DAY_S, 0), None);
        assert_eq!(YEAR.rest(244 * DAY_S - 60, 0), Some(Duration::from_secs(60)));
        assert_eq!(YEAR.rest(DAY_S, 0), Some(LOOK_EVERY), "clocks may be set meanwhile");
        assert_eq!(YEAR.rest(400 * DAY_S, 999), None, "late is better than never");
    }

    #[test]
    fn nodes_that_joined_together_come_within_an_hour_and_not_at_once() {
        let begins = |chance| YEAR.due_s(chance) - 244 * DAY_S;
        assert_eq!([0, 500, 999].map(begins), [0, 1_800, 3_596]);
    }

    #[test]
    fn one_that_lasts_a_minute_is_tried_for_every_few_seconds() {
        let brief = Term { from_s: 1_000, until_s: 1_060 };
        assert_eq!((brief.due_s(0), brief.due_s(1_000)), (1_040, 1_042));
        assert_eq!(brief.pause(), Duration::from_secs(2));
        assert_eq!(Term { from_s: 5, until_s: 5 }.pause(), Duration::from_secs(1), "never at once");
    }

    #[test]
    fn what_is_no_certificate_has_no_term() {
        assert_eq!(Term::of(""), None);
        assert_eq!(
            Term::of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            None
        );
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let pem = params.self_signed(&key).unwrap().pem();
        let term = Term { from_s: 1_767_225_600, until_s: 1_798_761_600 };
        assert_eq!(Term::of(&pem), Some(term));
    }
}
