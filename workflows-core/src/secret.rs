//! Secrets by reference.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, Tenant};

/// Which secret: a name and a key in it, as in Kubernetes.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The secret's name.
    pub name: Arc<str>,
    /// The key in it.
    pub key: Arc<str>,
}

/// Where credentials come from. They are asked for at the time of use, so that a rotation needs no
/// restart.
#[async_trait]
pub trait SecretStore: Debug + Send + Sync + 'static {
    /// The present value.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such secret or key in that tenant, `Denied` when it may not be
    /// read, `Transient` when it may work later. The error names the reference, never the value.
    async fn get(&self, tenant: &Tenant, secret: &SecretRef) -> Result<SecretString>;
}

/// Secrets that the program holds itself, for embedded engines and tests.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use workflows_core::{SecretRef, SecretStore, StaticSecrets, Tenant};
///
/// let tenant = Tenant::default();
/// let reference = SecretRef { name: "git".into(), key: "token".into() };
/// let secrets = StaticSecrets::new().with(tenant.clone(), reference.clone(), "s3cret");
/// assert!(secrets.get(&tenant, &reference).await.is_ok());
/// assert!(!format!("{secrets:?}").contains("s3cret"));
/// # }
/// ```
#[derive(Debug, Default, Clone)]
pub struct StaticSecrets {
    values: BTreeMap<(Tenant, SecretRef), SecretString>,
}

impl StaticSecrets {
    /// No secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one.
    #[must_use]
    pub fn with(mut self, tenant: Tenant, secret: SecretRef, value: impl Into<String>) -> Self {
        self.values.insert((tenant, secret), SecretString::from(value.into()));
        self
    }
}

#[async_trait]
impl SecretStore for StaticSecrets {
    async fn get(&self, tenant: &Tenant, secret: &SecretRef) -> Result<SecretString> {
        self.values.get(&(tenant.clone(), secret.clone())).cloned().ok_or_else(|| {
            Error::not_found("get secret", "there is no such secret")
                .with("tenant", tenant)
                .with("name", &secret.name)
                .with("key", &secret.key)
        })
    }
}
