//! What a play is made of: hosts on which schedulers live and die, nodes, people, a database, and what they share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gotgan_core::policy::Policy;
use gotgan_scheduler::api::{Services, WorkersService};
use gotgan_scheduler::assembly::{Assembly, Ground};
use gotgan_scheduler::auth::Authenticator;
use gotgan_scheduler::clock;
use gotgan_scheduler::config::{Health, Timing};
use gotgan_scheduler::loops;
use gotgan_scheduler::metrics::Metrics;
use gotgan_store::Store;
use gotgan_store::memory::Memory;
use tokio_util::sync::CancellationToken;

use crate::database::Way;
use crate::draw;
use crate::executor::{self, Group};

/// One that leads and answers.
#[derive(Debug, Clone)]
pub struct Served {
    /// Its life.
    pub group: Group,
    /// What answers calls.
    pub services: Arc<Services>,
    /// What workers speak with.
    pub workers: WorkersService,
}

/// What is to be done between two steps.
#[derive(Debug, Clone, Copy)]
pub enum Due {
    /// A life has ended by itself.
    Over(usize, Group),
    /// A pause is over.
    Resume(Group),
}

/// What all share.
#[derive(Debug)]
pub struct Stage {
    /// The database.
    pub memory: Memory,
    /// Numbers of the site.
    pub policy: Arc<Policy>,
    /// Beats and patience.
    pub timing: Timing,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// GPUs of all nodes.
    pub gpus: u64,
    /// By host: the life that there is.
    pub lives: RefCell<Vec<Option<Group>>>,
    /// By host: what the life there has, of which nothing is to stay when it is over.
    kept: RefCell<Vec<Option<Arc<Services>>>>,
    /// By host: who answers there.
    pub served: RefCell<Vec<Option<Served>>>,
    /// What is to be done.
    pub due: RefCell<Vec<Due>>,
    /// People may begin.
    pub open: Cell<bool>,
    /// Nothing breaks any more, and nobody wants anything new.
    pub calm: Cell<bool>,
    count: Cell<u32>,
}

impl Stage {
    /// A stage on which nobody is yet.
    #[must_use]
    pub fn new(timing: Timing, nodes: Vec<String>, gpus: u64) -> Rc<Self> {
        Rc::new(Stage {
            memory: Memory::new(),
            policy: Arc::new(Policy::default()),
            timing,
            nodes,
            gpus,
            lives: RefCell::default(),
            kept: RefCell::default(),
            served: RefCell::default(),
            due: RefCell::default(),
            open: Cell::new(false),
            calm: Cell::new(false),
            count: Cell::new(0),
        })
    }

    /// One that says it leads, as somebody finds who asks around.
    #[must_use]
    pub fn leader(&self) -> Option<Served> {
        let served = self.served.borrow();
        let present: Vec<&Served> = served.iter().flatten().collect();
        draw::of(&present).map(|served| (*served).clone())
    }

    /// Begins a life on a host.
    pub fn begin(self: &Rc<Self>, host: usize) {
        let group = Group::Scheduler(self.count.get());
        match self.lives.borrow_mut().get_mut(host) {
            // Only one can have the host's directory.
            Some(Some(_)) | None => return,
            Some(life) => *life = Some(group),
        }
        self.count.set(self.count.get() + 1);
        let stage = Rc::clone(self);
        executor::spawn(group, async move {
            stage.live(host, group).await;
            stage.due.borrow_mut().push(Due::Over(host, group));
        });
    }

    /// One more host.
    pub fn add_host(self: &Rc<Self>) {
        let host = self.lives.borrow().len();
        self.lives.borrow_mut().push(None);
        self.kept.borrow_mut().push(None);
        self.served.borrow_mut().push(None);
        self.begin(host);
    }

    /// The life there is over. Returns which it was; its tasks are to be dropped before [`Self::close`].
    pub fn end(&self, host: usize) -> Option<Group> {
        self.vacate(host);
        self.lives.borrow_mut().get_mut(host).and_then(Option::take)
    }

    /// Its connections end with it, and what it had is forgotten.
    pub fn close(&self, host: usize) {
        if let Some(kept) = self.kept.borrow_mut().get_mut(host).and_then(Option::take) {
            kept.dispatcher.close();
            // It holds the dispatcher, which holds it.
            kept.authenticator.set_job_check(Box::new(|_| false));
        }
    }

    /// Nobody answers there any more.
    fn vacate(&self, host: usize) {
        if let Some(served) = self.served.borrow_mut().get_mut(host) {
            *served = None;
        }
    }

    /// Begins another life after a while.
    pub fn begin_later(self: &Rc<Self>, host: usize, after: Duration) {
        let stage = Rc::clone(self);
        executor::spawn(Group::Stage, async move {
            clock::sleep(after).await;
            stage.begin(host);
        });
    }

    /// What a scheduler does from its start to its end, as the program does it, without sockets and files.
    async fn live(self: &Rc<Self>, host: usize, group: Group) {
        let store: Arc<dyn Store> = Arc::new(Way(self.memory.clone()));
        let (stop, lost) = (CancellationToken::new(), CancellationToken::new());
        let (name, lease_ms) = (format!("host-{host}"), self.timing.leader_lease_ms);
        let terms = loops::leadership::Terms { lease_ms, watches: true };
        let take = loops::leadership::take(&store, (&name, &name), terms, &stop, |_| {});
        let Ok(Some(leadership)) = take.await else { return };
        let epoch = leadership.epoch;
        let ground = Ground {
            store: Arc::clone(&store),
            epoch,
            policy: Arc::clone(&self.policy),
            timing: self.timing,
            authenticator: Authenticator::new("secret".to_owned()),
            identity: None,
            address: name,
            metrics: Metrics::new(),
        };
        let Ok(assembly) = ground.assemble().await else { return };
        // Nobody looks ahead: what that tells decides nothing.
        let Assembly { services, writer, planner, estimator: _ } = assembly;
        executor::spawn_following(group, planner.walk(services.writer.clone()));
        let ended = lost.clone();
        executor::spawn_followed(group, async move {
            let _ended = ended.drop_guard();
            writer.run().await;
        });
        for each in loops::of_leader(&services, &Health::default()) {
            executor::spawn(group, each);
        }
        let (keep, ended) = (Arc::clone(&store), lost.clone());
        executor::spawn(group, async move {
            loops::leadership::keep(keep, epoch, lease_ms, stop).await;
            ended.cancel();
        });
        let dispatcher = Arc::clone(&services.dispatcher);
        if let Some(kept) = self.kept.borrow_mut().get_mut(host) {
            *kept = Some(Arc::clone(&services));
        }
        let workers = WorkersService::new(Arc::clone(&services));
        if let Some(served) = self.served.borrow_mut().get_mut(host) {
            *served = Some(Served { group, services, workers });
        }
        lost.cancelled().await;
        self.vacate(host);
        dispatcher.close();
        // If it was lost already, that is no error.
        drop(loops::leadership::resign(&store, epoch).await);
    }
}
