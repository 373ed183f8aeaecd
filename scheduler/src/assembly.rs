//! The parts of a leading scheduler, made and put together but not started: what runs them is up to who asks.

use std::sync::Arc;

use gotgan_core::estimate::estimator::Learnt;
use gotgan_core::ids::{AttemptId, Epoch};
use gotgan_core::policy::Policy;
use gotgan_core::world::World;
use gotgan_store::{Store, StoreError};

use crate::admission::Admission;
use crate::api::Services;
use crate::auth::Authenticator;
use crate::auth::tls::ServerIdentity;
use crate::clock;
use crate::config::Timing;
use crate::flow::dispatch::Dispatcher;
use crate::flow::estimate::{self, EstimatorThread};
use crate::flow::logs::LogRelay;
use crate::flow::looks;
use crate::flow::orders::OrderWriter;
use crate::flow::plan::{self, Planner};
use crate::flow::telemetry::Telemetry;
use crate::flow::writer::{self, Writer, WriterParts};
use crate::metrics::Metrics;

/// What a leader is made from.
#[derive(Debug)]
pub struct Ground {
    /// Where everything is.
    pub store: Arc<dyn Store>,
    /// Leadership that was taken.
    pub epoch: Epoch,
    /// Numbers of the site.
    pub policy: Arc<Policy>,
    /// Beats and patience.
    pub timing: Timing,
    /// Who callers are.
    pub authenticator: Authenticator,
    /// Signs workers' certificates; `None` without TLS.
    pub identity: Option<Arc<ServerIdentity>>,
    /// Where clients reach this scheduler.
    pub address: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A leader, of which nothing runs yet.
#[derive(Debug)]
pub struct Assembly {
    /// What answers calls.
    pub services: Arc<Services>,
    /// What owns the world.
    pub writer: Writer,
    /// What plans.
    pub planner: Planner,
    /// What looks ahead.
    pub estimator: EstimatorThread,
}

impl Ground {
    /// Loads the world and makes everything around it.
    ///
    /// # Errors
    /// [`StoreError`] if the world cannot be loaded.
    pub async fn assemble(self) -> Result<Assembly, StoreError> {
        let world = load(&self.store, &self.policy).await?;
        let learnt = estimate::learnt(self.store.as_ref()).await;
        Ok(self.around(world, learnt))
    }

    /// Makes everything around a world.
    #[must_use]
    pub fn around(self, world: World, learnt: Learnt) -> Assembly {
        let Ground { store, epoch, policy, timing, authenticator, identity, address, metrics } =
            self;
        let admission = Admission::new(Arc::clone(&policy));
        let orders = OrderWriter { authenticator: authenticator.clone() };
        let dispatcher = Arc::new(Dispatcher::new(orders));
        dispatcher.reset(&world);
        let live = Arc::clone(&dispatcher);
        authenticator.set_job_check(Box::new(move |attempt: AttemptId| live.is_live(attempt)));
        let (estimator, lookout, estimates) = estimate::new(Arc::clone(&policy), learnt);
        let (policy_of, metrics_of) = (Arc::clone(&policy), Arc::clone(&metrics));
        let (planner, feed, last_pass) = plan::new(policy_of, timing, metrics_of, lookout);
        let (writer, handle) = writer::new(WriterParts {
            store: Arc::clone(&store),
            epoch,
            policy: Arc::clone(&policy),
            world,
            planner: feed,
            dispatcher: Arc::clone(&dispatcher),
            admission: admission.clone(),
            metrics: Arc::clone(&metrics),
        });
        let services = Arc::new(Services {
            writer: handle,
            store,
            admission,
            last_pass,
            estimates,
            telemetry: Arc::new(Telemetry::default()),
            logs: LogRelay::new(Arc::clone(&dispatcher)),
            dispatcher,
            authenticator,
            identity,
            joins: tokio::sync::Mutex::new(()),
            audits: tokio::sync::Mutex::new(()),
            policy,
            timing,
            epoch,
            address,
            started: clock::now(),
            metrics,
        });
        Assembly { services, writer, planner, estimator }
    }
}

async fn load(store: &Arc<dyn Store>, policy: &Policy) -> Result<World, StoreError> {
    let world = looks::load(store.as_ref(), policy).await?;
    let (jobs, attempts, nodes) = (world.jobs.len(), world.attempts.len(), world.nodes.len());
    tracing::info!(jobs, attempts, nodes, "state loaded");
    Ok(world)
}
