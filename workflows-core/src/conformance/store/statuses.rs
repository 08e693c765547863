//! Statuses: who owns one, and what is known of how it shows.

use super::ledger::{Fixture, Ledger, Outcome, desire, sha, status_key, tenant, zero};
use crate::{
    conformance::case::{Failure, expect, expect_eq},
    repo::StatusState,
    store::{Effects, ShownStatus, StatusQuery, StatusRecord, StatusSubject},
};

pub(super) async fn the_highest_order_owns_a_status(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let desired =
        |order, title: &str| Effects { statuses: vec![desire(order, title)], ..Effects::default() };
    let title = async || -> Result<Option<StatusSubject>, Failure> {
        Ok(ledger.store.status(&status_key()).await?.map(|one| one.desire.subject))
    };
    let note = |title: &str| Some(desire(0, title).subject);
    expect_eq("nothing yet", &title().await?, &None)?;
    ledger.commit(desired(5, "five")).await?;
    ledger.commit(desired(3, "three")).await?;
    expect_eq("after a lower order", &title().await?, &note("five"))?;
    ledger.commit(desired(5, "five again")).await?;
    expect_eq("after the same order", &title().await?, &note("five again"))?;

    let shown = ShownStatus {
        digest: "d".into(),
        state: StatusState::Queued,
        order: 5,
        id: "77".into(),
        at: ledger.now(),
    };
    let reported = StatusRecord {
        desire: desire(5, "as it was when it was read"),
        shown: Some(shown.clone()),
        error: Some("slow".into()),
        updated_at: ledger.now(),
    };
    ledger.commit(desired(8, "eight")).await?;
    ledger.advance(3);
    ledger.commit(Effects { reported: vec![reported], ..Effects::default() }).await?;
    let kept = ledger.store.status(&status_key()).await?;
    let kept = kept.ok_or_else(|| Failure::new("the status is gone"))?;
    expect_eq("what it should show", &Some(kept.desire.subject), &note("eight"))?;
    expect_eq("what it shows", &kept.shown, &Some(shown))?;
    expect_eq("why not", &kept.error.as_deref(), &Some("slow"))?;
    expect_eq("when it changed", &kept.updated_at, &ledger.now())?;

    // A renamed repository is the same one.
    let mut renamed = status_key();
    renamed.repo.name = "acme/renamed".into();
    expect(ledger.store.status(&renamed).await?.is_some(), || "a rename lost the status".into())?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).commit(Some(zero()))).await?;
    expect_eq("statuses of the commit", &found.items.len(), &1)?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).commit(sha('f'))).await?;
    expect_eq("statuses of another", &found.items.len(), &0)?;
    let found = ledger.store.statuses(StatusQuery::of(tenant()).repo(Some("x".into()))).await?;
    expect_eq("statuses of another repository", &found.items.len(), &0)
}
