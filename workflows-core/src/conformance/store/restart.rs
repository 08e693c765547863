//! What outlives the process.

use super::ledger::{
    Fixture, Ledger, Outcome, desire, in_group, notification, planned, push, run_work, runs, sha,
    status_key, tenant,
};
use crate::{
    ErrorKind,
    conformance::case::{expect, expect_eq, expect_kind},
    store::{Effects, Stage},
};

pub(super) async fn everything_but_leases_outlives_the_process(fixture: Fixture) -> Outcome {
    let mut ledger = Ledger::open(fixture).await;
    let event = ledger.event(push("1", None, sha('a'))).await?;
    let run = in_group(planned("1", event.key.as_str(), event.sequence, ledger.now()), "g");
    let effects = Effects {
        statuses: vec![desire(1, "one")],
        notifications: vec![notification(&run, "n")],
        work: vec![run_work(Stage::Dispatch, "r")],
        ..runs(vec![run.clone()])
    };
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.store.commit(&claim.lease, effects).await?;
    let held = ledger.claim_one(Stage::Dispatch).await?;
    let groups = ledger.store.groups(&tenant(), &["g".into()]).await?;
    let position = ledger.store.position().await?;

    let Some(store) = ledger.fixture.reopen(ledger.store, ledger.clock.clone()).await else {
        return Ok(());
    };
    ledger.store = store;
    expect_eq("the position", &ledger.store.position().await?, &position)?;
    expect_eq(
        "the event",
        &ledger.store.event(&tenant(), &event.key).await?,
        &Some(event.clone()),
    )?;
    expect_eq("the run", &ledger.store.run(&tenant(), &run.key).await?, &Some(run.clone()))?;
    expect_eq("the group", &ledger.store.groups(&tenant(), &["g".into()]).await?, &groups)?;
    expect(ledger.store.status(&status_key()).await?.is_some(), || "the status is gone".into())?;
    let outbox = ledger.store.outbox(&tenant(), &run.key, &"chat".into()).await?;
    expect_eq("what is to be told", &outbox.len(), &1)?;
    // Nobody waits for the leases of the dead, nor for a wake that came before.
    ledger.store.woken(Stage::Dispatch).await;
    let again = ledger.claim_one(Stage::Dispatch).await?;
    expect_eq("attempts", &again.attempts, &2)?;
    let late = ledger.store.commit(&held.lease, Effects::default()).await;
    expect_kind("a commit of the dead", late, ErrorKind::Conflict)?;
    ledger.duplicate(push("1", None, sha('a'))).await?;
    let next = ledger.event(push("2", sha('a'), sha('b'))).await?;
    expect(next.sequence > position, || "a sequence came a second time".into())
}
