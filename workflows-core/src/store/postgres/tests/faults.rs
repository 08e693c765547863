use std::{collections::BTreeMap, io::Write as _, path::Path, sync::Arc, time::Duration};

use workflows_test_postgres::Durability;

use super::{
    PostgresStore, admit, claim, events, open, own_server,
    proxy::{Loss, Proxy},
    push, push_to, raw, run_sql, soon,
};
use crate::{
    AttemptId, ErrorKind, Store, Tenant,
    event::Payload,
    store::{
        Admitted, ClaimRequest, DecisionBatch, DecisionQuery, Effects, NewWork, Stage, WorkKey,
    },
};

const LOSSES: [Loss; 3] = [Loss::BeforeBegin, Loss::BeforeCommit, Loss::AfterCommit];

#[tokio::test]
async fn an_admission_whose_connection_is_lost_is_made_once_and_answered_as_if_nothing_had_been() {
    let test = "admission over a connection that is lost";
    let Some((server, options)) = own_server(test, Durability::None) else { return };
    let proxy = Proxy::to(server.port()).await;
    let mut through = options.clone();
    through.url = server.url_at(proxy.port).into();
    let store = open(&through).await;
    for (number, loss) in (0..).zip(LOSSES) {
        proxy.lose(loss);
        let event = admit(&store, push(number)).await;
        assert_eq!(event.sequence, i64::try_from(number).expect("a small number") + 1, "{loss:?}");
        assert_eq!(proxy.lost(), number as usize + 1, "{loss:?} was not met");
    }
    assert_eq!(events(&store).await.len(), LOSSES.len());
}

#[tokio::test]
async fn a_commit_whose_connection_is_lost_is_made_once_and_answered_as_if_nothing_had_been() {
    let test = "commit over a connection that is lost";
    let Some((server, options)) = own_server(test, Durability::None) else { return };
    let proxy = Proxy::to(server.port()).await;
    let mut through = options.clone();
    through.url = server.url_at(proxy.port).into();
    let store = open(&through).await;
    for (number, loss) in (0..).zip(LOSSES) {
        let event = admit(&store, push(number)).await;
        let claim = claim(&store).await;
        let decisions = DecisionBatch {
            id: 0,
            tenant: Tenant::default(),
            event: event.key.clone(),
            attempt: AttemptId::first(),
            at: event.received_at,
            decisions: Vec::new(),
            commands: Vec::new(),
            guards: Vec::new(),
            judged_by: BTreeMap::new(),
        };
        let next = NewWork::now(Tenant::default(), Stage::Observe, WorkKey::event(event.key));
        let effects = Effects {
            decisions: Some(decisions),
            work: vec![next],
            claim_next: Some(jiff::SignedDuration::from_secs(60)),
            ..Effects::default()
        };
        proxy.lose(loss);
        let committed = store.commit(&claim.lease, effects).await;
        let committed = committed.unwrap_or_else(|error| panic!("{loss:?}: {error}"));
        assert_eq!(committed.claims.len(), 1, "{loss:?}");
        // The claims that came with it hold.
        let next = committed.claims.first().expect("a claim");
        store.commit(&next.lease, Effects::default()).await.expect("the lease holds");
        assert_eq!(proxy.lost(), number as usize + 1, "{loss:?} was not met");
    }
    let decisions = store.decisions(DecisionQuery::of(Tenant::default())).await.expect("a page");
    assert_eq!(decisions.items.len(), LOSSES.len());
}

#[tokio::test]
async fn a_commit_that_nobody_hears_is_found_out_about_and_made() {
    let test = "commit that nobody hears";
    let Some((server, options)) = own_server(test, Durability::None) else { return };
    let proxy = Proxy::to(server.port()).await;
    let mut through = options
        .statement_timeout(Duration::from_millis(200))
        .idle_in_transaction_timeout(Duration::from_secs(600));
    through.url = server.url_at(proxy.port).into();
    let store = open(&through).await;
    proxy.lose(Loss::CommitSwallowed);
    // The server has the transaction open, with the order of intake; nobody else gets in until it is
    // ended for it.
    let event = admit(&store, push(0)).await;
    assert_eq!(event.sequence, 1);
    assert_eq!(proxy.lost(), 1);
    assert_eq!(events(&store).await.len(), 1);
}

#[tokio::test]
async fn what_was_answered_before_a_crash_is_there_and_nothing_is_there_twice() {
    let test = "crash of the server";
    let Some((server, options)) = own_server(test, Durability::Full) else { return };
    let store = Arc::new(open(&options).await);
    let senders = send(&store, 4);
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let server = Arc::clone(&server);
        let restarted = tokio::task::spawn_blocking(move || {
            if round == 1 {
                server.stop()
            } else {
                server.crash()
            }
            server.start();
        });
        restarted.await.expect("the server starts again");
    }
    all_is_there(&store, senders).await;
}

#[tokio::test]
async fn after_a_failover_what_was_answered_is_there_and_nothing_is_there_twice() {
    let test = "failover to a standby";
    let Some((primary, options)) = own_server(test, Durability::Full) else { return };
    let standby = {
        let primary = Arc::clone(&primary);
        tokio::task::spawn_blocking(move || primary.standby()).await.expect("a standby")
    };
    run_sql(&mut raw(&options).await, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    run_sql(&mut raw(&options).await, "SELECT pg_reload_conf()").await;
    let proxy = Proxy::to(primary.port()).await;
    let mut through = options.clone().connect_timeout(Duration::from_secs(2));
    through.url = primary.url_at(proxy.port).into();
    let store = Arc::new(open(&through).await);
    let senders = send(&store, 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(store.position().await.expect("a position") > 0, "nothing was sent before");

    tokio::task::spawn_blocking(move || primary.crash()).await.expect("it crashes");
    let error = store.admit(vec![push(1_000)], None).await.expect_err("there is no server");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    // The name leads to the standby before that is the primary.
    proxy.lead_to(standby.port());
    let error = store.admit(vec![push(1_000)], None).await.expect_err("it may only be read");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("read-only standby"), "{error}");
    let mut of_standby = options.clone();
    of_standby.url = standby.url().into();
    run_sql(&mut raw(&of_standby).await, "SELECT pg_promote()").await;
    all_is_there(&store, senders).await;
    // What replicas tell each other goes through the new primary, too.
    let hearer = open(&through.clone().poll_interval(Duration::from_secs(3_600))).await;
    hearer.woken(Stage::Match).await;
    admit(&store, push(2_000)).await;
    hearer.woken(Stage::Match).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_when_there_is_room_again_it_goes_on() {
    let Some(disk) = std::env::var_os("WORKFLOWS_TEST_SMALL_DISK") else {
        // Around what captures the output of tests that pass.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a full disk: WORKFLOWS_TEST_SMALL_DISK names no small file system"
        );
        return;
    };
    let Some((server, options)) = own_server("a full disk", Durability::Full) else { return };
    let disk = server.directory_in(Path::new(&disk));
    let in_the_way = disk.with_extension("in-the-way");
    std::fs::write(&in_the_way, vec![0; 2 << 20]).expect("two megabytes");
    let mut db = raw(&options).await;
    run_sql(&mut db, &format!("CREATE TABLESPACE small LOCATION '{}'", disk.display())).await;
    run_sql(&mut db, "ALTER ROLE postgres SET default_tablespace = 'small'").await;
    let store = open(&options).await;
    let full = async {
        for number in 0..10_000 {
            store.admit(vec![large(number)], None).await?;
        }
        Ok::<_, crate::Error>(())
    };
    let error = full.await.expect_err("the disk is never full");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(error.message(), "the server's disk is full; free some space on it");
    let before = events(&store).await;
    let position = store.position().await.expect("a position");
    assert_eq!(before.len(), usize::try_from(position).expect("a small number"));
    // It was not the refused one's rows that took what was left.
    store.admit(vec![large(20_000)], None).await.expect_err("there is no room");

    std::fs::remove_file(&in_the_way).expect("it is in the way no more");
    store.admit(vec![large(20_000)], None).await.expect("there is room again");
    assert_eq!(events(&store).await.len(), before.len() + 1);
    drop(store);
    drop(server);
    let _ = std::fs::remove_dir_all(&disk);
}

/// A push with a payload that does not get smaller by being compressed.
fn large(number: u64) -> crate::Observation {
    let mut state = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(8_000)
    .flatten()
    .collect();
    push(number).with_payload(Payload::new([("", ""); 0], bytes.into()))
}

type Sender = tokio::task::JoinHandle<Vec<Admitted>>;

/// Sources that each send sixty pushes, one after the other, and what they were answered.
fn send(store: &Arc<PostgresStore>, senders: usize) -> Vec<Sender> {
    let send = |sender| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut answered = Vec::new();
            for number in 0..60 {
                let push = push_to(&format!("branch-{sender}"), number);
                // A source that got no answer delivers again.
                loop {
                    match store.admit(vec![push.clone()], None).await {
                        Ok(admitted) => {
                            answered.extend(admitted);
                            break;
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            }
            answered
        })
    };
    (0..senders).map(send).collect()
}

/// What they sent is in the ledger, once, as they were answered.
async fn all_is_there(store: &PostgresStore, senders: Vec<Sender>) {
    let sent = 60 * senders.len();
    let mut answered = Vec::new();
    for sender in senders {
        answered.extend(sender.await.expect("the sender ends"));
    }
    let stored = events(store).await;
    assert_eq!(stored.len(), sent);
    for event in answered.iter().filter_map(Admitted::event) {
        assert!(stored.contains(event), "an answered event is gone: {}", event.key);
    }
    let sequences: Vec<i64> = stored.iter().map(|event| event.sequence).collect();
    let sent = i64::try_from(sent).expect("a small number");
    assert_eq!(sequences, (1..=sent).collect::<Vec<i64>>());
    assert_eq!(store.position().await.expect("a position"), sent);
}

#[tokio::test]
async fn a_replica_that_lost_the_connection_on_which_it_listens_hears_again() {
    let test = "listening again";
    let Some(options) = super::place(test) else { return };
    let options = options.poll_interval(Duration::from_secs(3_600));
    let (speaker, hearer) =
        (open(&options).await, open(&options.clone().application_name("hearer")).await);
    let mut other = raw(&options).await;
    run_sql(
        &mut other,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'hearer' AND query LIKE 'LISTEN%'",
    )
    .await;
    // It looks once when it is there again, for it may have missed something.
    hearer.woken(Stage::Match).await;
    hearer.woken(Stage::Report).await;
    admit(&speaker, push(0)).await;
    hearer.woken(Stage::Match).await;
}

#[tokio::test]
async fn a_replica_that_freezes_in_a_transaction_holds_others_up_for_no_longer_than_it_may() {
    let test = "a frozen replica";
    let Some(options) = super::place(test) else { return };
    let options = options.idle_in_transaction_timeout(Duration::from_millis(300));
    let store = open(&options).await;
    let mut frozen = raw(&options).await;
    run_sql(&mut frozen, "BEGIN; SELECT * FROM counters FOR UPDATE").await;
    let event = admit(&store, push(0)).await;
    assert_eq!(event.sequence, 1);
    let thawed =
        sqlx::raw_sql("UPDATE counters SET sequence = 77; COMMIT").execute(&mut frozen).await;
    assert!(thawed.is_err(), "the one that thawed still wrote");
    assert_eq!(store.position().await.expect("a position"), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let test = "a caller that goes away";
    let Some(options) = super::place(test) else { return };
    let store = open(&options.connections(2)).await;
    for number in 0..20 {
        admit(&store, push(number)).await;
        let asked = store.claim(ClaimRequest::of(Stage::Match, 1));
        let _ = tokio::time::timeout(Duration::from_micros(50 * number), asked).await;
    }
    // Whatever was claimed by those who left is under a lease, and the rest can be claimed, when the
    // server has heard that they left; no connection is stuck in a transaction.
    soon("all is claimed", async || {
        store.claim(ClaimRequest::of(Stage::Match, 100)).await.expect("claims");
        let waiting = store.backlog().await.expect("a backlog");
        waiting.first().map(|one| (one.waiting, one.due)) == Some((20, 0))
    })
    .await;
}
