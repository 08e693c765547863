//! Connections to repositories, each made once and kept.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

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

/// The connections of all tenants. They may come, change and go while the engine works.
#[derive(Debug)]
pub(crate) struct ConnectionTable {
    connections: RwLock<BTreeMap<Key, Numbered>>,
    next: AtomicU64,
    /// By the number of the connection, so that what an earlier one reached is not used any more.
    repositories: Cache<(u64, Arc<str>), Arc<dyn RepoConnection>>,
}

type Key = (Tenant, ConnectionName);

#[derive(Debug, Clone)]
struct Numbered {
    number: u64,
    connection: Connection,
}

impl ConnectionTable {
    const KEPT: u64 = 20_000;

    pub(crate) fn new(connections: impl IntoIterator<Item = (Key, Connection)>) -> Self {
        let table = Self {
            connections: RwLock::default(),
            next: AtomicU64::default(),
            repositories: Cache::new(Self::KEPT),
        };
        for ((tenant, name), connection) in connections {
            table.put(tenant, name, connection);
        }
        table
    }

    /// Adds a connection, in place of the tenant's one of that name.
    pub(crate) fn put(&self, tenant: Tenant, name: ConnectionName, connection: Connection) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        connections.insert((tenant, name), Numbered { number, connection });
    }

    /// Takes a connection out. Returns whether it was there.
    pub(crate) fn remove(&self, tenant: &Tenant, name: &ConnectionName) -> bool {
        let mut connections = self.connections.write().unwrap_or_else(PoisonError::into_inner);
        connections.remove(&(tenant.clone(), name.clone())).is_some()
    }

    /// The same connections, whose repositories define no workflows.
    pub(crate) fn registered_only(&self) -> Self {
        let without = |connection: Connection| Connection {
            options: ConnectionOptions { definitions: None, ..connection.options },
            ..connection
        };
        Self::new(self.all().into_iter().map(|(key, one)| (key, without(one))))
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<(Key, Connection)> {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|(key, one)| (key.clone(), one.connection.clone())).collect()
    }

    /// The connection of that name.
    pub(crate) fn get(&self, tenant: &Tenant, name: &ConnectionName) -> Result<Connection> {
        self.numbered(tenant, name).map(|numbered| numbered.connection)
    }

    fn numbered(&self, tenant: &Tenant, name: &ConnectionName) -> Result<Numbered> {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        connections.get(&(tenant.clone(), name.clone())).cloned().ok_or_else(|| {
            let known: Vec<&str> = connections
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
        let Numbered { number, connection: Connection { driver, .. } } =
            self.numbered(tenant, connection)?;
        let key = (number, Arc::from(repo));
        if let Some(known) = self.repositories.get(&key).await {
            return Ok(known);
        }
        let made = driver.connect(connection, repo).await?;
        self.repositories.insert(key, Arc::clone(&made)).await;
        Ok(made)
    }
}
