//! [`ScriptedScm`]: a source-code host in memory that tests drive.

mod connection;
mod host;
mod repo;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

pub use self::repo::ScriptedRepo;
use self::{connection::ScriptedConnection, host::Host};
use crate::{
    Capabilities, Capability, ConnectionName, Error, ErrorKind, RepoConnection, Result, ScmDriver,
    Tenant,
};

/// A source-code host in memory, behind [`ScmDriver`] and [`RepoConnection`] with every power. It
/// holds repositories with commits, branches, tags, pull requests, comments, permissions and
/// statuses, as a real host would; whatever a test makes happen there is returned as the
/// observation that the host's webhook would make. Clones share everything.
///
/// Every call of the engine is counted ([`calls`](Self::calls)), and can be made to fail.
///
/// ```
/// use workflows_core::{ErrorKind, ScmDriver, conformance::{ScmCall, ScriptedScm}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let scm = ScriptedScm::new();
/// let repo = scm.create("acme/api");
/// let pushed = repo.push("alice", "main", &[("README.md", "hello")]);
/// assert_eq!(pushed.claim.subject().as_str(), "refs/heads/main");
///
/// let connection = scm.connect(&scm.connection(), "acme/api").await.unwrap();
/// scm.fail_next(ScmCall::Resolve, ErrorKind::Transient, "502");
/// assert!(connection.resolve("refs/heads/main").await.is_err());
/// assert_eq!(connection.resolve("refs/heads/main").await.unwrap(), repo.head("main"));
/// assert_eq!(scm.calls(ScmCall::Resolve), 2);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ScriptedScm {
    host: Arc<Mutex<Host>>,
    tenant: Tenant,
    connection: ConnectionName,
    capabilities: Capabilities,
}

/// One kind of call that is made to a [`ScriptedScm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after the method that it stands for")]
pub enum ScmCall {
    Connect,
    DefaultBranch,
    Resolve,
    Refs,
    ReadFile,
    ListDirectory,
    ChangedFiles,
    Commit,
    IsAncestor,
    MergeBase,
    FirstParentAsOf,
    PullRequest,
    PullRequestsChangedSince,
    OpenPullRequests,
    CommentsSince,
    Permission,
    IsMember,
    MintCredential,
    ReportStatus,
    UpsertComment,
    Acknowledge,
    EnsureWebhook,
    RemoveWebhook,
    ListDeliveries,
    ReplayDelivery,
}

impl Default for ScriptedScm {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedScm {
    /// A host without repositories that offers everything, under the connection `scm` of the
    /// default tenant.
    pub fn new() -> Self {
        Self {
            host: Arc::new(Mutex::new(Host::new())),
            tenant: Tenant::default(),
            connection: "scm".into(),
            capabilities: Capabilities::of([
                Capability::History,
                Capability::PullRequests,
                Capability::Permissions,
                Capability::CloneCredentials,
                Capability::StatusReporter,
                Capability::Commenter,
                Capability::CommentFeed,
                Capability::WebhookAdmin,
                Capability::DeliveryLog,
            ]),
        }
    }

    /// The same host under another tenant and connection name.
    #[must_use]
    pub fn under(mut self, tenant: Tenant, connection: impl Into<ConnectionName>) -> Self {
        self.tenant = tenant;
        self.connection = connection.into();
        self
    }

    /// The same host without a power.
    #[must_use]
    pub fn without(mut self, capability: Capability) -> Self {
        self.capabilities =
            Capabilities::of(self.capabilities.iter().filter(|one| *one != capability));
        self
    }

    /// The connection name that its observations carry.
    pub fn connection(&self) -> ConnectionName {
        self.connection.clone()
    }

    /// The tenant that its observations carry.
    pub fn tenant(&self) -> Tenant {
        self.tenant.clone()
    }

    /// Creates an empty repository whose default branch is `main`.
    ///
    /// # Panics
    ///
    /// When there is one of that name: the test's assumption is wrong.
    pub fn create(&self, name: &str) -> ScriptedRepo {
        self.host().create(name);
        self.repo(name)
    }

    /// A repository that was created.
    ///
    /// # Panics
    ///
    /// When there is none: the test's assumption is wrong.
    pub fn repo(&self, name: &str) -> ScriptedRepo {
        assert!(self.host().repos.contains_key(name), "no repository {name} was created");
        ScriptedRepo::new(self.clone(), name)
    }

    /// Clone credentials that are minted from now on end then.
    pub fn credentials_end_at(&self, until: Timestamp) {
        self.host().credentials_until = Some(until);
    }

    /// The host shows whatever status it was told last, as hosts of commit statuses do. Who remembers
    /// nothing of earlier calls looks before it tells of a run whose end was shown.
    pub fn takes_older_statuses(&self) {
        self.host().takes_older_statuses = true;
    }

    // --- faults --------------------------------------------------------------------------------

    /// The next call of that kind fails so, and changes nothing. Calls are made to fail in order.
    pub fn fail_next(&self, call: ScmCall, kind: ErrorKind, message: impl Into<String>) {
        self.host().fail_next(call, kind, message.into());
    }

    /// The next call of that kind does its work, and its answer is lost: the caller sees
    /// `Transient`.
    pub fn lose_next_answer(&self, call: ScmCall) {
        self.host().lose_next_answer(call);
    }

    /// Every call fails with `Transient` from now on, until [`come_back`](Self::come_back).
    pub fn go_down(&self) {
        self.host().outage = Some((ErrorKind::Transient, "the host is down".to_owned()));
    }

    /// Every call fails so from now on, until [`come_back`](Self::come_back).
    pub fn refuse(&self, kind: ErrorKind, message: impl Into<String>) {
        self.host().outage = Some((kind, message.into()));
    }

    /// Calls work again.
    pub fn come_back(&self) {
        self.host().outage = None;
    }

    // --- what was asked of it ------------------------------------------------------------------

    /// How many calls of that kind were made, failed ones too.
    pub fn calls(&self, call: ScmCall) -> usize {
        self.host().calls.iter().filter(|(one, _)| *one == call).count()
    }

    /// Every call in order, with what it was about.
    pub fn all_calls(&self) -> Vec<(ScmCall, String)> {
        self.host().calls.clone()
    }

    /// Forgets which calls were made.
    pub fn forget_calls(&self) {
        self.host().calls.clear();
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ScmDriver for ScriptedScm {
    fn host(&self) -> &str {
        "scripted.example"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn connect(
        &self,
        connection: &ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>> {
        let mut host = ScriptedScm::host(self);
        host.call(ScmCall::Connect, repo, |host| {
            let id = host.repos.get(repo).map(|repo| repo.id.clone());
            id.ok_or_else(|| {
                Error::not_found("connect", "there is no such repository").with("repository", repo)
            })
        })
        .map(|id| {
            Arc::new(ScriptedConnection::new(self.clone(), connection.clone(), id, repo))
                as Arc<dyn RepoConnection>
        })
    }
}
