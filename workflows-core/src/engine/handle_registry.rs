//! Connections and notifiers that come, change and go while the engine works.

use std::sync::Arc;

use super::{
    EngineHandle,
    connections::{Connection, ConnectionOptions},
};
use crate::{ConnectionName, Notifier, NotifierName, ScmDriver, Tenant};

impl EngineHandle {
    /// Registers a connection of a tenant, in place of the one of that name: from now on its
    /// repositories are reached through this driver. What is under way with the earlier one comes to
    /// its end.
    pub fn register_connection(
        &self,
        tenant: &Tenant,
        name: impl Into<ConnectionName>,
        driver: Arc<dyn ScmDriver>,
        options: ConnectionOptions,
    ) {
        let connection = Connection { driver, options };
        self.core.connections.put(tenant.clone(), name.into(), connection);
        self.core.definitions.names_changed();
    }

    /// Takes a connection out. What its repositories define is not used any more; registered
    /// workflows that name it stay, and what has to reach its repositories fails. Returns whether it
    /// was there.
    pub fn unregister_connection(&self, tenant: &Tenant, name: &ConnectionName) -> bool {
        let removed = self.core.connections.remove(tenant, name);
        if removed {
            self.core.definitions.names_changed();
            self.core.definitions.forget_connection(tenant, name);
        }
        removed
    }

    /// Registers a notifier of a tenant, in place of the one of that name. Notifications that wait
    /// are delivered through it.
    pub fn register_notifier(
        &self,
        tenant: &Tenant,
        name: impl Into<NotifierName>,
        notifier: Arc<dyn Notifier>,
    ) {
        self.core.notifiers.put(tenant.clone(), name.into(), notifier);
        self.core.definitions.names_changed();
    }

    /// Takes a notifier out. What waits for it is given up. Returns whether it was there.
    pub fn unregister_notifier(&self, tenant: &Tenant, name: &NotifierName) -> bool {
        let removed = self.core.notifiers.remove(tenant, name);
        if removed {
            self.core.definitions.names_changed();
        }
        removed
    }
}
