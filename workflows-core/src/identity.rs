//! The names and keys by which things are known: tenants, connections, repositories, events, runs.

use std::{borrow::Borrow, fmt, sync::Arc};

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Defines a cheap-to-clone string type with the usual conversions.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }
    };
}

/// The scope of connections, workflows, policies, keys and queries: the namespace in a cluster,
/// `default` in an embedded engine. Nothing crosses a tenant without a grant.
///
/// ```
/// use workflows_core::Tenant;
///
/// assert_eq!(Tenant::default().as_str(), "default");
/// assert!(Tenant::new("team/a").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// A tenant of that name: 1 to 63 characters of `a-z`, `0-9`, `-` and `.`, as Kubernetes
    /// namespaces have them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when the name has other characters.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self> {
        let name = name.into();
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
            return Err(Error::invalid(
                "name a tenant",
                "a tenant's name has 1 to 63 characters of a-z, 0-9, '-' and '.'",
            )
            .with("name", format!("{name:?}")));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(name).map_err(serde::de::Error::custom)
    }
}

name_type! {
    /// The name under which a connection (a driver with its credentials) is known in its tenant.
    ConnectionName
}
name_type! {
    /// The name of an event source, as it shows in observations and in the engine's health.
    SourceName
}
name_type! {
    /// The name under which a notifier is known in its tenant.
    NotifierName
}
name_type! {
    /// The name under which a run sink is known to the engine.
    SinkName
}
name_type! {
    /// What a repository is called for good by its host: the provider's own id where it has one,
    /// else its address. A renamed repository keeps it.
    RepoId
}
name_type! {
    /// The key of an event: `<tenant>/<repository id>/<subject>/<state>/<k>`.
    ///
    /// It is made by the ledger when an observation turns out to be news, and it is unique for
    /// good: a webhook, its redelivery, the delivery log and a poll of one fact have one key.
    EventKey
}
name_type! {
    /// The id of one delivery of a transport: a webhook's delivery id, a poll's own.
    /// Unique per source; the same id twice is the same delivery.
    DeliveryId
}
name_type! {
    /// The id of the request for an attempt: empty for the first one, else a comment's id and
    /// command index, a re-request's delivery id, or the caller's idempotency key.
    AttemptId
}
name_type! {
    /// What makes a notification's delivery the same one when it is repeated.
    DeliveryKey
}
name_type! {
    /// The key of a concurrency group, rendered, unique in its tenant.
    GroupKey
}

impl AttemptId {
    /// The first attempt, which nobody asked for separately.
    pub fn first() -> Self {
        Self::new("")
    }

    /// Whether this is the first attempt.
    pub fn is_first(&self) -> bool {
        self.0.is_empty()
    }
}

/// A commit's id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
///
/// ```
/// use workflows_core::CommitId;
///
/// let id: CommitId = "3F2A1C5D3F2A1C5D3F2A1C5D3F2A1C5D3F2A1C5D".parse().unwrap();
/// assert_eq!(id.short(), "3f2a1c5");
/// assert!("main".parse::<CommitId>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct CommitId(Arc<str>);

impl CommitId {
    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }

    /// Git's null id, forty zeros: no commit, or one that a transport does not tell.
    pub fn null() -> Self {
        Self("0".repeat(40).into())
    }

    /// Whether it is all zeros.
    pub fn is_null(&self) -> bool {
        self.0.bytes().all(|digit| digit == b'0')
    }
}

impl std::str::FromStr for CommitId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lengths = [40, 64];
        if !lengths.contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let shown: String = text.chars().take(80).collect();
            return Err(Error::invalid(
                "read a commit id",
                "a commit id has 40 or 64 hexadecimal digits",
            )
            .with("text", format!("{shown:?}")));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which repository, through which connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepoRef {
    /// The connection through which it is reached.
    pub connection: ConnectionName,
    /// What its host calls it for good.
    pub id: RepoId,
    /// Its full name as users write it, such as `acme/api`; it can change.
    pub name: Arc<str>,
}

impl fmt::Display for RepoRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.connection, self.name)
    }
}

/// A workflow's identity: where it is defined (a tenant, or a repository of it) and its
/// `metadata.name`; never a path or a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowId {
    /// The repository whose directory defines it; `None` for a registered workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoId>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl WorkflowId {
    /// A registered workflow of the tenant.
    pub fn registered(name: impl Into<Arc<str>>) -> Self {
        Self { repo: None, name: name.into() }
    }

    /// A workflow that a repository's directory defines.
    pub fn in_repository(repo: RepoId, name: impl Into<Arc<str>>) -> Self {
        Self { repo: Some(repo), name: name.into() }
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repo {
            Some(repo) => write!(f, "{}#{}", repo, self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The key of a run: a hash of its cause. The same cause has the same key, so that every create is
/// create-or-get.
///
/// ```
/// use workflows_core::{AttemptId, EventKey, RunKey, Tenant, WorkflowId};
///
/// let of = |attempt: &str| {
///     RunKey::of(
///         &Tenant::default(),
///         &WorkflowId::registered("ci"),
///         "push",
///         &EventKey::new("default/r/refs/heads/main/3f2a/1"),
///         &AttemptId::new(attempt),
///     )
/// };
/// assert_eq!(of(""), of(""));
/// assert_ne!(of(""), of("comment-7/0"));
/// ```
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunKey(Arc<str>);

impl RunKey {
    /// The key of the run that this cause has.
    pub fn of(
        tenant: &Tenant,
        workflow: &WorkflowId,
        trigger: &str,
        event: &EventKey,
        attempt: &AttemptId,
    ) -> Self {
        let repo = workflow.repo.as_ref().map_or("", RepoId::as_str);
        let parts =
            [tenant.as_str(), repo, &workflow.name, trigger, event.as_str(), attempt.as_str()];
        Self(hash_of(&parts).into())
    }

    /// The 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl From<String> for RunKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 over the parts, each preceded by its length, in lower-case hexadecimal: no two different
/// lists of parts have the same input.
pub fn hash_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    HEXLOWER.encode(&hasher.finalize())
}
