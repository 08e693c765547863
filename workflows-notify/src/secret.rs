//! Secrets of notifiers.

use std::{fmt, sync::Arc};

use secrecy::SecretString;
use workflows_core::{Result, SecretRef, SecretStore, Tenant};

/// A secret of a notifier: the value itself, or where it is. It is asked for at each use, so that a
/// new one is taken up without a restart.
#[derive(Clone)]
pub struct NotifierSecret(Kind);

#[derive(Clone)]
enum Kind {
    Held(SecretString),
    Named { store: Arc<dyn SecretStore>, tenant: Tenant, reference: SecretRef },
}

impl NotifierSecret {
    /// A secret out of a store.
    pub fn named(store: Arc<dyn SecretStore>, tenant: Tenant, reference: SecretRef) -> Self {
        Self(Kind::Named { store, tenant, reference })
    }

    /// The present value.
    pub(crate) async fn present(&self) -> Result<SecretString> {
        match &self.0 {
            Kind::Held(value) => Ok(value.clone()),
            Kind::Named { store, tenant, reference } => store.get(tenant, reference).await,
        }
    }
}

impl From<SecretString> for NotifierSecret {
    fn from(value: SecretString) -> Self {
        Self(Kind::Held(value))
    }
}

impl fmt::Debug for NotifierSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Held(_) => f.debug_struct("Held").finish_non_exhaustive(),
            Kind::Named { tenant, reference, .. } => f
                .debug_struct("Named")
                .field("tenant", tenant)
                .field("reference", reference)
                .finish_non_exhaustive(),
        }
    }
}
