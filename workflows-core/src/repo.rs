//! Source-code hosts and repositories: [`ScmDriver`], [`RepoConnection`] and its optional powers.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

mod status;

pub use self::status::{
    EarlierReport, ReportedStatus, Status, StatusAction, StatusReporter, StatusState,
};
use crate::{
    CommitId, Error, RepoRef, Result,
    event::{Comment, PullRequest, PullRequestState},
};

/// The host part of a connection: API base, credentials, and how to reach a repository there. One
/// for each credential; it serves every repository that it allows.
///
/// # Implementing
///
/// `connect` should be cheap: the engine keeps the connection of a repository and asks again only
/// when it has dropped it. A private host needs this trait and [`RepoConnection`], no patch to any
/// crate; the suite in [`conformance`](crate::conformance) proves it.
#[async_trait]
pub trait ScmDriver: Debug + Send + Sync + 'static {
    /// The host, for people: `github.com`, `git.example.com`, `file system`.
    fn host(&self) -> &str;

    /// What its connections offer.
    fn capabilities(&self) -> Capabilities;

    /// The connection to the repository of that full name. `connection` is the name under which
    /// the engine knows this driver, and becomes part of the [`RepoRef`].
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none or it cannot be seen, `Denied` when the driver's own patterns
    /// or the host refuse, `Invalid` when the name cannot be one of this host's.
    async fn connect(
        &self,
        connection: &crate::ConnectionName,
        repo: &str,
    ) -> Result<Arc<dyn RepoConnection>>;
}

/// One repository reached through a driver.
///
/// The required methods are what the engine cannot do without. What else a host offers is behind an
/// accessor that returns `Option<&dyn Power>`, so that "unsupported" is known at start.
///
/// # Errors
///
/// Every method: `NotFound` (no such ref, path or commit; a commit that was rewritten away counts),
/// `Denied`, `RateLimited` and `Transient` for the host, `Invalid` for a malformed argument.
/// Implementations do not retry; the engine does, from the kind.
///
/// # Example
///
/// ```
/// use workflows_core::{Result, ScmDriver, repo::ReadLimit};
///
/// /// What a repository says about itself on its default branch.
/// async fn readme(driver: &dyn ScmDriver, repo: &str) -> Result<String> {
///     let repository = driver.connect(&"scm".into(), repo).await?;
///     let head = repository.resolve(&repository.default_branch().await?).await?;
///     let text = repository.read_file(&head, "README.md", ReadLimit::bytes(1 << 20)).await?;
///     Ok(String::from_utf8_lossy(&text).into_owned())
/// }
/// ```
#[async_trait]
pub trait RepoConnection: Debug + Send + Sync + 'static {
    /// Which repository this is.
    fn repo(&self) -> &RepoRef;

    /// Where it can be cloned and looked at.
    fn links(&self) -> RepoLinks;

    /// The branch that the host calls the default, as a full ref name.
    async fn default_branch(&self) -> Result<Arc<str>>;

    /// The commit at which a full ref name (`refs/heads/main`, `refs/tags/v1`; annotated tags are
    /// peeled) stands now. A commit id resolves to itself when the repository has it.
    async fn resolve(&self, reference: &str) -> Result<CommitId>;

    /// The refs whose full names begin with one of the prefixes, in no certain order, annotated
    /// tags peeled. Only what matches is asked from the host.
    fn refs(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>>;

    /// The content of a file at a commit.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is larger than `limit.max_bytes`, or not a file.
    async fn read_file(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes>;

    /// What is in a directory at a commit (`""` is the root), with everything below it when
    /// `options.recursive`. A directory that is not there is an empty listing without a digest.
    async fn list_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory>;

    /// The files that differ between two commits, over all commits that lie between them. With no
    /// `from`, those that differ from the empty tree. Renames show as both names.
    ///
    /// For a pull request the engine asks from the commit at which head and base parted
    /// ([`History::merge_base`]), so that what was committed to the base since does not count. Where
    /// that is not known it asks from the base itself, so that more counts as changed.
    fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>>;

    /// Commits and how they descend from each other.
    fn history(&self) -> Option<&dyn History> {
        None
    }

    /// Pull requests.
    fn pull_requests(&self) -> Option<&dyn PullRequests> {
        None
    }

    /// Who may do what.
    fn permissions(&self) -> Option<&dyn Permissions> {
        None
    }

    /// Credentials for a run to clone with.
    fn clone_credentials(&self) -> Option<&dyn CloneCredentials> {
        None
    }

    /// Check runs or commit statuses.
    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        None
    }

    /// Comments on a pull request.
    fn commenter(&self) -> Option<&dyn Commenter> {
        None
    }

    /// Comments as they come.
    fn comment_feed(&self) -> Option<&dyn CommentFeed> {
        None
    }

    /// The repository's webhook.
    fn webhook_admin(&self) -> Option<&dyn WebhookAdmin> {
        None
    }

    /// The host's log of webhook deliveries.
    fn delivery_log(&self) -> Option<&dyn DeliveryLog> {
        None
    }
}

/// Where a repository can be cloned and looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RepoLinks {
    /// The address to clone from, without credentials.
    pub clone_url: String,
    /// The repository's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_url: Option<String>,
}

impl RepoLinks {
    /// Links with a clone address only.
    pub fn clone_from(clone_url: impl Into<String>) -> Self {
        Self { clone_url: clone_url.into(), web_url: None }
    }

    /// Adds the repository's page.
    #[must_use]
    pub fn with_web_url(mut self, web_url: impl Into<String>) -> Self {
        self.web_url = Some(web_url.into());
        self
    }
}

/// A ref and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefPosition {
    /// The full name, such as `refs/heads/main`.
    pub name: Arc<str>,
    /// The commit; of an annotated tag, the one that it marks.
    pub commit: CommitId,
}

/// How much of a file may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLimit {
    /// A larger file is refused.
    pub max_bytes: usize,
}

impl ReadLimit {
    /// At most so many bytes.
    pub const fn bytes(max_bytes: usize) -> Self {
        Self { max_bytes }
    }
}

impl Default for ReadLimit {
    /// One mebibyte.
    fn default() -> Self {
        Self::bytes(1 << 20)
    }
}

/// How a directory is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Also what is in its sub-directories, with paths relative to the directory.
    pub recursive: bool,
    /// A listing with more entries is refused as `Invalid`.
    pub max_entries: usize,
}

impl ListOptions {
    /// The directory and all below it.
    pub fn recursive() -> Self {
        Self { recursive: true, ..Self::default() }
    }
}

impl Default for ListOptions {
    /// One level, at most 10,000 entries.
    fn default() -> Self {
        Self { recursive: false, max_entries: 10_000 }
    }
}

/// A directory at a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Directory {
    /// A name for the content of the whole directory, the same for the same content, such as git's
    /// tree id; `None` where the host has none or there is no such directory.
    pub digest: Option<Arc<str>>,
    /// What is in it, ordered by path.
    pub entries: Vec<DirectoryEntry>,
}

impl Directory {
    /// A directory with that digest and those entries.
    pub fn new(digest: Option<Arc<str>>, mut entries: Vec<DirectoryEntry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { digest, entries }
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// The path, relative to the directory that was listed.
    pub path: Arc<str>,
    /// What it is.
    pub kind: EntryKind,
    /// A name for its content (git's blob or tree id), where the host has one.
    pub digest: Option<Arc<str>>,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is never followed.
    Link,
    /// A commit of another repository.
    Submodule,
}

/// A file that differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangedFile {
    /// Its path from the root.
    pub path: Arc<str>,
    /// How it differs.
    pub change: FileChange,
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// It is new (also the new name of a renamed one).
    Added,
    /// Its content, mode or kind changed.
    Modified,
    /// It is gone (also the old name of a renamed one).
    Deleted,
}

/// Commits and how they descend from each other.
#[async_trait]
pub trait History: Debug + Send + Sync {
    /// What a commit says about itself.
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo>;

    /// Whether `ancestor` is `descendant` or one of those before it.
    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool>;

    /// The best commit that both have in their history, as `git merge-base` finds it; `None` when
    /// there is none, or when a driver leaves that to its host, as is the default.
    async fn merge_base(&self, _one: &CommitId, _other: &CommitId) -> Result<Option<CommitId>> {
        Ok(None)
    }

    /// The newest commit on the first-parent line of a ref whose committer date is at or before an
    /// instant; `None` when all are later.
    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>>;
}

/// What a commit says about itself. Its dates are the author's and committer's claims: they are
/// shown to people, and order nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// The commit.
    pub id: CommitId,
    /// The first line of its message.
    pub title: Arc<str>,
    /// The author's name.
    pub author: Arc<str>,
    /// The committer date.
    pub committed_at: Timestamp,
    /// Its parents.
    pub parents: Vec<CommitId>,
}

/// Pull requests (GitLab: merge requests).
#[async_trait]
pub trait PullRequests: Debug + Send + Sync {
    /// One, as it is now.
    async fn get(&self, number: u64) -> Result<PullRequest>;

    /// Those that changed at or after an instant, whatever their state, newest change first.
    fn changed_since(&self, since: Option<Timestamp>) -> BoxStream<'_, Result<PullRequest>>;

    /// Those that are open, in no certain order. Without an own implementation all are listed.
    fn open(&self) -> BoxStream<'_, Result<PullRequest>> {
        let is_open = |one: &PullRequest| one.state == PullRequestState::Open;
        let all = self.changed_since(None);
        all.try_filter(move |one| std::future::ready(is_open(one))).boxed()
    }
}

/// Who may do what in the repository.
#[async_trait]
pub trait Permissions: Debug + Send + Sync {
    /// What one person may do; asked about that person, not by listing everybody.
    async fn of(&self, actor: &str) -> Result<Permission>;

    /// Whether a person is in a team or group of the host.
    async fn is_member(&self, actor: &str, team: &str) -> Result<bool>;
}

/// What a person may do in a repository, from least to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Nothing.
    None,
    /// Look at it.
    Read,
    /// Label and assign.
    Triage,
    /// Push to it.
    Write,
    /// Change its settings but not who has access.
    Maintain,
    /// Everything.
    Admin,
}

/// Credentials for a run to clone with, scoped to what it needs, and expiring.
#[async_trait]
pub trait CloneCredentials: Debug + Send + Sync {
    /// A credential that can read this repository and no other, for at least `for_at_least`, or for
    /// as long as the host allows.
    async fn mint(&self, for_at_least: SignedDuration) -> Result<CloneCredential>;
}

/// A credential for a run.
#[derive(Debug, Clone)]
pub struct CloneCredential {
    /// The user name that goes with it.
    pub username: String,
    /// The token.
    pub token: SecretString,
    /// When it stops working; `None` when it does not.
    pub expires_at: Option<Timestamp>,
}

/// Comments on a pull request: one that is kept up to date, and answers to commands.
#[async_trait]
pub trait Commenter: Debug + Send + Sync {
    /// Makes the one comment with that marker say `body` (Markdown); creates it when there is none,
    /// or when it was deleted. The marker is kept out of sight, and is believed only in a comment
    /// that this connection's own account wrote. `known` is what an earlier call returned; without
    /// it an earlier call may have created the comment all the same, and its answer been lost.
    async fn upsert(
        &self,
        pull_request: u64,
        marker: &str,
        body: &str,
        known: Option<&str>,
    ) -> Result<String>;

    /// Acknowledges a comment, with a reaction where the host has them. `comment` is the id that the
    /// event carried. Repeating changes nothing.
    async fn acknowledge(&self, pull_request: u64, comment: &str, accepted: bool) -> Result<()>;
}

/// Comments on pull requests as they come, for who finds them by looking.
///
/// A comment changes its pull request ([`PullRequests::changed_since`] lists it), so that who looks
/// there need not ask here while nothing changes.
pub trait CommentFeed: Debug + Send + Sync {
    /// Comments on pull requests that were written or changed at or after an instant, in no certain
    /// order. A host whose listing holds other comments, too (those on issues), leaves them out.
    fn comments_since(&self, since: Timestamp) -> BoxStream<'_, Result<FoundComment>>;
}

/// A comment that was found by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundComment {
    /// The comment.
    pub comment: Comment,
    /// The number of its pull request.
    pub pull_request: u64,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The repository's webhook at the host.
#[async_trait]
pub trait WebhookAdmin: Debug + Send + Sync {
    /// Makes sure that exactly one hook with that address exists and has these events, adopting or
    /// repairing what is there.
    async fn ensure(&self, hook: &Webhook) -> Result<String>;

    /// Removes every hook with that address; none is success.
    async fn remove(&self, url: &str) -> Result<()>;
}

/// A webhook that should exist.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where it is delivered.
    pub url: String,
    /// What it is signed with.
    pub secret: SecretString,
    /// The host's names of the events wanted.
    pub events: BTreeSet<String>,
}

/// The host's log of webhook deliveries.
#[async_trait]
pub trait DeliveryLog: Debug + Send + Sync {
    /// Deliveries at or after an instant, newest first.
    fn list(&self, since: Timestamp) -> BoxStream<'_, Result<LoggedDelivery>>;

    /// The whole of one, to be handled as if it had arrived.
    async fn replay(&self, id: &str) -> Result<DeliveredPayload>;
}

/// A line of the delivery log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedDelivery {
    /// The log's own id of it.
    pub id: String,
    /// The delivery id that the receiver saw.
    pub delivery: crate::DeliveryId,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// Whether the receiver answered with success.
    pub succeeded: bool,
    /// Whether something may come of it, as far as the log tells without its payload.
    pub may_matter: bool,
}

/// A delivery as the host sent it.
#[derive(Debug, Clone)]
pub struct DeliveredPayload {
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The bytes.
    pub body: Bytes,
}

/// What an implementation offers, known at start and shown by
/// [`EngineHandle::health`](crate::EngineHandle::health).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// These and no others.
    pub fn of(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        Self(capabilities.into_iter().collect())
    }

    /// Whether it is offered.
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// All that are offered.
    pub fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }

    /// Refuses with `Unsupported` when it is not offered.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub fn require(&self, capability: Capability, of: &str) -> Result<()> {
        if self.has(capability) {
            return Ok(());
        }
        Err(Error::unsupported("use a capability", format!("{of} does not offer {capability:?}")))
    }
}

/// An optional power of a repository connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Capability {
    /// [`History`].
    History,
    /// [`PullRequests`].
    PullRequests,
    /// [`Permissions`].
    Permissions,
    /// [`CloneCredentials`].
    CloneCredentials,
    /// [`StatusReporter`].
    StatusReporter,
    /// [`Commenter`].
    Commenter,
    /// [`CommentFeed`].
    CommentFeed,
    /// [`WebhookAdmin`].
    WebhookAdmin,
    /// [`DeliveryLog`].
    DeliveryLog,
}
