//! Concurrency groups over the stores of this crate.

use std::{ops::Range, sync::Arc};

use workflows_core::{SharedClock, Store, conformance::groups, store::MemoryStore};

/// Which histories are played over a store. `WORKFLOWS_GROUPS_SEED` plays the history of one seed
/// alone, to look at a failure; `WORKFLOWS_GROUPS_TIMES` plays so many times as many: with 67 they are
/// ten thousand over each database.
fn seeds(usual: Range<u64>) -> Range<u64> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse().expect("a whole number is set"))
    };
    if let Some(seed) = number("WORKFLOWS_GROUPS_SEED") {
        return seed..seed + 1;
    }
    let times = number("WORKFLOWS_GROUPS_TIMES").unwrap_or(1);
    usual.start..usual.start + (usual.end - usual.start) * times
}

async fn memory(clock: SharedClock) -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(clock))
}

#[tokio::test]
async fn groups_keep_their_promises_over_the_memory_store() {
    groups::keep_their_promises(memory, seeds(0..200)).await;
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
    groups::keep_their_promises(sqlite, seeds(100_000..100_150)).await;
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
    // Histories wait for the server most of the time, so several are played together.
    let seeds = seeds(200_000..200_150);
    let part = (seeds.end - seeds.start).div_ceil(3);
    let parts = seeds
        .clone()
        .step_by(part as usize)
        .map(|first| groups::keep_their_promises(postgres, first..(first + part).min(seeds.end)));
    futures::future::join_all(parts).await;
}
