//! The outbox, told in order.

use super::ledger::{Fixture, Ledger, Outcome, notification, planned, tenant};
use crate::{
    conformance::case::{expect, expect_eq},
    store::{DeliveryQuery, Effects, NotificationState, OutboxNotification},
};

pub(super) async fn a_notification_is_made_once_and_told_in_order(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let run = planned("1", "e", 1, ledger.now());
    let made = |keys: &[&str]| Effects {
        notifications: keys.iter().map(|key| notification(&run, key)).collect(),
        ..Effects::default()
    };
    ledger.commit(made(&["b", "a"])).await?;
    ledger.commit(made(&["a", "c"])).await?;
    let outbox = async || ledger.store.outbox(&tenant(), &run.key, &"chat".into()).await;
    let keys = |outbox: &[OutboxNotification]| {
        outbox.iter().map(|one| one.key.as_str().to_owned()).collect::<String>()
    };
    let pending = outbox().await?;
    expect_eq("what is to be told", &keys(&pending).as_str(), &"bac")?;
    expect(pending.is_sorted_by(|a, b| a.id < b.id), || "ids do not grow".into())?;
    let nobody = ledger.store.outbox(&tenant(), &run.key, &"nobody".into()).await?;
    expect_eq("another notifier's", &nobody, &vec![])?;

    let mut delivered = pending.clone();
    for (one, state) in
        delivered.iter_mut().zip([NotificationState::Delivered, NotificationState::Dead])
    {
        one.state = state;
        one.attempts = 2;
    }
    ledger.commit(Effects { delivered: delivered.clone(), ..Effects::default() }).await?;
    expect_eq("what is still to be told", &keys(&outbox().await?).as_str(), &"c")?;
    let dead = DeliveryQuery::of(tenant()).state(Some(NotificationState::Dead));
    let dead = ledger.store.notifications(dead).await?.items;
    expect_eq("dead letters", &dead, &delivered.get(1).cloned().into_iter().collect::<Vec<_>>())?;
    let all = DeliveryQuery::of(tenant()).run(Some(run.key.clone()));
    expect_eq(
        "all of the run",
        &keys(&ledger.store.notifications(all).await?.items).as_str(),
        &"cab",
    )
}
