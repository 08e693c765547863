//! From a trigger that an event is for to the run that it asks for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    backoff::after,
    core::Core,
    directory::{LoadedDirectory, Place},
    gate::{self, Gate},
    matcher::AttemptRequest,
    mutator::{Mutation, PlannedPipelineRun},
    scheduler,
};
use crate::{
    AttemptId, CommitId, Error, ErrorKind, Event, Result, Run, RunKey, RunState, Workflow,
    WorkflowId,
    event::Revision,
    matching::{MatchInput, MatchedCommand},
    policy::{Facts, PlannedRun as Asked, Verdict},
    run::Origin,
    source::Connections,
    store::{Outcome, RunQuery},
    workflow::{
        DocumentPlace, LoadedWorkflow, PipelineFile, RepoSelector, RepoValues, SELF, Strategy,
        Values,
    },
};

/// A trigger that an event is for, and where its workflow is defined.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: &'a WorkflowId,
    pub(crate) loaded: Arc<LoadedWorkflow>,
    pub(crate) trigger: &'a Arc<str>,
    /// The commit of the directory that defines it; `None` when it is registered.
    pub(crate) defined_at: Option<&'a CommitId>,
}

/// A run that should exist, and when its next stage is due.
#[derive(Debug)]
pub(crate) struct PlannedRun {
    pub(crate) run: Run,
    pub(crate) not_before: Option<Timestamp>,
}

/// What came of planning.
#[derive(Debug)]
pub(crate) enum Plan {
    /// A run.
    Run(Box<PlannedRun>),
    /// The run of this cause is in the ledger already.
    There(RunKey),
    /// No run.
    No(Outcome),
}

/// The prefix of the labels and annotations that say what a run is for.
pub(crate) const DOMAIN: &str = "workflows.tekton.dev";

/// The name of the status that shows runs of a workflow.
pub(crate) fn context(core: &Core, workflow: &Workflow, trigger: &str) -> Arc<str> {
    let (prefix, name) = (&core.options.status_prefix, &workflow.metadata.name);
    match workflow.spec.status_per_trigger {
        true => format!("{prefix}/{name}/{trigger}").into(),
        false => format!("{prefix}/{name}").into(),
    }
}

/// Plans the run that an event asks for.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a part of the cause, and none has a default"
)]
pub(crate) async fn plan(
    core: &Core,
    gate: &Gate<'_>,
    event: &Event,
    attempt: &AttemptId,
    request: &AttemptRequest,
    candidate: &Candidate<'_>,
    command: Option<MatchedCommand>,
    facts: Vec<Facts>,
    input: &MatchInput,
) -> Result<Plan> {
    let key = RunKey::of(&event.tenant, candidate.id, candidate.trigger, &event.key, attempt);
    if core.store.run(&event.tenant, &key).await?.is_some() {
        return Ok(Plan::There(key));
    }
    let planner = Planner { core, gate, event, attempt, request, candidate, key };
    match planner.plan(command, facts, input).await {
        Ok(plan) => Ok(plan),
        Err(Stopped::Error(error)) => Err(error),
        Err(Stopped::Outcome(outcome)) => Ok(Plan::No(outcome)),
    }
}

/// Why there is no run.
enum Stopped {
    /// It is not known yet.
    Error(Error),
    /// This is the answer.
    Outcome(Outcome),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn failed(filter: &str, error: impl ToString) -> Stopped {
    Stopped::Outcome(Outcome::Failed { filter: filter.to_owned(), error: error.to_string() })
}

fn denied(rule: impl Into<String>) -> Stopped {
    Stopped::Outcome(Outcome::Denied { rule: rule.into() })
}

/// What may pass is tried again; what will not is the answer.
fn settle<T>(filter: &str, result: Result<T>) -> Result<T, Stopped> {
    result.map_err(|error| match error.kind() {
        // Credentials are mended by people, which takes time.
        ErrorKind::Denied => Stopped::Error(error),
        kind if kind.is_retryable() => Stopped::Error(error),
        _ => failed(filter, error),
    })
}

struct Planner<'a> {
    core: &'a Core,
    gate: &'a Gate<'a>,
    event: &'a Event,
    attempt: &'a AttemptId,
    request: &'a AttemptRequest,
    candidate: &'a Candidate<'a>,
    key: RunKey,
}

impl Planner<'_> {
    async fn plan(
        self,
        command: Option<MatchedCommand>,
        facts: Vec<Facts>,
        input: &MatchInput,
    ) -> Result<Plan, Stopped> {
        let Self { core, event, candidate, .. } = self;
        let workflow = candidate.loaded.workflow();
        let spec = &workflow.spec;
        let sink = spec.sink.clone().unwrap_or_else(|| core.default_sink.clone());
        let name: Arc<str> = run_name(&workflow.metadata.name, &self.key).into();

        let mut view = input.view().clone();
        if let (Some(command), Some(Value::Object(comment))) = (command, view.get_mut("comment")) {
            comment.insert("command".to_owned(), json!(command.name));
            comment.insert("arguments".to_owned(), json!(command.arguments));
        }
        let references = References::of(workflow);
        let payload = self.payload(&references, input).await?;
        let mut values =
            Values::new(&view, self.key.as_str(), &name).with_attempt(self.attempt.as_str());
        if let Some((headers, body)) = &payload {
            values = values.with_payload(Some(body), Some(headers));
        }
        for (name, repo) in self.repos(&references).await? {
            values = values.with_repo(name, repo);
        }
        let directory = self.pipeline_directory().await?;
        let file = match &directory {
            Some((path, directory)) => Some(pipeline_file(path, directory)?),
            None => None,
        };
        let rendered = candidate.loaded.pipeline_run(candidate.trigger, &values, file);
        let mut pipeline_run = rendered.map_err(|error| failed("pipeline", error))?;
        let groups = candidate.loaded.groups(candidate.id, candidate.trigger, &values);
        let groups = groups.map_err(|error| failed("concurrency", error))?;
        let identity = self.identity(&name, workflow);
        identity.put_on(&mut pipeline_run);
        let delay = self.mutate(&mut pipeline_run, &identity).await?;
        self.judge(&pipeline_run, sink.as_str(), workflow).await?;

        let queues = groups.iter().any(|one| matches!(one.strategy, Strategy::Queue(_)));
        let held = scheduler::is_held(&*core.store, &event.tenant, candidate.id).await?;
        if queues || held {
            self.limit_queue().await?;
        }
        let state = match groups.is_empty() && !held {
            true => RunState::Admitted,
            false => RunState::Planned,
        };
        let mut judged_by = gate::judged_by(core);
        judged_by.insert(
            "workflow".to_owned(),
            format!("{} {}", candidate.id, candidate.loaded.digest()),
        );
        let run = Run {
            key: self.key.clone(),
            version: 0,
            tenant: event.tenant.clone(),
            repo: event.repo.clone(),
            workflow: candidate.id.clone(),
            trigger: Arc::clone(candidate.trigger),
            event: event.key.clone(),
            order: self.request.order,
            subject: event.subject.clone(),
            unchained: event.unchained,
            attempt: self.attempt.clone(),
            commit: event.head.as_ref().map(|head| head.sha.clone()),
            reference: event.head.as_ref().map(|head| Arc::clone(&head.reference)),
            pull_request: event.pull_request.as_ref().map(|one| one.number),
            origin: self.origin(),
            name,
            sink,
            pipeline_run: Arc::new(pipeline_run),
            groups,
            state,
            message: delay.as_ref().map_or_else(String::new, Delay::to_string),
            cancel: None,
            replaces: Vec::new(),
            handle: None,
            link: None,
            tasks: Vec::new(),
            results: Vec::new(),
            failure: None,
            secrets: Vec::new(),
            remarks: self.remarks(delay.as_ref()),
            notify: spec.notify.clone(),
            status_context: Some(context(core, workflow, candidate.trigger)),
            retention: spec.retention.clone(),
            facts,
            judged_by,
            created_at: core.clock.now(),
            started_at: None,
            finished_at: None,
        };
        let not_before = delay.map(|delay| delay.until);
        Ok(Plan::Run(Box::new(PlannedRun { run, not_before })))
    }

    fn remarks(&self, delay: Option<&Delay>) -> BTreeMap<String, String> {
        let by = self.request.by.iter().map(|by| ("requestedBy".to_owned(), by.to_string()));
        let delayed = delay.iter().map(|delay| ("delayed".to_owned(), delay.to_string()));
        by.chain(delayed).collect()
    }

    fn origin(&self) -> Origin {
        let loaded = &self.candidate.loaded;
        Origin {
            digest: Arc::clone(loaded.digest()),
            commit: self.candidate.defined_at.cloned(),
            path: (!loaded.source().is_empty()).then(|| Arc::clone(loaded.source())),
        }
    }

    // --- values --------------------------------------------------------------------------------

    /// The headers and the body of the payload, when the document refers to them.
    async fn payload(
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
    async fn repos(
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

    // --- pipeline ------------------------------------------------------------------------------

    /// The path of the Pipeline that the workflow refers to, and the directory that holds it.
    async fn pipeline_directory(&self) -> Result<Option<(&str, Arc<LoadedDirectory>)>, Stopped> {
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

    // --- what the platform says ----------------------------------------------------------------

    /// Asks the mutators. Returns for how long, and why, they want the run to wait.
    async fn mutate(
        &self,
        pipeline_run: &mut Value,
        identity: &Identity,
    ) -> Result<Option<Delay>, Stopped> {
        let mut delay: Option<Delay> = None;
        for mutator in &self.core.mutators {
            let Self { event, candidate, key, .. } = self;
            let mut seen =
                PlannedPipelineRun::new(key, event, candidate.id, candidate.trigger, pipeline_run);
            let said = self.core.call("ask a mutator", mutator.mutate(&mut seen)).await;
            identity.put_on(pipeline_run);
            match said {
                Ok(Mutation::Proceed) => {}
                Ok(Mutation::Delay { by, reason }) => {
                    let until = after(self.core.clock.now(), by);
                    let delay = delay.get_or_insert(Delay { until, reasons: Vec::new() });
                    delay.until = delay.until.max(until);
                    delay.reasons.push(reason);
                }
                Ok(Mutation::Veto { reason }) => return Err(denied(reason)),
                Err(error) if error.kind().is_retryable() => return Err(error.into()),
                Err(error) => return Err(denied(error.to_string())),
            }
        }
        Ok(delay)
    }

    /// Asks the policy whether the run may have what it asks for.
    async fn judge(
        &self,
        pipeline_run: &Value,
        sink: &str,
        workflow: &Workflow,
    ) -> Result<(), Stopped> {
        if !self.core.sinks.contains_key(sink) && !self.core.sinks.is_empty() {
            let known: Vec<&str> = self.core.sinks.keys().map(|name| name.as_str()).collect();
            let error = format!("there is no sink {sink:?}; there are: {}", known.join(", "));
            return Err(failed("sink", error));
        }
        let mut metadata = workflow.metadata.labels.clone();
        metadata.extend(workflow.metadata.annotations.clone());
        let in_repository = self.candidate.defined_at.is_some();
        let notifiers = workflow.spec.notify.iter().map(|one| one.notifier.as_str()).collect();
        let asked = Asked::new(
            &self.event.tenant,
            &self.event.repo,
            self.candidate.id,
            in_repository,
            pipeline_run,
            sink,
            notifiers,
            &metadata,
        );
        match self.core.call("ask the policy", self.core.policy.judge(&asked)).await {
            Ok(Verdict::Allow) => Ok(()),
            Ok(Verdict::Deny { rule }) => Err(denied(rule)),
            Ok(Verdict::Wait { approvers }) => {
                Err(Stopped::Outcome(Outcome::Waiting { approvers }))
            }
            Err(error) if error.kind().is_retryable() => Err(error.into()),
            Err(error) => Err(denied(format!("the policy gave no answer: {error}"))),
        }
    }

    /// Refuses a run when too many of its tenant wait.
    async fn limit_queue(&self) -> Result<(), Stopped> {
        let most = self.core.options.max_queued_runs_per_tenant;
        let waiting = RunQuery::of(self.event.tenant.clone())
            .states(vec![RunState::Planned, RunState::Queued]);
        let waiting = self.core.store.count_runs(waiting, most).await?;
        if waiting >= most {
            let rule = format!("max_queued_runs_per_tenant: {waiting} runs wait, and {most} may");
            return Err(denied(rule));
        }
        Ok(())
    }

    // --- identity ------------------------------------------------------------------------------

    fn identity(&self, name: &Arc<str>, workflow: &Workflow) -> Identity {
        let Event { tenant, repo, kind, key, head, pull_request, .. } = self.event;
        let mut annotations = BTreeMap::new();
        let mut annotate = |name: &str, value: &str| {
            annotations.insert(format!("{DOMAIN}/{name}"), value.to_owned());
        };
        let number = pull_request.as_ref().map(|one| one.number.to_string());
        annotate("run-key", self.key.as_str());
        annotate("tenant", tenant.as_str());
        annotate("connection", repo.connection.as_str());
        annotate("repository", &repo.name);
        annotate("repository-id", repo.id.as_str());
        annotate("workflow", &self.candidate.id.to_string());
        annotate("trigger", self.candidate.trigger);
        annotate("event", key.as_str());
        annotate("attempt", self.attempt.as_str());
        if let Some(Revision { sha, reference }) = head {
            annotate("commit", sha.as_str());
            annotate("ref", reference);
        }
        if let Some(number) = &number {
            annotate("pull-request", number);
        }
        let host = self.core.connections.get(tenant, &repo.connection);
        let archived = match host {
            Ok(connection) => format!("{}/{}", connection.driver.host(), repo.name),
            Err(_) => repo.name.to_string(),
        };
        let mut results = BTreeMap::from([
            ("repo", archived),
            ("event", kind.to_string()),
            ("event-id", key.to_string()),
            ("workflow", workflow.metadata.name.to_string()),
        ]);
        if let Some(Revision { sha, reference }) = head {
            results.insert("commit", sha.to_string());
            results.insert("ref", reference.to_string());
        }
        results.extend(number.clone().map(|number| ("pr", number)));
        // Tekton Results keeps these with the record, so that runs can be found by repository:
        // https://github.com/tektoncd/results/blob/main/docs/watcher/README.md
        let results = json!(results).to_string();
        for name in ["resultAnnotations", "recordSummaryAnnotations"] {
            annotations.insert(format!("results.tekton.dev/{name}"), results.clone());
        }
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| {
            if let Some(value) = label_value(value) {
                labels.insert(format!("{DOMAIN}/{name}"), value);
            }
        };
        label("workflow", &workflow.metadata.name);
        label("trigger", self.candidate.trigger);
        label("repository", &repo.name);
        label("event", kind.as_str());
        if let Some(head) = head {
            label("commit", &head.sha.as_str()[..40]);
        }
        if let Some(number) = &number {
            label("pull-request", number);
        }
        Identity { name: Arc::clone(name), annotations, labels }
    }
}

/// That mutators want a run to wait.
struct Delay {
    until: Timestamp,
    reasons: Vec<String>,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not before {:.0}: {}", self.until, self.reasons.join("; "))
    }
}

/// What a PipelineRun carries so that it can be told whose it is, whatever the ledger knows.
struct Identity {
    name: Arc<str>,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Identity {
    /// Puts it on a PipelineRun, over whatever is there.
    fn put_on(&self, pipeline_run: &mut Value) {
        let metadata = object(object_value(pipeline_run), "metadata");
        metadata.insert("name".to_owned(), json!(self.name));
        metadata.remove("generateName");
        metadata.remove("ownerReferences");
        for (field, values) in [("annotations", &self.annotations), ("labels", &self.labels)] {
            let target = object(metadata, field);
            target.extend(values.iter().map(|(name, value)| (name.clone(), json!(value))));
        }
    }
}

fn object_value(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

fn object<'a>(parent: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    object_value(parent.entry(field.to_owned()).or_insert(Value::Null))
}

/// The Pipeline at a path, and the Tasks of its directory.
fn pipeline_file<'a>(
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
struct References(String);

impl References {
    fn of(workflow: &Workflow) -> Self {
        // A document that was loaded has a JSON form.
        Self(serde_json::to_string(&workflow.spec).unwrap_or_default())
    }

    /// Whether one begins with this path.
    fn to(&self, path: &str) -> bool {
        self.0.contains(&format!("$({path}.")) || self.0.contains(&format!("$({path}["))
    }
}

/// The name of a run: a DNS-1123 label of at most 63 characters that begins with the workflow's name
/// and ends with the first digits of the run's key.
fn run_name(workflow: &str, key: &RunKey) -> String {
    const LONGEST: usize = 50;
    let mut name: String = workflow
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(LONGEST)
        .collect();
    let digits: String = key.as_str().chars().take(12).collect();
    name.truncate(name.trim_end_matches('-').len());
    match name.trim_start_matches('-') {
        "" => format!("run-{digits}"),
        name => format!("{name}-{digits}"),
    }
}

/// A text as the value of a label: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit
/// at both ends; `None` when nothing is left of it. See
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.
fn label_value(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let clean: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).take(63).collect();
    let trimmed = clean.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RunKey {
        RunKey::from("0123456789abcdef".repeat(4))
    }

    #[test]
    fn a_runs_name_is_a_dns_label_that_ends_with_its_key() {
        assert_eq!(run_name("ci", &key()), "ci-0123456789ab");
        assert_eq!(run_name("Build.All_", &key()), "build-all-0123456789ab");
        assert_eq!(run_name("...", &key()), "run-0123456789ab");
        let long = run_name(&"w".repeat(253), &key());
        assert_eq!(long.len(), 63);
    }

    #[test]
    fn a_label_keeps_what_a_label_may_hold() {
        assert_eq!(label_value("acme/api").as_deref(), Some("acme-api"));
        assert_eq!(label_value("feature/ü x/").as_deref(), Some("feature---x"));
        assert_eq!(label_value("//"), None);
        let long = label_value(&"a/".repeat(100)).unwrap();
        assert_eq!(long.len(), 63);
    }
}
