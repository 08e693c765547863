//! Creating runs, and telling them to end.

use std::sync::Arc;

use workflows_core::{
    CancelMode, Capability, ErrorKind, Event, RunPhase, RunState, Store, Tenant,
    conformance::{ScmCall, ScriptedScm},
    repo::StatusState,
    run::{CancelReason, Cancellation},
    store::{MemoryStore, Stage},
};

use super::world::{HOURS, SECONDS, World};

#[tokio::test]
async fn a_run_whose_creation_was_answered_into_the_void_is_created_once() {
    let world = World::new();
    world.sink.lose_next_answer();
    let run = world.plan(|_| {}).await;
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Admitted);

    world.later(SECONDS(2)).await;
    assert_eq!(world.state(&run).await, RunState::Running);
    assert_eq!(world.sink.creations(&run), 1);
    assert_eq!(world.sink.ensured().len(), 2);
}

#[tokio::test]
async fn what_was_revoked_since_it_was_planned_does_not_run() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.policy.revoke();
    world.idle().await;

    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Refused);
    assert_eq!(run.message, "the policy refused it: nobody may any more");
    assert!(run.finished_at.is_some());
    assert!(world.sink.ensured().is_empty());
    let shown = world.shown(&run.key).await.unwrap();
    assert_eq!(shown.state, StatusState::Failure);
    assert_eq!(shown.title, "Refused: the policy refused it: nobody may any more");
}

#[tokio::test]
async fn what_a_run_asks_for_is_judged_again() {
    let world = World::new();
    let run = world
        .plan(|run| {
            run.pipeline_run = Arc::new(serde_json::json!({
                "spec": {"taskRunTemplate": {"serviceAccountName": "deployer"}},
            }));
        })
        .await;
    world.policy.forbid_service_accounts();
    world.idle().await;
    assert_eq!(world.run(&run).await.message, "the policy refused it: no service accounts");
    assert!(world.sink.ensured().is_empty());
}

#[tokio::test]
async fn a_run_about_whose_cause_nothing_is_known_is_refused() {
    let world = World::new();
    let run = world.plan(|run| run.facts.clear()).await;
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Refused);
    assert!(world.sink.ensured().is_empty());
}

#[tokio::test]
async fn a_run_that_its_sink_cannot_execute_is_refused_with_the_sinks_words() {
    let world = World::new();
    world.sink.fail_next_ensure(ErrorKind::Unsupported, "matrix is not supported");
    let run = world.plan(|_| {}).await;
    world.idle().await;
    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Refused);
    assert!(run.message.starts_with("scripted refused it: "), "{}", run.message);
    assert!(run.message.contains("matrix is not supported"), "{}", run.message);
}

#[tokio::test]
async fn a_run_whose_sink_is_not_there_is_refused_and_says_which_are() {
    let world = World::new();
    let run = world.plan(|run| run.sink = "tekton".into()).await;
    world.idle().await;
    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Refused);
    assert_eq!(
        run.message,
        "find the run's sink: the engine has no sink of that name (sink: tekton, known: scripted)"
    );
}

#[tokio::test]
async fn an_outage_of_the_sink_is_outlasted() {
    let world = World::new();
    for _ in 0..8 {
        world.sink.fail_next_ensure(ErrorKind::Transient, "503");
    }
    world.sink.fail_next_ensure(ErrorKind::Denied, "quota exceeded");
    let run = world.plan(|_| {}).await;
    world.over_time(HOURS(1), SECONDS(60)).await;
    assert_eq!(world.state(&run).await, RunState::Running);
    assert_eq!(world.sink.creations(&run), 1);
}

#[tokio::test]
async fn a_run_that_cannot_be_created_for_hours_is_refused_and_told_to_end_in_case_it_was() {
    let world = World::with(|options| options.give_up_dispatch_after = SECONDS(600));
    world.sink.lose_next_answer();
    for _ in 0..100 {
        world.sink.fail_next_ensure(ErrorKind::Transient, "503");
    }
    let run = world.plan(|_| {}).await;
    world.over_time(HOURS(1), SECONDS(60)).await;
    let ended = world.run(&run).await;
    assert_eq!(ended.state, RunState::Refused);
    assert!(ended.message.starts_with("it could not be created: "), "{}", ended.message);
    assert!(ended.message.contains("503"), "{}", ended.message);
    assert_eq!(world.sink.phase(&run), Some(RunPhase::Cancelled));
}

#[tokio::test]
async fn a_run_that_is_called_off_before_it_was_created_ends_without_its_sink() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.order_cancel(&run, CancelMode::AtOnce).await;
    world.idle().await;
    let run = world.run(&run).await;
    assert_eq!((run.state, run.message.as_str()), (RunState::Cancelled, "cancelled by bob"));
    assert!(world.sink.ensured().is_empty());
}

#[tokio::test]
async fn a_run_that_is_called_off_after_its_creation_was_answered_into_the_void_is_ended_there() {
    let world = World::new();
    world.sink.lose_next_answer();
    let run = world.plan(|_| {}).await;
    world.idle().await;
    world.order_cancel(&run, CancelMode::RunFinally).await;
    world.idle().await;
    assert_eq!(world.sink.cancels(), [(run.clone(), CancelMode::RunFinally)]);
    assert_eq!(world.sink.phase(&run), Some(RunPhase::Cancelled));
    assert_eq!(world.state(&run).await, RunState::Cancelled);
}

#[tokio::test]
async fn a_run_that_is_under_way_is_told_once_and_its_end_is_waited_for() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    world.sink.ignore_cancels();
    world.sink.fail_next_cancel(ErrorKind::Transient, "503");
    world.order_cancel(&run, CancelMode::RunFinally).await;
    world.idle().await;
    assert!(world.sink.cancels().is_empty());
    world.later(SECONDS(2)).await;
    assert_eq!(world.sink.cancels(), [(run.clone(), CancelMode::RunFinally)]);
    assert_eq!(world.state(&run).await, RunState::Running);
    assert!(world.run(&run).await.cancel.unwrap().delivered);

    world.sink.set_phase(&run, RunPhase::Failed);
    world.later(SECONDS(60)).await;
    assert_eq!(world.state(&run).await, RunState::Cancelled);
    assert_eq!(world.sink.cancels().len(), 1);
}

#[tokio::test]
async fn a_sink_that_cannot_cancel_lets_the_run_go_on_and_says_so() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    world.sink.fail_next_cancel(ErrorKind::Unsupported, "this executor cannot");
    world.order_cancel(&run, CancelMode::AtOnce).await;
    world.idle().await;
    let going_on = world.run(&run).await;
    assert_eq!(going_on.state, RunState::Running);
    assert!(going_on.cancel.unwrap().delivered);

    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(60)).await;
    assert_eq!(world.state(&run).await, RunState::Succeeded);
}

#[tokio::test]
async fn who_is_replaced_is_told_to_end_before_the_newer_run_is_created() {
    let world = World::new();
    let older = world.running(|_| {}).await;
    let newer = world.plan(|run| run.replaces = vec![older.clone()]).await;
    let cancel = Cancellation {
        mode: CancelMode::RunFinally,
        reason: CancelReason::SupersededBy(newer.clone()),
        at: world.clock_now(),
        delivered: false,
    };
    // Both are told once by the newer's dispatch and once by the older's own.
    world.sink.fail_next_cancel(ErrorKind::Transient, "503");
    world.sink.fail_next_cancel(ErrorKind::Transient, "503");
    world.change(&older, |run| run.cancel = Some(cancel)).await;
    world.idle().await;
    assert_eq!(world.sink.creations(&newer), 0, "the older one has not been told");

    world.later(SECONDS(2)).await;
    assert_eq!(world.sink.creations(&newer), 1);
    assert!(world.sink.cancels().contains(&(older.clone(), CancelMode::RunFinally)));
    assert_eq!(world.state(&older).await, RunState::Superseded);
    assert_eq!(world.state(&newer).await, RunState::Running);
    assert_eq!(world.run(&older).await.message, format!("run {} took its place", newer.short()));
}

#[tokio::test]
async fn who_lost_the_lease_creates_nothing_a_second_time() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    let held = world.sink.hold_ensures();
    let slow = world.another_engine();
    let slow = tokio::spawn(async move { slow.step(Stage::Dispatch).await.unwrap() });
    while world.sink.ensured().is_empty() {
        tokio::task::yield_now().await;
    }
    world.clock.advance(SECONDS(31));
    drop(held);
    world.idle().await;
    slow.await.unwrap();
    assert_eq!(world.sink.creations(&run), 1);
    assert_eq!(world.state(&run).await, RunState::Running);
}

#[tokio::test]
async fn who_lost_the_lease_ends_what_it_created_after_the_run_had_ended() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    let held = world.sink.hold_ensures();
    let slow = world.another_engine();
    let slow = tokio::spawn(async move { slow.step(Stage::Dispatch).await.unwrap() });
    while world.sink.ensured().is_empty() {
        tokio::task::yield_now().await;
    }
    world.clock.advance(SECONDS(31));
    world.order_cancel(&run, CancelMode::RunFinally).await;
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Cancelled);

    drop(held);
    slow.await.unwrap();
    assert_eq!(world.sink.creations(&run), 1);
    assert_eq!(world.sink.cancels().last(), Some(&(run.clone(), CancelMode::AtOnce)));
    assert!(world.sink.phase(&run).unwrap().is_terminal());
    assert_eq!(world.state(&run).await, RunState::Cancelled);
}

#[tokio::test]
async fn a_run_gets_a_credential_where_the_host_can_mint_one_and_the_ledger_never_has_it() {
    let world = World::new();
    let run = world.plan(|_| {}).await;
    world.idle().await;
    let created = world.sink.created();
    let credential = created[0].credential.as_ref().unwrap();
    let token = secrecy::ExposeSecret::expose_secret(&credential.token);
    assert!(!token.is_empty());
    let kept = world.run(&run).await;
    assert!(!serde_json::to_string(&kept).unwrap().contains(token));
    assert!(!format!("{:?}", created[0]).contains(token));
}

#[tokio::test]
async fn a_host_that_mints_nothing_is_not_asked_before_a_run() {
    let clock = workflows_core::ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    let scm = ScriptedScm::new().without(Capability::CloneCredentials);
    let world = World::over(clock, store, scm, |_| {});
    let run = world.plan(|run| run.status_context = None).await;
    world.scm.go_down();
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Running);
    assert!(world.sink.created()[0].credential.is_none());
    assert_eq!(world.scm.calls(ScmCall::Connect), 0);
}

#[tokio::test]
async fn a_credential_that_cannot_be_had_for_now_delays_the_run() {
    let world = World::new();
    world.scm.fail_next(ScmCall::MintCredential, ErrorKind::Denied, "suspended");
    let run = world.plan(|_| {}).await;
    world.idle().await;
    assert_eq!(world.state(&run).await, RunState::Admitted);
    world.later(SECONDS(2)).await;
    assert_eq!(world.state(&run).await, RunState::Running);
}

#[tokio::test]
async fn a_submission_is_one_event_however_often_it_is_repeated() {
    let world = World::new();
    world.repo.push("alice", "main", &[("a", "b")]);
    let handle = world.engine.handle();
    let ask = || {
        let submission = workflows_core::engine::Submission::new(
            world.scm.connection(),
            "acme/api",
            "k1",
            "bob",
        )
        .at_ref("refs/heads/main")
        .with_param("target", "staging");
        handle.submit(submission)
    };
    let first: Event = ask().await.unwrap();
    let again = ask().await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.head.unwrap().sha, world.repo.head("main"));
    assert_eq!(first.data["params"], serde_json::json!({"target": "staging"}));
    assert_eq!(first.sender.as_deref(), Some("bob"));
    assert_eq!(first.tenant, Tenant::default());
}
