//! What a GitHub driver shows.

use std::{fmt, sync::Arc};

use secrecy::SecretString;
use workflows_core::{Error, Result, SecretRef, SecretStore, Tenant};

/// What a [`GitHubDriver`](super::GitHubDriver) shows to GitHub. One driver has one.
///
/// | credential | reads | reports | clone credential for runs | calls an hour (GitHub.com) |
/// | --- | --- | --- | --- | --- |
/// | App | what the App is installed on | check runs | minted, one repository, `contents: read` | 5,000 to 12,500 for each installation |
/// | token | what its owner can | commit statuses | none | 5,000 |
/// | none | public repositories | nothing | none needed | 60 |
#[derive(Debug, Clone)]
pub struct GitHubCredentials(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    App { id: u64, key: GitHubSecret },
    Token { token: GitHubSecret },
    Anonymous,
}

impl GitHubCredentials {
    /// A GitHub App: its id, and its private key in PEM. Which installation answers for a repository
    /// is found by asking GitHub, once for each owner.
    ///
    /// The key is asked for whenever a token is to be minted, so that a new one is taken up without
    /// a restart.
    pub fn app(id: u64, key: impl Into<GitHubSecret>) -> Self {
        Self(Kind::App { id, key: key.into() })
    }

    /// A fine-grained or classic personal access token, or any other that GitHub takes as a bearer.
    ///
    /// It is asked for at each call, so that a new one is taken up without a restart.
    pub fn token(token: impl Into<GitHubSecret>) -> Self {
        Self(Kind::Token { token: token.into() })
    }

    /// No credential: public repositories, read only, at GitHub's lowest rate limit.
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }
}

/// A secret: by name out of the driver's secret store, or the value itself.
#[derive(Debug, Clone)]
pub struct GitHubSecret(pub(super) Secret);

#[derive(Clone)]
pub(super) enum Secret {
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

impl From<SecretRef> for GitHubSecret {
    fn from(reference: SecretRef) -> Self {
        Self(Secret::Named(reference))
    }
}

impl From<SecretString> for GitHubSecret {
    fn from(value: SecretString) -> Self {
        Self(Secret::Held(value))
    }
}

/// Where named secrets are.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    pub(super) tenant: Tenant,
    pub(super) store: Arc<dyn SecretStore>,
}

/// The present value of a secret.
pub(super) async fn present(
    secret: &GitHubSecret,
    keyring: Option<&Keyring>,
) -> Result<SecretString> {
    match (&secret.0, keyring) {
        (Secret::Held(value), _) => Ok(value.clone()),
        (Secret::Named(reference), Some(keyring)) => {
            keyring.store.get(&keyring.tenant, reference).await
        }
        (Secret::Named(reference), None) => {
            Err(Error::invalid("get secret", "the GitHub driver was given no secret store")
                .with("name", &reference.name))
        }
    }
}
