//! Whole engines that tell Slack: crashes, replicas, repetitions and storms, with Slack counting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Engine, Error, LogRef, ManualClock, Result, RunKey, RunPhase, RunStatus, Store, TaskStatus,
    Tenant,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink, StoreCall, StoreTap, TappedStore},
    repo::StatusState,
    sink::{StepStatus, TaskPhase},
    store::{DeliveryQuery, MemoryStore, NotificationState, RunQuery, Stage},
    workflow::{LoadContext, load},
};
use workflows_notify::slack::SlackNotifier;
use workflows_slack_standin::Fault;

use crate::support::{Chat, seconds, secret};

const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  repos: [{ name: code, connection: CONNECTION, repo: acme/api }]
  triggers: [{ name: push, on: push }]
  pipelineSpec:
    tasks:
    - name: test
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
  notify: [{ notifier: slack, on: [ON] }]
";
const ON: &str = "started, succeeded, failed, recovered, still_failing";

struct World {
    chat: Chat,
    /// The address of an incoming webhook, when Slack is told by that.
    webhook: Option<String>,
    on: &'static str,
    store: Arc<dyn Store>,
    scm: ScriptedScm,
    repo: ScriptedRepo,
    sink: ScriptedSink,
}

impl World {
    fn new() -> Self {
        Self::with(Chat::new())
    }

    fn with(chat: Chat) -> Self {
        let clock: Arc<ManualClock> = Arc::new(chat.clock.clone());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock));
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        Self { chat, webhook: None, on: ON, store, scm, repo, sink: ScriptedSink::new() }
    }

    /// Tells of failures with an incoming webhook.
    fn with_webhook() -> Self {
        let world = Self::new();
        let webhook = Some(world.chat.slack.create_webhook(&world.chat.channel));
        Self { webhook, on: "failed", ..world }
    }

    fn notifier(&self) -> SlackNotifier {
        match &self.webhook {
            None => self.chat.notifier(),
            Some(url) => SlackNotifier::incoming_webhook(secret(&**url))
                .clock(Arc::new(self.chat.clock.clone()))
                .build()
                .unwrap(),
        }
    }

    /// A process of its own: it remembers nothing of another.
    fn engine(&self, store: Arc<dyn Store>) -> Engine {
        let text = CI.replace("[ON]", &format!("[{}]", self.on));
        let text = text.replace("CONNECTION", self.scm.connection().as_str());
        let mut loaded = load("ci.yaml", &text, &LoadContext::registered());
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        Engine::builder()
            .clock(Arc::new(self.chat.clock.clone()))
            .store(store)
            .sink("scripted", Arc::new(self.sink.clone()))
            .connection(self.scm.connection(), Arc::new(self.scm.clone()))
            .notifier("slack", Arc::new(self.notifier()))
            .workflow(loaded.workflows.remove(0))
            .build()
            .unwrap()
    }

    async fn pushes(&self, branch: &str) {
        let pushed = self.repo.push("alice", branch, &[("count", branch)]);
        self.store.admit(vec![pushed], None).await.unwrap();
    }

    /// The runs, oldest first.
    async fn runs(&self) -> Vec<RunKey> {
        let mut keys = Vec::new();
        let mut query = RunQuery::of(Tenant::default());
        loop {
            let page = self.store.runs(query.clone()).await.unwrap();
            keys.extend(page.items.into_iter().map(|run| run.key));
            let Some(next) = page.next else { break };
            query.page.after = Some(next);
        }
        keys.reverse();
        keys
    }

    fn fails(&self, run: &RunKey, line: &str) {
        let step = LogRef { task: "test".into(), step: "run".into() };
        self.sink.set_log(run, &step, format!("{line}\n").into_bytes());
        let mut status = RunStatus::new(RunPhase::Failed);
        status.tasks = vec![TaskStatus {
            name: "test".into(),
            phase: TaskPhase::Failed,
            message: String::new(),
            started_at: None,
            finished_at: None,
            link: None,
            steps: vec![StepStatus { name: "run".into(), exit_code: Some(1) }],
        }];
        self.sink.set_status(run, status);
    }

    async fn over_time(&self, engine: &Engine, steps: usize, step: i64) {
        for _ in 0..steps {
            self.chat.clock.advance(seconds(step));
            engine.run_until_idle().await.unwrap();
        }
    }

    async fn pending(&self) -> usize {
        let query = DeliveryQuery::of(Tenant::default()).state(Some(NotificationState::Pending));
        self.store.notifications(query).await.unwrap().items.len()
    }

    fn in_channel(&self) -> Vec<workflows_slack_standin::Shown> {
        self.chat.slack.in_channel(&self.chat.channel)
    }
}

/// A process that dies at a certain commit: before it reaches the ledger, or before its answer.
#[derive(Debug)]
struct Dying {
    commits: AtomicUsize,
    dies_at: usize,
    arrives: bool,
}

impl Dying {
    fn alive(&self) -> Result<()> {
        if self.commits.load(Ordering::SeqCst) > self.dies_at {
            return Err(Error::transient("use the ledger", "the process is dead"));
        }
        Ok(())
    }
}

#[async_trait]
impl StoreTap for Dying {
    async fn before(&self, call: StoreCall) -> Result<()> {
        if call == StoreCall::Commit
            && self.commits.fetch_add(1, Ordering::SeqCst) == self.dies_at
            && self.arrives
        {
            return Ok(());
        }
        self.alive()
    }

    async fn after(&self, call: StoreCall) -> Result<()> {
        if call == StoreCall::Commit { self.alive() } else { Ok(()) }
    }
}

/// A run starts, and fails, and the process dies at one of its commits; another takes over.
async fn dies(world: World, dies_at: usize, arrives: bool) -> Option<(usize, usize)> {
    let dying = Arc::new(Dying { commits: AtomicUsize::new(0), dies_at, arrives });
    let tapped = TappedStore::new(Arc::clone(&world.store), Arc::clone(&dying) as _);
    let first = world.engine(Arc::new(tapped));
    let second = world.engine(Arc::clone(&world.store));
    world.pushes("main").await;
    for round in 0..200 {
        if dying.alive().is_ok() {
            let _ = first.run_until_idle().await;
        } else {
            second.run_until_idle().await.unwrap();
        }
        for run in world.runs().await {
            if round >= 3 && world.sink.phase(&run) == Some(RunPhase::Running) {
                world.fails(&run, "boom");
            }
        }
        world.chat.clock.advance(seconds(2));
    }
    assert_eq!(world.pending().await, 0);
    let in_channel = world.in_channel();
    let newest = in_channel.last().unwrap();
    assert!(newest.lines()[0].contains("failed"), "{:?}", newest.lines());
    let replies = world.chat.slack.messages(&world.chat.channel).len() - in_channel.len();
    dying.alive().is_err().then_some((in_channel.len(), replies))
}

#[tokio::test]
async fn a_process_that_dies_between_sending_and_recording_makes_no_second_message() {
    let mut deaths = 0;
    for arrives in [false, true] {
        for dies_at in 0.. {
            let Some(told) = dies(World::new(), dies_at, arrives).await else { break };
            deaths += 1;
            assert_eq!(told, (1, 1), "died at commit {dies_at}, which arrived: {arrives}");
        }
    }
    assert!(deaths >= 12, "{deaths} places to die at");
}

#[tokio::test]
async fn without_the_scope_to_look_a_death_makes_one_message_more_at_most() {
    let mut most = 0;
    for dies_at in 0.. {
        let world = World::with(Chat::with(&["chat:write"]));
        let Some((messages, _)) = dies(world, dies_at, false).await else { break };
        most = most.max(messages);
        assert!(messages <= 2, "died at commit {dies_at}: {messages} messages");
    }
    assert_eq!(most, 2, "one of these deaths is between sending and recording");
}

#[tokio::test]
async fn with_a_webhook_a_death_makes_one_message_more_at_most() {
    for arrives in [false, true] {
        let mut most = 0;
        for dies_at in 0.. {
            let told = dies(World::with_webhook(), dies_at, arrives).await;
            let Some((messages, _)) = told else { break };
            most = most.max(messages);
            assert!(messages <= 2, "died at commit {dies_at}: {messages} messages");
        }
        assert_eq!(most, if arrives { 1 } else { 2 }, "a death between sending and recording");
    }
}

#[tokio::test]
async fn with_a_webhook_each_lost_answer_makes_one_message_more_at_most() {
    for lost in 1..4 {
        let world = World::with_webhook();
        let engine = world.engine(Arc::clone(&world.store));
        world.pushes("main").await;
        world.over_time(&engine, 3, 2).await;
        world.chat.slack.fail("webhook", Fault::LostAnswer, lost);
        world.fails(&world.runs().await.remove(0), "boom");
        world.over_time(&engine, 40, 10).await;
        assert_eq!(world.pending().await, 0);
        assert_eq!(world.in_channel().len(), 1 + lost as usize);
    }
}

#[tokio::test]
async fn with_a_webhook_two_replicas_tell_once() {
    replicas_tell_once(World::with_webhook(), 0).await;
}

#[tokio::test]
async fn two_replicas_tell_once() {
    replicas_tell_once(World::new(), 1).await;
}

async fn replicas_tell_once(world: World, details: usize) {
    let replicas = [world.engine(Arc::clone(&world.store)), world.engine(Arc::clone(&world.store))];
    for n in 0..8 {
        world.pushes(&format!("branch-{n}")).await;
    }
    for round in 0..120 {
        let (one, other) = tokio::join!(replicas[0].run_until_idle(), replicas[1].run_until_idle());
        one.unwrap();
        other.unwrap();
        if round == 30 {
            for (n, run) in world.runs().await.iter().enumerate() {
                world.fails(run, &format!("cause {}", char::from(b'a' + n as u8)));
            }
        }
        world.chat.clock.advance(seconds(2));
    }
    assert_eq!(world.pending().await, 0);
    let in_channel = world.in_channel();
    assert_eq!(in_channel.len(), 8);
    for one in &in_channel {
        assert!(one.lines()[0].contains("failed"), "{:?}", one.lines());
        let thread = world.chat.slack.in_thread(&world.chat.channel, &one.ts);
        assert_eq!(thread.len(), details);
    }
}

#[tokio::test]
async fn a_message_whose_details_slack_put_off_or_refused_is_not_posted_again_by_another_process() {
    let faults = [None, Some(Fault::Word("restricted_action")), Some(Fault::Word("msg_too_long"))];
    for fault in faults {
        let world = World { on: "failed", ..World::new() };
        if fault.is_none() {
            world.chat.slack.set_limits(|limits| limits.burst = 1);
        }
        let first = world.engine(Arc::clone(&world.store));
        world.pushes("main").await;
        world.over_time(&first, 3, 2).await;
        let run = world.runs().await.remove(0);
        if let Some(fault) = fault {
            world.chat.slack.fail_after("chat.postMessage", 1, fault, 1);
        }
        world.fails(&run, "boom");
        world.chat.clock.advance(seconds(30));
        first.run_until_idle().await.unwrap();
        assert_eq!(world.chat.slack.messages(&world.chat.channel).len(), 1, "without its details");

        let second = world.engine(Arc::clone(&world.store));
        let query = DeliveryQuery::of(Tenant::default()).state(Some(NotificationState::Dead));
        for dead in second.handle().notifications(query).await.unwrap().items {
            let sent = second.handle().resend(&Tenant::default(), dead.key, "again", "ops").await;
            sent.unwrap();
        }
        world.over_time(&second, 20, 2).await;
        assert_eq!(world.pending().await, 0);
        let in_channel = world.in_channel();
        assert_eq!(in_channel.len(), 1, "{fault:?}");
        assert_eq!(world.chat.slack.in_thread(&world.chat.channel, &in_channel[0].ts).len(), 1);
    }
}

#[tokio::test]
async fn whatever_slack_does_for_a_while_each_run_has_its_one_message_in_the_end() {
    let world = World::new();
    let engine = world.engine(Arc::clone(&world.store));
    let faults = [
        Fault::LostAnswer,
        Fault::Status(502),
        Fault::TooMany(20),
        Fault::Word("internal_error"),
        Fault::Word("invalid_auth"),
        Fault::LostAnswer,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        world.chat.slack.fail("chat.postMessage", fault, 2);
        world.chat.slack.fail("chat.update", fault, 1);
        world.pushes(&format!("branch-{n}")).await;
        world.over_time(&engine, 5, 1).await;
        world.fails(world.runs().await.last().unwrap(), &format!("x{}", "y".repeat(n)));
        world.over_time(&engine, 20, 3).await;
    }
    world.chat.slack.recover();
    world.over_time(&engine, 100, 10).await;
    assert_eq!(world.pending().await, 0);
    let query = DeliveryQuery::of(Tenant::default()).state(Some(NotificationState::Dead));
    assert_eq!(world.store.notifications(query).await.unwrap().items, []);
    let mut told: Vec<String> = world
        .in_channel()
        .iter()
        .map(|one| one.metadata.as_ref().unwrap()["event_payload"]["run"].to_string())
        .collect();
    told.sort();
    let all = told.len();
    told.dedup();
    assert_eq!((all, told.len()), (faults.len(), faults.len()));
}

#[tokio::test]
async fn a_storm_of_failures_of_one_cause_is_one_message_and_delays_no_check() {
    const RUNS: usize = 1_000;
    // Only the ends are told, as most want it.
    let world = World { on: "failed", ..World::new() };
    let engine = world.engine(Arc::clone(&world.store));
    for n in 0..RUNS {
        world.pushes(&format!("branch-{n}")).await;
    }
    engine.run_until_idle().await.unwrap();
    let runs = world.runs().await;
    assert_eq!(runs.len(), RUNS);
    for (n, run) in runs.iter().enumerate() {
        world.fails(run, &format!("pull of registry/api@{n} timed out"));
    }
    let mut commits = Vec::new();
    for run in &runs {
        let run = world.store.run(&Tenant::default(), run).await.unwrap().unwrap();
        commits.push(run.commit.unwrap());
    }

    // As a program runs it, with a Slack that takes its time, and no time that goes on.
    world.chat.slack.set_latency(Duration::from_millis(500));
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.run(stop).await }
    });
    world.chat.clock.advance(seconds(30));
    let shows_its_end = |commit| {
        let status = world.repo.status(commit, "workflows/ci");
        status.is_some_and(|status| status.state == StatusState::Failure)
    };
    let patience = tokio::time::Instant::now() + Duration::from_secs(120);
    while !commits.iter().all(shows_its_end) {
        assert!(tokio::time::Instant::now() < patience, "the checks wait for Slack");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Every commit shows it while next to nobody was told.
    assert!(world.chat.slack.count("chat.postMessage") <= 2, "one message and its details");
    let backlog = engine.handle().health().await.unwrap();
    let waiting = |stage| {
        backlog.stages.iter().find(|one| one.backlog.stage == stage).unwrap().backlog.waiting
    };
    assert!(waiting(Stage::Notify) >= RUNS as u64 - 1, "{} wait", waiting(Stage::Notify));
    stop.cancel();
    running.await.unwrap();
    world.chat.slack.set_latency(Duration::ZERO);

    world.over_time(&engine, 60, 1).await;
    assert_eq!(world.in_channel().len(), 1);
    let posts = world.chat.slack.count("chat.postMessage");
    assert!((50..=63).contains(&posts), "{posts} messages in a minute");
    let refused = world.chat.slack.calls().iter().filter(|call| !call.refused.is_empty()).count();
    assert_eq!(refused, 0, "Slack had no reason to refuse");
    let first = world.in_channel().remove(0);
    assert!(first.lines().last().unwrap().contains("50 more runs"), "{:?}", first.lines());
}
