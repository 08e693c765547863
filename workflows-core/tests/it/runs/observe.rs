//! Looking at runs until they have ended.

use futures::TryStreamExt;
use jiff::SignedDuration;
use workflows_core::{
    CancelMode, Clock, ErrorKind, LogRef, RunPhase, RunState, RunStatus, TaskStatus, Tenant,
    Transition,
    conformance::ScmCall,
    run::GroupMembership,
    sink::{StepStatus, TaskPhase},
    workflow::{QueueLimits, Strategy},
};

use super::world::{HOURS, SECONDS, World, tell_chat};

fn task(name: &str, phase: TaskPhase, exit_code: Option<i32>) -> TaskStatus {
    TaskStatus {
        name: name.into(),
        phase,
        message: String::new(),
        started_at: None,
        finished_at: None,
        link: None,
        steps: vec![StepStatus { name: "run".into(), exit_code }],
    }
}

fn status(phase: RunPhase, tasks: Vec<TaskStatus>) -> RunStatus {
    let mut status = RunStatus::new(phase);
    status.tasks = tasks;
    status
}

#[tokio::test]
async fn a_failed_run_tells_the_step_and_its_last_lines() {
    let world = World::with(|options| options.failure_lines = 2);
    let run = world.running(|_| {}).await;
    let step = LogRef { task: "test".into(), step: "run".into() };
    world.sink.set_log(&run, &step, b"one\n\x1b[31mtwo\x07\nthr\xffee\n".as_slice());
    let tasks = vec![
        task("build", TaskPhase::Succeeded, Some(0)),
        task("test", TaskPhase::Failed, Some(3)),
        task("deploy", TaskPhase::Skipped, None),
    ];
    world.sink.set_status(&run, status(RunPhase::Failed, tasks));
    world.later(SECONDS(30)).await;

    let failed = world.run(&run).await;
    assert_eq!(failed.state, RunState::Failed);
    let failure = failed.failure.unwrap();
    assert_eq!((&*failure.task, &*failure.step, failure.exit_code), ("test", "run", Some(3)));
    assert_eq!(failure.last_lines, ["two", "thr\u{fffd}ee"]);
    let shown = world.shown(&run).await.unwrap();
    assert_eq!(shown.title, "Failed in test/run (exit code 3)");
    assert!(shown.details.contains("thr\u{fffd}ee"), "{}", shown.details);
}

#[tokio::test]
async fn what_a_run_was_given_does_not_leave_with_its_log() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    let token = "token-of-acme/api";
    assert!(!format!("{:?}", world.run(&run).await).contains(token), "it is not in the ledger");
    let log = format!("clone {token}\nsrc/a.c:3:7: error: bad token {token}x\n");
    let step = LogRef { task: "test".into(), step: "run".into() };
    world.sink.set_log(&run, &step, log);
    let mut failed = task("test", TaskPhase::Failed, Some(1));
    failed.message = format!("it wrote {token}");
    // Another process, which never saw the credential, sees the end.
    let another = world.another_engine();
    world.sink.set_status(&run, status(RunPhase::Failed, vec![failed]));
    world.clock.advance(SECONDS(30));
    another.run_until_idle().await.unwrap();

    let failure = world.run(&run).await.failure.unwrap();
    assert_eq!(failure.last_lines, ["clone ***", "src/a.c:3:7: error: bad token ***x"]);
    let shown = world.shown(&run).await.unwrap();
    assert_eq!(shown.annotations.len(), 1);
    let annotation = &shown.annotations[0];
    assert_eq!((&*annotation.path, annotation.start_line), ("src/a.c", 3));
    assert_eq!(annotation.message, "bad token ***x");
    assert!(!format!("{:?} {shown:?}", world.run(&run).await).contains(token));
}

#[tokio::test]
async fn a_credential_is_renewed_before_it_ends_while_the_run_lives() {
    let world = World::new();
    let first_end = world.clock.now() + SignedDuration::from_hours(1);
    world.scm.credentials_end_at(first_end);
    let run = world.running(|_| {}).await;
    assert_eq!(world.run(&run).await.credential_until, Some(first_end));
    world.later(SignedDuration::from_mins(40)).await;
    assert!(world.sink.renewed().is_empty());

    // A host that mints nothing just now is asked again; one that has nothing newer changes nothing.
    world.scm.fail_next(ScmCall::MintCredential, ErrorKind::Transient, "502");
    world.later(SignedDuration::from_mins(6)).await;
    world.later(SECONDS(30)).await;
    assert!(world.sink.renewed().is_empty());
    let second_end = world.clock.now() + SignedDuration::from_hours(1);
    world.scm.credentials_end_at(second_end);
    world.later(SECONDS(30)).await;
    let renewed = world.sink.renewed();
    assert_eq!(renewed.len(), 1);
    assert_eq!((&renewed[0].0, renewed[0].1.expires_at), (&run, Some(second_end)));
    assert_eq!(world.run(&run).await.credential_until, Some(second_end));
    world.later(SECONDS(30)).await;
    assert_eq!(world.sink.renewed().len(), 1);

    // Nothing more is for a run that has ended.
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SignedDuration::from_hours(2)).await;
    assert_eq!(world.sink.renewed().len(), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_keeps_no_run_from_its_end() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    let tasks = vec![task("test", TaskPhase::Failed, Some(1))];
    world.sink.set_status(&run, status(RunPhase::Failed, tasks));
    world.later(SECONDS(30)).await;
    let failed = world.run(&run).await;
    assert_eq!(failed.state, RunState::Failed);
    assert!(failed.failure.unwrap().last_lines.is_empty());
}

#[tokio::test]
async fn the_engine_remembers_that_it_told_a_run_to_end() {
    let world = World::new();
    world.sink.ignore_cancels();
    for (phase, state) in [
        (RunPhase::Failed, RunState::Cancelled),
        (RunPhase::Cancelled, RunState::Cancelled),
        (RunPhase::TimedOut, RunState::Cancelled),
        (RunPhase::Succeeded, RunState::Succeeded),
    ] {
        let run = world.running(|_| {}).await;
        world.order_cancel(&run, CancelMode::AfterRunningTasks).await;
        world.idle().await;
        world.sink.set_phase(&run, phase);
        world.later(SECONDS(30)).await;
        assert_eq!(world.state(&run).await, state, "{phase:?}");
    }
}

#[tokio::test]
async fn a_run_that_had_failed_before_it_was_told_to_end_has_failed() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    let mut failed = RunStatus::new(RunPhase::Failed);
    failed.message = "Tasks Completed: 1 (Failed: 1)".to_owned();
    failed.finished_at = Some(world.clock_now());
    world.clock.advance(SECONDS(5));
    world.sink.set_status(&run, failed);
    world.order_cancel(&run, CancelMode::AtOnce).await;
    world.idle().await;
    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.message, "Tasks Completed: 1 (Failed: 1)");
}

#[tokio::test]
async fn an_end_that_is_told_in_whole_seconds_may_be_that_of_the_order() {
    let world = World::new();
    // The sink's clock is a little behind, and tells no fractions.
    for (behind, state) in
        [(0, RunState::Cancelled), (2, RunState::Cancelled), (4, RunState::Failed)]
    {
        let run = world.running(|_| {}).await;
        world.sink.ignore_cancels();
        world.clock.advance(jiff::SignedDuration::from_millis(900));
        world.order_cancel(&run, CancelMode::AtOnce).await;
        let mut ended = RunStatus::new(RunPhase::Failed);
        ended.message = "Tasks Completed: 1 (Failed: 1)".to_owned();
        let second = world.clock_now().as_second() - behind;
        ended.finished_at = Some(jiff::Timestamp::from_second(second).unwrap());
        world.sink.set_status(&run, ended);
        world.idle().await;
        world.later(SECONDS(30)).await;
        let run = world.run(&run).await;
        assert_eq!(run.state, state, "{behind} seconds behind: {run:?}");
    }
}

#[tokio::test]
async fn a_run_that_somebody_stopped_in_its_sink_is_cancelled() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    world.sink.set_phase(&run, RunPhase::Cancelled);
    world.later(SECONDS(30)).await;
    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Cancelled);
    assert_eq!(run.message, "it was stopped where it executed");
}

#[tokio::test]
async fn a_run_that_its_sink_forgot_ends_as_failed_after_a_while() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    world.sink.take_away(&run);
    world.later(SECONDS(30)).await;
    assert_eq!(world.state(&run).await, RunState::Running, "it may only be slow to tell");

    world.over_time(HOURS(1), SECONDS(60)).await;
    let run = world.run(&run).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.message, "it was taken away from scripted before its end was seen");
    assert_eq!(world.sink.creations(&run.key), 1, "it is not created again");
}

#[tokio::test]
async fn a_sink_that_does_not_answer_is_asked_until_it_does() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    for _ in 0..20 {
        world.sink.fail_next_state(ErrorKind::Transient, "503");
    }
    world.sink.fail_next_state(ErrorKind::Denied, "forbidden");
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.over_time(HOURS(3), SECONDS(60)).await;
    assert_eq!(world.state(&run).await, RunState::Succeeded);
}

#[tokio::test]
async fn a_success_after_a_failure_on_the_same_branch_has_recovered() {
    let world = World::new();
    let told = tell_chat(&[Transition::Succeeded, Transition::Failed, Transition::Recovered]);
    let history = [
        ("main", RunPhase::Succeeded),
        ("main", RunPhase::Failed),
        ("other", RunPhase::Succeeded),
        ("main", RunPhase::Cancelled),
        ("main", RunPhase::Succeeded),
        ("main", RunPhase::Succeeded),
    ];
    for (branch, phase) in history {
        let told = told.clone();
        let run = world.plan_on(branch, |run| run.notify = told).await;
        world.idle().await;
        world.sink.set_phase(&run, phase);
        world.later(SECONDS(30)).await;
    }
    assert_eq!(
        world.notifier.transitions(),
        [
            Transition::Succeeded,
            Transition::Failed,
            Transition::Succeeded,
            Transition::Recovered,
            Transition::Succeeded,
        ]
    );
}

#[tokio::test]
async fn who_waits_in_a_queue_goes_on_when_the_one_before_has_ended() {
    let world = World::new();
    let queue = || {
        let limits = QueueLimits { max_running: 1, max_queued: None, max_wait: None };
        vec![GroupMembership { group: "deploy".into(), strategy: Strategy::Queue(limits) }]
    };
    let first = world.running(|run| run.groups = queue()).await;
    let second = world.plan(|run| run.groups = queue()).await;
    let third = world.plan(|run| run.groups = queue()).await;
    world.idle().await;
    assert_eq!(world.state(&second).await, RunState::Queued);
    assert!(world.shown(&second).await.unwrap().title.starts_with("Waiting in the queue"));

    world.sink.set_phase(&first, RunPhase::Failed);
    world.later(SECONDS(30)).await;
    assert_eq!(world.state(&second).await, RunState::Running);
    assert_eq!(world.state(&third).await, RunState::Queued);

    world.order_cancel(&second, CancelMode::AtOnce).await;
    world.idle().await;
    world.later(SECONDS(30)).await;
    assert_eq!(world.state(&third).await, RunState::Running);
}

#[tokio::test]
async fn progress_is_told_when_tasks_end_and_not_too_often() {
    let world = World::with(|options| options.observe_interval = SECONDS(5));
    let on = [Transition::Started, Transition::Progress, Transition::Succeeded];
    let run = world.running(|run| run.notify = tell_chat(&on)).await;
    for ended in 1..=12 {
        let tasks = (0..ended).map(|n| task(&format!("t{n}"), TaskPhase::Succeeded, Some(0)));
        world.sink.set_status(&run, status(RunPhase::Running, tasks.collect()));
        world.later(SECONDS(5)).await;
    }
    world.over_time(SECONDS(300), SECONDS(5)).await;
    let told = world.notifier.told();
    let progress: Vec<_> =
        told.iter().filter(|one| one.transition == Transition::Progress).collect();
    // In 60 seconds of news at once, after 30, and once more for what came since.
    assert_eq!(progress.iter().map(|one| one.run.tasks.len()).collect::<Vec<_>>(), [1, 7, 12]);
    assert_eq!(world.notifier.transitions()[0], Transition::Started);
}

#[tokio::test]
async fn the_log_of_a_step_is_read_through_the_engine() {
    let world = World::new();
    let run = world.running(|_| {}).await;
    let step = LogRef { task: "build".into(), step: "compile".into() };
    world.sink.set_log(&run, &step, "warning: it is late\n");
    let handle = world.engine.handle();
    let tenant = Tenant::default();
    let log = handle.logs(&tenant, &run, step.clone(), false).await.unwrap();
    let log: Vec<_> = log.try_collect().await.unwrap();
    assert_eq!(log.concat(), b"warning: it is late\n");
    let other = handle.logs(&Tenant::new("other").unwrap(), &run, step, false).await.err().unwrap();
    assert_eq!(other.to_string(), format!("find a run: the tenant has no such run (run: {run})"));
}
