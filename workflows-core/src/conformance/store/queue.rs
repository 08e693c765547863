//! Work: who gets it, for how long, and when it is due again.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::ledger::{
    Fixture, Ledger, Outcome, occurrence, other_tenant, planned, run_work, runs, tenant,
    tenant_named, work,
};
use crate::{
    ErrorKind, Observation, RunKey,
    conformance::case::{expect, expect_eq, expect_kind},
    store::{Claim, ClaimRequest, Effects, Lease, NewWork, Release, Stage, WorkKey},
};

pub(super) async fn a_single_event_does_not_wait_behind_the_backlog_of_another_tenant(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let backlog: Vec<Observation> =
        (0..10_000).map(|number| occurrence(&number.to_string())).collect();
    for part in backlog.chunks(1_000) {
        ledger.store.admit(part.to_vec(), None).await?;
    }
    for name in ["a", "z"] {
        let mut single = occurrence("single");
        single.tenant = tenant_named(name);
        ledger.event(single).await?;
    }
    let served: Vec<String> = ledger
        .claim(Stage::Match, 10)
        .await?
        .iter()
        .map(|claim| claim.work.tenant.to_string())
        .collect();
    expect_eq("claims", &served.len(), &10)?;
    for name in ["a", "z"] {
        expect(served.iter().any(|tenant| tenant == name), || {
            format!("tenant {name} was not served in the first claim: {served:?}")
        })?;
    }
    // One at a time, the turn passes on.
    let mut single = occurrence("another");
    single.tenant = tenant_named("z");
    ledger.event(single).await?;
    let mut turns = Vec::new();
    for _ in 0..2 {
        turns.push(ledger.claim_one(Stage::Match).await?.work.tenant.to_string());
    }
    turns.sort();
    expect_eq("whose turn it is in two claims", &turns, &vec!["default".to_owned(), "z".to_owned()])
}

pub(super) async fn work_of_a_tenant_is_claimed_oldest_first(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let later = NewWork { not_before: Some(at(5)), ..run_work(Stage::Observe, "second") };
    let latest = NewWork { not_before: Some(at(9)), ..run_work(Stage::Observe, "third") };
    ledger.commit(work(vec![latest, later, run_work(Stage::Observe, "first")])).await?;
    ledger.advance(10);
    ledger.commit(work(vec![run_work(Stage::Observe, "fourth")])).await?;
    let names: Vec<String> =
        ledger.claim(Stage::Observe, 10).await?.into_iter().map(|claim| name_of(&claim)).collect();
    expect_eq("the order of claims", &names.join(" ").as_str(), &"first second third fourth")
}

fn name_of(claim: &Claim) -> String {
    match &claim.work.key {
        WorkKey::Run { run } => run.to_string(),
        other => format!("{other:?}"),
    }
}

pub(super) async fn leased_work_is_given_to_nobody_else_until_the_lease_ends(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let request = ClaimRequest::of(Stage::Match, 5).leased_for(SignedDuration::from_secs(20));
    let first = ledger.store.claim(request).await?.claims;
    expect_eq("claims", &first.len(), &1)?;
    let ends = ledger.now() + SignedDuration::from_secs(20);
    expect_eq("the lease's end", &first.first().map(|claim| claim.lease.until), &Some(ends))?;
    ledger.advance(19);
    let none = ledger.store.claim(ClaimRequest::of(Stage::Match, 5)).await?;
    expect_eq("claims before its end", &none.claims, &vec![])?;
    expect_eq("when to come again", &none.next_due, &Some(ends))?;
    ledger.advance(1);
    let again = ledger.claim_one(Stage::Match).await?;
    expect_eq("attempts", &again.attempts, &2)?;
    let tokens = first.first().map(|claim| claim.lease.token);
    expect(tokens.is_some_and(|token| token < again.lease.token), || {
        "the token of a later claim is not greater".into()
    })
}

pub(super) async fn a_lease_that_was_lost_commits_nothing(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let slow = ledger.claim_one(Stage::Match).await?;
    ledger.advance(31);
    let quick = ledger.claim_one(Stage::Match).await?;
    let run = planned("1", "e", 1, ledger.now());
    let refused = ledger.store.commit(&slow.lease, runs(vec![run.clone()])).await;
    expect_kind("a commit with a lost lease", refused, ErrorKind::Conflict)?;
    expect_eq("the run", &ledger.store.run(&tenant(), &run.key).await?, &None)?;
    let by = SignedDuration::from_secs(5);
    expect_kind("extending it", ledger.store.extend(&slow.lease, by).await, ErrorKind::Conflict)?;
    let release = ledger.store.release(&slow.lease, Release::default()).await;
    expect_kind("releasing it", release, ErrorKind::Conflict)?;
    ledger.store.commit(&quick.lease, runs(vec![run])).await?;
    let twice = ledger.store.commit(&quick.lease, Effects::default()).await;
    expect_kind("committing twice", twice, ErrorKind::Conflict)?;
    let nobody = Lease { id: 987_654, token: 1, until: ledger.now() };
    let unknown = ledger.store.commit(&nobody, Effects::default()).await;
    expect_kind("a lease of nothing", unknown, ErrorKind::Conflict)
}

pub(super) async fn a_lease_that_ended_commits_as_long_as_nobody_claimed_again(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.advance(3_600);
    // Somebody else's claim of other work notices the end of the lease.
    ledger.no_claim(Stage::Dispatch).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    ledger.no_claim(Stage::Match).await
}

pub(super) async fn an_extended_lease_lasts_from_now_on(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let claim = ledger.claim_one(Stage::Match).await?;
    ledger.advance(20);
    let lease = ledger.store.extend(&claim.lease, SignedDuration::from_secs(60)).await?;
    expect_eq("its end", &lease.until, &(ledger.now() + SignedDuration::from_secs(60)))?;
    ledger.advance(59);
    ledger.no_claim(Stage::Match).await?;
    ledger.store.commit(&lease, Effects::default()).await?;
    Ok(())
}

pub(super) async fn a_released_claim_waits_and_tells_why(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    let since = ledger.now();
    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("why it was given back", &claim.last_error, &None)?;
    let again = ledger.now() + SignedDuration::from_secs(5);
    let release = Release { not_before: Some(again), error: Some("no network".into()) };
    ledger.store.release(&claim.lease, release).await?;
    let late = ledger.store.commit(&claim.lease, Effects::default()).await;
    expect_kind("a commit of what was given back", late, ErrorKind::Conflict)?;
    let none = ledger.store.claim(ClaimRequest::of(Stage::Match, 1)).await?;
    expect_eq("claims before its time", &none.claims, &vec![])?;
    expect_eq("when to come again", &none.next_due, &Some(again))?;
    ledger.advance(5);
    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("attempts", &claim.attempts, &2)?;
    expect_eq("due since", &claim.since, &since)?;
    expect_eq("why it was given back", &claim.last_error.as_deref(), &Some("no network"))?;
    ledger.store.release(&claim.lease, Release::default()).await?;
    let claim = ledger.claim_one(Stage::Match).await?;
    expect_eq("attempts when nobody worked on it", &claim.attempts, &2)?;
    expect_eq("why it was given back before", &claim.last_error.as_deref(), &Some("no network"))
}

pub(super) async fn a_clock_that_goes_back_neither_keeps_leases_alive_nor_holds_work_up(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.event(occurrence("1")).await?;
    ledger.event(occurrence("2")).await?;
    let held = ledger.claim_one(Stage::Match).await?;
    ledger.advance(-86_400);
    let claims = ledger.claim(Stage::Match, 10).await?;
    expect_eq("work that can be claimed after the jump", &claims.len(), &2)?;
    let late = ledger.store.commit(&held.lease, Effects::default()).await;
    expect_kind("a commit of what was claimed again", late, ErrorKind::Conflict)
}

pub(super) async fn work_that_joins_keeps_the_earlier_time_and_the_newer_detail(
    fixture: Fixture,
) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let at = |seconds| ledger.now() + SignedDuration::from_secs(seconds);
    let put = |seconds, detail: &str| {
        let new = NewWork { not_before: Some(at(seconds)), ..run_work(Stage::Observe, "r") };
        work(vec![new.with_detail(json!(detail))])
    };
    ledger.commit(put(30, "first")).await?;
    ledger.commit(put(10, "second")).await?;
    ledger.commit(put(60, "third")).await?;
    let none = ledger.store.claim(ClaimRequest::of(Stage::Observe, 5)).await?;
    expect_eq("claims before its time", &none.claims, &vec![])?;
    expect_eq("when it is due", &none.next_due, &Some(at(10)))?;
    ledger.advance(10);
    let claims = ledger.claim(Stage::Observe, 5).await?;
    let details: Vec<&Value> = claims.iter().map(|claim| &claim.work.detail).collect();
    expect_eq("the details of what was claimed", &details, &vec![&json!("third")])
}

pub(super) async fn work_that_joins_a_lease_is_due_after_it(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.commit(work(vec![run_work(Stage::Observe, "r").with_detail(json!("news"))])).await?;
    ledger.no_claim(Stage::Observe).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    expect_eq("its detail", &claim.work.detail, &json!("news"))?;

    // At once, though the holder wants to wait; whether it commits or releases.
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let later = ledger.now() + SignedDuration::from_secs(60);
    let again = Effects { again: Some(later), ..Effects::default() };
    ledger.store.commit(&claim.lease, again).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.commit(work(vec![run_work(Stage::Observe, "r")])).await?;
    let release = Release { not_before: Some(later), error: None };
    ledger.store.release(&claim.lease, release).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;

    // A commit's own work joins what it commits.
    let itself = work(vec![run_work(Stage::Observe, "r")]);
    ledger.store.commit(&claim.lease, itself).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    ledger.store.commit(&claim.lease, Effects::default()).await?;
    ledger.no_claim(Stage::Observe).await
}

pub(super) async fn work_is_due_again_when_its_commit_says_so(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    ledger.commit(work(vec![run_work(Stage::Observe, "r").with_detail(json!(1))])).await?;
    let claim = ledger.claim_one(Stage::Observe).await?;
    let due = ledger.now() + SignedDuration::from_secs(10);
    let again = Effects { again: Some(due), ..Effects::default() };
    ledger.store.commit(&claim.lease, again).await?;
    ledger.no_claim(Stage::Observe).await?;
    ledger.advance(12);
    let claim = ledger.claim_one(Stage::Observe).await?;
    expect_eq("attempts", &claim.attempts, &1)?;
    expect_eq("due since", &claim.since, &due)?;
    expect_eq("its detail", &claim.work.detail, &json!(1))
}

pub(super) async fn one_piece_of_work_can_be_claimed_before_its_time(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let due = ledger.now() + SignedDuration::from_secs(100);
    let later = |name: &str| NewWork { not_before: Some(due), ..run_work(Stage::Observe, name) };
    ledger.commit(work(vec![later("r"), later("s")])).await?;
    let only = |name: &str| {
        let key = WorkKey::run(RunKey::from(name.to_owned()));
        ClaimRequest::of(Stage::Observe, 5).only(tenant(), key)
    };
    let claimed = ledger.store.claim(only("r")).await?.claims;
    let names: Vec<String> = claimed.iter().map(name_of).collect();
    expect_eq("what was claimed", &names, &vec!["r".to_owned()])?;
    expect_eq("what is held", &ledger.store.claim(only("r")).await?.claims, &vec![])?;
    expect_eq("what is not there", &ledger.store.claim(only("t")).await?.claims, &vec![])?;
    let theirs = ClaimRequest::of(Stage::Observe, 5)
        .only(other_tenant(), WorkKey::run(RunKey::from("s".to_owned())));
    expect_eq("another tenant's", &ledger.store.claim(theirs).await?.claims, &vec![])
}

pub(super) async fn a_commit_that_claims_next_gets_what_it_made_due(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let due = ledger.now() + SignedDuration::from_secs(100);
    ledger.commit(work(vec![run_work(Stage::Dispatch, "held")])).await?;
    let held = ledger.claim_one(Stage::Dispatch).await?;
    let later = NewWork { not_before: Some(due), ..run_work(Stage::Observe, "later") };
    let effects = Effects {
        claim_next: Some(SignedDuration::from_secs(7)),
        ..work(vec![
            run_work(Stage::Schedule, "now"),
            later,
            run_work(Stage::Dispatch, "held"),
            run_work(Stage::Report, "also"),
        ])
    };
    let claims = ledger.commit(effects).await?.claims;
    let names: Vec<String> = claims.iter().map(name_of).collect();
    expect_eq("what was claimed", &names, &vec!["now".to_owned(), "also".to_owned()])?;
    for claim in &claims {
        let until = ledger.now() + SignedDuration::from_secs(7);
        expect_eq("the lease's end", &claim.lease.until, &until)?;
        expect_eq("attempts", &claim.attempts, &1)?;
    }
    ledger.no_claim(Stage::Schedule).await?;
    for claim in claims {
        ledger.store.commit(&claim.lease, Effects::default()).await?;
    }
    ledger.store.commit(&held.lease, Effects::default()).await?;
    ledger.claim_one(Stage::Dispatch).await.map(|_| ())
}

pub(super) async fn workers_are_woken_when_work_comes(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let woken = ledger.store.woken(Stage::Match);
    let asleep = futures::future::select(Box::pin(woken), Box::pin(std::future::ready(()))).await;
    expect(matches!(asleep, futures::future::Either::Right(_)), || {
        "a worker was woken by an empty ledger".into()
    })?;
    drop(asleep);
    // What comes between two calls is not missed.
    ledger.event(occurrence("1")).await?;
    ledger.store.woken(Stage::Match).await;
    let claim = ledger.claim_one(Stage::Match).await?;
    let effects = work(vec![run_work(Stage::Dispatch, "r")]);
    let (_, committed) = futures::join!(
        ledger.store.woken(Stage::Dispatch),
        ledger.store.commit(&claim.lease, effects)
    );
    committed?;
    Ok(())
}

pub(super) async fn the_backlog_counts_what_waits(fixture: Fixture) -> Outcome {
    let ledger = Ledger::open(fixture).await;
    let start = ledger.now();
    ledger.event(occurrence("1")).await?;
    ledger.advance(5);
    ledger.event(occurrence("2")).await?;
    ledger.event(occurrence("3")).await?;
    let first = ledger.claim_one(Stage::Match).await?;
    expect_eq("the oldest", &first.since, &start)?;
    let backlog = ledger.store.backlog().await?;
    let stages: Vec<Stage> = backlog.iter().map(|one| one.stage).collect();
    expect_eq("the stages", &stages, &Stage::ALL.to_vec())?;
    let matching = backlog.first().map(|one| (one.waiting, one.due, one.oldest_due));
    expect_eq("of the first", &matching, &Some((3, 2, Some(ledger.now()))))?;
    let others: u64 = backlog.iter().skip(1).map(|one| one.waiting).sum();
    expect_eq("of the others", &others, &0)?;
    // A lease that ended is work that is due.
    ledger.advance(60);
    let matching = ledger.store.backlog().await?;
    let matching = matching.first().map(|one| (one.waiting, one.due, one.oldest_due));
    expect_eq("of the first, later", &matching, &Some((3, 3, Some(start))))
}
