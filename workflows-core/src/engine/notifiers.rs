//! The notifiers, and who is told when nobody closer to the run says.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use moka::future::Cache;

use super::{connections::ConnectionTable, destinations::Destinations};
use crate::{
    CommitId, ConnectionName, Error, Notifier, NotifierName, RepoId, Result, Tenant,
    matching::Expression, repo::CommitInfo, workflow::Notification,
};

/// Who is told about runs, as the platform says.
///
/// For a run, the closest that says anything counts: the workflow, its connection
/// ([`ConnectionOptions::notify`](super::ConnectionOptions::notify)), the platform's `by_default`. A
/// workflow that says an empty list has opted out. `always` is told besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifyPolicy {
    /// Who is told when neither the workflow nor its connection says.
    pub by_default: Vec<Notification>,
    /// Who is told in any case.
    pub always: Vec<Notification>,
}

impl NotifyPolicy {
    /// Nobody is told but by those who ask for it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says who is told when neither the workflow nor its connection says.
    #[must_use]
    pub fn by_default(mut self, notify: impl Into<Vec<Notification>>) -> Self {
        self.by_default = notify.into();
        self
    }

    /// Says who is told in any case.
    #[must_use]
    pub fn always(mut self, notify: impl Into<Vec<Notification>>) -> Self {
        self.always = notify.into();
        self
    }

    fn entries(&self) -> impl Iterator<Item = &Notification> {
        self.by_default.iter().chain(&self.always)
    }
}

/// The policies of all tenants that an engine is built with.
#[derive(Debug, Clone, Default)]
pub(crate) struct NotifyPolicies {
    pub(crate) of: BTreeMap<Tenant, NotifyPolicy>,
    /// Of those tenants that have none of their own.
    pub(crate) others: NotifyPolicy,
}

impl NotifyPolicies {
    fn of(&self, tenant: &Tenant) -> &NotifyPolicy {
        self.of.get(tenant).unwrap_or(&self.others)
    }

    /// What the platform says for a tenant.
    pub(crate) fn entries(&self, tenant: &Tenant) -> impl Iterator<Item = &Notification> {
        self.of(tenant).entries()
    }
}

type Key = (Tenant, NotifierName);
type Table = BTreeMap<Key, Arc<dyn Notifier>>;

/// The notifiers, who is told by default, and how the destinations get on. Notifiers may come, change
/// and go while the engine works.
pub(crate) struct Notifiers {
    table: RwLock<Table>,
    policies: NotifyPolicies,
    /// What was said while the engine works, by tenant.
    added: RwLock<BTreeMap<Tenant, NotifyPolicy>>,
    pub(crate) destinations: Destinations,
    filters: Cache<Arc<str>, Result<Arc<Expression>, String>>,
    pub(super) commits: Cache<(Tenant, RepoId, CommitId), Arc<CommitInfo>>,
}

impl Notifiers {
    /// How many filters, and how many commits, are kept.
    const KEPT: u64 = 1_000;

    pub(crate) fn new(table: Table, policies: NotifyPolicies) -> Self {
        Self {
            table: RwLock::new(table),
            policies,
            added: RwLock::default(),
            destinations: Destinations::default(),
            filters: Cache::new(Self::KEPT),
            commits: Cache::new(Self::KEPT),
        }
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notifier, in place of the tenant's one of that name.
    pub(crate) fn put(&self, tenant: Tenant, name: NotifierName, notifier: Arc<dyn Notifier>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.insert((tenant, name), notifier);
    }

    /// Takes a notifier out. Returns whether it was there.
    pub(crate) fn remove(&self, tenant: &Tenant, name: &NotifierName) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(&(tenant.clone(), name.clone())).is_some()
    }

    /// Says who else is told about runs of a tenant from now on, in place of what was added before.
    pub(crate) fn add_policy(&self, tenant: &Tenant, policy: NotifyPolicy) {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        match policy == NotifyPolicy::default() {
            true => added.remove(tenant),
            false => added.insert(tenant.clone(), policy),
        };
    }

    /// Their tenants and names, as they are now.
    pub(crate) fn names(&self) -> Vec<Key> {
        self.table().keys().cloned().collect()
    }

    /// The notifier of that name.
    pub(crate) fn get(&self, tenant: &Tenant, name: &NotifierName) -> Result<Arc<dyn Notifier>> {
        let table = self.table();
        table.get(&(tenant.clone(), name.clone())).cloned().ok_or_else(|| {
            let of_tenant = table.keys().filter(|(of, _)| of == tenant);
            let known: Vec<&str> = of_tenant.map(|(_, name)| name.as_str()).collect();
            Error::not_found("find a notifier", "the tenant has no notifier of that name")
                .with("notifier", name)
                .with("known", if known.is_empty() { "none".into() } else { known.join(", ") })
        })
    }

    /// Who is told about runs of a workflow that says `own`.
    pub(crate) fn told(
        &self,
        connections: &ConnectionTable,
        tenant: &Tenant,
        connection: &ConnectionName,
        own: Option<&Vec<Notification>>,
    ) -> Vec<Notification> {
        let built = self.policies.of(tenant);
        let nothing = NotifyPolicy::default();
        let added = self.added.read().unwrap_or_else(PoisonError::into_inner);
        let added = added.get(tenant).unwrap_or(&nothing);
        let of_connection = connections.get(tenant, connection).ok();
        let of_connection = of_connection.as_ref().and_then(|one| one.options.notify.as_ref());
        let by_default = match added.by_default.is_empty() {
            true => &built.by_default,
            false => &added.by_default,
        };
        let closest = own.or(of_connection).unwrap_or(by_default);
        closest.iter().chain(&built.always).chain(&added.always).cloned().collect()
    }

    /// A filter, compiled once.
    pub(crate) async fn filter(&self, source: &Arc<str>) -> Result<Arc<Expression>, String> {
        let compile = async { Expression::over_runs(source).map(Arc::new) };
        self.filters.get_with(Arc::clone(source), compile).await
    }
}

impl Default for Notifiers {
    fn default() -> Self {
        Self::new(BTreeMap::new(), NotifyPolicies::default())
    }
}

impl fmt::Debug for Notifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table().keys()).finish()
    }
}
