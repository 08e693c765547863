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
