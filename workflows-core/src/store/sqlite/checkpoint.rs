//! Moving pages from the write-ahead log into the file beside the writer, on a connection of its own,
//! so that intake does not pause for it. The writer's own checkpoint, when the log has its full
//! length, then finds little to do.

use sqlx::{Connection, SqliteConnection};
use tokio::{sync::mpsc, task::JoinHandle};

/// What an operation writes, about.
const PAGES_PER_OPERATION: usize = 8;
const PAGE: usize = 4096;

/// The task that moves pages.
#[derive(Debug)]
pub(super) struct Checkpointer {
    asked: mpsc::Sender<()>,
    task: JoinHandle<()>,
    /// Pages that were written since it was last asked, about.
    written: usize,
    /// After how many it is asked.
    every: usize,
}

impl Checkpointer {
    /// Starts the task; the writer's own checkpoint comes when the log has that many pages.
    pub(super) fn start(mut db: SqliteConnection, checkpoint_pages: u32) -> Self {
        let (asked, mut asks) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while asks.recv().await.is_some() {
                // Passive: it waits for nobody, and moves what it can.
                let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut db).await;
                if let Err(error) = moved {
                    tracing::warn!(%error, "the ledger's log could not be moved into its file");
                }
            }
            if let Err(error) = db.close().await {
                tracing::warn!(%error, "the ledger was not closed cleanly");
            }
        });
        Self { asked, task, written: 0, every: checkpoint_pages as usize / 4 }
    }

    /// Notes what a transaction wrote.
    pub(super) fn wrote(&mut self, operations: usize, payload_bytes: usize) {
        self.written += operations * PAGES_PER_OPERATION + payload_bytes / PAGE;
        if self.written > self.every {
            self.written = 0;
            // One that is under way, or asked for, does for this too.
            let _ = self.asked.try_send(());
        }
    }

    /// Ends the task and closes its connection.
    pub(super) async fn close(self) {
        drop(self.asked);
        // It panics for nothing; and what it was to move, the next one that opens the file does.
        let _ = self.task.await;
    }
}
