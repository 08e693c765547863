//! Connections, notifiers and who is told by default: what comes, changes and goes while the engine
//! works.

use std::sync::Arc;

use super::{
    EngineHandle, NotifyPolicy,
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

    /// Says who is told about the runs of a tenant that are planned from now on, besides whom the
    /// engine was built to tell ([`EngineBuilder::notify`](super::EngineBuilder::notify)) and in place
    /// of what was said here before: `by_default` counts where it has an entry, and the engine's own
    /// otherwise; whom both name in `always` is told.
    ///
    /// A notification to a notifier that the tenant lacks, or with a filter that is none
    /// ([`Notification::check`](crate::workflow::Notification::check)), is a dead letter.
    pub fn set_notify_policy(&self, tenant: &Tenant, policy: NotifyPolicy) {
        self.core.notifiers.add_policy(tenant, policy);
    }
}
