//! One repository at GitHub.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use workflows_core::{
    CommitId, RepoConnection, RepoRef, Result,
    repo::{
        ChangedFile, CloneCredentials, CommentFeed, Commenter, DeliveryLog, Directory, History,
        ListOptions, Permissions, PullRequests, ReadLimit, RefPosition, RepoLinks, StatusReporter,
        WebhookAdmin,
    },
};

use super::{
    Repository,
    api::{Api, Client},
    authorization::{InstallationToken, Scope},
    objects::GitObjects,
    repo_path::{RepoPath, of_repo},
};
use crate::rest::{Priority, Route, objects::ObjectCache};

/// One repository through a driver. The powers are in files of their own.
#[derive(Debug)]
pub(super) struct GitHubRepository {
    pub(super) repo: RepoRef,
    /// What GitHub calls it now.
    pub(super) path: RepoPath,
    /// GitHub's number of it.
    pub(super) number: u64,
    links: RepoLinks,
    pub(super) api: Api,
    pub(super) objects: Arc<ObjectCache>,
    pub(super) git: Arc<GitObjects>,
    /// The last clone credential that was minted.
    pub(super) minted: tokio::sync::Mutex<Option<InstallationToken>>,
}

impl GitHubRepository {
    pub(super) fn new(
        repo: RepoRef,
        path: RepoPath,
        found: Repository,
        api: Api,
        objects: Arc<ObjectCache>,
        git: Arc<GitObjects>,
    ) -> Self {
        let links = RepoLinks::clone_from(found.clone_url).with_web_url(found.html_url);
        Self { repo, path, number: found.id, links, api, objects, git, minted: Default::default() }
    }

    /// Calls about this repository.
    pub(super) fn client(&self, priority: Priority) -> Client {
        self.api.about(Scope::Repo(self.path.clone()), priority)
    }

    /// Reads something that an event may have told of before all of GitHub knows it.
    pub(super) async fn settled<T, F: Future<Output = Result<T>>>(
        &self,
        what: &str,
        read: impl Fn() -> F,
    ) -> Result<T> {
        self.objects.settled(self.number, what, read).await
    }

    /// Whether the credential is an App, without which there are no check runs.
    pub(super) fn is_app(&self) -> bool {
        self.api.authorizer().is_app()
    }

    fn is_anonymous(&self) -> bool {
        self.api.authorizer().is_anonymous()
    }

    /// A route below this repository's.
    pub(super) fn route<'a>(&'a self, segments: impl IntoIterator<Item = &'a str>) -> Route {
        of_repo(&self.path, segments)
    }
}

#[async_trait]
impl RepoConnection for GitHubRepository {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        self.links.clone()
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        #[derive(Serialize, Deserialize)]
        struct Now {
            default_branch: String,
        }
        let client = self.client(Priority::Fetch);
        let now: Now = client.look("ask for the default branch", &self.route([])).await?;
        Ok(format!("refs/heads/{}", now.default_branch).into())
    }

    async fn resolve(&self, reference: &str) -> Result<CommitId> {
        self.resolve_now(reference).await
    }

    fn refs(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        self.refs_now(prefixes)
    }

    async fn read_file(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        self.file(commit, path, limit).await
    }

    async fn list_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        self.directory(commit, path, options).await
    }

    fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        self.changes(from, to)
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn pull_requests(&self) -> Option<&dyn PullRequests> {
        Some(self)
    }

    fn permissions(&self) -> Option<&dyn Permissions> {
        // GitHub tells them to nobody without a credential.
        (!self.is_anonymous()).then_some(self)
    }

    fn clone_credentials(&self) -> Option<&dyn CloneCredentials> {
        self.api.authorizer().mints().then_some(self)
    }

    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        (!self.is_anonymous()).then_some(self as _)
    }

    fn commenter(&self) -> Option<&dyn Commenter> {
        (!self.is_anonymous()).then_some(self as _)
    }

    fn comment_feed(&self) -> Option<&dyn CommentFeed> {
        Some(self)
    }

    fn webhook_admin(&self) -> Option<&dyn WebhookAdmin> {
        (!self.is_anonymous()).then_some(self)
    }

    fn delivery_log(&self) -> Option<&dyn DeliveryLog> {
        (!self.is_anonymous()).then_some(self)
    }
}
