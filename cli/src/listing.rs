//! Listings that come page by page.

use gotgan_proto::v1;

use crate::{client::Client, error::Error};

/// Most entries of a page. The scheduler may send fewer and say that it goes on.
pub const PAGE_MAX: u32 = 1000;

/// Jobs to ask for, page by page.
#[derive(Debug)]
pub struct JobPages {
    /// Which; its page is set for each call.
    pub request: v1::ListJobsRequest,
    /// Most entries of a page.
    pub size: u32,
    /// Of the page to begin with; empty: the first.
    pub token: String,
    /// Every page, not only that.
    pub all: bool,
}

impl JobPages {
    /// Hands on each page once the next one has been asked for, so that it is read while the scheduler looks for that.
    /// Comes back with where to go on, if there is more.
    ///
    /// # Errors
    /// That of the first call that fails for good; the pages before it were handed on.
    pub async fn each(
        mut self,
        client: &Client,
        mut read: impl FnMut(Vec<v1::Job>),
    ) -> Result<Option<String>, Error> {
        let mut page = Vec::new();
        loop {
            self.request.page = Some(v1::PageRequest { size: self.size, token: self.token });
            let request = &self.request;
            let next = client.call(async |api| api.jobs().list(request.clone()).await);
            let read_last = async {
                // Whatever else is to do begins first.
                tokio::task::yield_now().await;
                read(std::mem::take(&mut page));
            };
            let (answer, ()) = tokio::join!(next, read_last);
            let answer = answer?;
            (page, self.token) = (answer.jobs, answer.next_token);
            if !self.all || self.token.is_empty() {
                break;
            }
        }
        read(page);
        Ok((!self.token.is_empty()).then_some(self.token))
    }
}
