//! Putting an engine together.

use std::sync::Arc;

use workflows_core::{
    Engine, EngineOptions, SystemClock,
    conformance::{ScriptedScm, ScriptedSink},
    store::{MemoryStore, Stage},
};

use super::world::{Recorder, World};

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_with_its_remedy() {
    let mut options = EngineOptions::default();
    options.concurrency = 0;
    let scm = ScriptedScm::new();
    let error = Engine::builder()
        .connection("scm", Arc::new(scm.clone()))
        .connection("scm", Arc::new(scm))
        .notifier("chat", Arc::new(Recorder::default()))
        .notifier("chat", Arc::new(Recorder::default()))
        .default_sink("tekton")
        .sink("local", Arc::new(ScriptedSink::new()))
        .options(options)
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the engine cannot be built:\
         \n- there is no ledger; add one with `store`\
         \n- connection \"default/scm\" was added more than once; give each its own name\
         \n- notifier \"default/chat\" was added more than once; give each its own name\
         \n- the default sink \"tekton\" was not added; the sinks are: local\
         \n- `concurrency` is 0, so that no stage would work; set 1 or more"
    );
}

#[tokio::test]
async fn health_shows_the_parts_what_they_offer_and_what_waits() {
    let world = World::new();
    let _ = world.plan(|_| {}).await;
    let health = world.engine.handle().health().await.unwrap();
    assert_eq!(health.connections.len(), 1);
    assert!(health.connections[0].capabilities.iter().count() > 3);
    assert!(health.sinks[0].default && health.sinks[0].tells_changes && health.sinks[0].logs);
    let dispatch = health.stages.iter().find(|one| one.backlog.stage == Stage::Dispatch).unwrap();
    assert_eq!((dispatch.backlog.due, dispatch.backlog.oldest_due), (1, Some(world.clock_now())));
    assert!(health.problems().is_empty());

    world.sink.fail_next_ensure(workflows_core::ErrorKind::Transient, "503 from the API server");
    world.idle().await;
    let problems = world.engine.handle().health().await.unwrap().problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("stage dispatch: "), "{problems:?}");
    assert!(problems[0].contains("503 from the API server"), "{problems:?}");
}

#[tokio::test]
async fn an_engine_of_defaults_needs_a_store_and_a_sink() {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let engine =
        Engine::builder().store(store).sink("local", Arc::new(ScriptedSink::new())).build();
    assert_eq!(engine.unwrap().run_until_idle().await.unwrap(), 0);
}
