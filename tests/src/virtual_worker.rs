//! A worker in this process: it speaks the workers' protocol like the real one, but what it runs is a script of
//! the test and takes no more than a timer. Thousands fit in one process.
//!
//! [`journal`] is the node's memory and its behaviour (no IO); [`link`] is how it gets its certificate and reaches
//! the scheduler; [`session`] is the stream. Cutting the stream keeps the journal, as a daemon killed and started
//! again does; [`VirtualWorker::lose_everything`] forgets it, as a machine that was reinstalled does.

pub mod board;
mod inventory;
pub mod journal;
pub mod link;
pub(crate) mod session;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinHandle;

pub use board::Board;
pub use inventory::{CPU_MILLI, MEMORY_MIB, gpus, inventory, readings};
pub use journal::{Journal, Play, Run, Script};
pub use link::Link;

/// A node that exists only in this process.
#[derive(Debug)]
pub struct VirtualWorker {
    name: String,
    journal: Arc<Mutex<Journal>>,
    link: Link,
    session: Option<JoinHandle<()>>,
}

impl VirtualWorker {
    /// A node that has joined already; it begins to speak at once.
    #[must_use]
    pub fn start(link: Link, journal: Journal) -> Self {
        let name = journal.inventory().node.clone();
        let mut worker = Self { name, journal: Arc::new(Mutex::new(journal)), link, session: None };
        worker.connect();
        worker
    }

    /// Name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins to speak (again), with all it remembers.
    pub fn connect(&mut self) {
        let session = session::run(self.link.clone(), Arc::clone(&self.journal));
        self.session = Some(tokio::spawn(session));
    }

    /// Speaks to another scheduler from now on.
    pub fn reconnect_to(&mut self, link: &Link) {
        self.cut();
        self.link = link.clone();
        self.connect();
    }

    /// Falls silent, as if its daemon had been killed or its cable pulled: jobs go on.
    pub fn cut(&mut self) {
        if let Some(session) = self.session.take() {
            session.abort();
        }
    }

    /// Falls silent and forgets all attempts.
    pub fn lose_everything(&mut self) {
        self.cut();
        self.journal().forget_all(session::now_us());
    }

    /// Everything it was told to run, in that order.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.journal().runs().to_vec()
    }

    /// Orders it refused because they came from an older leader.
    #[must_use]
    pub fn refused_orders(&self) -> u64 {
        self.journal().refused_orders()
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }
}

impl Drop for VirtualWorker {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A panic elsewhere does not make the journal wrong.
fn lock(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
