//! Secrets of the cluster: [`KubernetesSecrets`].

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use workflows_core::{Clock, Error, Result, SecretRef, SecretStore, SystemClock, Tenant};

use crate::{error::from_kube, namespaces::Namespaces};

/// Secrets of the cluster, read from the tenant's namespace when they are used.
///
/// A rotation is seen at once. Only while the API server cannot be asked, what was read last
/// [stands in](Self::standing_in), so that deliveries are still taken in and statuses told. It needs
/// `secrets` (get), best for the named ones alone.
#[derive(Clone)]
pub struct KubernetesSecrets {
    client: Client,
    namespaces: Namespaces,
    stands_in: Duration,
    last: Arc<Mutex<HashMap<(String, SecretRef), Last>>>,
}

const OPERATION: &str = "get secret";

/// What was read last, and when.
struct Last {
    value: SecretString,
    at: Instant,
}

/// The API server is waited for so long where there is something that can stand in.
const PATIENCE: Duration = Duration::from_secs(2);

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
        let stands_in = Duration::from_secs(3_600);
        Self { client, namespaces, stands_in, last: Arc::default() }
    }

    /// Sets how long what was read last is good for while the API server cannot be asked: an hour by
    /// default. It is kept in memory for so long, and forgotten when the server says that it is gone or
    /// that it may not be read.
    #[must_use]
    pub fn standing_in(mut self, time: Duration) -> Self {
        self.stands_in = time;
        self.last = Arc::default();
        self
    }

    /// Remembers a value, and forgets what is too old to stand in.
    fn remember(&self, key: (String, SecretRef), value: &SecretString) {
        let at = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, one| at.duration_since(one.at) < self.stands_in);
        if !self.stands_in.is_zero() {
            last.insert(key, Last { value: value.clone(), at });
        }
    }

    fn remembered(&self, key: &(String, SecretRef)) -> Option<SecretString> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let one = last.get(key).filter(|one| one.at.elapsed() < self.stands_in)?;
        Some(one.value.clone())
    }

    /// Takes in what the API server said.
    fn settle(
        &self,
        key: &(String, SecretRef),
        asked: Result<SecretString>,
    ) -> Result<SecretString> {
        let error = match asked {
            Ok(value) => {
                self.remember(key.clone(), &value);
                return Ok(value);
            }
            Err(error) => error,
        };
        if !error.kind().is_retryable() {
            self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
        let (namespace, SecretRef { name, key }) = key;
        Err(error.with("namespace", namespace).with("name", name).with("key", key))
    }

    /// Asks the API server.
    async fn ask(&self, namespace: &str, secret: &SecretRef) -> Result<SecretString> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get(&secret.name).await;
        let found = found.map_err(|error| from_kube(OPERATION, error, SystemClock.now()))?;
        let value = found.data.as_ref().and_then(|data| data.get(&*secret.key));
        let Some(value) = value else {
            return Err(Error::not_found(OPERATION, "the Secret has no such key"));
        };
        match std::str::from_utf8(&value.0) {
            Ok(text) => Ok(SecretString::from(text.to_owned())),
            Err(_) => Err(Error::invalid(OPERATION, "the value is not text in UTF-8")),
        }
    }
}

#[async_trait]
impl SecretStore for KubernetesSecrets {
    async fn get(&self, tenant: &Tenant, secret: &SecretRef) -> Result<SecretString> {
        let key = (self.namespaces.of(tenant), secret.clone());
        let asked = self.ask(&key.0, secret);
        let Some(last) = self.remembered(&key) else { return self.settle(&key, asked.await) };
        let why = match timeout(PATIENCE, asked).await {
            Ok(Err(error)) if error.kind().is_retryable() => error.to_string(),
            Ok(asked) => return self.settle(&key, asked),
            Err(_) => "it does not answer".to_owned(),
        };
        let (namespace, name) = (&key.0, &secret.name);
        tracing::warn!(why, namespace, %name, "no secret can be read; the last value stands in");
        Ok(last)
    }
}
