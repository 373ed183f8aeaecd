//! Stands in the writer's place where another leads: answers looks at the world from a copy that it loads once somebody
//! looks, and carries out nothing else.
//!
//! The copy is loaded again as long as somebody looks, and dropped when nobody does any more, so that a standby that is not
//! asked costs nothing but itself.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use gotgan_store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::command::{Command, Read};
use super::looks;
use crate::clock;
use crate::metrics::Metrics;

/// A copy is loaded again when somebody looks at one that is older, or older than so many times what loading took.
const REFRESH_AFTER: Duration = Duration::from_secs(2);
const REST_FACTOR: u32 = 10;
/// A look waits for a new copy rather than see an older one than this.
const AGE_MAX: Duration = Duration::from_secs(30);
/// A copy at which nobody looked for so long is dropped.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// When the copy was begun to be loaded that looks see now; shared with who tells people how old answers are.
#[derive(Debug, Clone, Default)]
pub struct AsOf(Arc<RwLock<Option<Instant>>>);

impl AsOf {
    /// How old the copy is; zero if there is none, as then nothing was answered from it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.read().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, clock::since)
    }

    fn set(&self, as_of: Option<Instant>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = as_of;
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Onlooker {
    commands: mpsc::Receiver<Command>,
    store: Arc<dyn Store>,
    policy: Arc<Policy>,
    metrics: Arc<Metrics>,
    copy: Option<Copy>,
    loading: Option<JoinHandle<Result<Copy, StoreError>>>,
    as_of: AsOf,
}

#[derive(Debug)]
struct Copy {
    world: World,
    begun: Instant,
    took: Duration,
}

impl Copy {
    async fn load(store: Arc<dyn Store>, policy: Arc<Policy>) -> Result<Self, StoreError> {
        let begun = clock::instant();
        let world = looks::load(store.as_ref(), &policy).await?;
        Ok(Copy { world, begun, took: clock::since(begun) })
    }

    fn is_due(&self) -> bool {
        clock::since(self.begun) > REFRESH_AFTER.max(self.took * REST_FACTOR)
    }

    fn is_too_old(&self) -> bool {
        clock::since(self.begun) > AGE_MAX
    }
}

impl Onlooker {
    /// In the place of a writer that had these parts.
    pub(super) fn new(
        commands: mpsc::Receiver<Command>,
        store: Arc<dyn Store>,
        policy: Arc<Policy>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (copy, loading, as_of) = Default::default();
        Onlooker { commands, store, policy, metrics, copy, loading, as_of }
    }

    /// When its copy is of.
    #[must_use]
    pub fn as_of(&self) -> AsOf {
        self.as_of.clone()
    }

    /// Answers until every handle is gone.
    pub async fn run(mut self) {
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = clock::sleep(KEPT_FOR), if self.copy.is_some() => {
                    // One that was being loaded goes as well.
                    self.loading = None;
                    self.show(None);
                    continue;
                }
            };
            match command {
                Some(Command::Read(look)) => self.look(look).await,
                // Whoever asked hears that there is no answer. Nothing that writes comes here: it is sent to the leader.
                Some(command @ (Command::Submit { .. } | Command::Write { .. })) => {
                    tracing::error!(?command, "a standby was asked to write");
                }
                None => return,
            }
        }
    }

    async fn look(&mut self, look: Read) {
        if self.loading.as_ref().is_some_and(JoinHandle::is_finished) {
            self.take_in().await;
        }
        if self.copy.as_ref().is_none_or(Copy::is_due) && self.loading.is_none() {
            let load = Copy::load(Arc::clone(&self.store), Arc::clone(&self.policy));
            self.loading = Some(tokio::spawn(load));
        }
        if self.copy.as_ref().is_none_or(Copy::is_too_old) {
            self.take_in().await;
        }
        // Without one the look is dropped, and whoever looked is sent to the leader.
        let Some(copy) = self.copy.as_ref().filter(|copy| !copy.is_too_old()) else { return };
        looks::take(look, &copy.world, &self.metrics);
    }

    /// Waits for what is being loaded.
    async fn take_in(&mut self) {
        let Some(loading) = self.loading.take() else { return };
        match loading.await {
            Ok(Ok(copy)) => self.show(Some(copy)),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a standby cannot load the state");
            }
            Err(error) => tracing::error!(%error, "loading the state broke"),
        }
    }

    fn show(&mut self, copy: Option<Copy>) {
        self.as_of.set(copy.as_ref().map(|copy| copy.begun));
        self.copy = copy;
    }
}
