//! One repository at GitHub.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::Deserialize;
use workflows_core::{
    CommitId, Error, RepoConnection, RepoRef, Result,
    repo::{
        ChangedFile, Commenter, DeliveryLog, Directory, ListOptions, ReadLimit, RefPosition,
        RepoLinks, StatusReporter, WebhookAdmin,
    },
};

use super::{
    Repository,
    api::{Api, Client, Priority, RepoPath, Route, Scope},
};

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
}

impl GitHubRepository {
    pub(super) fn new(repo: RepoRef, path: RepoPath, found: Repository, api: Api) -> Self {
        let links = RepoLinks::clone_from(found.clone_url).with_web_url(found.html_url);
        Self { repo, path, number: found.id, links, api }
    }

    /// Calls about this repository.
    pub(super) fn client(&self, priority: Priority) -> Client {
        self.api.about(Scope::Repo(self.path.clone()), priority)
    }

    /// A route below this repository's.
    pub(super) fn route<'a>(&'a self, segments: impl IntoIterator<Item = &'a str>) -> Route {
        Route::of_repo(&self.path, segments)
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
        #[derive(Deserialize)]
        struct Now {
            default_branch: String,
        }
        let client = self.client(Priority::Fetch);
        let now: Now = client.get("ask for the default branch", &self.route([])).await?;
        Ok(format!("refs/heads/{}", now.default_branch).into())
    }

    async fn resolve(&self, _reference: &str) -> Result<CommitId> {
        Err(Error::unsupported("resolve", "not yet"))
    }

    fn refs(&self, _prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        stream::empty().boxed()
    }

    async fn read_file(&self, _commit: &CommitId, _path: &str, _limit: ReadLimit) -> Result<Bytes> {
        Err(Error::unsupported("read file", "not yet"))
    }

    async fn list_directory(
        &self,
        _commit: &CommitId,
        _path: &str,
        _options: ListOptions,
    ) -> Result<Directory> {
        Err(Error::unsupported("list directory", "not yet"))
    }

    fn changed_files(
        &self,
        _from: Option<&CommitId>,
        _to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        stream::empty().boxed()
    }

    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        None
    }

    fn commenter(&self) -> Option<&dyn Commenter> {
        None
    }

    fn webhook_admin(&self) -> Option<&dyn WebhookAdmin> {
        None
    }

    fn delivery_log(&self) -> Option<&dyn DeliveryLog> {
        None
    }
}
