//! What produces observations: [`EventSource`], and the [`Publisher`] that it hands them to.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    sync::Arc,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    ConnectionName, DeliveryId, EventKind, RepoConnection, RepoRef, Result, SecretStore,
    SharedClock, SourceName, Tenant,
    event::{Observation, SubjectKey, SubjectState},
    store::{Admitted, CursorMove, ObservationQuery, PageRequest, Store},
};

/// Something that produces observations: a webhook receiver, a poller, a schedule, a delivery-log
/// sweep, a private one.
///
/// # Implementing
///
/// `run` returns when `shutdown` is cancelled, or with an error when it can never work (the engine
/// reports it and runs on without the source). A passing failure is handled inside and told through
/// [`SourceContext::failed`]; each round that got through is told through
/// [`SourceContext::succeeded`], for health is progress.
///
/// # Example
///
/// One that hears of deployments from the program that it is in.
///
/// ```
/// use async_trait::async_trait;
/// use tokio::sync::{Mutex, mpsc::Receiver};
/// use tokio_util::sync::CancellationToken;
/// use workflows_core::{
///     EventKind, EventSource, Observation, RepoRef, Result, SourceName, SubjectClaim, Tenant,
///     event::{Occurrence, Seen},
///     source::SourceContext,
/// };
///
/// /// What was deployed, and the deployment's id.
/// #[derive(Debug)]
/// struct Deployments(Mutex<Receiver<(RepoRef, String)>>);
///
/// #[async_trait]
/// impl EventSource for Deployments {
///     fn name(&self) -> SourceName {
///         "deployments".into()
///     }
///
///     async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
///         let mut deployments = self.0.lock().await;
///         loop {
///             let deployed = tokio::select! {
///                 () = shutdown.cancelled() => return Ok(()),
///                 deployed = deployments.recv() => deployed,
///             };
///             let Some((repo, id)) = deployed else { return Ok(()) };
///             let what = Occurrence::new(EventKind::new("deployment"), id.as_str());
///             let claim = SubjectClaim::Occurrence(Box::new(what));
///             let delivery = id.as_str().into();
///             let tenant = Tenant::default();
///             let seen =
///                 Observation::new(tenant, repo, self.name(), delivery, Seen::Told, claim);
///             // It is stored when this returns, and the same id again is the same event.
///             context.publisher.publish(vec![seen]).await?;
///             context.succeeded("deployments");
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait EventSource: Debug + Send + Sync + 'static {
    /// Its name, unique in the engine.
    fn name(&self) -> SourceName;

    /// Produces observations until it is told to stop.
    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()>;
}

/// What a source works with.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// Where observations go.
    pub publisher: Publisher,
    /// What some trigger needs; it changes when workflows do.
    pub interests: watch::Receiver<Arc<Interests>>,
    /// Connections by name.
    pub connections: Arc<dyn Connections>,
    /// Secrets.
    pub secrets: Arc<dyn SecretStore>,
    /// The time.
    pub clock: SharedClock,
    progress: Arc<dyn ProgressSink>,
    name: SourceName,
}

impl SourceContext {
    /// A context; the engine makes them, and the conformance suites.
    pub fn new(
        name: SourceName,
        publisher: Publisher,
        interests: watch::Receiver<Arc<Interests>>,
        connections: Arc<dyn Connections>,
        secrets: Arc<dyn SecretStore>,
        clock: SharedClock,
        progress: Arc<dyn ProgressSink>,
    ) -> Self {
        Self { publisher, interests, connections, secrets, clock, progress, name }
    }

    /// Tells that a round for this repository (or another thing with a name) got through.
    pub fn succeeded(&self, what: &str) {
        self.progress.succeeded(&self.name, what, self.clock.now());
    }

    /// Tells that a round failed, and when the next one is.
    pub fn failed(&self, what: &str, error: &crate::Error, next: Timestamp) {
        self.progress.failed(&self.name, what, error, next);
    }
}

/// Where sources tell how they get on.
pub trait ProgressSink: Debug + Send + Sync + 'static {
    /// A round got through.
    fn succeeded(&self, source: &SourceName, what: &str, at: Timestamp);
    /// A round failed.
    fn failed(&self, source: &SourceName, what: &str, error: &crate::Error, next: Timestamp);
}

/// Connections by name, each made once and kept.
#[async_trait]
pub trait Connections: Debug + Send + Sync + 'static {
    /// The connection to a repository.
    ///
    /// # Errors
    ///
    /// `NotFound` when the tenant has no connection of that name, and what
    /// [`ScmDriver::connect`](crate::ScmDriver::connect) returns.
    async fn repository(
        &self,
        tenant: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>>;
}

/// What the loaded workflows need to hear of, so that nothing is polled that no trigger asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interests {
    /// Repositories by tenant, connection and full name (no patterns: a pattern's repositories are
    /// known when an event of theirs arrives, or when the platform lists them).
    pub repos: BTreeSet<RepoInterest>,
}

/// What some trigger needs to hear of one repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoInterest {
    /// The tenant.
    pub tenant: Tenant,
    /// The connection.
    pub connection: ConnectionName,
    /// The repository's full name.
    pub repo: Arc<str>,
    /// The kinds of events. Of a repository that defines its own workflows, pushes, tags and pull
    /// requests are always among them.
    pub kinds: BTreeSet<EventKind>,
    /// The narrowest ref prefixes that hold all branches and tags that matter, such as
    /// `refs/heads/main` or `refs/tags/`. Of a repository that defines its own workflows these are
    /// all branches and tags, for each says itself what runs for it.
    pub ref_prefixes: BTreeSet<Arc<str>>,
}

/// Where a source hands in what it saw.
#[derive(Debug, Clone)]
pub struct Publisher {
    store: Arc<dyn Store>,
}

impl Publisher {
    /// A publisher into a ledger.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Hands in observations. Returns when they are stored: only then may the sender be told.
    ///
    /// # Errors
    ///
    /// `Transient` when the ledger cannot be written now: do not acknowledge. `Invalid` when an
    /// observation is over a limit.
    pub async fn publish(&self, observations: Vec<Observation>) -> Result<Vec<Admitted>> {
        self.store.admit(observations, None).await
    }

    /// Hands in what a poll found, and moves its cursor in the same transaction.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and `Conflict` when the cursor is not where it was.
    pub async fn publish_with_cursor(
        &self,
        observations: Vec<Observation>,
        cursor: CursorMove,
    ) -> Result<Vec<Admitted>> {
        self.store.admit(observations, Some(cursor)).await
    }

    /// The ledger's position, to be noted before a reading begins
    /// ([`Seen::Read`](crate::event::Seen::Read)).
    ///
    /// # Errors
    ///
    /// `Transient`.
    pub async fn position(&self) -> Result<i64> {
        self.store.position().await
    }

    /// A cursor's value.
    ///
    /// # Errors
    ///
    /// `Transient`.
    pub async fn cursor(&self, tenant: &Tenant, name: &str) -> Result<Option<String>> {
        self.store.cursor(tenant, name).await
    }

    /// The ids of the deliveries that a source has handed in since an instant, whatever came of
    /// them.
    ///
    /// # Errors
    ///
    /// `Transient`.
    pub async fn delivered_since(
        &self,
        tenant: &Tenant,
        source: &SourceName,
        since: Timestamp,
    ) -> Result<HashSet<DeliveryId>> {
        let mut delivered = HashSet::new();
        let mut page = PageRequest { limit: 1_000, after: None };
        loop {
            let query = ObservationQuery::of(tenant.clone()).since(Some(since)).page(page);
            let found = self.store.observations(query).await?;
            let of_source = found.items.into_iter().filter(|one| one.source == *source);
            delivered.extend(of_source.map(|one| one.delivery));
            match found.next {
                Some(next) => page.after = Some(next),
                None => return Ok(delivered),
            }
        }
    }

    /// What is recorded of the subjects of a repository whose names begin with a prefix.
    ///
    /// # Errors
    ///
    /// `Transient`.
    pub async fn subjects(
        &self,
        tenant: &Tenant,
        repo: &RepoRef,
        prefix: &str,
    ) -> Result<Vec<(SubjectKey, SubjectState)>> {
        self.store.subjects(tenant, &repo.id, prefix).await
    }
}
