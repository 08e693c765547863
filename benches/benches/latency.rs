//! From the bytes of a signed push to the run: verified, decoded, stored with `synchronous=FULL`,
//! matched, planned, dispatched. The clock stops when [`RunSink::ensure`] is called.
//!
//! ```text
//! cargo bench -p workflows-benches --bench latency
//! ```
//!
//! Events come one at a time. Each run succeeds as soon as it is made, so statuses are shown and
//! history is written beside the events that follow: at once, or after a rest in which the engine
//! can finish. On SQLite, and on a server of Postgres on the same machine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use workflows_benches::{
    disk::syncs_per_second,
    ledger::Place,
    push::{Push, Request, decode},
    spread::Spread,
};
use workflows_core::{
    CancelMode, Result, RunKey, RunPhase, RunSink, RunStatus,
    conformance::{ScriptedRepo, ScriptedScm, ScriptedSink},
    engine::{ConnectionOptions, Engine, EngineHandle},
    sink::{ChangedRun, EnsuredRun, RunRequest, SinkRun},
    workflow::{LoadContext, load},
};
use workflows_scm::webhook::verify_sha256;

const WARM_UP: usize = 100;
const EVENTS: usize = 2_000;
const BODY: usize = 8 << 10;

const WORKFLOW: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  repos:
  - { name: code, connection: scm, repo: acme/api }
  triggers:
  - name: push
    on: push
    branches: [main, 'release/*']
    filter: event.sender != 'bot'
  params:
  - { name: revision, value: $(event.head.sha) }
  - { name: url, value: $(repos.code.url) }
  pipelineSpec:
    params: [ { name: revision }, { name: url } ]
    tasks:
    - name: build
      taskSpec:
        steps: [ { name: build, image: busybox, script: 'make' } ]
";

fn main() {
    println!("cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    println!("fsyncs of 4 KiB: {:.0}/s", syncs_per_second());
    println!(
        "{:>8} {:>6} {:>7} {:>8} {:>8} {:>8} {:>8}",
        "ledger", "rest", "events", "until", "p50 ms", "p99 ms", "max ms"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for place in Place::all() {
        for rest in [Duration::from_millis(20), Duration::ZERO] {
            let times = runtime.block_on(events(&place, rest));
            let rest = format!("{rest:?}");
            let part = |name: &str, of: fn(&Times) -> Duration| {
                let spread = Spread::of(times.iter().map(of).collect());
                println!(
                    "{place:>8} {rest:>6} {:>7} {name:>8} {:>8.2} {:>8.2} {:>8.2}",
                    spread.count(),
                    spread.milliseconds(0.5),
                    spread.milliseconds(0.99),
                    spread.milliseconds(1.0),
                );
            };
            part("stored", |times| times.stored);
            part("ensure", |times| times.ensure);
        }
    }
}

/// How long after its bytes came in an event was stored, and its run asked for.
struct Times {
    stored: Duration,
    ensure: Duration,
}

async fn events(place: &Place, rest: Duration) -> Vec<Times> {
    let ledger = place.open(&format!("rest_{}", rest.as_millis())).await;
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("ada", "main", &[("README.md", "An interface.")]);
    let mut loaded = load("ci.yaml", WORKFLOW, &LoadContext::registered());
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let (asked, mut asked_at) = mpsc::unbounded_channel();
    let sink = Stopwatch { runs: ScriptedSink::new(), asked };
    let runs = sink.runs.clone();
    let engine = Engine::builder()
        .store(ledger.store())
        .connection_of(
            scm.tenant(),
            scm.connection(),
            Arc::new(scm.clone()),
            ConnectionOptions::registered_only(),
        )
        .sink("stopwatch", Arc::new(sink))
        .workflow(loaded.workflows.remove(0))
        .build()
        .expect("the engine is built");
    let handle = engine.handle();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let running = tokio::spawn(async move { engine.run(stop).await });

    let secrets = [SecretString::from("a secret of some length")];
    let mut times = Vec::with_capacity(EVENTS);
    for turn in 0..WARM_UP + EVENTS {
        let request = push(&repo, turn, &secrets[0]);
        let came_in = Instant::now();
        answer(&handle, &scm, &secrets, request).await;
        let stored = came_in.elapsed();
        let (asked_at, run): (Instant, RunKey) = asked_at.recv().await.expect("a run is asked for");
        if turn >= WARM_UP {
            times.push(Times { stored, ensure: asked_at.duration_since(came_in) });
        }
        while runs.phase(&run).is_none() {
            tokio::task::yield_now().await;
        }
        runs.set_phase(&run, RunPhase::Succeeded);
        tokio::time::sleep(rest).await;
    }
    shutdown.cancel();
    running.await.expect("the engine ends");
    ledger.close().await;
    times
}

/// What a receiver does with a request, up to the answer.
async fn answer(
    handle: &EngineHandle,
    scm: &ScriptedScm,
    secrets: &[SecretString],
    request: Request,
) {
    let Request { delivery, signature, body } = request;
    let verified = verify_sha256(body, Some(&signature), secrets).expect("it is signed");
    let observation = decode(scm.connection(), &delivery, &verified);
    let admitted = handle.publish(vec![observation]).await.expect("it is stored");
    assert!(admitted.iter().all(|one| one.event().is_some()), "every push is news");
}

/// The next push to the main branch, as a signed request.
fn push(repo: &ScriptedRepo, turn: usize, secret: &SecretString) -> Request {
    let before = repo.head("main").to_string();
    repo.push("ada", "main", &[("turn", &turn.to_string())]);
    let reference = repo.reference();
    let push = Push {
        id: reference.id.as_str(),
        repo: &reference.name,
        reference: "refs/heads/main",
        before,
        after: repo.head("main").to_string(),
    };
    push.request(format!("delivery-{turn}"), BODY, secret)
}

/// A sink that notes when a run is asked for.
#[derive(Debug)]
struct Stopwatch {
    runs: ScriptedSink,
    asked: mpsc::UnboundedSender<(Instant, RunKey)>,
}

#[async_trait]
impl RunSink for Stopwatch {
    async fn ensure(&self, request: &RunRequest) -> Result<EnsuredRun> {
        // The benchmark has ended when nobody listens.
        let _ = self.asked.send((Instant::now(), request.key.clone()));
        self.runs.ensure(request).await
    }

    async fn state(&self, run: &SinkRun) -> Result<RunStatus> {
        self.runs.state(run).await
    }

    async fn cancel(&self, run: &SinkRun, mode: CancelMode) -> Result<()> {
        self.runs.cancel(run, mode).await
    }

    fn changes(&self) -> Option<BoxStream<'static, ChangedRun>> {
        self.runs.changes()
    }
}
