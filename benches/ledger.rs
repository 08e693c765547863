//! The ledgers that benchmarks are run with.

use std::{fmt, sync::Arc};

use tempfile::TempDir;
use workflows_core::{
    SharedClock, Store, SystemClock,
    store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore},
};
use workflows_test_postgres::{Durability, Server};

/// A place for a ledger, whose writes are durable.
#[derive(Debug)]
pub enum Place {
    /// A file.
    Sqlite(TempDir),
    /// A server of its own on this machine.
    Postgres(Server),
}

/// A ledger that is open, and can be closed.
#[derive(Debug, Clone)]
pub enum Ledger {
    /// In a file.
    Sqlite(Arc<SqliteStore>),
    /// On a server.
    Postgres(Arc<PostgresStore>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        })
    }
}

impl Place {
    /// Both, as far as they are here: says so when Postgres is not installed.
    ///
    /// # Panics
    ///
    /// When no directory can be made, and when a server that is installed does not start.
    pub fn all() -> Vec<Self> {
        [Self::sqlite()].into_iter().chain(Self::postgres()).collect()
    }

    /// A server of its own; says so when Postgres is not installed.
    ///
    /// # Panics
    ///
    /// When a server that is installed does not start.
    pub fn postgres() -> Option<Self> {
        workflows_test_postgres::server("the benchmark on Postgres", Durability::Full)
            .map(Self::Postgres)
    }

    /// A file.
    ///
    /// # Panics
    ///
    /// When no directory can be made.
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a directory"))
    }

    /// Where the ledger called `name` is: a path, or a server's address.
    pub fn address(&self, name: &str) -> String {
        match self {
            Self::Sqlite(directory) => {
                directory.path().join(name).with_extension("db").display().to_string()
            }
            Self::Postgres(server) => server.url(),
        }
    }

    /// Opens the ledger called `name`; it is made when it is not there.
    ///
    /// # Panics
    ///
    /// When it does not open.
    pub async fn open(&self, name: &str) -> Ledger {
        let clock: SharedClock = Arc::new(SystemClock);
        match self {
            Self::Sqlite(_) => {
                let opened =
                    SqliteStore::open(self.address(name), SqliteOptions::default(), clock).await;
                Ledger::Sqlite(Arc::new(opened.expect("the ledger opens")))
            }
            Self::Postgres(server) => {
                let options = PostgresOptions::new(server.url()).schema(name);
                let opened = PostgresStore::open(options, clock).await;
                Ledger::Postgres(Arc::new(opened.expect("the ledger opens")))
            }
        }
    }
}

impl Ledger {
    /// As what the engine takes.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// Closes it.
    pub async fn close(self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }
}
