//! What every stage works with.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{connections::ConnectionTable, mutator::RunMutator, options::EngineOptions};
use crate::{
    NotifierName, Policy, RunSink, SecretStore, SharedClock, SinkName, Store, Tenant,
    notify::Notifier,
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
    pub(crate) notifiers: BTreeMap<(Tenant, NotifierName), Arc<dyn Notifier>>,
    pub(crate) mutators: Vec<Arc<dyn RunMutator>>,
    pub(crate) options: EngineOptions,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("store", &self.store)
            .field("sinks", &self.sinks.keys())
            .field("notifiers", &self.notifiers.keys())
            .finish_non_exhaustive()
    }
}
