//! What a filter may ask about an event, fetched when it does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::TryStreamExt;

use super::{connections::ConnectionTable, core::Core};
use crate::{
    CommitId, Error, ErrorKind, Event, EventKind, RepoConnection, Result, Store,
    event::Payload,
    matching::{ChangedFiles, EventDetails},
    repo::History,
    source::Connections,
};

/// The changed files and the payload of an event of the ledger.
#[derive(Debug)]
pub(crate) struct LedgerDetails {
    event: Arc<Event>,
    store: Arc<dyn Store>,
    connections: Arc<ConnectionTable>,
    limit: Duration,
    remark: Mutex<Option<String>>,
}

impl LedgerDetails {
    pub(crate) fn new(core: &Core, event: &Arc<Event>) -> Self {
        Self {
            event: Arc::clone(event),
            store: Arc::clone(&core.store),
            connections: Arc::clone(&core.connections),
            limit: core.options.call_timeout.unsigned_abs(),
            remark: Mutex::new(None),
        }
    }

    /// Why the list of changed files is not what was asked for, when it was and is not.
    pub(crate) fn remark(&self) -> Option<String> {
        self.remark.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, remark: String) {
        *self.remark.lock().unwrap_or_else(PoisonError::into_inner) = Some(remark);
    }

    async fn list(&self) -> Result<ChangedFiles> {
        let Event { tenant, repo, .. } = &*self.event;
        let repository = self.connections.repository(tenant, &repo.connection, &repo.name).await?;
        let Some(head) = &self.event.head else {
            return Err(Error::unsupported("list changed files", "the event leads to no commit"));
        };
        let from = match (&self.event.base, &self.event.pull_request) {
            (Some(base), Some(_)) => {
                let parted = merge_base(&*repository, &base.sha, &head.sha).await?;
                Some(parted.unwrap_or_else(|| base.sha.clone()))
            }
            (Some(base), None) => Some(base.sha.clone()),
            (None, None) if self.event.kind == EventKind::PUSH => {
                parted_from_default(&*repository, &head.sha).await?
            }
            (None, None) if self.event.kind != EventKind::TAG => {
                return Err(Error::unsupported(
                    "list changed files",
                    format!("an event of kind {} has no changed files", self.event.kind),
                ));
            }
            (None, _) => None,
        };
        let mut files = repository.changed_files(from.as_ref(), &head.sha);
        let mut paths = Vec::new();
        while let Some(file) = files.try_next().await? {
            paths.push(file.path);
            if paths.len() > ChangedFiles::MAX {
                break;
            }
        }
        Ok(ChangedFiles::new(paths))
    }
}

#[async_trait]
impl EventDetails for LedgerDetails {
    /// Those of a pull request are what [`RepoConnection::changed_files`] says of its base and head.
    ///
    /// Files of a commit that was rewritten away are unknown, and any may have changed.
    async fn changed_files(&self) -> Result<ChangedFiles> {
        let listed = tokio::time::timeout(self.limit, self.list()).await.unwrap_or_else(|_| {
            Err(Error::transient("list changed files", "there was no answer in time"))
        });
        match listed {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.note(format!("unknown, so path filters hold: {error}"));
                Ok(ChangedFiles { paths: Arc::new([]), complete: false })
            }
            Ok(files) if !files.complete => {
                self.note("more than are looked at, so path filters hold".to_owned());
                Ok(files)
            }
            listed => listed,
        }
    }

    async fn payload(&self) -> Result<Option<Payload>> {
        match self.event.payload {
            Some(id) => self.store.payload(&self.event.tenant, id).await,
            None => Ok(None),
        }
    }
}

/// Where a pull request parted from its base; `None` when that is not known.
async fn merge_base(
    repository: &dyn RepoConnection,
    base: &CommitId,
    head: &CommitId,
) -> Result<Option<CommitId>> {
    let Some(history) = repository.history() else { return Ok(None) };
    match history.merge_base(base, head).await {
        // A history that is too long, or not whole: from the base itself more counts as changed.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => Ok(None),
        found => found,
    }
}

/// How many commits of a new branch are looked through for the one at which it left the default
/// branch. Of a longer branch every file counts as changed.
const LONGEST_NEW_BRANCH: usize = 20;

/// Where a new branch left the default branch; `None` when that is not known.
async fn parted_from_default(
    repository: &dyn RepoConnection,
    head: &CommitId,
) -> Result<Option<CommitId>> {
    let Some(history) = repository.history() else { return Ok(None) };
    let found = async {
        let default = repository.resolve(&repository.default_branch().await?).await?;
        walk_back(history, head, &default).await
    };
    match found.await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

async fn walk_back(
    history: &dyn History,
    head: &CommitId,
    default: &CommitId,
) -> Result<Option<CommitId>> {
    let mut commit = head.clone();
    for _ in 0..LONGEST_NEW_BRANCH {
        if history.is_ancestor(&commit, default).await? {
            return Ok(Some(commit));
        }
        match history.commit(&commit).await?.parents.into_iter().next() {
            Some(parent) => commit = parent,
            None => return Ok(None),
        }
    }
    Ok(None)
}
