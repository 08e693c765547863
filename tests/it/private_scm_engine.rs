//! A private source-code host drives the whole engine, which knows nothing of it: from its feed,
//! through a real run loop, to its board, to people and to the record.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    CommitId, ConnectionName, Delivered, EngineHandle, EventKey, LogRef, NotificationView,
    Notifier, RepoId, Result, Run, RunPhase, RunSink, RunState, Store, SystemClock, Tenant,
    Transition,
    conformance::ScriptedSink,
    engine::{Engine, EngineBuilder},
    event::EventKind,
    local::LocalSink,
    repo::StatusState,
    store::{
        DeliveryQuery, EventQuery, MemoryStore, NotificationState, ObservationQuery, Outcome,
        RunQuery, SqliteOptions, SqliteStore, StatusQuery, StatusSubject,
    },
    workflow::{LoadContext, LoadedWorkflow, load},
};
use workflows_tests::private_scm::PrivateScm;

const PROJECT: &str = "team/project";

const ON_PUSH: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: push, on: push, branches: [main] }
  params:
  - { name: revision, value: $(event.head.sha) }
  pipelineSpec:
    params: [{ name: revision }]
    tasks:
    - name: build
      params: [{ name: revision, value: $(params.revision) }]
      taskSpec:
        params: [{ name: revision }]
        steps:
        - name: say
          image: none
          env: [{ name: REVISION, value: $(params.revision) }]
          script: 'echo built $REVISION'
  notify: [{ notifier: people, on: [started, succeeded] }]
";

const ON_CHANGE_SET: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: review }
spec:
  repos: [{ name: code, connection: private, repo: team/* }]
  triggers:
  - { name: offered, on: change_set, actions: [offered] }
  params:
  - { name: change, value: $(event.data.id) }
  pipelineSpec:
    tasks:
    - name: look
      taskSpec: { steps: [{ name: look, image: none, script: 'true' }] }
  notify: [{ notifier: people, on: [succeeded] }]
";

fn registered(text: &str) -> LoadedWorkflow {
    let mut loaded = load("registered.yaml", text, &LoadContext::registered());
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    loaded.workflows.remove(0)
}

/// Hands what it is told to the test.
#[derive(Debug)]
struct People(mpsc::UnboundedSender<NotificationView>);

#[async_trait]
impl Notifier for People {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let _ = self.0.send(notification.clone());
        Ok(Delivered::default())
    }
}

/// A running engine, whose only source is the feed of the private host.
struct Running {
    scm: PrivateScm,
    handle: EngineHandle,
    people: mpsc::UnboundedReceiver<NotificationView>,
    shutdown: CancellationToken,
    engine: JoinHandle<()>,
}

impl Running {
    fn start(
        store: Arc<dyn Store>,
        sink: Arc<dyn RunSink>,
        build: impl FnOnce(EngineBuilder) -> EngineBuilder,
    ) -> Self {
        let scm = PrivateScm::default();
        scm.create(PROJECT, &[("README.md", "# A project\n")]);
        let connection = ConnectionName::from("private");
        let (told, people) = mpsc::unbounded_channel();
        let builder = Engine::builder()
            .store(store)
            .connection(connection.clone(), Arc::new(scm.clone()))
            .source(Arc::new(scm.feed(Tenant::default(), connection)))
            .sink("sink", sink)
            .notifier("people", Arc::new(People(told)));
        let engine = build(builder).build().unwrap();
        let handle = engine.handle();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let engine = tokio::spawn(async move { engine.run(stop).await });
        Self { scm, handle, people, shutdown, engine }
    }

    async fn board_shows(&self, at: &CommitId, context: &str, state: StatusState) {
        self.scm.until_board_shows(PROJECT, at, context, state).await;
    }

    /// What the board has shown, without repetitions.
    fn shown(&self, at: &CommitId, context: &str) -> Vec<StatusState> {
        let mut states: Vec<_> =
            self.scm.board(PROJECT, at, context).iter().map(|status| status.state).collect();
        states.dedup();
        states
    }

    async fn people_hear(&mut self) -> NotificationView {
        self.people.recv().await.expect("the notifier lives")
    }

    /// The only run of the project.
    async fn only_run(&self) -> Run {
        let query = RunQuery::of(Tenant::default()).repo(Some(RepoId::from(PROJECT)));
        let mut runs = self.handle.runs(query).await.unwrap().items;
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.remove(0)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap();
    }
}

/// Everything that the record has about a run names the event that caused it.
async fn assert_record_hangs_together(handle: &EngineHandle, event: &EventKey, run: &Run) {
    let tenant = Tenant::default();
    let explanation = handle.explain_event(&tenant, event).await.unwrap();
    assert_eq!(explanation.events.len(), 1);
    let explained = &explanation.events[0];
    assert_eq!(explained.event.key, *event);
    assert_eq!(explained.observations.len(), 1);
    assert_eq!(explained.observations[0].event.as_ref(), Some(event));
    assert_eq!(explained.observations[0].source.as_str(), "private-feed");
    let matched: Vec<_> = explained.decided[0]
        .decisions
        .iter()
        .filter_map(|decision| match &decision.outcome {
            Outcome::Matched { run } => Some(run),
            _ => None,
        })
        .collect();
    assert_eq!(matched, [&run.key]);
    assert_eq!(explained.runs.len(), 1);
    assert_eq!(explained.runs[0].run, *run);
    assert_eq!(run.event, *event);
    assert!(!explained.runs[0].notifications.is_empty());
    for notification in &explained.runs[0].notifications {
        assert_eq!(notification.run, run.key);
        assert_eq!(notification.view.event.as_ref(), Some(event));
    }
    assert_eq!(explanation.statuses.len(), 1);
    let shown = StatusSubject::Run { run: run.key.clone() };
    assert_eq!(explanation.statuses[0].desire.subject, shown);
    let annotations = run.pipeline_run["metadata"]["annotations"].as_object().unwrap();
    assert!(
        annotations.values().any(|value| value.as_str() == Some(event.as_str())),
        "the PipelineRun names no event: {annotations:?}"
    );

    let commit = run.commit.clone().unwrap();
    let repo = run.repo.id.clone();
    let by_commit = handle.explain_commit(&tenant, &repo, &commit).await.unwrap();
    assert_eq!(by_commit.events, explanation.events);
    let statuses = StatusQuery::of(tenant.clone()).repo(Some(repo.clone())).commit(Some(commit));
    assert_eq!(handle.statuses(statuses).await.unwrap().items, explanation.statuses);
    let events = EventQuery::of(tenant.clone()).repo(Some(repo.clone()));
    assert_eq!(handle.events(events).await.unwrap().items, std::slice::from_ref(&explained.event));
    let observations = ObservationQuery::of(tenant).repo(Some(repo));
    assert_eq!(handle.observations(observations).await.unwrap().items, explained.observations);
}

async fn a_push_goes_all_the_way(store: Arc<dyn Store>) {
    let sink = ScriptedSink::new();
    sink.start_as(RunPhase::Pending);
    let mut running = Running::start(store, Arc::new(sink.clone()), |builder| builder);
    let head = running.scm.save(PROJECT, "main", &[(".tekton/ci.yaml", Some(ON_PUSH))]);

    running.board_shows(&head, "workflows/ci", StatusState::Queued).await;
    let created = sink.until_created(1).await.remove(0);
    assert_eq!(created.pipeline_run["spec"]["params"][0]["value"], head.as_str());
    sink.set_phase(&created.key, RunPhase::Running);
    running.board_shows(&head, "workflows/ci", StatusState::InProgress).await;
    let started = running.people_hear().await;
    assert_eq!(started.transition, Transition::Started);
    sink.set_phase(&created.key, RunPhase::Succeeded);
    running.board_shows(&head, "workflows/ci", StatusState::Success).await;
    let succeeded = running.people_hear().await;
    assert_eq!(succeeded.transition, Transition::Succeeded);
    assert_ne!(started.key, succeeded.key);
    assert_eq!(
        running.shown(&head, "workflows/ci"),
        [StatusState::Queued, StatusState::InProgress, StatusState::Success]
    );

    let handle = running.handle.clone();
    running.stop().await;
    let query = RunQuery::of(Tenant::default()).repo(Some(RepoId::from(PROJECT)));
    let run = handle.runs(query).await.unwrap().items.remove(0);
    assert_eq!(run.key, created.key);
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(run.commit, Some(head));
    let outbox = DeliveryQuery::of(Tenant::default()).run(Some(run.key.clone()));
    let outbox = handle.notifications(outbox).await.unwrap().items;
    assert_eq!(outbox.len(), 2);
    assert!(outbox.iter().all(|one| one.state == NotificationState::Delivered), "{outbox:?}");
    assert_record_hangs_together(&handle, &run.event, &run).await;
    assert_eq!(sink.creations(&run.key), 1);
}

async fn a_change_set_goes_all_the_way(store: Arc<dyn Store>) {
    let sink = ScriptedSink::new();
    sink.start_as(RunPhase::Succeeded);
    let mut running = Running::start(store, Arc::new(sink.clone()), |builder| {
        builder.workflow(registered(ON_CHANGE_SET))
    });
    running.scm.offer(PROJECT, 7, "main");
    let told = running.people_hear().await;
    assert_eq!(told.transition, Transition::Succeeded);
    let run = running.only_run().await;
    assert_eq!(told.run.key.as_ref(), run.key.as_str());
    assert_eq!((&*run.workflow.name, &*run.trigger), ("review", "offered"));
    assert_eq!(run.pipeline_run["spec"]["params"][0]["value"], "7");
    let head = run.commit.clone().unwrap();
    running.board_shows(&head, "workflows/review", StatusState::Success).await;
    let handle = running.handle.clone();
    running.stop().await;
    let event = handle.store().event(&run.tenant, &run.event).await.unwrap().unwrap();
    assert_eq!(event.kind, EventKind::new(PrivateScm::CHANGE_SET));
    assert_record_hangs_together(&handle, &event.key, &run).await;
}

fn in_memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

async fn in_a_file(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    let path = directory.path().join("ledger.db");
    let store = SqliteStore::open(path, SqliteOptions::default(), Arc::new(SystemClock)).await;
    Arc::new(store.unwrap())
}

#[tokio::test]
async fn a_push_to_a_private_host_goes_all_the_way_with_the_ledger_in_memory() {
    a_push_goes_all_the_way(in_memory()).await;
}

#[tokio::test]
async fn a_push_to_a_private_host_goes_all_the_way_with_the_ledger_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    a_push_goes_all_the_way(in_a_file(&directory).await).await;
}

#[tokio::test]
async fn an_event_that_only_a_private_host_has_starts_a_registered_workflow() {
    a_change_set_goes_all_the_way(in_memory()).await;
}

#[tokio::test]
async fn an_event_that_only_a_private_host_has_is_recorded_in_a_file_too() {
    let directory = tempfile::tempdir().unwrap();
    a_change_set_goes_all_the_way(in_a_file(&directory).await).await;
}

#[tokio::test]
async fn a_private_host_starts_a_process_of_this_machine_whose_log_is_read_through_the_engine() {
    let directory = tempfile::tempdir().unwrap();
    let store = in_a_file(&directory).await;
    let sink = LocalSink::builder(directory.path().join("runs")).build().await.unwrap();
    let mut running = Running::start(store, Arc::new(sink), |builder| builder);
    let head = running.scm.save(PROJECT, "main", &[(".tekton/ci.yaml", Some(ON_PUSH))]);
    running.board_shows(&head, "workflows/ci", StatusState::Success).await;
    let transitions =
        [running.people_hear().await.transition, running.people_hear().await.transition];
    assert_eq!(transitions, [Transition::Started, Transition::Succeeded]);
    let states = running.shown(&head, "workflows/ci");
    assert!(states.is_sorted_by_key(|state| state.rank()), "{states:?}");

    let run = running.only_run().await;
    let step = LogRef { task: "build".into(), step: "say".into() };
    let log = running.handle.logs(&run.tenant, &run.key, step, true).await.unwrap();
    let log: Vec<_> = log.try_collect().await.unwrap();
    assert_eq!(log.concat(), format!("built {head}\n").as_bytes());
    let handle = running.handle.clone();
    running.stop().await;
    assert_record_hangs_together(&handle, &run.event, &run).await;
}
