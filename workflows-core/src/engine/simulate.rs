//! What would run: deciding observations and recorded events without writing anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    connections::ConnectionTable,
    core::Core,
    definitions::Definitions,
    event_details::LedgerDetails,
    explain::Decided,
    gate::PermissionCache,
    health::HealthBoard,
    matcher::{self, AttemptRequest, Evaluation},
};
use crate::{
    AttemptId, CommitId, Error, Event, EventKind, Observation, Policy, Result, Run, RunKey,
    SharedClock, StaticSecrets, Tenant, WorkflowId,
    event::{Fold, Folded, Payload, SubjectKey, fold},
    matching::{ChangedFiles, EventDetails, Filters},
    policy::{Facts, PlannedRun, Verdict},
    store::{Decision, DecisionQuery, EventQuery, MemoryStore, Outcome, PageRequest},
    workflow::LoadedWorkflow,
};

/// What would come of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// The event.
    pub event: Event,
    /// What every trigger says to it, and why.
    pub decided: Decided,
    /// The runs that would be, with their whole PipelineRuns. Concurrency groups, which hang on what
    /// else runs, are not decided.
    pub runs: Vec<SimulatedRun>,
}

/// A run that would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedRun {
    /// Its key.
    pub key: RunKey,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The trigger in it.
    pub trigger: Arc<str>,
    /// The commit that it would be for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The keys of its concurrency groups.
    pub groups: Vec<crate::GroupKey>,
    /// The whole `tekton.dev/v1` PipelineRun.
    pub pipeline_run: Arc<Value>,
}

impl From<Run> for SimulatedRun {
    fn from(run: Run) -> Self {
        Self {
            key: run.key,
            workflow: run.workflow,
            trigger: run.trigger,
            commit: run.commit,
            groups: run.groups.into_iter().map(|one| one.group).collect(),
            pipeline_run: run.pipeline_run,
        }
    }
}

/// What is simulated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SimulationRequest {
    /// The workflows, as if they were registered in the observation's tenant and no others were.
    pub workflows: Vec<LoadedWorkflow>,
    /// What happens.
    pub observation: Observation,
    /// The files that it changed. When `None`, the repository is asked if a filter hangs on them.
    pub changed_files: Option<Vec<Arc<str>>>,
}

impl SimulationRequest {
    /// One workflow, and what happens.
    pub fn new(workflow: LoadedWorkflow, observation: Observation) -> Self {
        Self { workflows: vec![workflow], observation, changed_files: None }
    }

    /// Adds a workflow.
    #[must_use]
    pub fn with_workflow(mut self, workflow: LoadedWorkflow) -> Self {
        self.workflows.push(workflow);
        self
    }

    /// Says which files changed.
    #[must_use]
    pub fn with_changed_files(mut self, paths: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.changed_files = Some(paths.into_iter().collect());
        self
    }
}

/// Decides what would run, as an engine without connections would: nothing is called, written or
/// created, and no credentials are needed.
///
/// The policy allows everything, for it is the workflow that is tried out. What hangs on a
/// repository (`pipelineRef.path`, `$(repos...)`, changed files that are not given) is told as a
/// failed decision; [`EngineHandle::simulate`](super::EngineHandle::simulate) asks the repositories
/// and the policy of a whole engine.
///
/// # Errors
///
/// `Invalid` when a workflow cannot be registered, or the observation is no event.
///
/// ```
/// use std::sync::Arc;
/// use workflows_core::{
///     Observation, RepoRef, SubjectClaim, SystemClock, Tenant,
///     engine::{SimulationRequest, simulate},
///     event::{Before, RefClaim, Seen},
///     workflow::{LoadContext, load},
/// };
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut loaded = load("ci.yaml", "
/// apiVersion: workflows.tekton.dev/v1alpha1
/// kind: Workflow
/// metadata: { name: ci }
/// spec:
///   repos: [{ name: code, connection: scm, repo: acme/* }]
///   triggers: [{ name: push, on: push, branches: [main] }]
///   pipelineRef: { name: build }
/// ", &LoadContext::registered());
/// let pushed = Observation::new(
///     Tenant::default(),
///     RepoRef { connection: "scm".into(), id: "42".into(), name: "acme/api".into() },
///     "me".into(),
///     "delivery-1".into(),
///     Seen::Told,
///     SubjectClaim::Ref(RefClaim {
///         name: "refs/heads/main".into(),
///         after: Some("3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap()),
///         before: Before::Was(None),
///         forced: None,
///     }),
/// );
/// let request = SimulationRequest::new(loaded.workflows.remove(0), pushed);
/// let simulated = simulate(request, Arc::new(SystemClock)).await.unwrap();
/// assert_eq!(simulated.runs[0].pipeline_run["spec"]["pipelineRef"]["name"], "build");
/// # }
/// ```
pub async fn simulate(request: SimulationRequest, clock: SharedClock) -> Result<Simulation> {
    in_core(&unconnected(clock), request).await
}

/// The parts of an engine that reaches nothing.
fn unconnected(clock: SharedClock) -> Core {
    Core {
        store: Arc::new(MemoryStore::new(Arc::clone(&clock))),
        policy: Arc::new(AllowAll),
        secrets: Arc::new(StaticSecrets::new()),
        connections: Arc::new(ConnectionTable::new([])),
        sinks: BTreeMap::new(),
        default_sink: "simulated".into(),
        notifiers: Arc::default(),
        mutators: Vec::new(),
        filters: Filters::default(),
        definitions: Arc::new(Definitions::new()),
        permissions: PermissionCache::new(),
        health: Arc::new(HealthBoard::new(Arc::clone(&clock))),
        metrics: Default::default(),
        committed: Default::default(),
        options: Default::default(),
        clock,
    }
}

/// The policy of a simulation without an engine.
#[derive(Debug)]
struct AllowAll;

#[async_trait::async_trait]
impl Policy for AllowAll {
    async fn decide(&self, _: &Facts) -> Result<Verdict> {
        Ok(Verdict::Allow)
    }

    async fn judge(&self, _: &PlannedRun<'_>) -> Result<Verdict> {
        Ok(Verdict::Allow)
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "simulation".to_owned()
    }
}

/// Decides what would run with the repositories, the policy and the rest of an engine.
pub(crate) async fn in_core(core: &Core, request: SimulationRequest) -> Result<Simulation> {
    let SimulationRequest { workflows, observation, changed_files } = request;
    let apart = apart(core, &observation.tenant, workflows)?;
    let event = Arc::new(event_of(&observation, apart.clock.now())?);
    let details = Arc::new(Given {
        ledger: LedgerDetails::new(&apart, &event),
        changed_files,
        payload: observation.payload,
    });
    let request = AttemptRequest::first(&event);
    let first = AttemptId::first();
    let evaluation = matcher::evaluate(&apart, &event, &first, &request, details).await?;
    Ok(simulation(&event, evaluation))
}

fn simulation(event: &Event, evaluation: Evaluation) -> Simulation {
    let mut decisions = evaluation.batch.decisions;
    for guard in &evaluation.batch.guards {
        let sets = evaluation.sets.iter().filter(|set| *set.digest() == guard.set);
        for (workflow, trigger, rejected) in sets.flat_map(|set| set.expand(guard)) {
            let outcome = Outcome::Rejected(rejected);
            decisions.push(Decision { workflow, trigger, outcome });
        }
    }
    Simulation {
        event: event.clone(),
        decided: Decided {
            attempt: evaluation.batch.attempt,
            at: evaluation.batch.at,
            decisions,
            commands: Vec::new(),
            judged_by: evaluation.batch.judged_by,
        },
        runs: evaluation.runs.into_iter().map(|planned| planned.run.into()).collect(),
    }
}

/// The same engine with an empty ledger and these workflows alone, for which repositories define
/// nothing.
fn apart(core: &Core, tenant: &Tenant, workflows: Vec<LoadedWorkflow>) -> Result<Core> {
    let definitions = Definitions::new();
    for workflow in workflows {
        definitions.register(tenant, Arc::new(workflow.into()))?;
    }
    Ok(Core {
        store: Arc::new(MemoryStore::new(Arc::clone(&core.clock))),
        clock: Arc::clone(&core.clock),
        policy: Arc::clone(&core.policy),
        secrets: Arc::clone(&core.secrets),
        connections: Arc::new(core.connections.registered_only()),
        sinks: core.sinks.clone(),
        default_sink: core.default_sink.clone(),
        notifiers: Arc::clone(&core.notifiers),
        mutators: core.mutators.clone(),
        filters: core.filters.clone(),
        definitions: Arc::new(definitions),
        permissions: PermissionCache::new(),
        health: Arc::clone(&core.health),
        metrics: Default::default(),
        committed: Default::default(),
        options: core.options.clone(),
    })
}

/// The event that an observation makes in an empty ledger.
fn event_of(observation: &Observation, now: jiff::Timestamp) -> Result<Event> {
    match fold(observation, Fold { recorded: None, seen_before: false }) {
        Folded::News(news) => Ok(news.into_event(observation, 1, 1, now, None)),
        Folded::Duplicate { reason, .. } => {
            Err(Error::invalid("simulate", format!("the observation is no event: {reason}")))
        }
        Folded::Baseline { .. } => Err(Error::invalid(
            "simulate",
            "the observation is a first reading, which makes no event",
        )),
    }
}

/// What a simulation was given about its event.
#[derive(Debug)]
struct Given {
    ledger: LedgerDetails,
    changed_files: Option<Vec<Arc<str>>>,
    payload: Option<Payload>,
}

#[async_trait::async_trait]
impl EventDetails for Given {
    async fn changed_files(&self) -> Result<ChangedFiles> {
        match &self.changed_files {
            Some(paths) => Ok(ChangedFiles::new(paths.clone())),
            None => self.ledger.changed_files().await,
        }
    }

    async fn payload(&self) -> Result<Option<Payload>> {
        Ok(self.payload.clone())
    }
}

/// What would have come of a recorded event, beside what did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// What would have come of it.
    pub simulation: Simulation,
    /// Triggers that would have started a run and did not.
    pub would_start: Vec<(WorkflowId, Arc<str>)>,
    /// Triggers of the candidate workflows that did start a run and would not have.
    pub would_not_start: Vec<(WorkflowId, Arc<str>)>,
}

/// Decides recorded events with candidate workflows, one page of them, oldest first.
///
/// Candidates stand in for registered workflows of the same names. Heads that are approved now count
/// as approved; nothing else of the ledger is used, and nothing is written.
pub(crate) async fn replay(
    core: &Core,
    events: EventQuery,
    candidates: &[LoadedWorkflow],
) -> Result<Vec<Replayed>> {
    let tenant = events.tenant.clone();
    let mut found = core.store.events(events).await?.items;
    found.retain(|event| event.kind != EventKind::COMMAND);
    found.reverse();
    let names: BTreeSet<&str> = candidates.iter().map(|one| &**one.name()).collect();
    let mut apart = apart(core, &tenant, candidates.to_vec())?;
    let mut replayed = Vec::with_capacity(found.len());
    for event in found {
        let event = Arc::new(event);
        // A ledger without runs, so that the runs that are there do not stand in the way; with the
        // payload of the real one.
        let ledger = MemoryStore::new(Arc::clone(&core.clock));
        if let Some(pull_request) = &event.pull_request {
            let subject = SubjectKey::pull_request(pull_request.number);
            let head = &pull_request.head.sha;
            let approval = core.store.approval(&tenant, &event.repo.id, &subject, head).await?;
            approval.into_iter().for_each(|approval| ledger.approve(approval));
        }
        apart.store = Arc::new(ledger);
        let details = Arc::new(LedgerDetails::new(core, &event));
        let request = AttemptRequest::first(&event);
        let first = AttemptId::first();
        let evaluation = matcher::evaluate(&apart, &event, &first, &request, details).await?;
        let simulation = simulation(&event, evaluation);
        let would: BTreeSet<(WorkflowId, Arc<str>)> = simulation
            .runs
            .iter()
            .map(|run| (run.workflow.clone(), Arc::clone(&run.trigger)))
            .collect();
        let did = started(core, &event).await?;
        let of_candidates: BTreeSet<_> =
            did.into_iter().filter(|(id, _)| names.contains(&*id.name)).collect();
        replayed.push(Replayed {
            simulation,
            would_start: would.difference(&of_candidates).cloned().collect(),
            would_not_start: of_candidates.difference(&would).cloned().collect(),
        });
    }
    Ok(replayed)
}

/// Which triggers started a run for an event in any attempt.
async fn started(core: &Core, event: &Event) -> Result<BTreeSet<(WorkflowId, Arc<str>)>> {
    let query = DecisionQuery::of(event.tenant.clone())
        .event(Some(event.key.clone()))
        .page(PageRequest { limit: 1_000, after: None });
    let batches = core.store.decisions(query).await?.items;
    let decisions = batches.into_iter().flat_map(|batch| batch.decisions);
    Ok(decisions
        .filter(|one| matches!(one.outcome, Outcome::Matched { .. }))
        .map(|one| (one.workflow, one.trigger))
        .collect())
}
