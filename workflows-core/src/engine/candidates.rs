//! Which triggers an event is put to: those of registered workflows, and those that its repository
//! defines at the commit that may be read.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    core::Core,
    directory::{LoadedDirectory, Place},
    gate::{DefinitionsAt, Gate},
};
use crate::{
    CommitId, ErrorKind, Event, Result, WorkflowId, matching::TriggerSet, workflow::LoadedWorkflow,
};

/// What the repository of an event defines for it.
pub(super) struct InRepository {
    pub(super) directory: Arc<LoadedDirectory>,
    pub(super) commit: CommitId,
    pub(super) overruled: BTreeSet<Arc<str>>,
}

/// Reads what the repository of an event defines for it, where its connection enables that.
///
/// When that cannot be read now, registered workflows wait as well: an attempt at an event is
/// decided as a whole, in one record.
pub(super) async fn in_repository(
    core: &Core,
    gate: &Gate<'_>,
    event: &Event,
) -> Result<Option<InRepository>> {
    let path = match core.connections.get(&event.tenant, &event.repo.connection) {
        Ok(connection) => connection.options.definitions.clone(),
        // A repository that is reached no more defines nothing; registered workflows may not need
        // to reach it.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(path) = path else { return Ok(None) };
    let commit = match gate.definitions().await? {
        DefinitionsAt::Nowhere => return Ok(None),
        DefinitionsAt::Commit(commit) => commit,
        DefinitionsAt::DefaultBranch => {
            let repository = gate.repository().await?;
            let default = core.call("find default branch", repository.default_branch()).await?;
            core.call("resolve", repository.resolve(&default)).await?
        }
    };
    let place =
        Place { tenant: event.tenant.clone(), repo: event.repo.clone(), path, recursive: true };
    let repository = gate.repository().await?;
    let directory = core.definitions.directory(core, repository, &commit, &place).await?;
    let overruled = core.definitions.overruled(&event.tenant, &event.repo, &directory);
    Ok(Some(InRepository { directory, commit, overruled }))
}

/// A set of candidates, and where their documents are.
pub(super) struct Source<'a> {
    pub(super) set: Arc<TriggerSet>,
    directory: Option<&'a LoadedDirectory>,
    pub(super) commit: Option<&'a CommitId>,
}

impl Source<'_> {
    pub(super) fn loaded(
        &self,
        core: &Core,
        event: &Event,
        workflow: &WorkflowId,
    ) -> Option<Arc<LoadedWorkflow>> {
        match self.directory {
            Some(directory) => {
                directory.workflows.get(&workflow.name).map(|one| Arc::clone(&one.loaded))
            }
            None => core.definitions.registered(&event.tenant, &workflow.name),
        }
    }
}

pub(super) fn sources<'a>(
    event: &Event,
    registered: Option<Arc<TriggerSet>>,
    found: Option<&'a InRepository>,
) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    if let Some(set) = registered {
        sources.push(Source { set, directory: None, commit: None });
    }
    if let Some(found) = found {
        let set = found.directory.triggers(&event.kind, &found.overruled);
        if !set.is_empty() {
            let (directory, commit) = (Some(&*found.directory), Some(&found.commit));
            sources.push(Source { set, directory, commit });
        }
    }
    sources
}
