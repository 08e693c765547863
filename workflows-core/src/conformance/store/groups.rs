//! Groups, and the versions that tell when one changed.

use super::ledger::{Fixture, Ledger, Outcome, changes, in_group, planned, runs, tenant};
use crate::{
    ErrorKind, GroupKey, Run, RunState,
    conformance::case::{Failure, expect, expect_eq, expect_kind},
    run::{CancelReason, Cancellation},
    sink::CancelMode,
    store::{Effects, GroupExpectation},
};

pub(super) async fn a_group_changes_its_version_with_its_members(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let group: GroupKey = "g".into();
    let read = async || -> Result<(i64, Vec<String>), Failure> {
        let found = ledger.store.groups(&tenant(), &["empty".into(), group.clone()]).await?;
        let names: Vec<&str> = found.iter().map(|one| one.group.as_str()).collect();
        expect_eq("the groups asked for", &names, &vec!["empty", "g"])?;
        expect_eq("an empty group's version", &found.first().map(|one| one.version), &Some(0))?;
        let one = found.into_iter().next_back();
        let one = one.ok_or_else(|| Failure::new("the group is missing"))?;
        let members = one.members.iter().map(|member| member.run.to_string()).collect();
        Ok((one.version, members))
    };
    expect_eq("a group that nobody is in", &read().await?, &(0, vec![]))?;

    let late = in_group(planned("late", "e", 9, ledger.now()), "g");
    let early = in_group(planned("early", "e", 2, ledger.now()), "g");
    let ended = Run {
        state: RunState::Superseded,
        ..in_group(planned("ended", "e", 3, ledger.now()), "g")
    };
    ledger.commit(runs(vec![late.clone(), early.clone(), ended])).await?;
    let (first, members) = read().await?;
    let names = vec![early.key.to_string(), late.key.to_string()];
    expect_eq("members in the order of intake", &members, &names)?;
    expect(first > 0, || "a group with members has version 0".into())?;

    // What does not concern the group leaves its version alone.
    let remarked = Run { message: "a remark".into(), ..early.clone() };
    ledger.commit(changes(vec![remarked])).await?;
    expect_eq("the version after a remark", &read().await?.0, &first)?;

    let mut early = Run { version: early.version + 1, state: RunState::Running, ..early };
    ledger.commit(changes(vec![early.clone()])).await?;
    let (second, _) = read().await?;
    expect(second > first, || "a member's state changed and the version did not".into())?;

    early.version += 1;
    early.cancel = Some(Cancellation {
        mode: CancelMode::RunFinally,
        reason: CancelReason::SupersededBy(late.key.clone()),
        at: ledger.now(),
        delivered: false,
    });
    ledger.commit(changes(vec![early.clone()])).await?;
    let found = ledger.store.groups(&tenant(), std::slice::from_ref(&group)).await?;
    let cancelling: Vec<bool> =
        found.iter().flat_map(|one| one.members.iter().map(|member| member.cancelling)).collect();
    expect_eq("who is told to end", &cancelling, &vec![true, false])?;
    let (third, _) = read().await?;
    expect(third > second, || "a member was told to end and the version stayed".into())?;

    early.version += 1;
    early.state = RunState::Cancelled;
    early.finished_at = Some(ledger.now());
    let expect_group =
        |version| GroupExpectation { tenant: tenant(), group: group.clone(), version };
    let stale = Effects { groups: vec![expect_group(second)], ..changes(vec![early.clone()]) };
    expect_kind("an old version", ledger.try_commit(stale).await?, ErrorKind::Conflict)?;
    // The commit's own changes do not spoil what it expects.
    let right = Effects { groups: vec![expect_group(third)], ..changes(vec![early]) };
    ledger.commit(right).await?;
    let (fourth, members) = read().await?;
    expect_eq("members after one ended", &members, &vec![late.key.to_string()])?;
    expect(fourth > third, || "a member ended and the version stayed".into())?;

    let ended = Run { state: RunState::Succeeded, ..late };
    ledger.commit(changes(vec![ended])).await?;
    let (version, members) = read().await?;
    expect_eq("members at the end", &members, &Vec::<String>::new())?;
    let stale = Effects { groups: vec![expect_group(fourth)], ..Effects::default() };
    expect_kind("the version before", ledger.try_commit(stale).await?, ErrorKind::Conflict)?;
    let again = in_group(planned("again", "e", 10, ledger.now()), "g");
    let right = Effects { groups: vec![expect_group(version)], ..runs(vec![again]) };
    ledger.commit(right).await?;
    let (version, _) = read().await?;
    expect(version > fourth, || "a version of the group came a second time".into())
}
