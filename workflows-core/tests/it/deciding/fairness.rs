//! A tenant with very much to do does not keep another waiting.

use std::sync::Arc;

use jiff::Timestamp;
use workflows_core::{
    Engine, EngineOptions, ManualClock, Observation, Store, SubjectClaim, Tenant,
    conformance::{ScriptedScm, ScriptedSink},
    event::{Before, RefClaim},
    store::{DecisionQuery, MemoryStore, Outcome, Stage},
};

use super::world::workflow;

const WAITING: usize = 10_000;
const CONCURRENCY: usize = 16;

/// Pushes of new branches, all to one commit.
fn branches(pushed: &Observation, count: usize) -> Vec<Observation> {
    let SubjectClaim::Ref(claim) = &pushed.claim else { panic!("a push is about a ref") };
    let after = claim.after.clone();
    (0..count)
        .map(|number| {
            let mut branch = pushed.clone();
            branch.delivery = format!("branch-{number}").as_str().into();
            branch.claim = SubjectClaim::Ref(RefClaim {
                name: format!("refs/heads/branch-{number}").into(),
                after: after.clone(),
                before: Before::Was(None),
                forced: None,
            });
            branch
        })
        .collect()
}

async fn waits_for_one_batch_at_most(clock: ManualClock, store: Arc<dyn Store>) {
    let scm_of = |tenant: &str| ScriptedScm::new().under(Tenant::new(tenant).unwrap(), "scm");
    let (noisy, quiet) = (scm_of("noisy"), scm_of("quiet"));
    let sink = ScriptedSink::new();
    let mut options = EngineOptions::default();
    options.concurrency = CONCURRENCY;
    let engine = Engine::builder()
        .store(store.clone())
        .clock(Arc::new(clock))
        .options(options)
        .connection_of(noisy.tenant(), "scm", Arc::new(noisy.clone()), Default::default())
        .connection_of(quiet.tenant(), "scm", Arc::new(quiet.clone()), Default::default())
        .sink("sink", Arc::new(sink.clone()))
        .build()
        .unwrap();
    let ci = workflow("ci", "\n  triggers: [{ name: push, on: push }]");
    let files = [(".tekton/ci.yaml", ci.as_str())];

    let pushed = noisy.create("noisy/app").push("alice", "main", &files);
    for many in branches(&pushed, WAITING).chunks(1_000) {
        store.admit(many.to_vec(), None).await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(engine.step(Stage::Match).await.unwrap(), CONCURRENCY);
    }
    let pushed = quiet.create("quiet/app").push("bob", "main", &files);
    let admitted = store.admit(vec![pushed], None).await.unwrap();
    let event = admitted[0].event().unwrap().clone();

    assert_eq!(engine.step(Stage::Match).await.unwrap(), CONCURRENCY);
    let decisions = DecisionQuery::of(quiet.tenant()).event(Some(event.key));
    let decided = store.decisions(decisions).await.unwrap().items;
    assert_eq!(decided.len(), 1, "decided in the first batch after it came");
    let Outcome::Matched { run } = &decided[0].decisions[0].outcome else { panic!("{decided:?}") };
    assert_eq!(sink.creations(run), 0);
    engine.step(Stage::Dispatch).await.unwrap();
    assert_eq!(sink.creations(run), 1, "created in the first batch after that");
    let left = store.backlog().await.unwrap();
    let left = left.iter().find(|one| one.stage == Stage::Match).unwrap().waiting;
    assert_eq!(left, (WAITING - 4 * CONCURRENCY + 1) as u64, "the other has much to do still");
}

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_second(1_000_000).unwrap())
}

#[tokio::test]
async fn one_event_behind_ten_thousand_of_another_tenant_waits_for_one_batch_at_most() {
    let clock = clock();
    let store = MemoryStore::new(Arc::new(clock.clone()));
    waits_for_one_batch_at_most(clock, Arc::new(store)).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn one_event_behind_ten_thousand_of_another_tenant_waits_for_one_batch_in_sqlite_too() {
    use workflows_core::store::{SqliteOptions, SqliteStore};
    let clock = clock();
    let options = SqliteOptions::default();
    let store = SqliteStore::open_in_memory(options, Arc::new(clock.clone())).await.unwrap();
    waits_for_one_batch_at_most(clock, Arc::new(store)).await;
}
