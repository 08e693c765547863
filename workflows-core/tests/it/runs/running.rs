//! The engine as it runs by itself: nothing here waits for a timer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Error, EventSource, Result, RunPhase, RunState, SourceName, Tenant, Transition,
    source::SourceContext, store::ClaimRequest, store::Stage,
};

use super::world::{HOURS, SECONDS, World, tell_chat};

struct Running {
    shutdown: CancellationToken,
    engine: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(engine: &workflows_core::Engine) -> Self {
        let shutdown = CancellationToken::new();
        let (engine, stop) = (engine.clone(), shutdown.clone());
        Self { shutdown, engine: tokio::spawn(async move { engine.run(stop).await }) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap();
    }
}

#[tokio::test]
async fn an_end_that_the_sink_tells_of_is_seen_at_once() {
    let world = World::with(|options| options.observe_interval = HOURS(24));
    let running = Running::start(&world.engine);
    let on = [Transition::Started, Transition::Succeeded];
    let run = world.plan(|run| run.notify = tell_chat(&on)).await;
    world.sink.until_created(1).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    let ended = world.engine.handle().wait_for(&Tenant::default(), &run).await.unwrap();
    assert_eq!(ended.state, RunState::Succeeded);
    running.stop().await;
    world.idle().await;
    assert_eq!(world.notifier.transitions(), on);
}

#[tokio::test]
async fn many_runs_are_each_created_once_and_each_end() {
    let world = World::with(|options| {
        options.observe_interval = HOURS(24);
        options.concurrency = 3;
    });
    let running = Running::start(&world.engine);
    world.sink.start_as(RunPhase::Succeeded);
    let mut runs = Vec::new();
    for _ in 0..60 {
        runs.push(world.plan(|_| {}).await);
    }
    let handle = world.engine.handle();
    for run in &runs {
        let ended = handle.wait_for(&Tenant::default(), run).await.unwrap();
        assert_eq!(ended.state, RunState::Succeeded);
        assert_eq!(world.sink.creations(run), 1);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_part_that_panics_takes_nothing_else_with_it() {
    let world = World::new();
    world.notifier.panic_next();
    let running = Running::start(&world.engine);
    let first = world.plan(|run| run.notify = tell_chat(&[Transition::Started])).await;
    world.sink.until_created(1).await;
    let handle = world.engine.handle();
    let failing = async {
        loop {
            let problems = handle.health().await.unwrap().problems();
            if problems.iter().any(|one| one.contains("panicked")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    failing.await;
    let second = world.plan(|_| {}).await;
    world.sink.until_created(2).await;
    world.sink.set_phase(&second, RunPhase::Succeeded);
    handle.wait_for(&Tenant::default(), &second).await.unwrap();
    running.stop().await;
    world.later(SECONDS(2)).await;
    assert_eq!(world.notifier.transitions(), [Transition::Started]);
    assert_eq!(world.state(&first).await, RunState::Running);
}

#[tokio::test]
async fn a_graceful_shutdown_lets_what_is_under_way_come_to_its_end() {
    let world = World::new();
    let held = world.sink.hold_ensures();
    let running = Running::start(&world.engine);
    let run = world.plan(|_| {}).await;
    while world.sink.ensured().is_empty() {
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    drop(held);
    running.engine.await.unwrap();
    assert_eq!(world.state(&run).await, RunState::Created);
}

#[tokio::test]
async fn what_is_under_way_when_the_drain_is_over_is_given_back_at_once() {
    let world = World::with(|options| options.drain = SECONDS(0));
    let held = world.sink.hold_ensures();
    let running = Running::start(&world.engine);
    let run = world.plan(|_| {}).await;
    while world.sink.ensured().is_empty() {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    assert_eq!(world.state(&run).await, RunState::Admitted);
    let claimed = world.store.claim(ClaimRequest::of(Stage::Dispatch, 1)).await.unwrap();
    assert_eq!(claimed.claims.len(), 1, "nobody waits for a lease to end");
    assert_eq!(claimed.claims[0].attempts, 2, "the sink may have heard of it");
    drop(held);
}

/// Fails, panics, and then works.
#[derive(Debug)]
struct Shaky {
    starts: AtomicUsize,
    worked: tokio::sync::Notify,
}

#[async_trait]
impl EventSource for Shaky {
    fn name(&self) -> SourceName {
        "shaky".into()
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        match self.starts.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::transient("listen", "the port is taken")),
            1 => panic!("told to panic"),
            _ => {
                context.succeeded("source");
                self.worked.notify_one();
                shutdown.cancelled().await;
                Ok(())
            }
        }
    }
}

#[tokio::test]
async fn a_source_that_fails_or_panics_is_started_again() {
    let world = World::new();
    let source = Arc::new(Shaky { starts: AtomicUsize::new(0), worked: Default::default() });
    let engine = workflows_core::Engine::builder()
        .clock(Arc::new(world.clock.clone()))
        .store(world.store.clone())
        .sink("scripted", Arc::new(world.sink.clone()))
        .source(source.clone())
        .build()
        .unwrap();
    let running = Running::start(&engine);
    let moving = async {
        loop {
            world.clock.advance(SECONDS(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { () = source.worked.notified() => (), () = moving => () }
    let health = engine.handle().health().await.unwrap();
    let told = health.sources.iter().find(|one| one.source.as_str() == "shaky").unwrap();
    assert_eq!((told.progress.failures, told.progress.successes), (2, 1));
    assert!(!told.progress.is_failing());
    running.stop().await;
}

#[tokio::test]
async fn a_source_that_can_never_work_is_told_and_the_engine_runs_on() {
    #[derive(Debug)]
    struct Never;
    #[async_trait]
    impl EventSource for Never {
        fn name(&self) -> SourceName {
            "never".into()
        }
        async fn run(&self, _: SourceContext, _: CancellationToken) -> Result<()> {
            Err(Error::invalid("poll", "no repository is named"))
        }
    }
    let world = World::new();
    let engine = workflows_core::Engine::builder()
        .store(world.store.clone())
        .sink("scripted", Arc::new(world.sink.clone()))
        .source(Arc::new(Never))
        .build()
        .unwrap();
    let running = Running::start(&engine);
    while engine.handle().health().await.unwrap().problems().is_empty() {
        tokio::task::yield_now().await;
    }
    let problems = engine.handle().health().await.unwrap().problems();
    assert_eq!(problems, ["source never (source): poll: no repository is named"]);
    running.stop().await;
}
