//! Driving statuses to what they should show.

use std::sync::Arc;

use workflows_core::{
    AttemptId, Capability, ErrorKind, ManualClock, RunPhase, RunState, RunStatus, Store, Tenant,
    conformance::{ScmCall, ScriptedScm},
    repo::StatusState,
    store::{MemoryStore, StatusQuery, StatusRecord},
};

use super::world::{HOURS, SECONDS, World};

async fn records(world: &World) -> Vec<StatusRecord> {
    let query = StatusQuery::of(Tenant::default());
    world.engine.handle().statuses(query).await.unwrap().items
}

#[tokio::test]
async fn a_run_shows_as_queued_in_progress_and_ended_in_three_calls() {
    let world = World::new();
    let held = world.plan(|_| {}).await;
    world.engine.step(workflows_core::store::Stage::Report).await.unwrap();
    world.idle().await;
    world.sink.set_phase(&held, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    world.over_time(HOURS(1), SECONDS(60)).await;

    let commit = world.commit(&held).await;
    let history = world.repo.status_history(&commit, "workflows/ci");
    let states: Vec<_> = history.iter().map(|status| status.state).collect();
    assert_eq!(states, [StatusState::Queued, StatusState::InProgress, StatusState::Success]);
    assert_eq!(world.scm.calls(ScmCall::ReportStatus), 3);
}

#[tokio::test]
async fn an_outage_of_hours_does_not_hold_the_run_back_and_ends_in_one_call() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.engine.step(workflows_core::store::Stage::Dispatch).await.unwrap();
    world.scm.go_down();
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Running);
    world.sink.set_phase(&run, RunPhase::Failed);
    world.over_time(HOURS(5), SECONDS(60)).await;
    assert_eq!(world.state(&run).await, RunState::Failed);
    assert!(world.shown(&run).await.is_none());
    assert!(world.scm.calls(ScmCall::ReportStatus) < 100, "it backs off");

    world.scm.come_back();
    world.scm.forget_calls();
    world.over_time(SECONDS(600), SECONDS(60)).await;
    assert_eq!(world.shown(&run).await.unwrap().state, StatusState::Failure);
    assert_eq!(world.scm.calls(ScmCall::ReportStatus), 1);
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_made_again_and_changes_nothing() {
    let world = World::new();
    world.scm.lose_next_answer(ScmCall::ReportStatus);
    let run = world.plan(|_| {}).await;
    world.idle().await;
    world.over_time(SECONDS(60), SECONDS(5)).await;
    let commit = world.commit(&run).await;
    let history = world.repo.status_history(&commit, "workflows/ci");
    let states: Vec<_> = history.iter().map(|status| status.state).collect();
    assert_eq!(states.last(), Some(&StatusState::InProgress));
    assert!(states.is_sorted_by_key(|state| state.rank()));
}

#[tokio::test]
async fn the_newest_attempt_owns_the_status_whatever_an_older_one_does() {
    let world = World::new();
    let first = world.running(|_| {}).await;
    let older = world.run(&first).await;
    let commit = older.commit.clone().unwrap();
    let again = world
        .plan(|run| {
            run.attempt = AttemptId::new("retest-1");
            run.commit = older.commit.clone();
            run.event = older.event.clone();
        })
        .await;
    world.idle().await;
    world.sink.set_phase(&again, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    assert_eq!(world.repo.status(&commit, "workflows/ci").unwrap().state, StatusState::Success);

    world.sink.set_phase(&first, RunPhase::Failed);
    world.over_time(SECONDS(120), SECONDS(30)).await;
    assert_eq!(world.state(&first).await, RunState::Failed);
    let shown = world.repo.status(&commit, "workflows/ci").unwrap();
    assert_eq!((shown.state, &*shown.external_id), (StatusState::Success, again.as_str()));
}

#[tokio::test]
async fn credentials_that_are_refused_are_tried_until_they_are_mended() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.engine.step(workflows_core::store::Stage::Dispatch).await.unwrap();
    world.scm.refuse(ErrorKind::Denied, "bad credentials");
    world.over_time(HOURS(30), SECONDS(300)).await;
    assert!(world.shown(&run).await.is_none());
    world.scm.come_back();
    world.over_time(SECONDS(600), SECONDS(300)).await;
    assert_eq!(world.shown(&run).await.unwrap().state, StatusState::InProgress);
}

#[tokio::test]
async fn a_status_that_is_refused_for_too_long_is_given_up_until_its_run_changes() {
    let world = World::with(|options| options.status_max_age = HOURS(1));
    let run = world.plan(|_| {}).await;
    world.engine.step(workflows_core::store::Stage::Dispatch).await.unwrap();
    world.scm.refuse(ErrorKind::Denied, "bad credentials");
    world.over_time(HOURS(2), SECONDS(300)).await;
    let error = records(&world).await.remove(0).error.unwrap();
    assert!(error.contains("bad credentials"), "{error}");
    let calls = world.scm.all_calls().len();
    world.over_time(HOURS(5), SECONDS(300)).await;
    assert_eq!(world.scm.all_calls().len(), calls, "nobody is asked any more");

    world.scm.come_back();
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.over_time(SECONDS(600), SECONDS(60)).await;
    assert_eq!(world.shown(&run).await.unwrap().state, StatusState::Success);
    assert_eq!(records(&world).await.remove(0).error, None);
}

#[tokio::test]
async fn a_commit_that_is_gone_is_recorded_and_not_asked_for_again() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.repo.lose_commit(&world.commit(&run).await);
    world.idle().await;
    world.over_time(HOURS(7), SECONDS(300)).await;
    assert_eq!(world.state(&run).await, RunState::Running, "its status holds no run back");
    assert!(records(&world).await.remove(0).error.is_some());
    let calls = world.scm.calls(ScmCall::ReportStatus);
    assert!(calls <= 100, "{calls}: for hours the host may only not know the commit yet");
    world.over_time(HOURS(7), SECONDS(300)).await;
    assert_eq!(world.scm.calls(ScmCall::ReportStatus), calls, "then it is not asked again");
}

#[tokio::test]
async fn a_connection_without_statuses_is_told_once() {
    let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let scm = ScriptedScm::new().without(Capability::StatusReporter);
    let world = World::over(clock, store, scm, |_| {});
    let run = world.running(|_| {}).await;
    world.over_time(HOURS(1), SECONDS(60)).await;
    let error = records(&world).await.remove(0).error.unwrap();
    assert!(error.contains("has no place for statuses"), "{error}");
    assert_eq!(world.scm.calls(ScmCall::ReportStatus), 0);
    assert_eq!(world.state(&run).await, RunState::Running);
}

#[tokio::test]
async fn progress_shows_at_most_once_in_its_interval() {
    let world = World::with(|options| options.observe_interval = SECONDS(1));
    let run = world.running(|_| {}).await;
    world.scm.forget_calls();
    for ended in 1..=60 {
        let mut status = RunStatus::new(RunPhase::Running);
        status.tasks = (0..ended)
            .map(|n| workflows_core::TaskStatus {
                name: format!("t{n}").into(),
                phase: workflows_core::sink::TaskPhase::Succeeded,
                message: String::new(),
                started_at: None,
                finished_at: None,
                link: None,
                steps: Vec::new(),
            })
            .collect();
        world.sink.set_status(&run, status);
        world.later(SECONDS(1)).await;
    }
    assert_eq!(world.scm.calls(ScmCall::ReportStatus), 2);
    world.later(SECONDS(30)).await;
    assert_eq!(world.shown(&run).await.unwrap().title, "Running: 60 of 60 tasks ended");
}
