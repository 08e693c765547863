//! Keeping an engine in step with the custom resources of a cluster: [`Controller`].
//!
//! A program adds it to its own engine in a few lines, with its own kinds of hosts and receivers:
//!
//! ```no_run
//! use std::sync::Arc;
//! use tokio_util::sync::CancellationToken;
//! use workflows_core::{Engine, SystemClock, store::MemoryStore};
//! use workflows_k8s::{KubernetesSecrets, Namespaces, TektonSink, controller::Controller};
//!
//! # async fn run(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let secrets = Arc::new(KubernetesSecrets::new(client.clone(), Namespaces::same_name()));
//! let controller = Controller::builder(client.clone(), secrets.clone())
//!     // .driver(MyHost) .notifier(MyPager)
//!     .build()?;
//! let engine = Engine::builder()
//!     .store(Arc::new(MemoryStore::new(Arc::new(SystemClock))))
//!     .secrets(secrets)
//!     .policy(controller.policy())
//!     .source(controller.source())
//!     .sink("tekton", Arc::new(TektonSink::new(client, Namespaces::same_name())))
//!     .build()?;
//! let shutdown = CancellationToken::new();
//! let webhooks: axum::Router = controller.webhooks();
//! controller.run(&engine, shutdown).await;
//! # Ok(())
//! # }
//! ```

mod asks;
mod builder;
mod client;
mod connections;
mod credential;
#[cfg(feature = "git")]
mod git;
#[cfg(feature = "github")]
mod github;
#[cfg(feature = "gitlab")]
mod gitlab;
mod grants;
mod hook_logs;
mod hook_registrar;
mod hooks;
mod kinds;
mod limited;
mod notifiers;
mod objects;
mod policy;
mod reconcile;
mod served;
mod sources;
mod statuses;
mod webhooks;
mod workflows;

use std::sync::Arc;

use axum::Router;
use futures::{FutureExt, StreamExt};
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use workflows_core::{Engine, EngineHandle, EventSource, Policy};

#[cfg(feature = "git")]
pub use self::git::GitKind;
#[cfg(feature = "github")]
pub use self::github::GitHubKind;
#[cfg(feature = "gitlab")]
pub use self::gitlab::GitLabKind;
pub use self::{
    builder::ControllerBuilder,
    kinds::{
        BuiltConnection, CredentialWatch, DescribedConnection, DescribedNotifier, DriverKind,
        NotifierKind,
    },
    policy::ClusterPolicy,
};
use self::{builder::Parts, objects::Objects, reconcile::Reconciler, sources::ConnectionSources};

/// Keeps an engine in step with the custom resources of a cluster.
///
/// What is applied counts at once, and each object's status says what came of it. The parts that an
/// engine needs are [`policy`](Self::policy) and [`source`](Self::source); [`run`](Self::run) drives it, and
/// registers connections, notifiers and workflows with it as they come, change and go.
///
/// Clones are the same controller.
#[derive(Debug, Clone)]
pub struct Controller(Arc<Parts>);

/// So many changes are followed before what they mean is done.
const TOGETHER: usize = 10_000;
/// How often what is not ready is looked at again: a secret may have come.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(10);

impl Controller {
    /// The policy of the engine.
    pub fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.0.policy) as Arc<dyn Policy>
    }

    /// What hears of events at the repositories of all connections.
    pub fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(ConnectionSources {
            client: self.0.client.clone(),
            served: self.0.served.subscribe(),
            leader: self.0.leader.clone(),
            receivers: Arc::clone(&self.0.receivers),
            statuses: Arc::clone(&self.0.statuses),
            public_url: self.0.public_url.clone(),
        })
    }

    /// Where hosts deliver to: `POST /hooks/<namespace>/<name of the ScmConnection>`.
    pub fn webhooks(&self) -> Router {
        webhooks::router(Arc::clone(&self.0.receivers))
    }

    /// Whether all objects were read once, so that everything that was applied before counts.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.0.synced.subscribe()
    }

    /// Whether deliveries are taken in for the connections that there were at the start, and those that
    /// are sent from then on are looked for in the logs of hosts, whatever happens to this program.
    /// It is so once an engine runs that has the [`source`](Self::source).
    pub fn listening(&self) -> watch::Receiver<bool> {
        self.0.receivers.completed()
    }

    /// Runs an engine in step with the custom resources until it is told to stop.
    ///
    /// The engine begins when all objects have been read once: an event that it decided before would
    /// be one for which there is no workflow.
    pub async fn run(&self, engine: &Engine, shutdown: CancellationToken) {
        let mut synced = self.synced();
        let running = async {
            let all_read = async { synced.wait_for(|synced| *synced).await.is_ok() };
            let begins = tokio::select! {
                () = shutdown.cancelled() => false,
                all_read = all_read => all_read,
            };
            if begins {
                engine.run(shutdown.clone()).await;
            }
        };
        tokio::join!(self.follow(engine.handle(), shutdown.clone()), running);
    }

    /// Follows the custom resources.
    async fn follow(&self, engine: EngineHandle, shutdown: CancellationToken) {
        let namespaces = self.0.namespaces.as_deref();
        let places = objects::places(namespaces, self.0.platform.as_ref());
        let mut changes = objects::watch(&self.0.client, &places);
        let mut objects = Objects::default();
        let mut reconciler = Reconciler::new(Arc::clone(&self.0), engine);
        let writing = {
            let (statuses, shutdown) = (Arc::clone(&self.0.statuses), shutdown.clone());
            tokio::spawn(async move { statuses.write(shutdown).await })
        };
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut touched = Vec::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(change) = changes.next() => {
                    touched.extend(objects.follow(change));
                    while touched.len() < TOGETHER
                        && let Some(Some(change)) = changes.next().now_or_never()
                    {
                        touched.extend(objects.follow(change));
                    }
                }
                _ = recheck.tick() => reconciler.recheck(&objects),
            }
            // Before all policies are known nothing may run, and before all connections are, a
            // workflow that names one is not wrong.
            if objects.are_whole(&places) {
                let first = !*self.0.synced.borrow();
                reconciler.follow(&objects, std::mem::take(&mut touched), first).await;
                if first {
                    self.0.synced.send_replace(true);
                }
            }
        }
        reconciler.stop().await;
        if writing.await.is_err() {
            tracing::error!("statuses are not written any more");
        }
    }
}
