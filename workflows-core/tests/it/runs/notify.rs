//! Delivering notifications.

use workflows_core::{
    Error, ErrorKind, NotificationView, RunPhase, Tenant, Transition,
    store::{CommandOutcome, DecisionQuery, DeliveryQuery, NotificationState, OutboxNotification},
    workflow::Notification,
};

use super::world::{HOURS, SECONDS, World, tell_chat};

const START_AND_END: [Transition; 2] = [Transition::Started, Transition::Succeeded];

async fn outbox(world: &World) -> Vec<OutboxNotification> {
    let query = DeliveryQuery::of(Tenant::default());
    world.engine.handle().notifications(query).await.unwrap().items
}

#[tokio::test]
async fn those_who_asked_are_told_in_order_with_the_run_as_it_was_then() {
    let world = World::new();
    let run = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    let told = world.notifier.told();
    assert_eq!(world.notifier.transitions(), START_AND_END);
    assert_eq!(told[0].run.state, workflows_core::RunState::Running);
    assert_eq!(told[1].run.state, workflows_core::RunState::Succeeded);
    assert_ne!(told[0].key, told[1].key);
    let kept = outbox(&world).await;
    assert_eq!(kept[0].result.as_deref(), Some("message-2"));
    assert!(kept.iter().all(|one| one.state == NotificationState::Delivered));
}

#[tokio::test]
async fn a_notifier_that_is_down_is_told_later_and_in_order() {
    let world = World::new();
    for kind in [ErrorKind::Transient, ErrorKind::Denied, ErrorKind::RateLimited { until: None }] {
        world.notifier.fail_next(kind);
    }
    let run = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(1)).await;
    assert!(world.notifier.told().is_empty());
    world.over_time(SECONDS(60), SECONDS(1)).await;
    assert_eq!(world.notifier.transitions(), START_AND_END);
    let attempts: Vec<_> = outbox(&world).await.iter().map(|one| one.attempts).collect();
    assert_eq!(attempts, [1, 4]);
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_until_it_ends() {
    let world = World::new();
    let until = world.clock_now() + SECONDS(900);
    world.notifier.fail_next(ErrorKind::RateLimited { until: Some(until) });
    let _ = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.over_time(SECONDS(890), SECONDS(10)).await;
    assert!(world.notifier.told().is_empty());
    world.later(SECONDS(10)).await;
    assert_eq!(world.notifier.transitions(), [Transition::Started]);
}

#[tokio::test]
async fn what_a_notifier_cannot_take_is_a_dead_letter_and_the_next_is_delivered() {
    let world = World::new();
    world.notifier.fail_next(ErrorKind::Invalid);
    let run = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    assert_eq!(world.notifier.transitions(), [Transition::Succeeded]);
    let dead = outbox(&world).await.remove(1);
    assert_eq!(dead.state, NotificationState::Dead);
    assert_eq!(dead.result.as_deref(), Some("deliver: told to fail"));
}

#[tokio::test]
async fn a_notification_that_is_too_old_is_a_dead_letter() {
    let world = World::with(|options| options.notification_max_age = HOURS(1));
    for _ in 0..1_000 {
        world.notifier.fail_next(ErrorKind::Transient);
    }
    let _ = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.over_time(HOURS(2), SECONDS(60)).await;
    assert_eq!(outbox(&world).await.remove(0).state, NotificationState::Dead);
}

#[tokio::test]
async fn a_notifier_that_nobody_set_up_makes_a_dead_letter_that_names_those_who_are() {
    let world = World::new();
    let mut told = tell_chat(&START_AND_END);
    told[0].notifier = "pager".into();
    let _ = world.running(|run| run.notify = told).await;
    let dead = outbox(&world).await.remove(0);
    assert_eq!(dead.state, NotificationState::Dead);
    assert_eq!(
        dead.result.as_deref(),
        Some(
            "find a notifier: the tenant has no notifier of that name (notifier: pager, known: chat)"
        )
    );
}

#[tokio::test]
async fn a_dead_letter_that_is_sent_again_arrives_under_its_own_key_and_once() {
    let world = World::new();
    world.notifier.fail_next(ErrorKind::Invalid);
    let _ = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    let dead = outbox(&world).await.remove(0);
    assert_eq!(dead.state, NotificationState::Dead);
    assert!(world.notifier.told().is_empty());

    let handle = world.engine.handle();
    let tenant = Tenant::default();
    let command = handle.resend(&tenant, dead.key.clone(), "again", "ops").await.unwrap();
    let repeated = handle.resend(&tenant, dead.key.clone(), "again", "ops").await.unwrap();
    assert_eq!(command.key, repeated.key);
    world.idle().await;
    let told = world.notifier.told();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].key, dead.key);
    assert_eq!(told[0].transition, Transition::Started);
    let sent = outbox(&world).await.remove(0);
    assert_eq!(sent.state, NotificationState::Delivered);
    assert_eq!(sent.result.as_deref(), Some("message-1"));

    let late = handle.resend(&tenant, dead.key.clone(), "later", "ops").await.unwrap();
    world.idle().await;
    assert_eq!(world.notifier.told().len(), 1, "what was delivered is no dead letter");
    let decided = DecisionQuery::of(tenant).event(Some(late.key));
    let decided = handle.decisions(decided).await.unwrap().items.remove(0);
    let error = format!("{} is no notification that was given up", dead.key);
    assert_eq!(decided.commands[0].outcome, CommandOutcome::Failed { error });
}

#[tokio::test]
async fn one_that_is_sent_again_says_what_was_told_since() {
    let world = World::new();
    world.notifier.fail_next(ErrorKind::Invalid);
    let run = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    assert_eq!(world.notifier.transitions(), [Transition::Succeeded]);
    let dead = outbox(&world).await.remove(1);
    let handle = world.engine.handle();
    handle.resend(&Tenant::default(), dead.key, "again", "ops").await.unwrap();
    world.idle().await;
    let again = world.notifier.told().remove(1);
    assert_eq!(again.transition, Transition::Started);
    assert_eq!(again.followed_by, [Transition::Succeeded]);
    assert_eq!(again.earlier.as_deref(), Some("message-1"));
}

async fn ends(world: &World, phase: RunPhase, notify: &[Notification]) {
    let run = world.running(|run| run.notify = notify.to_vec()).await;
    world.sink.set_phase(&run, phase);
    world.later(SECONDS(30)).await;
}

#[tokio::test]
async fn who_asks_hears_of_the_first_failure_of_those_after_it_and_of_recovery() {
    use Transition::{Failed, Recovered, StillFailing, Succeeded, TimedOut};
    let world = World::new();
    let notify = tell_chat(&[Failed, TimedOut, StillFailing, Succeeded, Recovered]);
    for phase in [
        RunPhase::Succeeded,
        RunPhase::Failed,
        RunPhase::TimedOut,
        RunPhase::Cancelled,
        RunPhase::Failed,
        RunPhase::Succeeded,
        RunPhase::Succeeded,
    ] {
        ends(&world, phase, &notify).await;
    }
    let told = world.notifier.transitions();
    assert_eq!(told, [Succeeded, Failed, StillFailing, StillFailing, Recovered, Succeeded]);
    let previous: Vec<_> = world.notifier.told().iter().map(|one| one.run.previous).collect();
    use workflows_core::RunState;
    assert_eq!(previous[3], Some(RunState::TimedOut), "one that was stopped is passed over");
    assert_eq!(previous[0], None);
}

#[tokio::test]
async fn of_runs_at_the_same_time_one_has_recovered() {
    use Transition::{Failed, Recovered, Succeeded};
    let notify = tell_chat(&[Failed, Succeeded, Recovered]);
    // The newer one ends first, the older one does, both do at once.
    for order in [vec![1, 0], vec![0, 1], vec![]] {
        let world = World::new();
        ends(&world, RunPhase::Failed, &notify).await;
        let older = world.running(|run| run.notify = notify.clone()).await;
        let newer = world.running(|run| run.notify = notify.clone()).await;
        let runs = [older, newer];
        for n in &order {
            world.sink.set_phase(&runs[*n], RunPhase::Succeeded);
            world.later(SECONDS(30)).await;
        }
        for run in &runs {
            world.sink.set_phase(run, RunPhase::Succeeded);
        }
        world.later(SECONDS(30)).await;
        let told = world.notifier.transitions();
        let recovered = told.iter().filter(|one| **one == Recovered).count();
        assert_eq!((told[0], recovered), (Failed, 1), "{order:?}: {told:?}");
        if !order.is_empty() {
            assert_eq!(told, [Failed, Recovered, Succeeded]);
        }
    }
}

#[tokio::test]
async fn a_run_that_ends_after_a_newer_one_is_compared_with_none() {
    use Transition::{Failed, StillFailing};
    let world = World::new();
    let notify = tell_chat(&[Failed, StillFailing]);
    ends(&world, RunPhase::Failed, &notify).await;
    let older = world.running(|run| run.notify = notify.clone()).await;
    ends(&world, RunPhase::Succeeded, &notify).await;
    world.sink.set_phase(&older, RunPhase::Failed);
    world.later(SECONDS(30)).await;
    assert_eq!(world.notifier.transitions(), [Failed, Failed]);
}

#[tokio::test]
async fn a_filter_over_the_run_and_its_event_says_whom_to_tell() {
    let world = World::new();
    let when = |filter: &str| vec![Notification::of("chat").only_if(filter)];
    let first_of_main = when("event.head.branch == 'main' && run.previous != 'failed'");
    ends(&world, RunPhase::Failed, &first_of_main).await;
    ends(&world, RunPhase::Failed, &first_of_main).await;
    assert_eq!(world.notifier.transitions(), [Transition::Failed], "the second is none of it");
    ends(&world, RunPhase::Failed, &when("run.transition == 'failed' && run.seconds >= 30")).await;
    assert_eq!(world.notifier.told().len(), 2);
    ends(&world, RunPhase::Failed, &when("event.head.branch == 'release'")).await;
    assert_eq!(world.notifier.told().len(), 2);
}

#[tokio::test]
async fn a_filter_that_fails_is_a_dead_letter_that_says_so() {
    let world = World::new();
    let filter = "int(run.repo) == 1";
    ends(&world, RunPhase::Failed, &[Notification::of("chat").only_if(filter)]).await;
    assert!(world.notifier.told().is_empty());
    let dead = outbox(&world).await.remove(0);
    assert_eq!(dead.state, NotificationState::Dead);
    let result = dead.result.unwrap();
    assert!(result.starts_with(&format!("the filter `{filter}` failed: ")), "{result}");
}

#[tokio::test]
async fn a_run_that_takes_longer_than_usual_is_told_once() {
    let world = World::new();
    for _ in 0..3 {
        let run = world.running(|_| {}).await;
        world.later(SECONDS(90)).await;
        world.sink.set_phase(&run, RunPhase::Succeeded);
        world.later(SECONDS(30)).await;
    }
    let notify = tell_chat(&[Transition::RunningLong]);
    let run = world.running(|run| run.notify = notify).await;
    world.over_time(SECONDS(300), SECONDS(30)).await;
    assert!(world.notifier.told().is_empty(), "twice two minutes and one are not over");
    world.over_time(SECONDS(300), SECONDS(30)).await;
    assert_eq!(world.notifier.transitions(), [Transition::RunningLong]);
    let remark = &world.run(&run).await.remarks["longerThanUsual"];
    assert!(remark.starts_with("it usually takes 2m"), "{remark}");
}

#[tokio::test]
async fn a_destination_that_is_down_is_not_called_by_every_run() {
    let world = World::new();
    for _ in 0..10_000 {
        world.notifier.fail_next(ErrorKind::Transient);
    }
    let notify = tell_chat(&[Transition::Started]);
    for _ in 0..100 {
        world.plan(|run| run.notify = notify.clone()).await;
    }
    world.over_time(SECONDS(600), SECONDS(5)).await;
    let tried: u32 = outbox(&world).await.iter().map(|one| one.attempts).sum();
    assert!(tried < 30, "{tried} calls in ten minutes");
    let health = world.engine.handle().health().await.unwrap();
    assert_eq!(health.problems(), ["notifier chat of default: deliver: told to fail"]);
    world.notifier.succeed();
    world.over_time(SECONDS(600), SECONDS(5)).await;
    assert_eq!(world.notifier.told().len(), 100);
    assert!(world.engine.handle().health().await.unwrap().problems().is_empty());
}

#[tokio::test]
async fn a_notification_whose_destination_takes_nothing_for_too_long_says_why_it_is_dead() {
    let world = World::with(|options| options.notification_max_age = HOURS(1));
    for _ in 0..10_000 {
        world.notifier.fail_next(ErrorKind::Denied);
    }
    for _ in 0..50 {
        world.plan(|run| run.notify = tell_chat(&[Transition::Started])).await;
    }
    world.over_time(HOURS(2), SECONDS(60)).await;
    let dead = outbox(&world).await;
    assert!(dead.iter().all(|one| one.state == NotificationState::Dead));
    let untried = dead.iter().find(|one| one.attempts == 1).unwrap();
    assert!(untried.result.as_ref().unwrap().contains("told to fail"), "{:?}", untried.result);
}

#[tokio::test]
async fn a_notifier_is_told_what_it_made_before_whether_that_may_be_and_what_comes_after() {
    let world = World::new();
    for _ in 0..2 {
        world.notifier.fail_next(ErrorKind::Transient);
    }
    let run = world.running(|run| run.notify = tell_chat(&START_AND_END)).await;
    world.sink.set_phase(&run, RunPhase::Succeeded);
    world.later(SECONDS(30)).await;
    world.over_time(SECONDS(30), SECONDS(1)).await;
    let told = world.notifier.told();
    let seen = |one: &NotificationView| {
        (one.may_have_reached, one.earlier.clone(), one.followed_by.clone())
    };
    assert_eq!(seen(&told[0]), (true, None, vec![Transition::Succeeded]));
    assert_eq!(seen(&told[1]), (false, Some("message-1".to_owned()), vec![]));
    assert_eq!(told[0].run.author.as_deref(), Some("alice"));
}

#[tokio::test]
async fn whether_a_notifier_works_can_be_shown() {
    let world = World::new();
    let handle = world.engine.handle();
    let tenant = Tenant::default();
    let sent = handle.test_notifier(&tenant, &"chat".into(), "1").await.unwrap();
    assert_eq!(sent.reference.as_deref(), Some("message-1"));
    let told = world.notifier.told().remove(0);
    assert_eq!(told.run.title.as_deref(), Some("This is a test of this notifier"));
    assert!(outbox(&world).await.is_empty());
    world.notifier.fail_next(ErrorKind::Denied);
    let error: Error = handle.test_notifier(&tenant, &"chat".into(), "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let error = handle.test_notifier(&tenant, &"pager".into(), "3").await.unwrap_err();
    assert!(error.to_string().contains("known: chat"), "{error}");
}
