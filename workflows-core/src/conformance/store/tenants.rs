//! What is one tenant's is not another's.

use super::ledger::{
    Fixture, Ledger, Outcome, in_group, other_tenant, planned, push, runs, sha, tenant_named,
};
use crate::{
    conformance::case::{expect, expect_eq},
    store::EventQuery,
};

pub(super) async fn tenants_do_not_meet(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let mut theirs = push("1", None, sha('a'));
    theirs.tenant = other_tenant();
    let ours = ledger.event(push("1", None, sha('a'))).await?;
    let theirs = ledger.event(theirs).await?;
    expect(ours.key != theirs.key, || "two tenants have one event".into())?;
    expect_eq(
        "our event asked for by them",
        &ledger.store.event(&other_tenant(), &ours.key).await?,
        &None,
    )?;
    let page = ledger.store.events(EventQuery::of(other_tenant())).await?;
    expect_eq("their events", &page.items, &vec![theirs])?;

    let run = in_group(planned("1", "e", 1, ledger.now()), "g");
    let mut copy = run.clone();
    copy.tenant = other_tenant();
    ledger.commit(runs(vec![run.clone()])).await?;
    let committed = ledger.commit(runs(vec![copy])).await?;
    expect_eq("runs with one key in two tenants", &committed.created.len(), &1)?;
    let groups = ledger.store.groups(&other_tenant(), &["g".into()]).await?;
    let members: usize = groups.iter().map(|group| group.members.len()).sum();
    expect_eq("members of their group", &members, &1)?;
    let third = tenant_named("third");
    expect_eq("a third tenant's run", &ledger.store.run(&third, &run.key).await?, &None)
}
