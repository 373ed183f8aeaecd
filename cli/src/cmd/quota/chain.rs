//! The audit chain as it comes from the scheduler, checked entry by entry on this side with the core's own code.

use gotgan_core::amount::UnixMicros;
use gotgan_core::digest::Digest;
use gotgan_core::quota::audit::{AuditEntry, Replay, Source};
use gotgan_proto::v1;

use crate::{client::Client, error::Error, listing::PAGE_MAX};

/// Where the scheduler says that the chain ends, and what it says is in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim {
    pub head_seq: u64,
    pub head_digest: String,
    pub book_revision: u64,
    pub book_digest: String,
}

/// All entries about a subject, or all there are.
pub(super) async fn fetch(
    client: &Client,
    subject: &str,
) -> Result<(Vec<AuditEntry>, Claim), Error> {
    let (mut entries, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::AuditRequest {
            subject: subject.to_owned(),
            page: Some(v1::PageRequest { size: PAGE_MAX, token }),
        };
        let page = client.call(async |api| api.quota().audit(request.clone()).await).await?;
        for entry in page.entries {
            entries.push(entry_of(entry)?);
        }
        token = page.next_token;
        if token.is_empty() {
            let claim = Claim {
                head_seq: page.head_seq,
                head_digest: page.head_digest,
                book_revision: page.book_revision,
                book_digest: page.book_digest,
            };
            return Ok((entries, claim));
        }
    }
}

fn entry_of(entry: v1::AuditEntry) -> Result<AuditEntry, Error> {
    let Some(source) = Source::from_word(&entry.source) else {
        return Err(Error::Unexpected(format!("an audit entry of source {}", entry.source)));
    };
    Ok(AuditEntry {
        seq: entry.seq,
        revision: entry.revision,
        at: UnixMicros(entry.at_us),
        subject: entry.subject,
        source,
        body: entry.body.into(),
        digest: Digest(entry.digest.into()),
    })
}

/// Builds the book from the entries; what is wrong with the chain, if anything is.
pub(super) fn replay(entries: &[AuditEntry]) -> Result<Replay, String> {
    let mut replay = Replay::default();
    for entry in entries {
        replay.take(entry).map_err(|fault| fault.to_string())?;
    }
    replay.finish().map_err(|fault| fault.to_string())?;
    Ok(replay)
}

/// What differs between the chain and what the scheduler says; `None` if they agree.
///
/// # Errors
/// What is wrong with the chain.
pub(super) fn contradiction(replay: &Replay, claim: &Claim) -> Result<Option<String>, String> {
    let head = &replay.head;
    if (head.seq, head.digest.as_str()) != (claim.head_seq, claim.head_digest.as_str()) {
        return Ok(Some(format!(
            "the scheduler's chain ends with entry {} ({}), and the entries it gave with {} ({})",
            claim.head_seq, claim.head_digest, head.seq, head.digest
        )));
    }
    let book = replay.book().map_err(|fault| fault.to_string())?;
    if book.digest().as_str() != claim.book_digest {
        return Ok(Some(format!(
            "the tree in force (revision {}) is not the one that the chain leads to (revision {})",
            claim.book_revision, book.revision
        )));
    }
    Ok(None)
}
