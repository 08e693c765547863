use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{admit, claim, events, open, place, push, push_to, raw, run_sql, soon, try_open};
use crate::{
    ErrorKind, ManualClock, Store, Tenant,
    store::{
        ClaimRequest, Effects, GroupExpectation, NewWork, PostgresStore, Stage, StoreTime, WorkKey,
    },
};

/// The promise that [`Seen::Read`](crate::event::Seen::Read) hangs on: who has read a position has
/// seen, or can see, everything up to it.
#[tokio::test]
async fn nothing_comes_to_light_behind_a_position_that_was_read() {
    let Some(options) = place("positions") else { return };
    let (first, second) = (open(&options).await, Arc::new(open(&options).await));
    // A transaction that has been given the next sequence, and takes its time.
    let mut slow = raw(&options).await;
    run_sql(
        &mut slow,
        "BEGIN; SELECT sequence FROM counters FOR UPDATE; UPDATE counters SET sequence = 1",
    )
    .await;
    let later = {
        let second = Arc::clone(&second);
        tokio::spawn(async move { admit(&second, push(0)).await })
    };
    // One that comes later waits for it, and nobody reads a position meanwhile that is ahead of it.
    let mut watching = raw(&options).await;
    soon("the later one waits", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE wait_event_type = 'Lock' AND query LIKE '%counters%'",
        )
        .fetch_one(&mut watching)
        .await
        .expect("a count");
        assert!(!later.is_finished(), "the later one did not wait");
        waiting > 0
    })
    .await;
    assert_eq!(first.position().await.expect("a position"), 0);
    run_sql(&mut slow, "COMMIT").await;
    assert_eq!(later.await.expect("it ends").sequence, 2);
    assert_eq!(first.position().await.expect("a position"), 2);
}

#[tokio::test]
async fn a_reader_sees_every_event_up_to_the_position_however_many_write() {
    let Some(options) = place("positions under load") else { return };
    let options = options.connections(3);
    let writers = [Arc::new(open(&options).await), Arc::new(open(&options).await)];
    let reader = open(&options).await;
    let done = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..8_usize)
        .map(|sender| {
            let store = Arc::clone(&writers[sender % 2]);
            tokio::spawn(async move {
                for number in 0..25 {
                    admit(&store, push_to(&format!("branch-{sender}"), number)).await;
                }
            })
        })
        .collect();
    let looking = {
        let (done, reader) = (Arc::clone(&done), &reader);
        async move {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) || looks == 0 {
                let position = reader.position().await.expect("a position");
                let seen = events(reader).await;
                let up_to = seen.iter().filter(|event| event.sequence <= position).count();
                assert_eq!(up_to, usize::try_from(position).expect("a position"), "some came late");
                looks += 1;
            }
        }
    };
    let ending = async {
        for one in writing {
            one.await.expect("a writer ends");
        }
        done.store(true, Ordering::SeqCst);
    };
    futures::join!(looking, ending);
    assert_eq!(reader.position().await.expect("a position"), 200);
}

#[tokio::test]
async fn each_piece_of_work_is_given_to_one_replica() {
    let Some(options) = place("claims of many") else { return };
    let options = options.connections(3);
    let first = open(&options).await;
    let pushes: Vec<_> = (0..300).map(|number| push_to(&format!("b{number}"), 0)).collect();
    first.admit(pushes, None).await.expect("they are taken in");
    let mut replicas = vec![Arc::new(first)];
    for _ in 0..3 {
        replicas.push(Arc::new(open(&options).await));
    }
    let claiming = replicas.iter().cloned().map(|store| {
        tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let claimed = store.claim(ClaimRequest::of(Stage::Match, 7)).await.expect("claims");
                if claimed.claims.is_empty() {
                    return got;
                }
                got.extend(claimed.claims);
            }
        })
    });
    let mut ids = HashSet::new();
    let mut claims = 0;
    for one in futures::future::join_all(claiming).await {
        for claim in one.expect("a replica ends") {
            claims += 1;
            ids.insert(claim.lease.id);
        }
    }
    assert_eq!((claims, ids.len()), (300, 300));
}

#[tokio::test]
async fn a_replica_hears_at_once_of_work_that_another_made_due() {
    let Some(options) = place("LISTEN and NOTIFY") else { return };
    let options = options.poll_interval(Duration::from_secs(3_600));
    let (speaker, hearer) = (open(&options).await, open(&options).await);
    admit(&speaker, push(0)).await;
    hearer.woken(Stage::Match).await;
    let claim = claim(&hearer).await;
    let key = claim.work.key.clone();
    let work = vec![NewWork::now(Tenant::default(), Stage::Notify, key)];
    let effects = Effects { work, ..Effects::default() };
    hearer.commit(&claim.lease, effects).await.expect("it commits");
    speaker.woken(Stage::Notify).await;
}

#[tokio::test]
async fn work_that_nobody_told_of_is_found_by_looking() {
    let Some(options) = place("the poll") else { return };
    let store = open(&options.poll_interval(Duration::from_millis(50))).await;
    store.woken(Stage::Report).await;
    store.woken(Stage::Report).await;
}

#[tokio::test]
async fn leases_go_by_the_servers_clock_and_are_told_by_the_holders() {
    let Some(options) = place("leases in the server's time") else { return };
    let far = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100_000);
    let slow = PostgresStore::open(options.clone(), Arc::new(ManualClock::at(far))).await;
    let slow = slow.expect("the ledger opens");
    let other = open(&options).await;
    admit(&other, push(0)).await;
    let lease = ClaimRequest::of(Stage::Match, 1).leased_for(SignedDuration::from_millis(400));
    let frozen = slow.claim(lease.clone()).await.expect("claims").claims.remove(0);
    assert_eq!(frozen.lease.until, far + SignedDuration::from_millis(400));
    let nothing = other.claim(lease.clone()).await.expect("claims");
    assert!(nothing.claims.is_empty(), "it was given to two");
    assert!(nothing.next_due.is_some());
    // The first one freezes, and its lease ends although its clock stands still.
    soon("the lease ends", async || {
        let claimed = other.claim(lease.clone()).await.expect("claims").claims;
        claimed.first().is_some_and(|claim| claim.lease.token > frozen.lease.token)
    })
    .await;
    let late = slow.commit(&frozen.lease, Effects::default()).await;
    assert_eq!(late.expect_err("one that thawed committed").kind(), ErrorKind::Conflict);
    let late = slow.extend(&frozen.lease, SignedDuration::from_secs(9)).await;
    assert_eq!(late.expect_err("one that thawed went on").kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn two_replicas_of_one_name_are_refused_and_a_successor_waits_for_no_lease() {
    let Some(options) = place("names of replicas") else { return };
    let named = |name: &str| options.clone().replica(name).replica_wait(Duration::ZERO);
    let (first, second) = (open(&named("pod-0")).await, open(&named("pod-1")).await);
    let error = try_open(&named("pod-0")).await.expect_err("two have one name");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("replica: pod-0"), "{error}");
    admit(&first, push(0)).await;
    admit(&first, push(1)).await;
    let lease = ClaimRequest::of(Stage::Match, 1).leased_for(SignedDuration::from_hours(1));
    let died = first.claim(lease.clone()).await.expect("claims").claims.remove(0);
    let lives = second.claim(lease.clone()).await.expect("claims").claims.remove(0);
    first.close().await;
    drop(first);
    let successor = open(&named("pod-0").replica_wait(Duration::from_secs(60))).await;
    let again = successor.claim(lease).await.expect("claims").claims.remove(0);
    assert_eq!(again.lease.id, died.lease.id);
    second.commit(&lives.lease, Effects::default()).await.expect("the other's lease holds");
    let late = successor.commit(&died.lease, Effects::default()).await;
    assert_eq!(late.expect_err("a lease of the dead").kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn of_two_that_decide_about_a_group_at_once_one_decides_again() {
    let Some(options) = place("groups of many replicas") else { return };
    let clock = || Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let options = options.time(StoreTime::Clock).connections(4);
    let one = PostgresStore::open(options.clone(), clock()).await.expect("the ledger opens");
    let other = PostgresStore::open(options, clock()).await.expect("the ledger opens");
    for round in 0..20_u64 {
        admit(&one, push_to("a", round)).await;
        admit(&one, push_to("b", round)).await;
        let (a, b) = (claim(&one).await, claim(&other).await);
        // A group that is not there yet has no row that could be kept from others.
        let group = format!("group-{round}");
        let effects = |claim: &crate::store::Claim| Effects {
            runs: vec![super::plans::run(&group, claim, round)],
            groups: vec![GroupExpectation {
                tenant: Tenant::default(),
                group: group.as_str().into(),
                version: 0,
            }],
            ..Effects::default()
        };
        let (first, second) =
            futures::join!(one.commit(&a.lease, effects(&a)), other.commit(&b.lease, effects(&b)),);
        let refused = [&first, &second].into_iter().filter(|one| one.is_err()).count();
        assert_eq!(refused, 1, "round {round}: {first:?} {second:?}");
        let refused = first.err().or(second.err()).expect("one was refused");
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        let groups = one.groups(&Tenant::default(), &[group.as_str().into()]).await;
        assert_eq!(groups.expect("a group").first().map(|group| group.members.len()), Some(1));
        for lease in [a.lease, b.lease] {
            // The one that was refused still has its lease.
            let _ = one.commit(&lease, Effects::default()).await;
        }
    }
}

#[tokio::test]
async fn commits_that_put_work_for_each_other_all_come_through() {
    let Some(options) = place("commits across each other") else { return };
    let store = Arc::new(open(&options.connections(6)).await);
    let pushes: Vec<_> = (0..12).map(|number| push_to(&format!("b{number}"), 0)).collect();
    store.admit(pushes, None).await.expect("they are taken in");
    let keys: BTreeSet<WorkKey> =
        events(&store).await.into_iter().map(|event| WorkKey::event(event.key)).collect();
    for round in 0..5 {
        let claimed = store.claim(ClaimRequest::of(Stage::Match, 12)).await.expect("claims");
        assert_eq!(claimed.claims.len(), 12, "round {round}");
        let commits = claimed.claims.into_iter().map(|claim| {
            let store = Arc::clone(&store);
            // Each puts work about every other, in an order of its own.
            let mut work: Vec<NewWork> = keys
                .iter()
                .map(|key| NewWork::now(Tenant::default(), Stage::Match, key.clone()))
                .collect();
            if claim.lease.id % 2 == 0 {
                work.reverse();
            }
            tokio::spawn(async move {
                let effects = Effects { work, ..Effects::default() };
                store.commit(&claim.lease, effects).await.map(|_| ())
            })
        });
        for committed in futures::future::join_all(commits).await {
            committed.expect("it ends").expect("it commits");
        }
    }
}
