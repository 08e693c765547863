//! A ledger that was lost is rebuilt from the runs that the sink has.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use workflows_core::{
    Engine, RunPhase, RunState, Store, Tenant,
    conformance::ScriptedSink,
    repo::StatusState,
    store::{MemoryStore, RunQuery},
};

use super::world::{World, workflow};

/// An engine with a ledger that knows nothing, at the same host and sink.
struct Anew {
    store: Arc<MemoryStore>,
    engine: Engine,
}

impl Anew {
    fn of(world: &World) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(world.clock.clone())));
        let engine = Engine::builder()
            .store(store.clone())
            .clock(Arc::new(world.clock.clone()))
            .connection(world.scm.connection(), Arc::new(world.scm.clone()))
            .sink("sink", Arc::new(world.sink.clone()))
            .build()
            .unwrap();
        Self { store, engine }
    }

    /// Starts it, and stops it when it has done what is to be done at a start.
    async fn starts(&self) {
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, stop) = (self.engine.clone(), stop.clone());
            async move { engine.run(stop).await }
        });
        while self.store.cursor(&Tenant::default(), "engine/rebuilt").await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
        self.engine.run_until_idle().await.unwrap();
    }

    async fn runs(&self) -> Vec<workflows_core::Run> {
        self.store.runs(RunQuery::of(Tenant::default())).await.unwrap().items
    }
}

#[tokio::test]
async fn runs_under_way_are_known_again_and_their_statuses_come_to_an_end() {
    let ci = workflow(
        "ci",
        "\n  triggers: [{ name: push, on: push }]\n  \
         concurrency: [{ group: $(event.head.ref), strategy: replace }]",
    );
    let world = World::with(&ci);
    let first = world.repo.push("alice", "main", &[("a", "1")]);
    let commit = world.repo.head("main");
    world.hears(first.clone()).await;
    let before = world.runs().await.remove(0);
    assert_eq!(before.state, RunState::Running);

    let anew = Anew::of(&world);
    anew.starts().await;
    let known = anew.runs().await.remove(0);
    for (one, two) in [
        (&before.repo.name, &known.repo.name),
        (&before.trigger, &known.trigger),
        (&before.name, &known.name),
        (&before.origin.digest, &known.origin.digest),
    ] {
        assert_eq!(one, two);
    }
    assert_eq!(
        (&before.key, &before.event, &before.workflow, &before.subject, &before.commit),
        (&known.key, &known.event, &known.workflow, &known.subject, &known.commit)
    );
    assert_eq!((&before.groups, &before.handle), (&known.groups, &known.handle));
    assert_eq!(before.status_context, known.status_context);
    assert_eq!(known.state, RunState::Running);

    // The host tells of it once more: there is no second run.
    anew.store.admit(vec![first], None).await.unwrap();
    anew.engine.run_until_idle().await.unwrap();
    assert_eq!(anew.runs().await.len(), 1);
    assert_eq!(world.sink.creations(&before.key), 1);

    // A newer one takes its place, and its status comes to an end.
    let newer = world.repo.push("alice", "main", &[("a", "2")]);
    anew.store.admit(vec![newer], None).await.unwrap();
    anew.engine.run_until_idle().await.unwrap();
    world.clock.advance(jiff::SignedDuration::from_secs(31));
    anew.engine.run_until_idle().await.unwrap();
    assert_eq!(world.sink.phase(&before.key), Some(RunPhase::Cancelled));
    assert_eq!(world.shows(&commit, "workflows/ci"), Some(StatusState::Cancelled));
    assert_eq!(anew.runs().await.len(), 2);

    // Once is enough, and another start changes nothing.
    anew.starts().await;
    assert_eq!(anew.runs().await.len(), 2);
}

#[tokio::test]
async fn what_tells_of_another_run_than_its_own_is_not_taken_up() {
    let world = World::with(super::world::CI);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let mut forged = world.sink.created().remove(0);
    let mut pipeline_run = (*forged.pipeline_run).clone();
    pipeline_run["metadata"]["annotations"]["workflows.tekton.dev/trigger"] = "release".into();
    forged.pipeline_run = pipeline_run.into();
    let sink = ScriptedSink::new();
    workflows_core::RunSink::ensure(&sink, &forged).await.unwrap();

    let elsewhere = World { sink, ..world };
    let anew = Anew::of(&elsewhere);
    anew.starts().await;
    assert_eq!(anew.runs().await, []);
}
