//! What a run is rendered from besides its event: the payload, other repositories, its pipeline.
//! Nothing is fetched that its document does not refer to.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    core::Core,
    directory::{LoadedDirectory, Place},
    gate::Gate,
    planner::{Candidate, Stopped, failed, settle},
};
use crate::{
    CommitId, Error, ErrorKind, Event, Result, Workflow,
    matching::MatchInput,
    source::Connections,
    workflow::{DocumentPlace, PipelineFile, RepoSelector, RepoValues, SELF},
};

/// Where a run's inputs come from.
pub(super) struct RunInputs<'a> {
    pub(super) core: &'a Core,
    pub(super) gate: &'a Gate<'a>,
    pub(super) event: &'a Event,
    pub(super) candidate: &'a Candidate<'a>,
}

impl RunInputs<'_> {
    /// The headers and the body of the payload, when the document refers to them.
    pub(super) async fn payload(
        &self,
        references: &References,
        input: &MatchInput,
    ) -> Result<Option<(BTreeMap<String, String>, Value)>, Stopped> {
        if !references.to("body") && !references.to("headers") {
            return Ok(None);
        }
        let payload = input.payload().await?.as_ref().map_err(|error| failed("payload", error))?;
        let Some(payload) = payload else { return Ok(None) };
        let headers = serde_json::from_value(payload.headers.clone()).unwrap_or_default();
        let body = match &payload.body {
            Err(error) if references.to("body") => return Err(failed("payload", error)),
            body => body.clone().unwrap_or_default(),
        };
        Ok(Some((headers, body)))
    }

    /// What `$(repos...)` stands for, of the repositories that the document refers to.
    pub(super) async fn repos(
        &self,
        references: &References,
    ) -> Result<BTreeMap<Arc<str>, RepoValues>, Stopped> {
        let workflow = self.candidate.loaded.workflow();
        let own: Arc<str> = match (self.candidate.loaded.place(), workflow.spec.repos.first()) {
            (DocumentPlace::Registered, Some(first)) => Arc::clone(&first.name),
            _ => SELF.into(),
        };
        let mut values = BTreeMap::new();
        if references.to(&format!("repos.{own}")) {
            let repository = settle("repos", self.gate.repository().await.cloned())?;
            let of_event = RepoValues {
                connection: self.event.repo.connection.to_string(),
                name: self.event.repo.name.to_string(),
                url: repository.links().clone_url,
                revision: self.event.head.as_ref().map(|head| head.sha.to_string()),
            };
            values.insert(Arc::clone(&own), of_event);
        }
        let mut others = Vec::new();
        for repo in &workflow.spec.repos {
            if repo.name != own && references.to(&format!("repos.{}", repo.name)) {
                others.push(self.named_other(repo));
            }
        }
        let resolved = futures::future::try_join_all(others).await?;
        values.extend(resolved);
        Ok(values)
    }

    async fn named_other(&self, repo: &RepoSelector) -> Result<(Arc<str>, RepoValues), Stopped> {
        let values = settle(&format!("repos.{}", repo.name), self.other(repo).await)?;
        Ok((Arc::clone(&repo.name), values))
    }

    /// Another repository, resolved through its own connection.
    async fn other(&self, selector: &RepoSelector) -> Result<RepoValues> {
        let core = self.core;
        let connecting =
            core.connections.repository(&self.event.tenant, &selector.connection, &selector.repo);
        let repository = core.call("connect", connecting).await?;
        let commit = match &selector.reference {
            None => {
                let default = core.call("find default branch", repository.default_branch()).await?;
                core.call("resolve", repository.resolve(&default)).await?
            }
            Some(full) if full.starts_with("refs/") => {
                core.call("resolve", repository.resolve(full)).await?
            }
            Some(name) => {
                let branch = format!("refs/heads/{name}");
                match core.call("resolve", repository.resolve(&branch)).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let tag = format!("refs/tags/{name}");
                        core.call("resolve", repository.resolve(&tag)).await?
                    }
                    resolved => resolved?,
                }
            }
        };
        Ok(RepoValues {
            connection: selector.connection.to_string(),
            name: repository.repo().name.to_string(),
            url: repository.links().clone_url,
            revision: Some(commit.to_string()),
        })
    }

    /// The path of the Pipeline that the workflow refers to, and the directory that holds it.
    pub(super) async fn pipeline_directory(
        &self,
    ) -> Result<Option<(&str, Arc<LoadedDirectory>)>, Stopped> {
        let reference = self.candidate.loaded.workflow().spec.pipeline_ref.as_ref();
        let Some((reference, path)) =
            reference.and_then(|one| one.path.as_deref().map(|path| (one, path)))
        else {
            return Ok(None);
        };
        let directory = self.directory_of(reference.repo.as_deref(), path).await;
        Ok(Some((path, settle("pipelineRef", directory)?)))
    }

    /// The directory that holds a path: of the event's repository at the commit that the event is
    /// for, or of another repository where its ref stands.
    async fn directory_of(&self, repo: Option<&str>, path: &str) -> Result<Arc<LoadedDirectory>> {
        let core = self.core;
        let other = match repo {
            None => None,
            Some(name) => {
                let repos = &self.candidate.loaded.workflow().spec.repos;
                repos.iter().find(|one| &*one.name == name).filter(|one| {
                    one.connection != self.event.repo.connection
                        || one.repo != self.event.repo.name
                        || one.reference.is_some()
                })
            }
        };
        let (repository, commit) = match other {
            Some(selector) => {
                let values = self.other(selector).await?;
                let repository = core
                    .connections
                    .repository(&self.event.tenant, &selector.connection, &selector.repo)
                    .await?;
                let revision = values.revision.unwrap_or_default();
                (repository, revision.parse::<CommitId>()?)
            }
            None => (Arc::clone(self.gate.repository().await?), self.pipeline_commit()?),
        };
        let definitions = core
            .connections
            .get(&self.event.tenant, &repository.repo().connection)?
            .options
            .definitions
            .clone();
        let (parent, _) = path.rsplit_once('/').unwrap_or(("", path));
        // Inside the directory of definitions, the Tasks of all of it are there.
        let of_definitions = definitions.filter(|one| path.starts_with(&format!("{one}/")));
        let recursive = of_definitions.is_some();
        let place = Place {
            tenant: self.event.tenant.clone(),
            repo: repository.repo().clone(),
            path: of_definitions.unwrap_or_else(|| parent.into()),
            recursive,
        };
        core.definitions.directory(core, &repository, &commit, &place).await
    }

    /// The commit at which a pipeline is read: the one that the run is for, or the one to which the
    /// policy pins definitions.
    fn pipeline_commit(&self) -> Result<CommitId> {
        let Event { tenant, repo, pull_request, head, .. } = self.event;
        if let Some(pull_request) = pull_request
            && self.core.policy.pins_definitions_to_base(tenant, repo)
        {
            return Ok(pull_request.base.sha.clone());
        }
        head.as_ref().map(|head| head.sha.clone()).ok_or_else(|| {
            Error::invalid("read a pipeline", "the event has no commit to read it at")
        })
    }
}

/// The Pipeline at a path, and the Tasks of its directory.
pub(super) fn pipeline_file<'a>(
    path: &str,
    directory: &'a LoadedDirectory,
) -> Result<PipelineFile<'a>, Stopped> {
    let in_file: Vec<_> = directory.pipelines.iter().filter(|one| &*one.source == path).collect();
    match in_file.as_slice() {
        [pipeline] => Ok(PipelineFile { pipeline, tasks: &directory.tasks }),
        [] => {
            let problem = directory.problems.iter().find(|problem| problem.starts_with(path));
            let why = problem.map_or_else(String::new, |problem| format!(": {problem}"));
            let error = format!("{path} holds no Pipeline of tekton.dev/v1{why}");
            Err(failed("pipelineRef", error))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|one| &*one.name).collect();
            let error = format!(
                "{path} holds {} Pipelines ({}); give each a file",
                several.len(),
                names.join(", ")
            );
            Err(failed("pipelineRef", error))
        }
    }
}

/// Which references a document holds, so that nothing is fetched that none asks for. A text that
/// only looks like a reference counts too.
pub(super) struct References(String);

impl References {
    pub(super) fn of(workflow: &Workflow) -> Self {
        // A document that was loaded has a JSON form.
        Self(serde_json::to_string(&workflow.spec).unwrap_or_default())
    }

    /// Whether one begins with this path.
    pub(super) fn to(&self, path: &str) -> bool {
        self.0.contains(&format!("$({path}.")) || self.0.contains(&format!("$({path}["))
    }
}
