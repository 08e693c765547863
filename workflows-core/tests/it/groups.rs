//! Concurrency groups over the stores of this crate.

use std::sync::Arc;

use workflows_core::{SharedClock, Store, conformance::groups, store::MemoryStore};

async fn memory(clock: SharedClock) -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(clock))
}

#[tokio::test]
async fn groups_keep_their_promises_over_the_memory_store() {
    groups::keep_their_promises(memory, 0..1_500).await;
}

#[tokio::test]
async fn groups_keep_their_promises_over_the_memory_store_in_other_histories() {
    groups::keep_their_promises(memory, 1_500..3_000).await;
}

#[cfg(feature = "sqlite")]
async fn sqlite(clock: SharedClock) -> Arc<dyn Store> {
    use workflows_core::store::{SqliteOptions, SqliteStore};

    let store = SqliteStore::open_in_memory(SqliteOptions::default(), clock).await;
    Arc::new(store.expect("a ledger in memory opens"))
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn groups_keep_their_promises_over_the_sqlite_store() {
    groups::keep_their_promises(sqlite, 0..60).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn groups_keep_their_promises_over_the_postgres_store() {
    use workflows_core::store::{PostgresOptions, PostgresStore, StoreTime};

    let test = "groups over Postgres";
    if workflows_test_postgres::url(test).is_none() {
        return;
    }
    let postgres = |clock: SharedClock| async {
        let (url, schema) = crate::store::fresh_schema(test).expect("a server was there");
        let options = PostgresOptions::new(url).schema(schema).time(StoreTime::Clock);
        let store = PostgresStore::open(options.connections(3), clock).await;
        Arc::new(store.expect("the ledger opens")) as Arc<dyn Store>
    };
    groups::keep_their_promises(postgres, 0..20).await;
}
