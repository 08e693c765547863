//! Secrets that a driver shows to its host.

use std::{fmt, sync::Arc};

use secrecy::SecretString;
use workflows_core::{Error, Result, SecretRef, SecretStore, Tenant};

/// A secret of a driver: by name out of its secret store, asked for at each use, or the value itself.
#[derive(Debug, Clone)]
pub struct HostSecret(pub(crate) Secret);

#[derive(Clone)]
pub(crate) enum Secret {
    Named(SecretRef),
    Held(SecretString),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(reference) => {
                f.debug_struct("Named").field("reference", reference).finish()
            }
            Self::Held(_) => f.debug_struct("Held").finish_non_exhaustive(),
        }
    }
}

impl From<SecretRef> for HostSecret {
    fn from(reference: SecretRef) -> Self {
        Self(Secret::Named(reference))
    }
}

impl From<SecretString> for HostSecret {
    fn from(value: SecretString) -> Self {
        Self(Secret::Held(value))
    }
}

/// Where named secrets are.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    pub(crate) tenant: Tenant,
    pub(crate) store: Arc<dyn SecretStore>,
}

/// Refuses secrets that are named while there is no store.
pub(crate) fn check_named<'a>(
    operation: &'static str,
    mut secrets: impl Iterator<Item = &'a HostSecret>,
    keyring: Option<&Keyring>,
) -> Result<()> {
    if keyring.is_none() && secrets.any(|secret| matches!(secret.0, Secret::Named(_))) {
        return Err(Error::invalid(
            operation,
            "a credential names a secret, and there is no secret store; call `secrets`",
        ));
    }
    Ok(())
}

/// The present value of a secret.
pub(crate) async fn present(
    secret: &HostSecret,
    keyring: Option<&Keyring>,
) -> Result<SecretString> {
    match (&secret.0, keyring) {
        (Secret::Held(value), _) => Ok(value.clone()),
        (Secret::Named(reference), Some(keyring)) => {
            keyring.store.get(&keyring.tenant, reference).await
        }
        (Secret::Named(reference), None) => {
            Err(Error::invalid("get secret", "the driver was given no secret store")
                .with("name", &reference.name))
        }
    }
}
