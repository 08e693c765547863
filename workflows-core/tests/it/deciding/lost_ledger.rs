//! A ledger that was lost is rebuilt from the runs that the sink has.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Clock, Engine, RunPhase, RunState, Store, Tenant, Transition,
    conformance::ScriptedSink,
    engine::ConnectionOptions,
    repo::StatusState,
    store::{MemoryStore, RunQuery},
};

use super::{
    notify::Recorder,
    world::{World, workflow},
};

/// An engine with a ledger that knows nothing, at the same host and sink.
struct Anew {
    store: Arc<MemoryStore>,
    engine: Engine,
    team: Recorder,
}

impl Anew {
    fn of(world: &World) -> Self {
        let store = Arc::new(MemoryStore::new(Arc::new(world.clock.clone())));
        let team = Recorder::default();
        let engine = Engine::builder()
            .store(store.clone())
            .clock(Arc::new(world.clock.clone()))
            .connection(world.scm.connection(), Arc::new(world.scm.clone()))
            .sink("sink", Arc::new(world.sink.clone()))
            .notifier("team", Arc::new(team.clone()))
            .build()
            .unwrap();
        Self { store, engine, team }
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
async fn a_run_that_is_known_again_tells_whom_it_told_and_is_kept_as_long_and_may_clone() {
    let ci = workflow(
        "ci",
        "\n  triggers: [{ name: push, on: push }]\n  \
         notify: [{ notifier: team, on: [succeeded], filter: run.workflow == 'ci' }]\n  \
         retention: { runs: 1 }",
    );
    let told = Recorder::default();
    let world = World::built(&ci, ConnectionOptions::default(), |builder| {
        builder.notifier("team", Arc::new(told.clone()))
    });
    let minted_until = world.clock.now() + SignedDuration::from_hours(1);
    world.scm.credentials_end_at(minted_until);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let before = world.runs().await.remove(0);
    assert_eq!(before.credential_until, Some(minted_until));

    let anew = Anew::of(&world);
    anew.starts().await;
    let known = anew.runs().await.remove(0);
    assert_eq!((&before.notify, &before.retention), (&known.notify, &known.retention));
    assert_eq!(before.credential_until, known.credential_until);
    assert_eq!(before.secrets, known.secrets, "what it was given is kept out of its logs");
    assert!(!known.secrets.is_empty());

    // Its credential is renewed before it ends.
    let renewed_until = minted_until + SignedDuration::from_hours(1);
    world.scm.credentials_end_at(renewed_until);
    world.clock.advance(SignedDuration::from_mins(50));
    anew.engine.run_until_idle().await.unwrap();
    let renewed = world.sink.renewed();
    assert_eq!(renewed.len(), 1);
    assert_eq!((&renewed[0].0, renewed[0].1.expires_at), (&before.key, Some(renewed_until)));

    // Whoever it would have told is told of its end, and that this may not be the first time.
    world.sink.set_phase(&before.key, RunPhase::Succeeded);
    world.clock.advance(SignedDuration::from_secs(31));
    anew.engine.run_until_idle().await.unwrap();
    let of_end = anew.team.told();
    assert_eq!(of_end.len(), 1);
    assert_eq!((of_end[0].transition, of_end[0].may_have_reached), (Transition::Succeeded, true));
    assert!(told.told().is_empty());

    // The newest run is the one that is kept.
    let newer = world.repo.push("alice", "main", &[("a", "2")]);
    anew.store.admit(vec![newer], None).await.unwrap();
    anew.engine.run_until_idle().await.unwrap();
    let newest = anew.runs().await.remove(0);
    assert_eq!(newest.commit, Some(world.repo.head("main")));
    world.sink.set_phase(&newest.key, RunPhase::Succeeded);
    world.clock.advance(SignedDuration::from_secs(31));
    anew.engine.run_until_idle().await.unwrap();
    assert!(!anew.team.told()[1].may_have_reached, "it is the first time");
    anew.engine.prune().await.unwrap();
    let kept: Vec<_> = anew.runs().await.into_iter().map(|run| run.key).collect();
    assert_eq!(kept, [newest.key]);
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

#[tokio::test]
async fn a_run_that_is_known_again_is_as_old_as_its_pipelinerun() {
    let world = World::with(super::world::CI);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let created = world.clock.now();
    let mut kept = world.sink.created().remove(0);
    let mut pipeline_run = (*kept.pipeline_run).clone();
    pipeline_run["metadata"]["creationTimestamp"] = created.to_string().into();
    kept.pipeline_run = pipeline_run.into();
    let sink = ScriptedSink::new();
    workflows_core::RunSink::ensure(&sink, &kept).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(2));

    let elsewhere = World { sink, ..world };
    let anew = Anew::of(&elsewhere);
    anew.starts().await;
    assert_eq!(anew.runs().await.remove(0).created_at, created);
}
