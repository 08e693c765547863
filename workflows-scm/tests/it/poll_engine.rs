//! Polling for an engine whose repositories define their own workflows.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Engine, EngineHandle, ManualClock, SharedClock,
    conformance::{ScriptedScm, ScriptedSink},
    store::MemoryStore,
};
use workflows_scm::poll::RefPoller;

const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers:
  - { name: push, on: push }
  - { name: tag, on: tag }
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
";

/// Waits until a source has got through so often.
async fn until_looked(handle: &EngineHandle, source: &str, times: u64) {
    loop {
        let health = handle.health().await.unwrap();
        let looks = health.sources.iter().filter(|one| one.source.as_str() == source);
        if looks.map(|one| one.progress.successes).sum::<u64>() >= times {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_workflow_that_stands_on_one_branch_alone_runs_for_that_branch() {
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
    let shared: SharedClock = Arc::new(clock.clone());
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("ann", "main", &[("README.md", "no workflow here")]);
    let sink = ScriptedSink::new();
    let engine = Engine::builder()
        .store(Arc::new(MemoryStore::new(Arc::clone(&shared))))
        .clock(shared)
        .connection(scm.connection(), Arc::new(scm.clone()))
        .repository(scm.connection(), "acme/api")
        .source(Arc::new(RefPoller::every(SignedDuration::from_mins(1)).unwrap()))
        .sink("sink", Arc::new(sink.clone()))
        .build()
        .unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (engine, shutdown) = (engine.clone(), shutdown.clone());
        async move { engine.run(shutdown).await }
    });
    let handle = engine.handle();
    until_looked(&handle, "definitions", 1).await;
    until_looked(&handle, "poll", 1).await;

    repo.push("ann", "main", &[("README.md", "still none")]);
    repo.push("ann", "feature/x", &[(".tekton/ci.yaml", CI)]);
    clock.advance(SignedDuration::from_secs(67));
    let created = sink.until_created(1).await;
    assert_eq!(
        created[0].pipeline_run["metadata"]["annotations"]["workflows.tekton.dev/ref"],
        "refs/heads/feature/x"
    );

    repo.tag("ann", "v1", "feature/x");
    clock.advance(SignedDuration::from_secs(67));
    let created = sink.until_created(2).await;
    assert_eq!(
        created[1].pipeline_run["metadata"]["annotations"]["workflows.tekton.dev/ref"],
        "refs/tags/v1"
    );
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(sink.created().len(), 2, "nothing runs for main, which defines nothing");
}
