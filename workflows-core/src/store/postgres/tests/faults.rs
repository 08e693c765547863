use std::{collections::BTreeMap, sync::Arc, time::Duration};

use workflows_test_postgres::Durability;

use super::{
    admit, claim, events, open, own_server,
    proxy::{Loss, Proxy},
    push, push_to, raw, run_sql, soon,
};
use crate::{
    AttemptId, ErrorKind, Store, Tenant,
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
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let store = Arc::clone(&store);
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
        })
        .collect();
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
    let mut answered = Vec::new();
    for sender in senders {
        answered.extend(sender.await.expect("the sender ends"));
    }
    let stored = events(&store).await;
    assert_eq!(stored.len(), 240);
    for event in answered.iter().filter_map(Admitted::event) {
        assert!(stored.contains(event), "an answered event is gone: {}", event.key);
    }
    let sequences: Vec<i64> = stored.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=240).collect::<Vec<i64>>());
    assert_eq!(store.position().await.expect("a position"), 240);
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
    // Whatever was claimed by those who left is under a lease, and the rest can be claimed; no
    // connection is stuck in a transaction.
    soon("all is claimed", async || {
        let claimed = store.claim(ClaimRequest::of(Stage::Match, 100)).await.expect("claims");
        claimed.claims.is_empty()
    })
    .await;
    let waiting = store.backlog().await.expect("a backlog");
    assert_eq!(waiting.first().map(|one| (one.waiting, one.due)), Some((20, 0)));
}
