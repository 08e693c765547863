//! From a trigger that an event is for to the run that it asks for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    backoff::after,
    core::Core,
    gate::{self, Gate},
    matcher::AttemptRequest,
    mutator::{Mutation, PlannedPipelineRun},
    run_identity::{RunIdentity, Shown, run_name},
    run_inputs::{References, RunInputs, pipeline_file},
    scheduler,
};
use crate::{
    AttemptId, CommitId, Error, ErrorKind, Event, NotifierName, Result, Run, RunKey, RunState,
    Workflow, WorkflowId,
    matching::{MatchInput, MatchedCommand},
    policy::{Facts, PlannedRun as Asked, Verdict},
    run::Origin,
    store::{Outcome, RunQuery},
    workflow::{LoadedWorkflow, Notification, Strategy, Values},
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

/// The name of the status that shows runs of a workflow.
pub(crate) fn context(core: &Core, workflow: &Workflow, trigger: &str) -> Arc<str> {
    let (prefix, name) = (&core.options.status_prefix, &workflow.metadata.name);
    match workflow.spec.status_per_trigger {
        true => format!("{prefix}/{name}/{trigger}").into(),
        false => format!("{prefix}/{name}").into(),
    }
}

/// Who is told about runs of a workflow.
pub(crate) fn told(core: &Core, event: &Event, workflow: &Workflow) -> Vec<Notification> {
    let (connection, own) = (&event.repo.connection, workflow.spec.notify.as_ref());
    core.notifiers.told(&core.connections, &event.tenant, connection, own)
}

/// The notifiers that a workflow asks for itself.
fn asked_notifiers(workflow: &Workflow) -> Vec<NotifierName> {
    workflow.spec.notify.iter().flatten().map(|one| one.notifier.clone()).collect()
}

/// Why there is no run.
pub(super) enum Stopped {
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

pub(super) fn failed(filter: &str, error: impl ToString) -> Stopped {
    Stopped::Outcome(Outcome::Failed { filter: filter.to_owned(), error: error.to_string() })
}

fn denied(rule: impl Into<String>) -> Stopped {
    Stopped::Outcome(Outcome::Denied { rule: rule.into() })
}

/// What may pass is tried again; what will not is the answer.
pub(super) fn settle<T>(filter: &str, result: Result<T>) -> Result<T, Stopped> {
    result.map_err(|error| match error.kind() {
        // Credentials are mended by people, which takes time.
        ErrorKind::Denied => Stopped::Error(error),
        kind if kind.is_retryable() => Stopped::Error(error),
        _ => failed(filter, error),
    })
}

/// Plans the runs of one attempt at an event.
pub(crate) struct Planner<'a> {
    core: &'a Core,
    gate: &'a Gate<'a>,
    event: &'a Event,
    attempt: &'a AttemptId,
    request: &'a AttemptRequest,
    input: &'a MatchInput,
    /// How many runs that wait were planned so far: the ledger does not know them yet.
    waiting: u32,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        core: &'a Core,
        gate: &'a Gate<'a>,
        event: &'a Event,
        attempt: &'a AttemptId,
        request: &'a AttemptRequest,
        input: &'a MatchInput,
    ) -> Self {
        Self { core, gate, event, attempt, request, input, waiting: 0 }
    }

    /// Plans the run that a trigger asks for.
    pub(crate) async fn plan(
        &mut self,
        candidate: &Candidate<'_>,
        command: Option<MatchedCommand>,
        facts: Vec<Facts>,
    ) -> Result<Plan> {
        let Self { core, event, attempt, .. } = *self;
        let key = RunKey::of(&event.tenant, candidate.id, candidate.trigger, &event.key, attempt);
        if core.store.run(&event.tenant, &key).await?.is_some() {
            return Ok(Plan::There(key));
        }
        match (Planning { planner: self, candidate, key }).run(command, facts).await {
            Ok(planned) => {
                self.waiting += u32::from(planned.run.state == RunState::Planned);
                Ok(Plan::Run(Box::new(planned)))
            }
            Err(Stopped::Error(error)) => Err(error),
            Err(Stopped::Outcome(outcome)) => Ok(Plan::No(outcome)),
        }
    }
}

/// The planning of one run.
struct Planning<'a> {
    planner: &'a Planner<'a>,
    candidate: &'a Candidate<'a>,
    key: RunKey,
}

impl Planning<'_> {
    async fn run(
        self,
        command: Option<MatchedCommand>,
        facts: Vec<Facts>,
    ) -> Result<PlannedRun, Stopped> {
        let Planner { core, gate, event, attempt, request, input, .. } = *self.planner;
        let candidate = self.candidate;
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
        let inputs = RunInputs { core, gate, event, candidate };
        let payload = inputs.payload(&references, input).await?;
        let mut values =
            Values::new(&view, self.key.as_str(), &name).with_attempt(attempt.as_str());
        if let Some((headers, body)) = &payload {
            values = values.with_payload(Some(body), Some(headers));
        }
        for (name, repo) in inputs.repos(&references).await? {
            values = values.with_repo(name, repo);
        }
        let directory = inputs.pipeline_directory().await?;
        let file = match &directory {
            Some((path, directory)) => Some(pipeline_file(path, directory)?),
            None => None,
        };
        let rendered = candidate.loaded.pipeline_run(candidate.trigger, &values, file);
        let mut pipeline_run = rendered.map_err(|error| failed("pipeline", error))?;
        let groups = candidate.loaded.groups(candidate.id, candidate.trigger, &values);
        let groups = groups.map_err(|error| failed("concurrency", error))?;
        let status_context = context(core, workflow, candidate.trigger);
        let notify = told(core, event, workflow);
        let shown = Shown {
            definition: candidate.loaded.digest(),
            status_context: &status_context,
            groups: &groups,
            notify: &notify,
            retention: spec.retention.as_ref(),
        };
        let identity = RunIdentity::of(core, event, attempt, candidate, &self.key, &name, &shown);
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
        let mut judged_by = gate::judged_by(core, &event.tenant);
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
            order: request.order,
            subject: event.subject.clone(),
            unchained: event.unchained,
            attempt: attempt.clone(),
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
            credential_until: None,
            remarks: self.remarks(delay.as_ref()),
            notify,
            asked_notifiers: asked_notifiers(workflow),
            status_context: Some(status_context),
            retention: spec.retention.clone(),
            facts,
            judged_by,
            created_at: core.clock.now(),
            started_at: None,
            finished_at: None,
        };
        Ok(PlannedRun { run, not_before: delay.map(|delay| delay.until) })
    }

    fn remarks(&self, delay: Option<&Delay>) -> BTreeMap<String, String> {
        let by =
            self.planner.request.by.iter().map(|by| ("requestedBy".to_owned(), by.to_string()));
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

    // --- what the platform says ----------------------------------------------------------------

    /// Asks the mutators. Returns for how long, and why, they want the run to wait.
    async fn mutate(
        &self,
        pipeline_run: &mut Value,
        identity: &RunIdentity,
    ) -> Result<Option<Delay>, Stopped> {
        let mut delay: Option<Delay> = None;
        for mutator in &self.planner.core.mutators {
            let Self { planner, candidate, key } = self;
            let mut seen = PlannedPipelineRun::new(
                key,
                planner.event,
                candidate.id,
                candidate.trigger,
                pipeline_run,
            );
            let said = self.planner.core.call("ask a mutator", mutator.mutate(&mut seen)).await;
            identity.put_on(pipeline_run);
            match said {
                Ok(Mutation::Proceed) => {}
                Ok(Mutation::Delay { by, reason }) => {
                    let until = after(self.planner.core.clock.now(), by);
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
        if !self.planner.core.sinks.contains_key(sink) && !self.planner.core.sinks.is_empty() {
            let known: Vec<&str> =
                self.planner.core.sinks.keys().map(|name| name.as_str()).collect();
            let error = format!("there is no sink {sink:?}; there are: {}", known.join(", "));
            return Err(failed("sink", error));
        }
        let mut metadata = workflow.metadata.labels.clone();
        metadata.extend(workflow.metadata.annotations.clone());
        let in_repository = self.candidate.defined_at.is_some();
        let asked_notifiers = asked_notifiers(workflow);
        let notifiers = asked_notifiers.iter().map(NotifierName::as_str).collect();
        let asked = Asked::new(
            &self.planner.event.tenant,
            &self.planner.event.repo,
            self.candidate.id,
            in_repository,
            pipeline_run,
            sink,
            notifiers,
            &metadata,
        );
        match self.planner.core.call("ask the policy", self.planner.core.policy.judge(&asked)).await
        {
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
        let most = self.planner.core.options.max_queued_runs_per_tenant;
        let waiting = RunQuery::of(self.planner.event.tenant.clone())
            .states(vec![RunState::Planned, RunState::Queued]);
        let waiting =
            self.planner.core.store.count_runs(waiting, most).await? + self.planner.waiting;
        if waiting >= most {
            let rule = format!("max_queued_runs_per_tenant: {waiting} runs wait, and {most} may");
            return Err(denied(rule));
        }
        Ok(())
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
