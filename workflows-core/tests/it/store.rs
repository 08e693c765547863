//! Every store passes the suite for stores.

use std::sync::Arc;

use async_trait::async_trait;
use workflows_core::{
    ManualClock, Store,
    conformance::store::StoreFixture,
    store::{MemoryStore, StoreLimits},
};

mod faulty;
#[cfg(feature = "sqlite")]
mod model;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
pub(crate) use self::postgres::fresh as fresh_schema;

#[derive(Debug)]
struct InMemory;

#[async_trait]
impl StoreFixture for InMemory {
    async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store> {
        Arc::new(MemoryStore::with_limits(Arc::new(clock), limits))
    }

    async fn reopen(&self, _died: Arc<dyn Store>, _clock: ManualClock) -> Option<Arc<dyn Store>> {
        None
    }
}

mod memory {
    use super::*;

    fn fixture() -> Arc<dyn StoreFixture> {
        Arc::new(InMemory)
    }

    workflows_core::store_suite!(std::future::ready(fixture()));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::time::Duration;

    use tempfile::TempDir;
    use workflows_core::store::{SqliteOptions, SqliteStore};

    use super::*;

    /// A ledger in a file of its own; a process that died is a store that was dropped.
    #[derive(Debug)]
    struct InFile {
        directory: TempDir,
    }

    #[async_trait]
    impl StoreFixture for InFile {
        async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store> {
            let options =
                SqliteOptions::default().limits(limits).lock_wait(Duration::from_secs(60));
            let path = self.directory.path().join("ledger.db");
            let store = SqliteStore::open(path, options, Arc::new(clock)).await;
            Arc::new(store.expect("the ledger opens"))
        }

        async fn reopen(&self, died: Arc<dyn Store>, clock: ManualClock) -> Option<Arc<dyn Store>> {
            drop(died);
            Some(self.open(clock, StoreLimits::default()).await)
        }
    }

    mod in_a_file {
        use super::*;

        fn fixture() -> Arc<dyn StoreFixture> {
            Arc::new(InFile { directory: tempfile::tempdir().expect("a directory") })
        }

        workflows_core::store_suite!(std::future::ready(fixture()));
    }

    #[derive(Debug)]
    struct InMemory;

    #[async_trait]
    impl StoreFixture for InMemory {
        async fn open(&self, clock: ManualClock, limits: StoreLimits) -> Arc<dyn Store> {
            let options = SqliteOptions::default().limits(limits);
            let store = SqliteStore::open_in_memory(options, Arc::new(clock)).await;
            Arc::new(store.expect("the ledger opens"))
        }

        async fn reopen(
            &self,
            _died: Arc<dyn Store>,
            _clock: ManualClock,
        ) -> Option<Arc<dyn Store>> {
            None
        }
    }

    mod in_memory {
        use super::*;

        fn fixture() -> Arc<dyn StoreFixture> {
            Arc::new(InMemory)
        }

        workflows_core::store_suite!(std::future::ready(fixture()));
    }
}
