//! The suite over Postgres, each case in a schema of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use workflows_core::store::{PostgresOptions, PostgresStore, StoreTime};

use super::*;

/// A ledger in a schema of its own; a process that died is a store that was dropped, and the one
/// that takes its place has its name.
#[derive(Debug)]
struct InSchema {
    url: String,
    schema: String,
}

#[async_trait]
impl StoreFixture for InSchema {
    async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store> {
        let options = PostgresOptions::new(self.url.clone())
            .schema(&self.schema)
            .connections(4)
            .replica("replica-0")
            .replica_wait(std::time::Duration::from_secs(60))
            .time(StoreTime::Clock)
            .limits(limits);
        let store = PostgresStore::open(options, Arc::new(clock)).await;
        Arc::new(store.expect("the ledger opens"))
    }

    async fn reopen(&self, died: Arc<dyn Store>, clock: ManualClock) -> Option<Arc<dyn Store>> {
        drop(died);
        Some(self.open(clock, StoreLimits::default()).await)
    }
}

fn fixture() -> Option<Arc<dyn StoreFixture>> {
    let (url, schema) = fresh("a case of the store suite")?;
    Some(Arc::new(InSchema { url, schema }))
}

workflows_core::store_suite!(std::future::ready(fixture()));

/// `None` when there is no server, which has been said aloud.
pub(crate) fn fresh(test: &str) -> Option<(String, String)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let url = workflows_test_postgres::url(test)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Some((url, format!("case_{}_{number}", std::process::id())))
}
