//! Slots, from the clock to the ledger.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::{
    Clock, CommitId, ErrorKind, Event, EventKind, ManualClock, Observation, RunState, Store,
    Tenant, WorkflowId,
    conformance::{ScmCall, ScriptedRepo, ScriptedScm, ScriptedSink},
    engine::{Engine, core::Core},
    store::{ClaimRequest, Effects, EventQuery, MemoryStore, Stage, WorkKey},
};

#[derive(Debug, Default)]
struct Book(Mutex<Vec<Scheduled>>);

impl ScheduleBook for Book {
    fn schedules(&self) -> Vec<Scheduled> {
        self.0.lock().unwrap().clone()
    }
}

struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    scm: ScriptedScm,
    repo: ScriptedRepo,
    book: Arc<Book>,
    core: Arc<Core>,
    source: ScheduleSource,
}

fn always() -> watch::Receiver<bool> {
    watch::channel(true).1
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn scheduled(schedule: Value) -> Scheduled {
    Scheduled {
        tenant: Tenant::default(),
        workflow: WorkflowId::registered("release"),
        trigger: "nightly".into(),
        schedule: serde_json::from_value(schedule).unwrap(),
        connection: "scm".into(),
        repo: "acme/api".into(),
    }
}

impl World {
    /// A world at midnight, in which a nightly schedule has begun.
    async fn with(schedule: Value) -> Self {
        let clock = ManualClock::at(at("2026-05-01T00:00:00Z"));
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        let core = core_of(&clock, &store, &scm);
        let book = Arc::new(Book::default());
        let source = ScheduleSource::new(Arc::clone(&core), book.clone(), always());
        let world = Self { clock, store, scm, repo, book, core, source };
        world.repo.push("ada", "main", &[("a", "1")]);
        world.set(schedule);
        world.round().await;
        world
    }

    fn set(&self, schedule: Value) {
        *self.book.0.lock().unwrap() = vec![scheduled(schedule)];
    }

    async fn round(&self) -> Option<Timestamp> {
        self.source.round(self.core.health.as_ref()).await.1
    }

    /// Another process with the same ledger.
    fn restart(&mut self) {
        self.core = core_of(&self.clock, &self.store, &self.scm);
        self.source = ScheduleSource::new(Arc::clone(&self.core), self.book.clone(), always());
    }

    async fn round_at(&self, instant: &str) -> Option<Timestamp> {
        self.clock.set(at(instant));
        self.round().await
    }

    async fn push_at(&self, instant: &str, content: &str) -> CommitId {
        self.clock.set(at(instant));
        self.repo.set_time(self.clock.now());
        let observation = self.repo.push("ada", "main", &[("a", content)]);
        self.admit(observation).await;
        self.repo.head("main")
    }

    async fn admit(&self, observation: Observation) -> Event {
        let admitted = self.store.admit(vec![observation], None).await.unwrap();
        admitted[0].event().unwrap().clone()
    }

    /// The slots that made events, oldest first.
    async fn slots(&self) -> Vec<(Event, Slot)> {
        let query = EventQuery::of(Tenant::default()).kind(Some(EventKind::SCHEDULE));
        let mut events = self.store.events(query).await.unwrap().items;
        events.reverse();
        events
            .into_iter()
            .map(|event| {
                let slot = Slot::of_event(&event).unwrap();
                (event, slot)
            })
            .collect()
    }

    async fn instants(&self) -> Vec<String> {
        self.slots().await.iter().map(|(_, slot)| slot.slot.to_string()).collect()
    }

    async fn last(&self) -> (Event, Slot) {
        self.slots().await.pop().unwrap()
    }

    /// A run of a workflow that succeeded.
    async fn succeeded(&self, event: &Event, workflow: &str, finished: &str) {
        let key = WorkKey::event(event.key.clone());
        let request = ClaimRequest::of(Stage::Match, 1).only(Tenant::default(), key);
        let claim = self.store.claim(request).await.unwrap().claims.remove(0);
        let head = event.head.as_ref().unwrap();
        let run = serde_json::from_value(json!({
            "key": format!("{workflow}-{}", event.sequence),
            "version": 1,
            "tenant": "default",
            "repo": event.repo,
            "workflow": WorkflowId::registered(workflow),
            "trigger": "nightly",
            "event": event.key,
            "order": event.sequence,
            "subject": event.subject,
            "attempt": "",
            "commit": head.sha,
            "reference": head.reference,
            "origin": { "digest": "d" },
            "name": "run",
            "sink": "sink",
            "pipelineRun": {},
            "state": RunState::Succeeded,
            "createdAt": event.received_at,
            "finishedAt": finished,
        }))
        .unwrap();
        let effects = Effects { runs: vec![run], ..Effects::default() };
        self.store.commit(&claim.lease, effects).await.unwrap();
    }
}

fn core_of(clock: &ManualClock, store: &Arc<MemoryStore>, scm: &ScriptedScm) -> Arc<Core> {
    let engine = Engine::builder()
        .store(store.clone())
        .clock(Arc::new(clock.clone()))
        .connection("scm", Arc::new(scm.clone()))
        .sink("sink", Arc::new(ScriptedSink::new()))
        .build()
        .unwrap();
    Arc::clone(&engine.handle().core)
}

fn nightly() -> Value {
    json!({ "cron": "0 3 * * *" })
}

#[tokio::test]
async fn a_slot_fires_once_with_the_commit_of_its_instant_and_is_no_news_to_a_second_replica() {
    let world = World::with(nightly()).await;
    let other = ScheduleSource::new(Arc::clone(&world.core), world.book.clone(), always());
    other.round(world.core.health.as_ref()).await;
    assert_eq!(world.round_at("2026-05-01T02:59:59Z").await, Some(at("2026-05-01T03:00:00Z")));
    assert_eq!(world.instants().await, [""; 0]);
    world.round_at("2026-05-01T03:00:01Z").await;
    world.round().await;
    other.round(world.core.health.as_ref()).await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
    let (event, _) = world.last().await;
    assert_eq!(event.head.unwrap().sha, world.repo.head("main"));
    assert_eq!(event.subject.as_str(), "schedule/release/nightly/2026-05-01T03:00:00Z");
}

#[tokio::test]
async fn a_replica_that_does_not_lead_asks_no_host_unless_nobody_else_does() {
    let world = World::with(nightly()).await;
    let follows = watch::channel(false).1;
    let other = ScheduleSource::new(Arc::clone(&world.core), world.book.clone(), follows);
    let round_of_other = async || other.round(world.core.health.as_ref()).await.1;
    round_of_other().await;
    world.scm.forget_calls();
    world.clock.set(at("2026-05-01T03:00:01Z"));
    assert_eq!(round_of_other().await, Some(at("2026-05-01T03:00:30Z")));
    assert_eq!(world.instants().await, [""; 0]);
    assert!(world.scm.all_calls().is_empty());

    world.round().await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
    world.scm.forget_calls();
    world.clock.set(at("2026-05-01T03:00:30Z"));
    assert_eq!(round_of_other().await, Some(at("2026-05-02T03:00:00Z")));
    assert!(world.scm.all_calls().is_empty(), "it was seen to");

    // Whoever leads does nothing: a slot is not lost, nor late.
    world.clock.set(at("2026-05-02T03:00:00Z"));
    round_of_other().await;
    world.clock.set(at("2026-05-02T03:00:30Z"));
    round_of_other().await;
    let (event, slot) = world.last().await;
    assert_eq!((slot.slot, slot.rejected), (at("2026-05-02T03:00:00Z"), None));
    assert!(event.head.is_some());
    world.round().await;
    assert_eq!(world.instants().await.len(), 2);
}

#[tokio::test]
async fn a_restart_before_or_after_a_slot_was_stored_neither_loses_nor_repeats_it() {
    let mut world = World::with(nightly()).await;
    world.clock.set(at("2026-05-01T03:00:05Z"));
    world.restart();
    world.round().await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
    world.restart();
    world.round().await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
}

#[tokio::test]
async fn a_missed_slot_is_recorded_as_skipped_and_the_next_one_fires() {
    let mut world = World::with(nightly()).await;
    world.restart();
    world.round_at("2026-05-04T12:00:00Z").await;
    let (_, slot) = world.last().await;
    assert_eq!(world.instants().await, ["2026-05-04T03:00:00Z"]);
    assert_eq!(slot.skipped_since, Some(at("2026-05-01T03:00:00Z")));
    let rejected = slot.rejected.unwrap();
    assert_eq!(&*rejected.filter, "startingDeadline");
    world.round_at("2026-05-05T03:00:00Z").await;
    assert_eq!(world.last().await.1.rejected, None);
}

#[tokio::test]
async fn of_missed_slots_only_the_newest_runs_within_its_deadline() {
    let mut world = World::with(json!({ "cron": "0 * * * *", "startingDeadline": "45m" })).await;
    world.restart();
    world.round_at("2026-05-03T07:40:00Z").await;
    let (_, slot) = world.last().await;
    assert_eq!(world.instants().await, ["2026-05-03T07:00:00Z"]);
    assert_eq!(slot.rejected, None);
    assert_eq!(slot.skipped_since, Some(at("2026-05-01T01:00:00Z")));
}

#[tokio::test]
async fn a_clock_that_jumps_never_makes_a_slot_fire_twice_or_silences_a_schedule() {
    let world = World::with(nightly()).await;
    world.round_at("2026-05-01T03:00:00Z").await;
    world.round_at("2026-05-01T02:30:00Z").await;
    world.round_at("2026-05-01T03:00:30Z").await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
    // A year ahead by mistake, and back.
    world.round_at("2027-05-01T03:00:00Z").await;
    world.round_at("2026-05-01T04:00:00Z").await;
    world.round_at("2026-05-02T03:00:00Z").await;
    assert_eq!(
        world.instants().await,
        ["2026-05-01T03:00:00Z", "2027-05-01T03:00:00Z", "2026-05-02T03:00:00Z"]
    );
}

#[tokio::test]
async fn an_edited_schedule_takes_effect_at_once_and_fires_no_slot_of_the_past() {
    let world = World::with(nightly()).await;
    world.clock.set(at("2026-05-01T12:00:00Z"));
    world.set(json!({ "cron": "0 9 * * *", "startingDeadline": "24h" }));
    assert_eq!(world.round().await, Some(at("2026-05-02T09:00:00Z")));
    assert_eq!(world.instants().await, [""; 0]);
    // Taken away and brought back: it begins anew.
    world.book.0.lock().unwrap().clear();
    world.round().await;
    world.clock.set(at("2026-05-02T10:00:00Z"));
    world.set(json!({ "cron": "0 9 * * *", "startingDeadline": "24h" }));
    world.round().await;
    assert_eq!(world.instants().await, [""; 0]);
}

#[tokio::test]
async fn a_slot_whose_repository_does_not_answer_waits_for_it_across_a_restart() {
    let mut world = World::with(nightly()).await;
    world.scm.go_down();
    let next = world.round_at("2026-05-01T03:00:00Z").await;
    assert_eq!(next, Some(at("2026-05-01T03:00:05Z")));
    assert_eq!(world.instants().await, [""; 0]);
    world.restart();
    world.round_at("2026-05-01T05:00:00Z").await;
    world.scm.come_back();
    world.round_at("2026-05-01T05:10:00Z").await;
    assert_eq!(world.instants().await, ["2026-05-01T03:00:00Z"]);
    assert_eq!(world.last().await.1.rejected, None);
}

#[tokio::test]
async fn a_ref_that_is_not_there_is_a_recorded_decision() {
    let world = World::with(json!({ "cron": "0 3 * * *", "ref": "gone" })).await;
    world.round_at("2026-05-01T03:00:00Z").await;
    let (event, slot) = world.last().await;
    assert_eq!(&*slot.rejected.unwrap().filter, "ref");
    assert_eq!(event.head, None);
}

#[tokio::test]
async fn as_of_an_age_is_answered_by_what_the_ledger_saw_arrive() {
    let world = World::with(json!({ "cron": "0 3 * * *", "asOf": "7d" })).await;
    let old = world.push_at("2026-05-02T10:00:00Z", "2").await;
    world.push_at("2026-05-06T10:00:00Z", "3").await;
    world.round_at("2026-05-12T03:00:00Z").await;
    let (event, slot) = world.last().await;
    assert_eq!(event.head.unwrap().sha, old);
    assert!(!slot.approximate);
    assert_eq!(world.scm.calls(ScmCall::FirstParentAsOf), 0);
}

#[tokio::test]
async fn as_of_an_age_before_the_ledger_began_is_approximate() {
    let world = World::with(json!({ "cron": "0 3 * * *", "asOf": "7d" })).await;
    world.repo.set_time(at("2026-04-20T00:00:00Z"));
    world.repo.push("ada", "main", &[("a", "old")]);
    let old = world.repo.head("main");
    world.push_at("2026-05-01T01:00:00Z", "new").await;
    world.round_at("2026-05-01T03:00:00Z").await;
    let (event, slot) = world.last().await;
    assert_eq!(event.head.unwrap().sha, old);
    assert!(slot.approximate);
    assert!(slot.remarks().contains_key("approximate"));
}

#[tokio::test]
async fn as_of_a_time_that_nobody_knows_is_a_recorded_decision() {
    let world = World::with(json!({ "cron": "0 3 * * *", "asOf": "36500d" })).await;
    world.round_at("2026-05-01T03:00:00Z").await;
    let (event, slot) = world.last().await;
    assert_eq!(&*slot.rejected.unwrap().filter, "asOf");
    assert_eq!(event.head, None);
}

#[tokio::test]
async fn as_of_the_last_success_of_another_workflow_takes_the_last_that_ended_by_then() {
    let wanted = json!({ "succeededIn": "dev", "age": "7d" });
    let world = World::with(json!({ "cron": "0 3 * * *", "asOf": wanted })).await;
    let mut heads = Vec::new();
    for (pushed, finished) in [
        ("2026-05-02T10:00:00Z", "2026-05-02T11:00:00Z"),
        ("2026-05-03T10:00:00Z", "2026-05-03T11:00:00Z"),
        ("2026-05-06T10:00:00Z", "2026-05-06T11:00:00Z"),
    ] {
        world.clock.set(at(pushed));
        let observation = world.repo.push("ada", "main", &[("a", pushed)]);
        let event = world.admit(observation).await;
        world.succeeded(&event, "dev", finished).await;
        heads.push(world.repo.head("main"));
    }
    world.round_at("2026-05-12T03:00:00Z").await;
    assert_eq!(world.last().await.0.head.unwrap().sha, heads[1]);
}

#[tokio::test]
async fn only_if_changed_makes_no_run_for_the_commit_that_succeeded_last() {
    let world = World::with(json!({ "cron": "0 3 * * *", "onlyIfChanged": true })).await;
    world.round_at("2026-05-01T03:00:00Z").await;
    let (event, slot) = world.last().await;
    assert_eq!(slot.rejected, None);
    world.succeeded(&event, "release", "2026-05-01T03:10:00Z").await;
    world.round_at("2026-05-02T03:00:00Z").await;
    assert_eq!(&*world.last().await.1.rejected.unwrap().filter, "onlyIfChanged");
    world.push_at("2026-05-02T10:00:00Z", "2").await;
    world.round_at("2026-05-03T03:00:00Z").await;
    assert_eq!(world.last().await.1.rejected, None);
}

#[tokio::test]
async fn a_run_now_is_the_same_for_the_same_key_and_needs_no_change() {
    let world = World::with(json!({ "cron": "0 3 * * *", "onlyIfChanged": true })).await;
    world.round_at("2026-05-01T03:00:00Z").await;
    let (event, _) = world.last().await;
    world.succeeded(&event, "release", "2026-05-01T03:10:00Z").await;
    let scheduled = world.book.schedules().remove(0);
    let observation = run_now(&world.core, &scheduled, "k", "ada").await.unwrap();
    let event = world.admit(observation).await;
    assert_eq!(event.subject.as_str(), "schedule/release/nightly/run-now/k");
    assert_eq!(event.sender.as_deref(), Some("ada"));
    assert_eq!(Slot::of_event(&event).unwrap().rejected, None);
    world.clock.advance(SignedDuration::from_mins(1));
    let again = run_now(&world.core, &scheduled, "k", "ada").await.unwrap();
    assert!(world.store.admit(vec![again], None).await.unwrap()[0].event().is_none());
}

#[tokio::test]
async fn a_run_now_without_a_commit_is_refused_to_its_caller() {
    let world = World::with(json!({ "cron": "0 3 * * *", "asOf": "36500d" })).await;
    let scheduled = world.book.schedules().remove(0);
    let error = run_now(&world.core, &scheduled, "k", "ada").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_registered_schedule_shows_its_next_slot_and_runs_when_it_comes_or_is_asked_for() {
    let clock = ManualClock::at(at("2026-05-01T00:00:00Z"));
    let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let scm = ScriptedScm::new();
    scm.create("acme/api").push("ada", "main", &[("a", "1")]);
    let sink = ScriptedSink::new();
    let text = r#"
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: release }
spec:
  repos: [{ name: code, connection: scm, repo: acme/api }]
  triggers:
  - { name: nightly, on: schedule, schedule: { cron: "0 3 * * *" } }
  pipelineSpec:
    tasks:
    - name: t
      taskSpec: { steps: [{ name: s, image: busybox, script: "true" }] }
"#;
    let mut loaded =
        crate::workflow::load("release.yaml", text, &crate::workflow::LoadContext::registered());
    let engine = Engine::builder()
        .store(store.clone())
        .clock(Arc::new(clock.clone()))
        .connection("scm", Arc::new(scm.clone()))
        .sink("sink", Arc::new(sink.clone()))
        .workflow(loaded.workflows.remove(0))
        .build()
        .unwrap();
    let handle = engine.handle();
    let shown = handle.schedules().await.unwrap();
    assert_eq!(shown[0].next, Some(at("2026-05-01T03:00:00Z")));

    let core = Arc::clone(&handle.core);
    let source = ScheduleSource::new(Arc::clone(&core), core.definitions.clone(), always());
    source.round(core.health.as_ref()).await;
    clock.set(at("2026-05-01T03:00:00Z"));
    source.round(core.health.as_ref()).await;
    engine.run_until_idle().await.unwrap();
    assert_eq!(sink.created().len(), 1);
    assert_eq!(handle.schedules().await.unwrap()[0].seen_to, Some(clock.now()));

    let (tenant, workflow) = (Tenant::default(), WorkflowId::registered("release"));
    for _ in 0..2 {
        handle.run_now(&tenant, &workflow, "nightly", "k", "ada").await.unwrap();
        engine.run_until_idle().await.unwrap();
    }
    assert_eq!(sink.created().len(), 2);
    let unknown = handle.run_now(&tenant, &workflow, "daily", "k", "ada").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}
