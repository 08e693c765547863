//! What every stage works with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::Arc,
};

use tokio::sync::Notify;

use super::{
    connections::ConnectionTable, definitions::Definitions, gate::PermissionCache,
    health::HealthBoard, metrics::Metrics, mutator::RunMutator, notifiers::Notifiers,
    options::EngineOptions,
};
use crate::{
    Error, Policy, Result, Run, RunSink, SecretStore, SharedClock, SinkName, Store, Tenant,
    matching::Filters,
    store::{Claim, Committed, Effects},
};

/// The parts of an engine, shared by its stages.
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: SharedClock,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) secrets: Arc<dyn SecretStore>,
    pub(crate) connections: Arc<ConnectionTable>,
    pub(crate) sinks: BTreeMap<SinkName, Arc<dyn RunSink>>,
    pub(crate) default_sink: SinkName,
    pub(crate) notifiers: Arc<Notifiers>,
    pub(crate) mutators: Vec<Arc<dyn RunMutator>>,
    pub(crate) filters: Filters,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) permissions: PermissionCache,
    pub(crate) health: Arc<HealthBoard>,
    pub(crate) metrics: Metrics,
    /// Rings when a stage of this process has committed something.
    pub(crate) committed: Notify,
    pub(crate) options: EngineOptions,
}

impl Core {
    /// Commits what came of a claim, and counts the runs that it ended.
    pub(crate) async fn commit(&self, claim: &Claim, effects: Effects) -> Result<Committed> {
        let ended: Vec<Run> = effects
            .runs
            .iter()
            .chain(effects.changes.iter().map(|change| &change.run))
            .filter(|run| run.state.is_terminal())
            .cloned()
            .collect();
        let committed = self.store.commit(&claim.lease, effects).await?;
        for run in &ended {
            self.metrics.run_ended(run);
        }
        Ok(committed)
    }

    /// The tenants that something was set up for.
    pub(crate) fn tenants(&self) -> BTreeSet<Tenant> {
        let connected = self.connections.all().into_iter().map(|((tenant, _), _)| tenant);
        let notified = self.notifiers.names().into_iter().map(|(tenant, _)| tenant);
        connected.chain(notified).chain([Tenant::default()]).collect()
    }

    /// Waits for the answer of something outside: no longer than
    /// [`EngineOptions::call_timeout`]. No answer in time is a `Transient` error, and leaves open
    /// whether the call came to something.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.options.call_timeout;
        tokio::time::timeout(limit.unsigned_abs(), call).await.unwrap_or_else(|_| {
            Err(Error::transient(operation, "there was no answer in time").with("limit", limit))
        })
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("store", &self.store)
            .field("sinks", &self.sinks.keys())
            .field("notifiers", &self.notifiers)
            .finish_non_exhaustive()
    }
}
