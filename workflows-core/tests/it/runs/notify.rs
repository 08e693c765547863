//! Delivering notifications.

use workflows_core::{
    ErrorKind, RunPhase, Tenant, Transition,
    store::{CommandOutcome, DecisionQuery, DeliveryQuery, NotificationState, OutboxNotification},
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
