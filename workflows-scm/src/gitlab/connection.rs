//! One project at GitLab.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use moka::future::Cache;
use workflows_core::{
    CommitId, Error, RepoConnection, RepoRef, Result,
    repo::{
        ChangedFile, CloneCredentials, CommentFeed, Commenter, CommitInfo, DeliveredPayload,
        DeliveryLog, Directory, History, ListOptions, Permissions, PullRequests, ReadLimit,
        RefPosition, RepoLinks, StatusReporter, WebhookAdmin,
    },
};

use super::{
    Project,
    api::{Api, Client},
    group_listing::GroupListings,
    statuses::Place,
};
use crate::rest::{
    Priority, Route,
    objects::{ObjectCache, weight},
};

/// What a driver has seen, of all its projects.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) objects: ObjectCache,
    pub(super) commits: Cache<(u64, CommitId), Arc<CommitInfo>>,
    /// GitLab's numbers of people, by name.
    pub(super) people: Cache<Arc<str>, u64>,
    /// Payloads of deliveries, from their listing on.
    pub(super) deliveries: Cache<(Route, u64), DeliveredPayload>,
    /// Merge requests that were read of several projects together.
    pub(super) groups: GroupListings,
    /// Where statuses of a commit are shown.
    pub(super) places: Cache<(u64, CommitId), Arc<Place>>,
}

impl Seen {
    pub(super) fn new(bytes: u64) -> Self {
        const MANY: u64 = 20_000;
        const A_WHILE: Duration = Duration::from_secs(600);
        Self {
            objects: ObjectCache::new(bytes / 4 * 3),
            commits: Cache::new(MANY),
            people: Cache::builder().max_capacity(MANY).time_to_live(A_WHILE).build(),
            deliveries: Cache::builder()
                .max_capacity(bytes / 4)
                .weigher(|_: &(Route, u64), payload: &DeliveredPayload| weight(payload.body.len()))
                .time_to_live(A_WHILE)
                .build(),
            groups: GroupListings::default(),
            places: Cache::builder().max_capacity(MANY).time_to_live(A_WHILE * 6).build(),
        }
    }
}

/// One project through a driver. The powers are in files of their own.
#[derive(Debug)]
pub(super) struct GitLabProject {
    pub(super) repo: RepoRef,
    /// What GitLab calls it now.
    pub(super) path: String,
    /// GitLab's number of it.
    pub(super) number: u64,
    pub(super) is_public: bool,
    links: RepoLinks,
    pub(super) api: Api,
    pub(super) seen: Arc<Seen>,
}

impl GitLabProject {
    pub(super) fn new(repo: RepoRef, found: Project, api: Api, seen: Arc<Seen>) -> Self {
        let links = RepoLinks::clone_from(found.http_url_to_repo).with_web_url(found.web_url);
        // Who is not known sees no visibility, and no project that is not public.
        let is_public = found.visibility.as_deref().is_none_or(|text| text == "public");
        let (path, number) = (found.path_with_namespace, found.id);
        Self { repo, path, number, is_public, links, api, seen }
    }

    pub(super) fn client(&self, priority: Priority) -> Client {
        self.api.about((), priority)
    }

    /// A route below this project's. It is named by its number, which stays when it is renamed.
    pub(super) fn route<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Route {
        route_of(self.number, segments)
    }

    pub(super) fn objects(&self) -> &ObjectCache {
        &self.seen.objects
    }

    fn is_known(&self) -> bool {
        !self.api.authorizer().is_anonymous()
    }
}

/// A route below a project's.
pub(super) fn route_of<'a>(project: u64, segments: impl IntoIterator<Item = &'a str>) -> Route {
    let segments: Vec<&str> = segments.into_iter().collect();
    let number = project.to_string();
    Route::new(["projects", &number].into_iter().chain(segments))
}

#[async_trait]
impl RepoConnection for GitLabProject {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        self.links.clone()
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        const OPERATION: &str = "ask for the default branch";
        let client = self.client(Priority::Fetch);
        let now: Project = client.look(OPERATION, &self.route([])).await?;
        let branch = now.default_branch.ok_or_else(|| {
            Error::not_found(OPERATION, "the project has no commit yet").with("project", &self.path)
        })?;
        Ok(format!("refs/heads/{branch}").into())
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
        // GitLab tells them to nobody without a credential.
        self.is_known().then_some(self as _)
    }

    fn clone_credentials(&self) -> Option<&dyn CloneCredentials> {
        self.api.authorizer().has_clone_token().then_some(self as _)
    }

    fn status_reporter(&self) -> Option<&dyn StatusReporter> {
        self.is_known().then_some(self as _)
    }

    fn commenter(&self) -> Option<&dyn Commenter> {
        self.is_known().then_some(self as _)
    }

    fn comment_feed(&self) -> Option<&dyn CommentFeed> {
        Some(self)
    }

    fn webhook_admin(&self) -> Option<&dyn WebhookAdmin> {
        self.is_known().then_some(self as _)
    }

    fn delivery_log(&self) -> Option<&dyn DeliveryLog> {
        self.is_known().then_some(self as _)
    }
}
