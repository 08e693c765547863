//! What an engine tells of runs that wait, are replaced or take too long, and what it adds to them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use workflows_core::{
    Delivered, Engine, ManualClock, NotificationView, Notifier, Result, RunPhase, Store, Tenant,
    Transition,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink},
    store::{MemoryStore, RunQuery},
    workflow::{LoadContext, load},
};

use crate::support::{seconds, start};

#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<NotificationView>>>);

#[async_trait]
impl Notifier for Recorder {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        self.0.lock().unwrap().push(notification.clone());
        Ok(Delivered::default())
    }

    fn wants_commit(&self) -> bool {
        true
    }
}

struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    repo: ScriptedRepo,
    sink: ScriptedSink,
    engine: Engine,
    told: Recorder,
}

impl World {
    fn new(triggers: &str, concurrency: &str) -> Self {
        let clock = ManualClock::at(start());
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        let (sink, told) = (ScriptedSink::new(), Recorder::default());
        let text = format!(
            "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: {{ name: ci }}
spec:
  repos: [{{ name: code, connection: {}, repo: acme/api }}]
  triggers: [{triggers}]
  concurrency: [{concurrency}]
  pipelineSpec:
    tasks:
    - name: test
      taskSpec: {{ steps: [{{ name: run, image: alpine, script: 'true' }}] }}
  notify:
  - {{ notifier: team, on: [queued, started, superseded, expired, timed_out, cancelled, failed] }}
",
            scm.connection()
        );
        let mut loaded = load("ci.yaml", &text, &LoadContext::registered());
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let engine = Engine::builder()
            .clock(Arc::new(clock.clone()))
            .store(store.clone())
            .sink("scripted", Arc::new(sink.clone()))
            .connection(scm.connection(), Arc::new(scm.clone()))
            .notifier("team", Arc::new(told.clone()))
            .workflow(loaded.workflows.remove(0))
            .build()
            .unwrap();
        Self { clock, store, repo, sink, engine, told }
    }

    async fn pushes(&self, branch: &str, text: &str) {
        let pushed = self.repo.push("alice", branch, &[("count", text)]);
        self.store.admit(vec![pushed], None).await.unwrap();
        self.engine.run_until_idle().await.unwrap();
    }

    async fn later(&self, by: i64) {
        self.clock.advance(seconds(by));
        self.engine.run_until_idle().await.unwrap();
    }

    fn told(&self) -> Vec<(Transition, String)> {
        let told = self.told.0.lock().unwrap();
        told.iter()
            .map(|one| (one.transition, one.run.reference.as_deref().unwrap().to_owned()))
            .map(|(transition, name)| (transition, name.replace("refs/heads/", "")))
            .collect()
    }
}

fn pairs(told: &[(Transition, &str)]) -> Vec<(Transition, String)> {
    told.iter().map(|(transition, name)| (*transition, (*name).to_owned())).collect()
}

const PUSH: &str = "{ name: push, on: push }";

#[tokio::test]
async fn a_run_that_waits_is_queued_and_expires_and_one_that_takes_too_long_timed_out() {
    use Transition::{Expired, Queued, Started, TimedOut};
    let queue = "{ group: all, strategy: queue, maxRunning: 1, maxWait: 10m }";
    let world = World::new(PUSH, queue);
    world.pushes("one", "1").await;
    world.pushes("two", "2").await;
    world.pushes("three", "3").await;
    let begun = [(Started, "one"), (Queued, "two"), (Queued, "three")];
    assert_eq!(world.told(), pairs(&begun));
    world.later(400).await;
    let running = world.store.runs(RunQuery::of(Tenant::default())).await.unwrap().items;
    let running = running.iter().min_by_key(|run| run.order).unwrap().key.clone();
    world.sink.set_phase(&running, RunPhase::TimedOut);
    world.later(31).await;
    world.later(300).await;
    let ended = [(TimedOut, "one"), (Started, "two"), (Expired, "three")];
    let mut told = world.told().split_off(3);
    told.sort_by_key(|(transition, _)| ended.iter().position(|(one, _)| one == transition));
    assert_eq!(told, pairs(&ended));
}

#[tokio::test]
async fn a_run_whose_place_a_newer_one_takes_is_superseded() {
    use Transition::{Started, Superseded};
    let world = World::new(PUSH, "{ group: all, strategy: replace }");
    world.pushes("main", "1").await;
    world.pushes("main", "2").await;
    world.later(31).await;
    let mut told = world.told();
    told.sort();
    assert_eq!(told, pairs(&[(Started, "main"), (Started, "main"), (Superseded, "main")]));
}

#[tokio::test]
async fn what_the_event_the_repository_and_the_commit_tell_is_added() {
    let triggers = format!("{PUSH}, {{ name: pull-request, on: pull_request }}");
    let world = World::new(&triggers, "");
    world.repo.push("alice", "main", &[("a", "1")]);
    world.pushes("feature", "2").await;
    let (number, opened) = world.repo.open_pull_request("bob", "feature", "main");
    world.store.admit(vec![opened], None).await.unwrap();
    world.engine.run_until_idle().await.unwrap();
    let told = world.told.0.lock().unwrap().clone();
    let of = |trigger: &str| told.iter().find(|one| *one.run.trigger == *trigger).unwrap();
    let seen = |one: &NotificationView| {
        let run = one.run.clone();
        (run.title, run.author.map(|name| name.to_string()), run.repo_url, run.pull_request_url)
    };
    let text = |text: &str| Some(text.to_owned());
    let page = text("https://scripted.example/acme/api");
    let pushed = (text("Commit 3"), text("alice"), page.clone(), None);
    assert_eq!(seen(of("push")), pushed);
    let pull_request = world.repo.pull_request(number);
    let address = text(&format!("https://scripted.example/acme/api/pull/{number}"));
    let opened = (Some(pull_request.title.clone()), text("bob"), page, address);
    assert_eq!(seen(of("pull-request")), opened);
}
