use super::{admit, open, place, push, raw, run_sql, try_open};
use crate::{
    ErrorKind, Store, Tenant,
    store::{Admitted, ClaimRequest, EventQuery, PostgresStore, Stage},
};

#[tokio::test]
async fn replicas_that_start_together_make_the_tables_once() {
    let Some(options) = place("a concurrent start") else { return };
    let opened = futures::future::join_all((0..6).map(|_| try_open(&options))).await;
    let stores: Vec<PostgresStore> =
        opened.into_iter().map(|store| store.expect("each replica starts")).collect();
    for (number, store) in (0..).zip(&stores) {
        let event = admit(store, push(number)).await;
        assert_eq!(event.sequence.unsigned_abs(), number + 1);
    }
    let versions: i64 = sqlx::query_scalar("SELECT count(*) FROM schema")
        .fetch_one(&mut raw(&options).await)
        .await
        .expect("a count");
    assert_eq!(versions.unsigned_abs() as usize, RELEASED.len());
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_and_tables_of_another_program_are_refused() {
    let Some(options) = place("foreign tables") else { return };
    open(&options).await.close().await;
    let mut db = raw(&options).await;
    run_sql(&mut db, "INSERT INTO schema VALUES (99, 0)").await;
    let error = try_open(&options).await.expect_err("a newer ledger was opened");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("newer version"), "{error}");
    assert!(error.to_string().contains("schema: 99"), "{error}");

    let Some(options) = place("foreign tables") else { return };
    let mut db = raw(&options).await;
    run_sql(
        &mut db,
        &format!("CREATE SCHEMA {0}; CREATE TABLE {0}.notes (text text)", options.schema),
    )
    .await;
    let error = try_open(&options).await.expect_err("another program's tables were taken");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("another program"), "{error}");
}

/// A ledger as each schema that was ever released had it, with what `admit` made of two pushes. A new
/// schema adds its own dump here, and every dump must open with everything in it.
const RELEASED: &[&str] =
    &[include_str!("../fixtures/schema1.sql"), include_str!("../fixtures/schema2.sql")];

#[tokio::test]
async fn a_ledger_of_every_earlier_schema_opens_with_everything_in_it() {
    for (index, dump) in RELEASED.iter().enumerate() {
        let Some(options) = place("earlier schemas") else { return };
        let mut old = raw(&options).await;
        run_sql(&mut old, &format!("CREATE SCHEMA {}", options.schema)).await;
        run_sql(&mut old, dump).await;
        let store = open(&options).await;
        let tenant = Tenant::default();
        let events = store.events(EventQuery::of(tenant.clone())).await.expect("events").items;
        assert_eq!(events.len(), 2, "events of schema {}", index + 1);
        assert_eq!(store.position().await.expect("a position"), 2);
        let again = store.admit(vec![push(2)], None).await.expect("it is answered");
        assert!(matches!(again.as_slice(), [Admitted::Duplicate { .. }]), "{again:?}");
        admit(&store, push(3)).await;
        let claimed = store.claim(ClaimRequest::of(Stage::Match, 10)).await.expect("claims");
        assert_eq!(claimed.claims.len(), 3, "work of schema {}", index + 1);
    }
}

#[tokio::test]
async fn one_who_may_can_migrate_for_one_who_may_not() {
    let Some(options) = place("migrating alone") else { return };
    PostgresStore::migrate(options.clone()).await.expect("it migrates");
    PostgresStore::migrate(options.clone()).await.expect("there is nothing left to migrate");
    admit(&open(&options).await, push(0)).await;
}
