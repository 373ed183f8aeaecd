//! Pages of listings: which one is asked for, and what of it fits into an answer.

use gotgan_proto::{MESSAGE_MAX_BYTES, v1};
use gotgan_store::Page;
use prost::Message;
use tonic::Status;

use super::error;

/// Entries of a page when none is asked for, and the most.
const DEFAULT: u32 = 100;
const MAX: u32 = 1_000;
/// Libraries for gRPC take messages of [`MESSAGE_MAX_BYTES`] unless they are told otherwise. What stands beside the entries
/// takes a little of that.
const ENTRIES_MAX_BYTES: usize = MESSAGE_MAX_BYTES - (64 << 10);

/// How many entries are asked for.
pub(super) fn size_of(page: &v1::PageRequest) -> Result<u32, Status> {
    match page.size {
        0 => Ok(DEFAULT),
        size if size <= MAX => Ok(size),
        _ => {
            let message = format!("a page has at most {MAX} entries");
            Err(error::invalid("page.size", "OUT_OF_RANGE", message))
        }
    }
}

/// The page asked for, of entries that have numbers.
pub(super) fn page_of(page: Option<v1::PageRequest>) -> Result<Page, Status> {
    let page = page.unwrap_or_default();
    let size = size_of(&page)?;
    let after = match page.token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| {
            error::invalid("page.token", "MALFORMED", "use the next_token of the page before")
        })?),
    };
    Ok(Page { size, after })
}

/// As many of these entries as an answer holds, the first in any case, and the token of the page after them: the name of the
/// last one, or nothing where the page was not full and all of it fits.
pub(super) fn fitting<M: Message>(
    mut entries: Vec<M>,
    size: u32,
    name: impl Fn(&M) -> String,
) -> (Vec<M>, String) {
    let is_full = entries.len() >= size as usize;
    let mut bytes = 0;
    let fits = |entry: &&M| {
        // Its length stands before it.
        bytes += entry.encoded_len() + 6;
        bytes <= ENTRIES_MAX_BYTES
    };
    let count = entries.iter().take_while(fits).count().max(1);
    let goes_on = is_full || count < entries.len();
    entries.truncate(count);
    let token = entries.last().filter(|_| goes_on).map(name).unwrap_or_default();
    (entries, token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn jobs(lengths: &[usize]) -> Vec<v1::Job> {
        let job = |(number, length): (usize, &usize)| v1::Job {
            job_id: number as u64 + 1,
            detail: "x".repeat(*length),
            ..Default::default()
        };
        lengths.iter().enumerate().map(job).collect()
    }

    fn told(lengths: &[usize], size: u32) -> (usize, String) {
        let (jobs, token) = fitting(jobs(lengths), size, |job| job.job_id.to_string());
        (jobs.len(), token)
    }

    #[test]
    fn a_page_ends_where_an_answer_is_full_and_goes_on_there() {
        let mib = 1 << 20;
        assert_eq!(told(&[mib; 10], 1_000), (3, "3".to_owned()));
        assert_eq!(told(&[5 * mib, 1], 1_000), (1, "1".to_owned()), "the first in any case");
        assert_eq!(told(&[5 * mib], 1_000), (1, String::new()));
    }

    #[test]
    fn a_page_that_fits_goes_on_where_it_has_as_many_entries_as_were_asked_for() {
        assert_eq!(told(&[10; 3], 4), (3, String::new()));
        assert_eq!(told(&[10; 4], 4), (4, "4".to_owned()));
        assert_eq!(told(&[], 4), (0, String::new()));
    }

    #[test]
    fn what_fits_is_no_larger_than_a_message_may_be() {
        let (jobs, _) = fitting(jobs(&[4_000; 2_000]), 1_000, |job| job.job_id.to_string());
        let answer = v1::ListJobsResponse { jobs, next_token: "x".repeat(100) };
        assert!(answer.encoded_len() <= MESSAGE_MAX_BYTES, "{}", answer.encoded_len());
        assert!(answer.encoded_len() > MESSAGE_MAX_BYTES * 9 / 10, "{}", answer.encoded_len());
    }

    #[test]
    fn a_page_has_a_hundred_entries_or_as_many_as_are_asked_for_up_to_a_thousand() {
        let of = |size, token: &str| {
            page_of(Some(v1::PageRequest { size, token: token.to_owned() }))
                .map(|page| (page.size, page.after))
                .map_err(|status| status.code())
        };
        assert_eq!(of(0, ""), Ok((100, None)));
        assert_eq!(of(1_000, "7"), Ok((1_000, Some(7))));
        assert_eq!(of(1_001, ""), Err(tonic::Code::InvalidArgument));
        assert_eq!(of(1, "seven"), Err(tonic::Code::InvalidArgument));
    }
}
