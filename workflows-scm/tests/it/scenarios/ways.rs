//! The ways by which events come, and playing the table by each of them.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    DefaultPolicy, Engine, Event, EventKind, EventSource, Policy, Result, Store, Tenant,
    conformance::ScriptedSink,
    engine::ConnectionOptions,
    policy::{Facts, PlannedRun, Verdict},
    store::{EventQuery, PageRequest, RunQuery},
    workflow::{LoadContext, load},
};
use workflows_scm::{
    poll::{PullRequestPoller, RefPoller},
    webhook::webhook_router,
};

use super::{
    host::{CONNECTION, Host, Names},
    table::{Deed, Scenario, Step, scenarios},
};
use crate::poll_support::{Bench, Told};

/// One run for each event that can have one.
const WORKFLOW: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: all }
spec:
  repos: [{ name: code, connection: host, repo: acme/* }]
  triggers:
  - { name: push, on: push }
  - { name: tag, on: tag }
  - name: pull-request
    on: pull_request
    actions: [opened, updated, reopened, retargeted, ready, drafted, closed, merged]
  - { name: label, on: label, actions: [labeled, unlabeled] }
  - { name: comment, on: comment }
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: none, script: 'true' }] }
";

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a webhook.
    Webhook,
    /// By a webhook, everything three times.
    Redelivery,
    /// Out of the log of a webhook that reaches nobody.
    Log,
    /// By looking after each step.
    Poll,
    /// By looking once, when all is over.
    PollAtTheEnd,
    /// By a webhook, everything three times, out of the log, and by looking.
    All,
}

impl Way {
    fn polls(self) -> bool {
        matches!(self, Self::Poll | Self::PollAtTheEnd | Self::All)
    }

    fn tells(self) -> bool {
        !matches!(self, Self::Poll | Self::PollAtTheEnd)
    }

    fn repeats(self) -> bool {
        matches!(self, Self::Redelivery | Self::All)
    }

    fn reads_the_log(self) -> bool {
        matches!(self, Self::Log | Self::All)
    }
}

/// Lets everybody run everything: whose change it is, is another matter.
#[derive(Debug)]
struct Everybody;

#[async_trait]
impl Policy for Everybody {
    async fn decide(&self, _: &Facts) -> Result<Verdict> {
        Ok(Verdict::Allow)
    }

    async fn judge(&self, request: &PlannedRun<'_>) -> Result<Verdict> {
        DefaultPolicy.judge(request).await
    }

    fn version(&self, _tenant: &Tenant) -> String {
        "everybody".to_owned()
    }
}

const SHORTEST: SignedDuration = SignedDuration::from_mins(1);
/// Every source looks once in this time.
const A_WHILE: SignedDuration = SignedDuration::from_secs(70);

/// Plays every scenario at a host, and compares what comes by a way with the table.
pub(crate) async fn play_all(mut host: impl Host, way: Way) {
    let mut bench = Bench::over(host.clock());
    bench.drive(CONNECTION, host.driver());
    bench.kinds = [
        EventKind::PUSH,
        EventKind::TAG,
        EventKind::PULL_REQUEST,
        EventKind::LABEL,
        EventKind::COMMENT,
    ]
    .into();
    let mut loaded = load("all.yaml", WORKFLOW, &LoadContext::registered());
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let engine = Engine::builder()
        .store(bench.store.clone())
        .clock(Arc::new(host.clock()))
        .connection_of(
            Tenant::default(),
            CONNECTION,
            host.driver(),
            ConnectionOptions::registered_only(),
        )
        .policy(Arc::new(Everybody))
        .sink("sink", Arc::new(ScriptedSink::new()))
        .workflow(loaded.workflows.remove(0))
        .build()
        .unwrap();
    host.cut_off(way == Way::Log);
    for scenario in scenarios() {
        let mut played = Played::begin(&mut host, &bench, way, &scenario).await;
        for step in &scenario.steps {
            host.does(&played.repo, step.deed, &mut played.names);
            let mut expected = step.events.clone();
            match way {
                Way::PollAtTheEnd => {
                    bench.clock.advance(A_WHILE);
                    continue;
                }
                Way::Poll if !is_seen(&host, step) => expected.clear(),
                _ => {}
            }
            played.catch_up(&host, &bench).await;
            engine.run_until_idle().await.unwrap();
            let what = format!("{way:?}, {}: {:?}", scenario.name, step.deed);
            played.compare(&bench, expected, &what).await;
        }
        if way == Way::PollAtTheEnd {
            played.start_polls(&bench);
            played.catch_up(&host, &bench).await;
            engine.run_until_idle().await.unwrap();
            let what = format!("{way:?}, {}", scenario.name);
            let mut expected = scenario.at_the_end.clone();
            let late = scenario.steps.iter().filter(|one| !one.is_polled && is_seen(&host, one));
            expected.extend(late.flat_map(|step| &step.events));
            played.compare(&bench, expected, &what).await;
            println!(
                "{}: who looks at the end misses {:#?}",
                scenario.name,
                scenario.missed_at_the_end()
            );
        }
        played.compare_runs(&bench).await;
        played.end().await;
    }
}

/// Whether who looks after a step sees what came of it.
fn is_seen(host: &impl Host, step: &Step) -> bool {
    let is_review = matches!(step.deed, Deed::Review { .. });
    step.is_polled || (is_review && host.shows_reviews_to_polls())
}

/// A source at work.
struct Listening {
    told: mpsc::UnboundedReceiver<Told>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Listening {
    fn start(bench: &Bench, source: Arc<dyn EventSource>) -> Self {
        let (context, told) = bench.context(source.name());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { source.run(context, stop).await });
        Self { told, shutdown, task }
    }

    /// Waits for a look that gets through.
    async fn looks(&mut self) {
        let told = self.told.recv().await.unwrap();
        assert_eq!(told.failure, None, "{told:?}");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A scenario that is being played.
struct Played {
    way: Way,
    repo: String,
    names: Names,
    /// What looks now and then.
    looking: Vec<Listening>,
    receiver: Option<Listening>,
    server: Option<JoinHandle<()>>,
    /// The events that were compared so far.
    compared: usize,
}

impl Played {
    async fn begin(host: &mut impl Host, bench: &Bench, way: Way, scenario: &Scenario) -> Self {
        bench.clock.advance(A_WHILE);
        let repo = host.create(scenario.name);
        bench.want(&[(&repo, &["refs/heads/", "refs/tags/"])]);
        let mut played = Self {
            way,
            repo: repo.clone(),
            names: Names::default(),
            looking: Vec::new(),
            receiver: None,
            server: None,
            compared: 0,
        };
        if way.tells() {
            let receiver = host.receiver();
            let router = webhook_router([("/hook", receiver.clone())]);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}/hook", listener.local_addr().unwrap());
            played.server = Some(tokio::spawn(async move {
                let _ = axum::serve(listener, router).await;
            }));
            played.receiver = Some(Listening::start(bench, Arc::new(receiver.clone())));
            host.tell(&repo, &address).await;
            host.settle().await;
            if way.reads_the_log() {
                let log = host.log(&receiver, &repo);
                played.looking.push(Listening::start(bench, log));
            }
        }
        if way.polls() {
            played.start_polls(bench);
        }
        for looking in &mut played.looking {
            looking.looks().await;
        }
        if way == Way::PollAtTheEnd {
            played.end_looking().await;
        }
        // A hook that is there already tells that the repository was made.
        played.compared = played.events(bench).await.len();
        // What is done in the second in which they looked first is not told apart from what was.
        bench.clock.advance(SignedDuration::from_secs(2));
        played
    }

    fn start_polls(&mut self, bench: &Bench) {
        let refs = RefPoller::every(SHORTEST).unwrap();
        let pull_requests = PullRequestPoller::every(SHORTEST).unwrap();
        self.looking.push(Listening::start(bench, Arc::new(refs)));
        self.looking.push(Listening::start(bench, Arc::new(pull_requests)));
    }

    /// Whatever was done is heard of.
    async fn catch_up(&mut self, host: &impl Host, bench: &Bench) {
        host.settle().await;
        if self.way.repeats() {
            for _ in 0..2 {
                host.tell_again();
                host.settle().await;
            }
        }
        bench.clock.advance(A_WHILE);
        for looking in &mut self.looking {
            looking.looks().await;
        }
    }

    /// All events of the repository, oldest first.
    async fn events(&self, bench: &Bench) -> Vec<Event> {
        let query = EventQuery::of(Tenant::default());
        let page = PageRequest { limit: 1_000, after: None };
        let found = bench.store.events(query.page(page)).await.unwrap();
        let mut events = found.items;
        events.retain(|event| *event.repo.name == *self.repo);
        events.reverse();
        events
    }

    fn written(&self, event: &Event) -> String {
        let whose = format!("{}/{}/", event.tenant, event.repo.id);
        let rest = event.key.as_str().strip_prefix(&whose).unwrap();
        format!("{}: {}", event.actions.join(","), self.names.put_into(rest))
    }

    /// Compares the events that came since the last time, whatever their order.
    async fn compare(&mut self, bench: &Bench, mut expected: Vec<&str>, what: &str) {
        let events = self.events(bench).await;
        let mut came: Vec<String> =
            events[self.compared..].iter().map(|event| self.written(event)).collect();
        self.compared = events.len();
        came.sort();
        expected.sort_unstable();
        assert_eq!(came, expected, "{what}");
    }

    /// Every event has one run, but for those of refs that are gone.
    async fn compare_runs(&self, bench: &Bench) {
        let mut runs = BTreeMap::new();
        for event in self.events(bench).await {
            let query = RunQuery::of(Tenant::default()).event(Some(event.key.clone()));
            let count = bench.store.runs(query).await.unwrap().items.len();
            let expected = usize::from(!event.has_action("deleted"));
            if count != expected {
                runs.insert(self.written(&event), count);
            }
        }
        assert!(runs.is_empty(), "{:?}, {}: {runs:#?}", self.way, self.repo);
    }

    async fn end_looking(&mut self) {
        for looking in self.looking.drain(..) {
            looking.stop().await;
        }
    }

    async fn end(mut self) {
        self.end_looking().await;
        if let Some(receiver) = self.receiver.take() {
            receiver.stop().await;
        }
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}
