//! How much of a tenant may wait.

use jiff::SignedDuration;
use workflows_core::{
    EngineOptions, RunPhase, RunState, engine::ConnectionOptions, store::Outcome,
};

use super::world::{World, workflow};

const QUEUED: &str = "
  triggers: [{ name: push, on: push }]
  concurrency: [{ group: prod, strategy: queue }]";

#[tokio::test]
async fn a_run_beyond_the_tenants_limit_of_waiting_runs_is_refused_by_the_rule_of_that_name() {
    let mut options = EngineOptions::default();
    options.max_queued_runs_per_tenant = 2;
    let deploy = workflow("deploy", QUEUED);
    let world = World::built(&deploy, ConnectionOptions::default(), |one| one.options(options));
    let push = |branch: &str| world.repo.push("alice", branch, &[("branch", branch)]);
    for branch in ["a", "b", "c"] {
        let event = world.hears(push(branch)).await.unwrap();
        assert!(matches!(world.outcome(&event, "push").await, Outcome::Matched { .. }));
    }
    let refused = world.hears(push("d")).await.unwrap();
    assert_eq!(
        world.outcome(&refused, "push").await,
        Outcome::Denied { rule: "max_queued_runs_per_tenant: 2 runs wait, and 2 may".to_owned() }
    );
    let states: Vec<_> = world.runs().await.iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Running, RunState::Queued, RunState::Queued]);

    let first = world.runs().await[0].key.clone();
    world.sink.set_phase(&first, RunPhase::Succeeded);
    world.passes(SignedDuration::from_secs(30));
    world.settles().await;
    let room = world.hears(push("e")).await.unwrap();
    assert!(matches!(world.outcome(&room, "push").await, Outcome::Matched { .. }));
}

#[tokio::test]
async fn the_runs_of_one_event_count_against_the_tenants_limit_together() {
    let mut options = EngineOptions::default();
    options.max_queued_runs_per_tenant = 2;
    let triggers: String = (0..4).map(|n| format!("\n  - {{ name: t{n}, on: push }}")).collect();
    let spec =
        format!("\n  triggers:{triggers}\n  concurrency: [{{ group: prod, strategy: queue }}]");
    let deploy = workflow("deploy", &spec);
    let world = World::built(&deploy, ConnectionOptions::default(), |one| one.options(options));
    let event = world.hears(world.repo.push("alice", "a", &[("a", "b")])).await.unwrap();
    for trigger in ["t0", "t1"] {
        assert!(matches!(world.outcome(&event, trigger).await, Outcome::Matched { .. }));
    }
    for trigger in ["t2", "t3"] {
        assert_eq!(
            world.outcome(&event, trigger).await,
            Outcome::Denied {
                rule: "max_queued_runs_per_tenant: 2 runs wait, and 2 may".to_owned()
            }
        );
    }
}
