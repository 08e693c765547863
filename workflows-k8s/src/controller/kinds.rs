//! What a controller's program offers to ScmConnections and Notifiers: kinds of hosts and of
//! receivers.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use workflows_core::{
    ConnectionName, Notifier, NotifierName, Result, ScmDriver, SecretStore, SharedClock, Tenant,
    repo::DeliveryLog,
};
use workflows_scm::webhook::DeliveryFormat;

use crate::resources::{NotifierSpec, ScmConnectionSpec};

/// A kind of host, which ScmConnections name in `spec.driver`.
pub trait DriverKind: Debug + Send + Sync + 'static {
    /// The name, as it stands in `spec.driver`.
    fn name(&self) -> &str;

    /// Makes what a connection is reached through. Nothing is asked of the host yet.
    ///
    /// # Errors
    ///
    /// `Invalid` when the description is not one that this kind understands. The message shows in
    /// the object's status.
    fn build(&self, connection: &DescribedConnection<'_>) -> Result<BuiltConnection>;
}

/// An ScmConnection, as a [`DriverKind`] sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct DescribedConnection<'a> {
    /// The tenant: the object's namespace.
    pub tenant: &'a Tenant,
    /// The object's name.
    pub name: &'a ConnectionName,
    /// What it says.
    pub spec: &'a ScmConnectionSpec,
    /// Where its secrets are, under `tenant`.
    pub secrets: Arc<dyn SecretStore>,
    /// The time.
    pub clock: SharedClock,
}

/// What a connection is reached through.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuiltConnection {
    /// The driver.
    pub driver: Arc<dyn ScmDriver>,
    /// How the host writes and signs deliveries, when it sends any.
    pub deliveries: Option<Arc<dyn DeliveryFormat>>,
    /// The host's log of deliveries for the whole credential, when it keeps one.
    pub delivery_log: Option<Arc<dyn DeliveryLog>>,
    /// The host's names of the events that a hook is registered for.
    pub hook_events: BTreeSet<String>,
    /// Who knows whether the credential goes on to be accepted.
    pub credential: Option<Arc<dyn CredentialWatch>>,
}

/// Knows whether the credential of a connection goes on to be accepted.
#[async_trait]
pub trait CredentialWatch: Debug + Send + Sync + 'static {
    /// What is wrong with it, or will be within two weeks: that it expires, for example. `None` when
    /// nothing is. It is asked once in an hour, and shows in the object's condition
    /// `CredentialValid`.
    ///
    /// # Errors
    ///
    /// `Denied` when the host does not accept it; anything else when the host cannot be asked, which is
    /// tried again.
    async fn warning(&self) -> Result<Option<String>>;
}

impl BuiltConnection {
    /// A connection without deliveries.
    pub fn new(driver: Arc<dyn ScmDriver>) -> Self {
        Self {
            driver,
            deliveries: None,
            delivery_log: None,
            hook_events: BTreeSet::new(),
            credential: None,
        }
    }

    /// Adds how the host delivers, and for which of its events a hook is registered.
    #[must_use]
    pub fn with_deliveries<E: Into<String>>(
        mut self,
        format: Arc<dyn DeliveryFormat>,
        hook_events: impl IntoIterator<Item = E>,
    ) -> Self {
        self.deliveries = Some(format);
        self.hook_events = hook_events.into_iter().map(Into::into).collect();
        self
    }

    /// Adds the host's log of deliveries.
    #[must_use]
    pub fn with_delivery_log(mut self, log: Arc<dyn DeliveryLog>) -> Self {
        self.delivery_log = Some(log);
        self
    }

    /// Adds who knows whether the credential goes on to be accepted.
    #[must_use]
    pub fn with_credential(mut self, watch: Arc<dyn CredentialWatch>) -> Self {
        self.credential = Some(watch);
        self
    }
}

/// A kind of receiver, which Notifiers name in `spec.type`.
pub trait NotifierKind: Debug + Send + Sync + 'static {
    /// The name, as it stands in `spec.type`.
    fn name(&self) -> &str;

    /// Makes a notifier. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// As [`DriverKind::build`].
    fn build(&self, notifier: &DescribedNotifier<'_>) -> Result<Arc<dyn Notifier>>;
}

/// A Notifier object, as a [`NotifierKind`] sees it.
#[derive(Debug)]
#[non_exhaustive]
pub struct DescribedNotifier<'a> {
    /// The tenant: the object's namespace.
    pub tenant: &'a Tenant,
    /// The object's name.
    pub name: &'a NotifierName,
    /// What it says.
    pub spec: &'a NotifierSpec,
    /// Where its secrets are, under `tenant`.
    pub secrets: Arc<dyn SecretStore>,
    /// The time.
    pub clock: SharedClock,
}
