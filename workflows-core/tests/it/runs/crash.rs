//! Dying anywhere: the process ends right before or right after any write to the ledger, another
//! takes over, and the result is the same.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use workflows_core::{
    AttemptId, CancelMode, Error, Result, RunKey, RunPhase, RunState, Tenant, Transition,
    WorkflowId,
    conformance::{StoreCall, StoreTap, TappedStore},
    repo::StatusState,
};

use super::world::{SECONDS, World, tell_chat};

/// A workflow whose run goes through every stage, from the push on.
const CI: &str = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers: [{ name: push, on: push, branches: [main] }]
  pipelineSpec:
    tasks:
    - name: build
      taskSpec: { steps: [{ name: run, image: alpine, script: 'true' }] }
  concurrency: [{ group: main, strategy: queue }]
  notify: [{ notifier: chat, on: [started, succeeded] }]
";

/// Where the ledger of a story is.
#[derive(Debug, Clone, Copy)]
enum Ledger {
    Memory,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

impl Ledger {
    async fn world(self) -> World {
        match self {
            Self::Memory => World::new(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite => World::in_sqlite().await,
        }
    }
}

/// A process that dies at a certain write to the ledger: every call after that fails.
#[derive(Debug)]
struct Dying {
    writes: AtomicUsize,
    dies_at: usize,
    write_arrives: bool,
}

impl Dying {
    fn new(dies_at: usize, write_arrives: bool) -> Arc<Self> {
        Arc::new(Self { writes: AtomicUsize::new(0), dies_at, write_arrives })
    }

    fn is_dead(&self) -> bool {
        self.writes.load(Ordering::SeqCst) > self.dies_at
    }

    fn alive(&self) -> Result<()> {
        if self.is_dead() {
            return Err(Error::transient("use the ledger", "the process is dead"));
        }
        Ok(())
    }
}

#[async_trait]
impl StoreTap for Dying {
    async fn before(&self, call: StoreCall) -> Result<()> {
        if !call.writes() {
            return self.alive();
        }
        match self.writes.fetch_add(1, Ordering::SeqCst) {
            number if number == self.dies_at && self.write_arrives => Ok(()),
            _ => self.alive(),
        }
    }

    async fn after(&self, call: StoreCall) -> Result<()> {
        if call.writes() { self.alive() } else { Ok(()) }
    }
}

/// What is left of a story when it has been told.
#[derive(Debug, PartialEq)]
struct Ending {
    state: RunState,
    creations: usize,
    statuses: Vec<StatusState>,
    transitions: Vec<Transition>,
}

#[derive(Debug, Clone, Copy)]
enum Story {
    IsPushedAndSucceeds,
    Succeeds,
    IsCancelled,
    IsRefused,
}

const ON: [Transition; 5] = [
    Transition::Started,
    Transition::Succeeded,
    Transition::Cancelled,
    Transition::Refused,
    Transition::Failed,
];

/// Tells a story to an engine that dies at a write, and then to another one. Returns the ending, and
/// whether the first engine died at all.
async fn tell(ledger: Ledger, story: Story, dies_at: usize, write_arrives: bool) -> (Ending, bool) {
    let world = ledger.world().await;
    let dying = Dying::new(dies_at, write_arrives);
    let tapped = TappedStore::new(world.store.clone(), dying.clone());
    let mut engine = world.engine_over(Arc::new(tapped));
    let run = match story {
        Story::IsPushedAndSucceeds => pushed(&world).await,
        _ => world.plan(|run| run.notify = tell_chat(&ON)).await,
    };
    if matches!(story, Story::IsRefused) {
        world.policy.revoke();
    }
    let mut told = false;
    for _ in 0..60 {
        if engine.run_until_idle().await.is_err() || dying.is_dead() {
            engine = world.another_engine();
        }
        let state = world.store.run(&Tenant::default(), &run).await.unwrap().map(|run| run.state);
        if !told && state == Some(RunState::Running) {
            match story {
                Story::IsPushedAndSucceeds | Story::Succeeds => {
                    world.sink.set_phase(&run, RunPhase::Succeeded)
                }
                Story::IsCancelled => world.order_cancel(&run, CancelMode::AtOnce).await,
                Story::IsRefused => {}
            }
            told = true;
        }
        if state.is_some_and(RunState::is_terminal) && nothing_is_left(&world).await {
            break;
        }
        // Longer than a lease and than the time between two looks at a run.
        world.clock.advance(SECONDS(31));
    }
    assert!(nothing_is_left(&world).await);
    let commit = world.commit(&run).await;
    let mut statuses: Vec<_> = world
        .repo
        .status_history(&commit, "workflows/ci")
        .iter()
        .map(|status| status.state)
        .collect();
    assert!(statuses.is_sorted_by_key(|state| state.rank()), "{statuses:?}");
    let mut seen = BTreeSet::new();
    let transitions = world
        .notifier
        .told()
        .into_iter()
        .filter(|one| seen.insert(one.key.clone()))
        .map(|one| one.transition)
        .collect();
    let ending = Ending {
        state: world.state(&run).await,
        creations: world.sink.creations(&run),
        statuses: statuses.pop().into_iter().collect(),
        transitions,
    };
    (ending, dying.is_dead())
}

/// A push that nothing has looked at, and the key of the run that it will cause.
async fn pushed(world: &World) -> RunKey {
    let pushed = world.repo.push("alice", "main", &[(".tekton/ci.yaml", CI)]);
    let admitted = world.store.admit(vec![pushed], None).await.unwrap();
    let event = admitted[0].event().unwrap();
    let workflow = WorkflowId::in_repository(event.repo.id.clone(), "ci");
    RunKey::of(&event.tenant, &workflow, "push", &event.key, &AttemptId::first())
}

async fn nothing_is_left(world: &World) -> bool {
    world.store.backlog().await.unwrap().iter().all(|one| one.waiting == 0)
}

async fn ends_the_same_wherever_the_process_dies(ledger: Ledger, story: Story) {
    let (expected, died) = tell(ledger, story, usize::MAX, true).await;
    assert!(!died);
    for write_arrives in [false, true] {
        let mut dies_at = 0;
        loop {
            let (ending, died) = tell(ledger, story, dies_at, write_arrives).await;
            assert_eq!(ending, expected, "died at write {dies_at}, arrived: {write_arrives}");
            if !died {
                assert!(dies_at > 10, "the story has more writes than {dies_at}");
                break;
            }
            dies_at += 1;
        }
    }
}

#[tokio::test]
async fn a_run_that_succeeds_does_so_wherever_the_process_dies() {
    let (expected, _) = tell(Ledger::Memory, Story::Succeeds, usize::MAX, true).await;
    assert_eq!(
        expected,
        Ending {
            state: RunState::Succeeded,
            creations: 1,
            statuses: vec![StatusState::Success],
            transitions: vec![Transition::Started, Transition::Succeeded],
        }
    );
    ends_the_same_wherever_the_process_dies(Ledger::Memory, Story::Succeeds).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_ends_so_wherever_the_process_dies() {
    let (expected, _) = tell(Ledger::Memory, Story::IsCancelled, usize::MAX, true).await;
    assert_eq!(
        expected,
        Ending {
            state: RunState::Cancelled,
            creations: 1,
            statuses: vec![StatusState::Cancelled],
            transitions: vec![Transition::Started, Transition::Cancelled],
        }
    );
    ends_the_same_wherever_the_process_dies(Ledger::Memory, Story::IsCancelled).await;
}

#[tokio::test]
async fn a_run_that_is_refused_is_so_wherever_the_process_dies() {
    ends_the_same_wherever_the_process_dies(Ledger::Memory, Story::IsRefused).await;
}

#[tokio::test]
async fn a_push_comes_to_one_run_and_its_end_wherever_the_process_dies() {
    let (expected, _) = tell(Ledger::Memory, Story::IsPushedAndSucceeds, usize::MAX, true).await;
    assert_eq!(
        expected,
        Ending {
            state: RunState::Succeeded,
            creations: 1,
            statuses: vec![StatusState::Success],
            transitions: vec![Transition::Started, Transition::Succeeded],
        }
    );
    ends_the_same_wherever_the_process_dies(Ledger::Memory, Story::IsPushedAndSucceeds).await;
}

#[cfg(feature = "sqlite")]
mod in_sqlite {
    use super::*;

    #[tokio::test]
    async fn a_push_comes_to_one_run_and_its_end_wherever_the_process_dies() {
        ends_the_same_wherever_the_process_dies(Ledger::Sqlite, Story::IsPushedAndSucceeds).await;
    }

    #[tokio::test]
    async fn a_run_that_succeeds_does_so_wherever_the_process_dies() {
        ends_the_same_wherever_the_process_dies(Ledger::Sqlite, Story::Succeeds).await;
    }

    #[tokio::test]
    async fn a_run_that_is_cancelled_ends_so_wherever_the_process_dies() {
        ends_the_same_wherever_the_process_dies(Ledger::Sqlite, Story::IsCancelled).await;
    }

    #[tokio::test]
    async fn a_run_that_is_refused_is_so_wherever_the_process_dies() {
        ends_the_same_wherever_the_process_dies(Ledger::Sqlite, Story::IsRefused).await;
    }

    #[tokio::test]
    async fn a_story_ends_in_sqlite_as_it_does_in_memory() {
        for story in
            [Story::IsPushedAndSucceeds, Story::Succeeds, Story::IsCancelled, Story::IsRefused]
        {
            let (memory, _) = tell(Ledger::Memory, story, usize::MAX, true).await;
            let (sqlite, _) = tell(Ledger::Sqlite, story, usize::MAX, true).await;
            assert_eq!(memory, sqlite, "{story:?}");
        }
    }
}
