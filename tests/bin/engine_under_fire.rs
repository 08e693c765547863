//! A whole embedded engine that is meant to be killed at any moment: SQLite, a git repository by
//! polling, runs as local processes, and a notifier that writes a line for each delivery.
//!
//! `engine-under-fire <state directory> <repository>` works until it is killed, or until it is told
//! to stop by the end of its standard input.

use std::{fs::OpenOptions, io::Write, num::NonZeroUsize, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use jiff::SignedDuration;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use workflows_core::{
    Delivered, Error, NotificationView, Notifier, Result, SystemClock,
    engine::Engine,
    local::LocalSink,
    store::{SqliteOptions, SqliteStore},
};
use workflows_scm::{
    git::GitDriver,
    poll::{FirstSight, RefPoller},
};

/// Appends `<run> <transition> <delivery key>` to a file.
#[derive(Debug)]
struct Journal(PathBuf);

#[async_trait]
impl Notifier for Journal {
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
        let line =
            format!("{} {} {}\n", notification.run.key, notification.transition, notification.key);
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.map_err(|error| {
            Error::transient("write the journal", "it cannot be written").caused_by(error)
        })?;
        Ok(Delivered::default())
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let state = PathBuf::from(arguments.next().ok_or("which state directory?")?);
    let repo = arguments.next().ok_or("which repository?")?;
    let clock = Arc::new(SystemClock);
    let store = SqliteStore::open(state.join("ledger.db"), SqliteOptions::default(), clock).await?;
    let sink = LocalSink::builder(state.join("runs"))
        .max_steps(NonZeroUsize::new(8).expect("eight"))
        .keep_runs(10_000)
        .build()
        .await?;
    let poller = RefPoller::every(SignedDuration::from_secs(1))?.first_sight(FirstSight::Run);
    let engine = Engine::builder()
        .store(Arc::new(store))
        .connection("git", Arc::new(GitDriver::any()?))
        .source(Arc::new(poller))
        .sink("local", Arc::new(sink))
        .notifier("journal", Arc::new(Journal(state.join("journal"))))
        .repository("git", repo)
        .build()?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut input = Vec::new();
        // Whatever ends the input ends the engine.
        let _ = tokio::io::stdin().read_to_end(&mut input).await;
        stop.cancel();
    });
    engine.run(shutdown).await;
    Ok(())
}
