//! One git repository as a [`RepoConnection`].

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use git2::{ErrorCode, ObjectType, Oid, Repository, RepositoryOpenFlags};
use jiff::Timestamp;
use workflows_core::{
    CommitId, Error, RepoConnection, RepoRef, Result,
    repo::{
        ChangedFile, CommitInfo, Directory, History, ListOptions, ReadLimit, RefPosition, RepoLinks,
    },
};

use super::{
    Caches, DirectoryKey, FileKey, REACH, Settings, blocking,
    objects::{self, Descent, Failure, Read, commit_id, oid_of, parts_of},
    protocol::{ListedRef, is_plausible},
    remote::{Remote, not_there},
};
use crate::repeated::repeated;

/// One git repository.
#[derive(Debug)]
pub(super) struct GitRepository {
    pub(super) repo: RepoRef,
    pub(super) clone_url: String,
    pub(super) page: Option<String>,
    pub(super) place: Place,
    pub(super) settings: Arc<Settings>,
    pub(super) caches: Arc<Caches>,
}

/// Where the objects are.
#[derive(Debug)]
pub(super) enum Place {
    /// In a directory of this machine.
    Here(PathBuf),
    /// On a server.
    There(Arc<Remote>),
}

impl GitRepository {
    /// Bounds the time of a whole operation.
    async fn within<T>(&self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let limit = self.settings.total_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Error::transient(REACH, format!("not done within {} s", limit.as_secs_f32()))
                .with("repository", &self.repo))
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
    ) -> Result<T> {
        match &self.place {
            Place::There(remote) => remote.read(read).await,
            Place::Here(path) => read_here(&self.settings, path, read).await,
        }
    }

    async fn read_history<T: Send + 'static>(
        &self,
        read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
    ) -> Result<T> {
        match &self.place {
            Place::There(remote) => remote.read_history(read).await,
            Place::Here(path) => read_here(&self.settings, path, read).await,
        }
    }

    async fn list(&self, prefixes: &[Arc<str>]) -> Result<Vec<ListedRef>> {
        let prefixes = without_covered(prefixes);
        if prefixes.is_empty() {
            return Ok(Vec::new());
        }
        for prefix in &prefixes {
            if prefix.chars().any(|c| c.is_control() || c == ' ') {
                return Err(Error::invalid("list refs", "no ref begins like this")
                    .with("prefix", format!("{prefix:?}")));
            }
        }
        let mut refs = match &self.place {
            Place::There(remote) => remote.refs(&prefixes).await?,
            Place::Here(path) => {
                let most = self.settings.max_refs;
                let prefixes = prefixes.clone();
                read_here(&self.settings, path, move |repo| refs_here(repo, &prefixes, most))
                    .await?
            }
        };
        // A server may take the prefixes for a hint.
        refs.retain(|listed| prefixes.iter().any(|prefix| listed.name.starts_with(&**prefix)));
        Ok(refs)
    }

    async fn resolve_now(&self, reference: &str) -> Result<CommitId> {
        const OPERATION: &str = "resolve ref";
        if let Ok(commit) = reference.parse::<CommitId>() {
            let id = oid_of(&commit)?;
            self.read_history(move |repo| objects::has_commit(repo, id)).await?;
            return Ok(commit);
        }
        let shown = || format!("{:?}", reference.chars().take(200).collect::<String>());
        if !(reference == "HEAD" || reference.starts_with("refs/")) || !is_plausible(reference) {
            return Err(Error::invalid(
                OPERATION,
                "give a full ref name, such as refs/heads/main, or a whole commit id",
            )
            .with("ref", shown()));
        }
        let refs = self.list(&[reference.into()]).await?;
        let found = refs.into_iter().find(|listed| listed.name == reference);
        match found.and_then(|listed| listed.peeled.or(listed.id)) {
            Some(id) => commit_id(id),
            None => Err(Error::not_found(OPERATION, "the repository has no such ref")
                .with("ref", shown())
                .with("repository", &self.repo)),
        }
    }
}

#[async_trait]
impl RepoConnection for GitRepository {
    fn repo(&self) -> &RepoRef {
        &self.repo
    }

    fn links(&self) -> RepoLinks {
        let links = RepoLinks::clone_from(&self.clone_url);
        match &self.page {
            Some(page) => links.with_web_url(page),
            None => links,
        }
    }

    async fn default_branch(&self) -> Result<Arc<str>> {
        let refs = self.within(self.list(&["HEAD".into()])).await?;
        let head = refs.into_iter().find(|listed| listed.name == "HEAD");
        match head.and_then(|head| head.target) {
            Some(target) if is_plausible(&target) => Ok(target.into()),
            _ => Err(Error::not_found(
                "find default branch",
                "the repository's HEAD is missing or is not a branch",
            )
            .with("repository", &self.repo)),
        }
    }

    async fn resolve(&self, reference: &str) -> Result<CommitId> {
        self.within(self.resolve_now(reference)).await
    }

    fn refs(&self, prefixes: &[Arc<str>]) -> BoxStream<'_, Result<RefPosition>> {
        let prefixes = prefixes.to_vec();
        let list = async move {
            let refs = self.within(self.list(&prefixes)).await?;
            Ok(stream::iter(refs.into_iter().filter_map(position)))
        };
        list.into_stream().try_flatten().boxed()
    }

    async fn read_file(&self, commit: &CommitId, path: &str, limit: ReadLimit) -> Result<Bytes> {
        let id = oid_of(commit)?;
        let parts = parts_of("read file", path)?;
        let key = FileKey { repo: self.repo.id.clone(), commit: id, path: parts.join("/").into() };
        let path = Arc::clone(&key.path);
        let read = self.within(self.read(move |repo| objects::file(repo, id, &path, limit)));
        let content = self.caches.files.try_get_with(key, read).await.map_err(repeated)?;
        if content.len() > limit.max_bytes {
            return Err(Error::invalid(
                "read file",
                format!(
                    "the file has {} bytes, more than the {} allowed",
                    content.len(),
                    limit.max_bytes
                ),
            )
            .with("path", path_of(&parts))
            .with("commit", commit));
        }
        Ok(content)
    }

    async fn list_directory(
        &self,
        commit: &CommitId,
        path: &str,
        options: ListOptions,
    ) -> Result<Directory> {
        let id = oid_of(commit)?;
        let path: Arc<str> = parts_of("list directory", path)?.join("/").into();
        let key = DirectoryKey {
            repo: self.repo.id.clone(),
            commit: id,
            path: Arc::clone(&path),
            recursive: options.recursive,
            max_entries: options.max_entries,
        };
        let read = async {
            let read = self.read(move |repo| objects::directory(repo, id, &path, options));
            self.within(read).await.map(Arc::new)
        };
        let directory = self.caches.directories.try_get_with(key, read).await.map_err(repeated)?;
        Ok(Directory::clone(&directory))
    }

    fn changed_files(
        &self,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> BoxStream<'_, Result<ChangedFile>> {
        let ids = from.map(oid_of).transpose().and_then(|from| Ok((from, oid_of(to)?)));
        let most = self.settings.max_compared;
        let find = async move {
            let (from, to) = ids?;
            let read = self.read(move |repo| objects::changed_files(repo, from, to, most));
            let changed = self.within(read).await?;
            Ok(stream::iter(changed.into_iter().map(Ok)))
        };
        find.into_stream().try_flatten().boxed()
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }
}

#[async_trait]
impl History for GitRepository {
    async fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        let id = oid_of(id)?;
        self.within(self.read_history(move |repo| objects::commit(repo, id))).await
    }

    async fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool> {
        let (ancestor, descendant) = (oid_of(ancestor)?, oid_of(descendant)?);
        if ancestor == descendant {
            return self
                .within(self.read_history(move |repo| objects::has_commit(repo, ancestor)))
                .await
                .map(|()| true);
        }
        let found: BoxFuture<'_, Result<bool>> = match &self.place {
            Place::There(remote) => remote.is_ancestor(ancestor, descendant).boxed(),
            Place::Here(path) => {
                let most = self.settings.max_history;
                let read = move |repo: &Repository| {
                    objects::has_commit(repo, descendant)?;
                    let descent = objects::descent(repo, ancestor, descendant, most)?;
                    if descent == Descent::Unknown {
                        let error = Error::not_found(
                            "compare commits",
                            "the repository is shallow and ends before the ancestor is found",
                        );
                        return Err(Failure::Answer(error));
                    }
                    Ok(descent == Descent::Found)
                };
                read_here(&self.settings, path, read).boxed()
            }
        };
        self.within(found).await
    }

    async fn merge_base(&self, one: &CommitId, other: &CommitId) -> Result<Option<CommitId>> {
        let (one, other) = (oid_of(one)?, oid_of(other)?);
        let most = self.settings.max_history;
        let find = self.read_history(move |repo| objects::merge_base(repo, one, other, most));
        self.within(find).await?.map(commit_id).transpose()
    }

    async fn first_parent_as_of(
        &self,
        reference: &str,
        instant: Timestamp,
    ) -> Result<Option<CommitId>> {
        let tip = oid_of(&self.resolve(reference).await?)?;
        let most = self.settings.max_history;
        let found: BoxFuture<'_, Result<Option<Oid>>> = match &self.place {
            Place::There(remote) => remote.first_parent_as_of(tip, instant).boxed(),
            Place::Here(path) => read_here(&self.settings, path, move |repo| {
                objects::first_parent_as_of(repo, tip, instant, most)
            })
            .boxed(),
        };
        self.within(found).await?.map(commit_id).transpose()
    }
}

/// The shortest prefixes that cover all of them.
fn without_covered(prefixes: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut sorted = prefixes.to_vec();
    sorted.sort();
    let mut kept: Vec<Arc<str>> = Vec::new();
    for prefix in sorted {
        if !kept.last().is_some_and(|last| prefix.starts_with(&**last)) {
            kept.push(prefix);
        }
    }
    kept
}

fn position(listed: ListedRef) -> Option<Result<RefPosition>> {
    let id = listed.peeled.or(listed.id)?;
    Some(commit_id(id).map(|commit| RefPosition { name: listed.name.into(), commit }))
}

fn path_of(parts: &[&str]) -> String {
    format!("{:?}", parts.join("/"))
}

async fn read_here<T: Send + 'static>(
    settings: &Settings,
    path: &std::path::Path,
    read: impl Fn(&Repository) -> Read<T> + Send + Sync + 'static,
) -> Result<T> {
    let path = path.to_owned();
    blocking(settings, move || {
        let at = |error: Error| error.with("directory", path.display());
        let repository = open_here(&path)?;
        read(&repository).map_err(|failure| match failure {
            Failure::Answer(error) => at(error),
            Failure::Absent(absent) => at(not_there(absent)),
            Failure::Damaged(error) => {
                at(Error::invalid(REACH, "the repository cannot be read; `git fsck` may say more")
                    .caused_by(error))
            }
        })
    })
    .await
}

/// Opens a repository of this machine. Blocks.
pub(super) fn open_here(path: &std::path::Path) -> Result<Repository> {
    let nowhere: [&std::ffi::OsStr; 0] = [];
    let opened = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, nowhere);
    opened.map_err(|error| {
        let failure = match error.code() {
            ErrorCode::NotFound => Error::not_found(REACH, "there is no git repository"),
            ErrorCode::Owner => Error::denied(
                REACH,
                "the repository belongs to another user; change its owner, or name it under \
                 safe.directory in the git configuration of this one",
            ),
            _ if error.message().contains("sha256")
                || error.message().contains("object format") =>
            {
                Error::unsupported(
                    REACH,
                    "the repository's objects are named by SHA-256; only SHA-1 can be read",
                )
            }
            _ => Error::invalid(REACH, "the repository cannot be opened"),
        };
        failure.with("directory", path.display()).caused_by(error)
    })
}

fn refs_here(repository: &Repository, prefixes: &[Arc<str>], most: usize) -> Read<Vec<ListedRef>> {
    let mut listed = Vec::new();
    if prefixes.iter().any(|prefix| "HEAD".starts_with(&**prefix)) {
        let head = repository.find_reference("HEAD").map_err(Failure::Damaged)?;
        let target = head.symbolic_target().ok().flatten().map(str::to_owned);
        listed.push(ListedRef {
            name: "HEAD".to_owned(),
            id: commit_of(&head),
            peeled: None,
            target,
        });
    }
    let mut references = repository.references().map_err(Failure::Damaged)?;
    for reference in references.by_ref() {
        // A ref that is written or removed meanwhile cannot be read.
        let Ok(reference) = reference else {
            continue;
        };
        let Ok(name) = reference.name() else {
            continue;
        };
        if !is_plausible(name) || !prefixes.iter().any(|prefix| name.starts_with(&**prefix)) {
            continue;
        }
        if listed.len() >= most {
            let error = Error::invalid(
                "list refs",
                format!(
                    "there are more than {most} refs; narrow the branches and tags, or raise the \
                     driver's limit"
                ),
            );
            return Err(error.into());
        }
        let id = commit_of(&reference);
        listed.push(ListedRef { name: name.to_owned(), id, peeled: None, target: None });
    }
    Ok(listed)
}

/// The commit that a ref names in the end, if it names one.
fn commit_of(reference: &git2::Reference<'_>) -> Option<Oid> {
    reference.peel(ObjectType::Commit).ok().map(|object| object.id())
}
