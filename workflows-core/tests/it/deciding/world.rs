//! An engine between a scripted host and a scripted sink.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use workflows_core::{
    Clock, CommitId, Event, EventKey, ManualClock, Observation, Permission, Policy, Run, Store,
    Tenant,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink},
    engine::{ConnectionOptions, Engine, EngineBuilder},
    repo::{Status, StatusState},
    store::{
        CommandDecision, CommandOutcome, Decision, DecisionBatch, DecisionQuery, MemoryStore,
        Outcome, RunQuery,
    },
    workflow::{LoadContext, LoadedWorkflow, load},
};

pub(super) struct World {
    pub(super) clock: ManualClock,
    pub(super) store: Arc<MemoryStore>,
    pub(super) scm: ScriptedScm,
    pub(super) repo: ScriptedRepo,
    pub(super) sink: ScriptedSink,
    pub(super) engine: Engine,
}

/// A workflow that runs for pull requests and pushes.
pub(super) const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: pull-request, on: pull_request }
  - { name: push, on: push, branches: [main] }
  params:
  - { name: revision, value: $(event.head.sha) }
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
";

/// The pipeline that test workflows use, indented for `spec`.
pub(super) const PIPELINE: &str = "
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
";

/// A workflow with these fields of `spec` and a pipeline.
pub(super) fn workflow(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: {{ name: {name} \
         }}\nspec:{spec}{PIPELINE}"
    )
}

/// A registered workflow.
pub(super) fn registered(text: &str) -> LoadedWorkflow {
    let mut loaded = load("registered.yaml", text, &LoadContext::registered());
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    loaded.workflows.remove(0)
}

impl World {
    /// The repository `acme/api` with this file in `.tekton` on `main`. `alice` may write.
    pub(super) fn with(ci: &str) -> Self {
        Self::built(ci, ConnectionOptions::default(), |builder| builder)
    }

    pub(super) fn with_policy(ci: &str, policy: Arc<dyn Policy>) -> Self {
        Self::built(ci, ConnectionOptions::default(), |builder| builder.policy(policy))
    }

    pub(super) fn built(
        ci: &str,
        options: ConnectionOptions,
        build: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap());
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        repo.permit("alice", Permission::Write);
        repo.push("alice", "main", &[(".tekton/ci.yaml", ci), ("README.md", "hello")]);
        let sink = ScriptedSink::new();
        let builder = Engine::builder()
            .store(store.clone())
            .clock(Arc::new(clock.clone()))
            .connection_of(Tenant::default(), scm.connection(), Arc::new(scm.clone()), options)
            .sink("sink", Arc::new(sink.clone()));
        let engine = build(builder).build().unwrap();
        Self { clock, store, scm, repo, sink, engine }
    }

    /// The engine hears of something, and does what is due.
    pub(super) async fn hears(&self, observation: Observation) -> Option<Event> {
        let admitted = self.store.admit(vec![observation], None).await.unwrap();
        let event = admitted[0].event().cloned();
        self.settles().await;
        event
    }

    /// The engine does what is due now and a little later.
    pub(super) async fn settles(&self) {
        self.engine.run_until_idle().await.unwrap();
    }

    /// Time passes while the engine tries again what is due.
    pub(super) async fn tries_for(&self, time: SignedDuration) {
        let until = self.clock.now() + time;
        while self.clock.now() < until {
            self.passes(SignedDuration::from_mins(5));
            self.settles().await;
        }
    }

    pub(super) fn passes(&self, time: SignedDuration) {
        self.clock.advance(time);
    }

    /// All runs, oldest first.
    pub(super) async fn runs(&self) -> Vec<Run> {
        let mut runs = self.store.runs(RunQuery::of(Tenant::default())).await.unwrap().items;
        runs.reverse();
        runs
    }

    /// `workflow/trigger@commit` of all runs, oldest first, with the commit's first digits.
    pub(super) async fn run_names(&self) -> Vec<String> {
        let name = |run: &Run| {
            let commit = run.commit.as_ref().map_or("-", CommitId::short);
            format!("{}/{}@{commit}", run.workflow.name, run.trigger)
        };
        self.runs().await.iter().map(name).collect()
    }

    /// The batches of decisions about an event, oldest first.
    pub(super) async fn batches(&self, event: &EventKey) -> Vec<DecisionBatch> {
        let query = DecisionQuery::of(Tenant::default()).event(Some(event.clone()));
        let mut batches = self.store.decisions(query).await.unwrap().items;
        batches.reverse();
        batches
    }

    /// What people read when they ask why something ran for an event.
    pub(super) async fn explained(&self, event: &EventKey) -> String {
        let handle = self.engine.handle();
        handle.explain_event(&Tenant::default(), event).await.unwrap().to_string()
    }

    /// The last decisions about an event.
    pub(super) async fn decisions(&self, event: &Event) -> Vec<Decision> {
        self.batches(&event.key).await.pop().expect("the event was decided").decisions
    }

    /// The last decision of a trigger about an event.
    pub(super) async fn outcome(&self, event: &Event, trigger: &str) -> Outcome {
        let decisions = self.decisions(event).await;
        let of_trigger: Vec<_> =
            decisions.into_iter().filter(|one| &*one.trigger == trigger).collect();
        assert_eq!(of_trigger.len(), 1, "{of_trigger:?}");
        of_trigger.into_iter().next().unwrap().outcome
    }

    /// What came of the commands of an event.
    pub(super) async fn commands(&self, event: &Event) -> Vec<CommandDecision> {
        self.batches(&event.key).await.remove(0).commands
    }

    /// What the host shows for a context on a commit.
    pub(super) fn shows(&self, commit: &CommitId, context: &str) -> Option<StatusState> {
        self.repo.status(commit, context).map(|status| status.state)
    }

    pub(super) fn status(&self, commit: &CommitId, context: &str) -> Status {
        self.repo.status(commit, context).unwrap_or_else(|| {
            panic!("{context} shows nothing; there are {:?}", self.repo.status_contexts(commit))
        })
    }
}

/// The value of a parameter of a run.
pub(super) fn param(run: &Run, name: &str) -> Value {
    let params = run.pipeline_run["spec"]["params"].as_array().cloned().unwrap_or_default();
    params
        .into_iter()
        .find(|param| param["name"] == name)
        .unwrap_or_else(|| panic!("no parameter {name} in {}", run.pipeline_run))["value"]
        .clone()
}

pub(super) fn is_done(decision: &CommandDecision) -> bool {
    matches!(decision.outcome, CommandOutcome::Done { .. })
}

pub(super) fn is_denied(decision: &CommandDecision) -> bool {
    matches!(decision.outcome, CommandOutcome::Denied { .. })
}
