//! A ledger in SQLite is for one engine at a time, and is free again when that engine is killed.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use workflows_core::{
    ErrorKind, Result, SystemClock,
    store::{SqliteOptions, SqliteStore},
};

async fn open(path: &Path, wait: Duration) -> Result<SqliteStore> {
    let options = SqliteOptions::default().lock_wait(wait);
    SqliteStore::open(path, options, Arc::new(SystemClock)).await
}

#[tokio::test]
async fn a_second_engine_is_refused_until_the_first_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    git2::Repository::init_bare(&repository).unwrap();
    let path = directory.path().join("ledger.db");
    let mut first = Command::new(env!("CARGO_BIN_EXE_engine-under-fire"))
        .args([directory.path(), &repository])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // The ledger is opened before the sink makes its directory.
    while !directory.path().join("runs").exists() {
        assert!(first.try_wait().unwrap().is_none(), "the engine ended");
        tokio::task::yield_now().await;
    }

    let refused = open(&path, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(
        refused.to_string(),
        format!(
            "open the ledger: another engine has the file open, and a ledger in SQLite is for one; \
             stop the other, give this one a file of its own, or use Postgres for replicas (file: \
             {0}, lock file: {0}.lock)",
            path.display()
        )
    );

    first.kill().unwrap();
    first.wait().unwrap();
    open(&path, Duration::ZERO).await.unwrap().close().await;
}
