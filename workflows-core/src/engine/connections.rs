//! Connections to repositories, each made once and kept.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use moka::future::Cache;

use crate::{
    ConnectionName, Error, RepoConnection, Result, ScmDriver, Tenant, source::Connections,
    workflow::Notification,
};

/// How a connection is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionOptions {
    /// The directory of a repository whose documents are read as workflows; `None` when its
    /// repositories define none.
    pub definitions: Option<Arc<str>>,
    /// Who is told about runs of its repositories whose workflow does not say; who the platform
    /// says when `None`.
    pub notify: Option<Vec<Notification>>,
}

impl Default for ConnectionOptions {
    /// Repositories define workflows in `.tekton`.
    fn default() -> Self {
        Self { definitions: Some(".tekton".into()), notify: None }
    }
}

impl ConnectionOptions {
    /// Repositories define no workflows: only registered ones count.
    pub fn registered_only() -> Self {
        Self { definitions: None, notify: None }
    }

    /// Says who is told about runs of its repositories whose workflow does not say.
    #[must_use]
    pub fn with_notify(mut self, notify: impl Into<Vec<Notification>>) -> Self {
        self.notify = Some(notify.into());
        self
    }
}

/// A driver under its name.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) driver: Arc<dyn ScmDriver>,
    pub(crate) options: ConnectionOptions,
}

/// The connections of all tenants.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    drivers: BTreeMap<(Tenant, ConnectionName), Connection>,
    repositories: Cache<(Tenant, ConnectionName, Arc<str>), Arc<dyn RepoConnection>>,
}

impl ConnectionTable {
    const KEPT: u64 = 20_000;

    pub(crate) fn new(drivers: BTreeMap<(Tenant, ConnectionName), Connection>) -> Self {
        Self { drivers, repositories: Cache::new(Self::KEPT) }
    }

    /// The same connections, whose repositories define no workflows.
    pub(crate) fn registered_only(&self) -> Self {
        let of = |connection: &Connection| Connection {
            driver: Arc::clone(&connection.driver),
            options: ConnectionOptions { definitions: None, ..connection.options.clone() },
        };
        Self::new(self.drivers.iter().map(|(key, one)| (key.clone(), of(one))).collect())
    }

    pub(crate) fn iter(
        &self,
    ) -> impl Iterator<Item = (&(Tenant, ConnectionName), &Connection)> + '_ {
        self.drivers.iter()
    }

    /// The connection of that name.
    pub(crate) fn get(&self, tenant: &Tenant, name: &ConnectionName) -> Result<&Connection> {
        self.drivers.get(&(tenant.clone(), name.clone())).ok_or_else(|| {
            let known: Vec<&str> = self
                .drivers
                .keys()
                .filter(|(of, _)| of == tenant)
                .map(|(_, name)| name.as_str())
                .collect();
            Error::not_found("find connection", "the tenant has no connection of that name")
                .with("tenant", tenant)
                .with("connection", name)
                .with("known", if known.is_empty() { "none".into() } else { known.join(", ") })
        })
    }
}

#[async_trait]
impl Connections for ConnectionTable {
    async fn repository(
        &self,
        tenant: &Tenant,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        let key = (tenant.clone(), connection.clone(), Arc::from(repo));
        if let Some(known) = self.repositories.get(&key).await {
            return Ok(known);
        }
        let made = self.get(tenant, connection)?.driver.connect(connection, repo).await?;
        self.repositories.insert(key, Arc::clone(&made)).await;
        Ok(made)
    }
}
