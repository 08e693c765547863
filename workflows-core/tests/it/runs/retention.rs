//! Removing what is not kept any longer.

use workflows_core::{
    RunKey, RunPhase, Tenant, WorkflowId,
    store::{CursorMove, RunQuery},
    workflow::Retention,
};

use super::world::{HOURS, SECONDS, World};

async fn kept(world: &World) -> Vec<RunKey> {
    let runs = world.engine.handle().runs(RunQuery::of(Tenant::default())).await.unwrap();
    runs.items.into_iter().map(|run| run.key).collect()
}

async fn ended(world: &World, workflow: &str, retention: Option<Retention>) -> RunKey {
    let workflow = WorkflowId::registered(workflow);
    let run = world
        .plan(|run| {
            run.workflow = workflow;
            run.retention = retention;
        })
        .await;
    world.idle().await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    run
}

#[tokio::test]
async fn a_workflow_keeps_as_many_runs_as_its_newest_one_says() {
    let world = World::new();
    let few = |runs| Some(Retention { runs: Some(runs), age: None });
    let mut of_ci = Vec::new();
    for _ in 0..4 {
        of_ci.push(ended(&world, "ci", few(9)).await);
    }
    of_ci.push(ended(&world, "ci", few(2)).await);
    let other = ended(&world, "other", None).await;
    world.engine.prune().await.unwrap();
    assert_eq!(kept(&world).await, [other, of_ci.remove(4), of_ci.remove(3)]);
}

#[tokio::test]
async fn what_workflows_say_is_known_after_a_restart_without_reading_the_archive() {
    let world = World::new();
    let few = |runs| Some(Retention { runs: Some(runs), age: None });
    for _ in 0..3 {
        ended(&world, "ci", few(1)).await;
    }
    world.engine.prune().await.unwrap();
    let stored = world.store.cursor(&Tenant::default(), "retention").await.unwrap().unwrap();
    world.clock.advance(HOURS(48));
    world.engine.prune().await.unwrap();
    let again = world.store.cursor(&Tenant::default(), "retention").await.unwrap().unwrap();
    assert_eq!(again, stored, "nothing came, so nothing is written");

    // What stands there counts: the archive alone, which is not read again, would say otherwise.
    for _ in 0..3 {
        ended(&world, "other", None).await;
    }
    world.clock.advance(HOURS(48));
    let newest = world.clock_now();
    let to =
        serde_json::json!({ "newest": newest, "workflows": [[{"name": "other"}, {"runs": 1}]] });
    let moved = CursorMove {
        tenant: Tenant::default(),
        name: "retention".into(),
        from: Some(stored),
        to: to.to_string(),
    };
    world.store.admit(Vec::new(), Some(moved)).await.unwrap();
    ended(&world, "third", None).await;
    world.engine.prune().await.unwrap();
    let kept = world.engine.handle().runs(RunQuery::of(Tenant::default())).await.unwrap().items;
    let names: Vec<&str> = kept.iter().map(|run| &*run.workflow.name).collect();
    assert_eq!(names, ["third", "other", "ci"]);
}

#[tokio::test]
async fn a_workflow_keeps_its_runs_for_as_long_as_it_says_and_the_platform_allows() {
    let world = World::with(|options| options.keep_runs = HOURS(10 * 24));
    let for_days = |age: &str| Some(Retention { runs: None, age: Some(age.to_owned()) });
    let _short = ended(&world, "short", for_days("2d")).await;
    let _long = ended(&world, "long", for_days("99d")).await;
    let under_way = world.running(|run| run.workflow = WorkflowId::registered("slow")).await;
    world.clock.advance(HOURS(3 * 24));
    world.engine.prune().await.unwrap();
    assert_eq!(kept(&world).await.len(), 2);
    world.clock.advance(HOURS(8 * 24));
    world.engine.prune().await.unwrap();
    assert_eq!(kept(&world).await, [under_way], "what is under way stays");
}
