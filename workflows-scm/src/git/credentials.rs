//! What a driver shows to a git server.

use std::{path::PathBuf, sync::Arc};

use secrecy::SecretString;
use workflows_core::{Error, Result, SecretRef, SecretStore, Tenant};

/// What a driver shows to the servers of its repositories. Secrets are named here and fetched at
/// the time of use, so that a rotation needs no restart; they never stand in an address, an error,
/// a log or the arguments of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitCredentials(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Basic { username: String, password: SecretRef },
    Bearer { token: SecretRef },
    SshKeyFile { path: PathBuf },
    SshKey { key: SecretRef },
    SshOfTheUser,
}

impl GitCredentials {
    /// HTTP basic authentication. Most hosts take an access token as the password; the user name is
    /// then `x-access-token` (GitHub), `oauth2` (GitLab) or anything.
    pub fn basic(username: impl Into<String>, password: SecretRef) -> Self {
        Self(Kind::Basic { username: username.into(), password })
    }

    /// An HTTP `Authorization: Bearer` header.
    pub fn bearer(token: SecretRef) -> Self {
        Self(Kind::Bearer { token })
    }

    /// The file of a private key without a passphrase, for ssh. No agent, no configuration of the
    /// user and no other key are used.
    pub fn ssh_key_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::SshKeyFile { path: path.into() })
    }

    /// A private key without a passphrase out of the secret store, for ssh. For the time of a call
    /// it lies in a file that only this user can read.
    pub fn ssh_key(key: SecretRef) -> Self {
        Self(Kind::SshKey { key })
    }

    /// Whatever `ssh` uses when this user types it: `~/.ssh/config`, the default keys, the agent.
    pub fn ssh_of_the_user() -> Self {
        Self(Kind::SshOfTheUser)
    }
}

/// Where the named secrets are.
#[derive(Debug, Clone)]
pub(super) struct Keyring {
    pub(super) tenant: Tenant,
    pub(super) store: Arc<dyn SecretStore>,
}

impl Keyring {
    pub(super) async fn get(&self, secret: &SecretRef) -> Result<SecretString> {
        self.store.get(&self.tenant, secret).await
    }
}

/// A driver's credentials with the means to look them up.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    pub(super) credentials: Option<Kind>,
    pub(super) keyring: Option<Keyring>,
}

impl Access {
    pub(super) async fn secret(&self, secret: &SecretRef) -> Result<SecretString> {
        match &self.keyring {
            Some(keyring) => keyring.get(secret).await,
            None => Err(Error::invalid("get secret", "the git driver was given no secret store")
                .with("name", &secret.name)),
        }
    }
}
