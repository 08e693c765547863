//! Putting a controller together: [`ControllerBuilder`].

use std::{collections::BTreeMap, sync::Arc};

use kube::Client;
use tokio::sync::watch;
use workflows_core::{Error, Result, SecretStore, SharedClock, SystemClock, Tenant};

use super::{
    Controller,
    client::KubeClient,
    kinds::{DriverKind, NotifierKind},
    policy::ClusterPolicy,
    served::ServedMap,
    statuses::Statuses,
    webhooks::Receivers,
};

/// What the parts of a controller share.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) client: KubeClient,
    /// Where runs are made; everywhere when there are none.
    pub(super) namespaces: Option<Vec<String>>,
    pub(super) platform: Option<Tenant>,
    pub(super) drivers: BTreeMap<String, Arc<dyn DriverKind>>,
    pub(super) notifiers: BTreeMap<String, Arc<dyn NotifierKind>>,
    pub(super) secrets: Arc<dyn SecretStore>,
    pub(super) clock: SharedClock,
    pub(super) public_url: Option<String>,
    pub(super) policy: Arc<ClusterPolicy>,
    pub(super) served: watch::Sender<Arc<ServedMap>>,
    pub(super) leader: watch::Receiver<bool>,
    pub(super) receivers: Arc<Receivers>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) synced: watch::Sender<bool>,
}

/// Puts a controller together.
#[derive(Debug)]
#[must_use = "nothing is built before `build`"]
pub struct ControllerBuilder {
    client: KubeClient,
    namespaces: Option<Vec<String>>,
    drivers: Vec<Arc<dyn DriverKind>>,
    notifiers: Vec<Arc<dyn NotifierKind>>,
    secrets: Arc<dyn SecretStore>,
    clock: SharedClock,
    public_url: Option<String>,
    platform: Option<Tenant>,
    default_sink: String,
    leader: watch::Receiver<bool>,
}

impl Controller {
    /// A controller of the custom resources that a client reaches, whose connections and notifiers
    /// have their secrets in this store. It knows the kinds of hosts that its features bring.
    pub fn builder(client: Client, secrets: Arc<dyn SecretStore>) -> ControllerBuilder {
        let builder = ControllerBuilder {
            client: KubeClient(client),
            namespaces: None,
            drivers: Vec::new(),
            notifiers: Vec::new(),
            secrets,
            clock: Arc::new(SystemClock),
            public_url: None,
            platform: None,
            default_sink: "tekton".to_owned(),
            leader: watch::channel(true).1,
        };
        #[cfg(feature = "github")]
        let builder = builder.driver(super::GitHubKind::default());
        #[cfg(feature = "gitlab")]
        let builder = builder.driver(super::GitLabKind);
        #[cfg(feature = "git")]
        let builder = builder.driver(super::GitKind);
        builder
    }
}

impl ControllerBuilder {
    /// Follows the objects of these namespaces alone; of the whole cluster when it is never called.
    pub fn namespaces<N: Into<String>>(mut self, namespaces: impl IntoIterator<Item = N>) -> Self {
        self.namespaces = Some(namespaces.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a kind of host.
    pub fn driver(mut self, kind: impl DriverKind) -> Self {
        self.drivers.push(Arc::new(kind));
        self
    }

    /// Adds a kind of receiver.
    pub fn notifier(mut self, kind: impl NotifierKind) -> Self {
        self.notifiers.push(Arc::new(kind));
        self
    }

    /// Where the engine gets the time from.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The address at which hosts reach [`Controller::webhooks`], such as `https://ci.example.com`.
    /// Without one no hooks are registered.
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// The namespace whose policies hold for all tenants, besides their own. Its policies,
    /// connections and notifiers are followed even where
    /// [`namespaces`](Self::namespaces) does not name it, and the controller begins only when it could
    /// read them; workflows of its own run only where that does.
    pub fn platform(mut self, namespace: Tenant) -> Self {
        self.platform = Some(namespace);
        self
    }

    /// The name of the engine's default sink, which policies need not allow. Default: `tekton`.
    pub fn default_sink(mut self, name: impl Into<String>) -> Self {
        self.default_sink = name.into();
        self
    }

    /// Whether this replica does what one of several suffices for: polls, looks at delivery logs,
    /// looks after hooks. Always, when it is never called.
    pub fn leader(mut self, leader: watch::Receiver<bool>) -> Self {
        self.leader = leader;
        self
    }

    /// The controller.
    ///
    /// # Errors
    ///
    /// `Invalid` when two kinds have one name, an address is none, or there is no namespace.
    pub fn build(self) -> Result<Controller> {
        const OPERATION: &str = "set up the controller";
        if self.namespaces.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(OPERATION, "there is no namespace to look at"));
        }
        if let Some(url) = &self.public_url
            && !url.starts_with("https://")
            && !url.starts_with("http://")
        {
            let message = "the public address must begin with https:// or http://";
            return Err(Error::invalid(OPERATION, message).with("address", format!("{url:?}")));
        }
        let mut drivers = BTreeMap::new();
        for kind in self.drivers {
            if let Some(other) = drivers.insert(kind.name().to_owned(), kind) {
                let message = "two kinds of hosts have the same name";
                return Err(Error::invalid(OPERATION, message).with("name", other.name()));
            }
        }
        let mut notifiers = BTreeMap::new();
        for kind in self.notifiers {
            if let Some(other) = notifiers.insert(kind.name().to_owned(), kind) {
                let message = "two kinds of notifiers have the same name";
                return Err(Error::invalid(OPERATION, message).with("name", other.name()));
            }
        }
        Ok(Controller(Arc::new(Parts {
            statuses: Statuses::new(self.client.clone(), Arc::clone(&self.clock)),
            client: self.client,
            namespaces: self.namespaces,
            platform: self.platform.clone(),
            drivers,
            notifiers,
            secrets: self.secrets,
            clock: self.clock,
            public_url: self.public_url,
            policy: Arc::new(ClusterPolicy::new(self.platform, self.default_sink)),
            served: watch::channel(Arc::default()).0,
            leader: self.leader,
            receivers: Receivers::new(),
            synced: watch::channel(false).0,
        })))
    }
}
