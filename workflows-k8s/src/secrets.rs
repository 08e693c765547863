//! Secrets of the cluster: [`KubernetesSecrets`].

use std::fmt;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;
use workflows_core::{Clock, Error, Result, SecretRef, SecretStore, SystemClock, Tenant};

use crate::{error::from_kube, namespaces::Namespaces};

/// Secrets of the cluster, read from the tenant's namespace when they are used.
///
/// Nothing is cached, so that a rotation is seen at once. It needs `secrets` (get), best for the named
/// ones alone.
#[derive(Clone)]
pub struct KubernetesSecrets {
    client: Client,
    namespaces: Namespaces,
}

impl fmt::Debug for KubernetesSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesSecrets")
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

impl KubernetesSecrets {
    /// Secrets in the namespaces of tenants.
    pub fn new(client: Client, namespaces: Namespaces) -> Self {
        Self { client, namespaces }
    }
}

#[async_trait]
impl SecretStore for KubernetesSecrets {
    async fn get(&self, tenant: &Tenant, secret: &SecretRef) -> Result<SecretString> {
        const OPERATION: &str = "get secret";
        let namespace = self.namespaces.of(tenant);
        let named = |error: Error| {
            error.with("namespace", &namespace).with("name", &secret.name).with("key", &secret.key)
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let found = secrets.get(&secret.name).await;
        let found = found.map_err(|error| named(from_kube(OPERATION, error, SystemClock.now())))?;
        let value = found.data.as_ref().and_then(|data| data.get(&*secret.key));
        let Some(value) = value else {
            return Err(named(Error::not_found(OPERATION, "the Secret has no such key")));
        };
        match std::str::from_utf8(&value.0) {
            Ok(text) => Ok(SecretString::from(text.to_owned())),
            Err(_) => Err(named(Error::invalid(OPERATION, "the value is not text in UTF-8"))),
        }
    }
}
