//! The one writer: operations that come together are committed together, with one fsync.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use jiff::Timestamp;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{checkpoint::Checkpointer, connection::Transaction, failure::into_error};
use crate::{
    Result, SharedClock, Tenant,
    store::{
        Stage, StoreLimits,
        sql::{Answer, Ask, Batch, Done},
        wake::Wakers,
    },
};

/// Operations in one transaction; what comes beyond waits for the next.
const BATCH: usize = 256;
/// Bytes of payloads in one transaction, beyond which no further operation is added.
const BATCH_BYTES: usize = 8 << 20;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Operation {
    Write { ask: Ask, reply: oneshot::Sender<Result<Answer>> },
    Close { reply: oneshot::Sender<()> },
}

/// A question with who asked.
#[derive(Debug)]
struct Asked {
    ask: Ask,
    reply: oneshot::Sender<Result<Answer>>,
}

/// What the writer knows without asking the file; true once a transaction is committed.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) sequence: i64,
    pub(super) serial: i64,
    /// The tenant that was served last, by stage.
    pub(super) served: HashMap<Stage, Tenant>,
    pub(super) last_now: Timestamp,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: SqliteConnection,
    pub(super) path: Arc<PathBuf>,
    pub(super) clock: SharedClock,
    pub(super) limits: StoreLimits,
    pub(super) wakers: Arc<Wakers>,
    pub(super) position: Arc<AtomicI64>,
    pub(super) known: Known,
    pub(super) payload_bytes: HashMap<Tenant, u64>,
    /// Whether commits are synced now.
    pub(super) synced: bool,
    pub(super) checkpointer: Option<Checkpointer>,
    /// Held as long as this writes; the system releases it when the process dies.
    pub(super) lock: Option<File>,
}

impl Writer {
    /// Takes operations until it is told to close, or nobody is left to ask.
    pub(super) async fn run(mut self, mut operations: mpsc::Receiver<Operation>) {
        let mut closing = None;
        while closing.is_none()
            && let Some(first) = operations.recv().await
        {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(operation) = next {
                match operation {
                    Operation::Write { ask, reply } => {
                        bytes += ask.payload_bytes();
                        batch.push(Asked { ask, reply });
                    }
                    Operation::Close { reply } => {
                        closing = Some(reply);
                        break;
                    }
                }
                let full = batch.len() >= BATCH || bytes >= BATCH_BYTES;
                next = if full { None } else { operations.try_recv().ok() };
            }
            self.answer(batch).await;
        }
        operations.close();
        if let Err(error) = self.close().await {
            tracing::warn!(%error, "the ledger was not closed cleanly");
        }
        if let Some(reply) = closing {
            // Who asked may have gone.
            let _ = reply.send(());
        }
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        let Self { db, checkpointer, lock, .. } = self;
        if let Some(checkpointer) = checkpointer {
            checkpointer.close().await;
        }
        let closed = db.close().await;
        drop(lock);
        closed
    }

    async fn answer(&mut self, operations: Vec<Asked>) {
        if operations.is_empty() {
            return;
        }
        let asks: Vec<&Ask> = operations.iter().map(|one| &one.ask).collect();
        match self.attempt(&asks).await {
            Ok(answers) => reply(operations, answers),
            // One that cannot be written must not take the others with it.
            Err(_) if operations.len() > 1 => {
                for one in operations {
                    let answer = self.attempt_one(&one.ask).await;
                    let _ = one.reply.send(answer);
                }
            }
            Err(failure) => {
                if let Some(only) = operations.into_iter().next() {
                    let error = into_error(failure, only.ask.operation(), &self.path);
                    let _ = only.reply.send(Err(error));
                }
            }
        }
    }

    async fn attempt_one(&mut self, ask: &Ask) -> Result<Answer> {
        match self.attempt(&[ask]).await {
            Ok(answers) => answers.into_iter().next().unwrap_or_else(|| Err(ask.unanswered())),
            Err(failure) => Err(into_error(failure, ask.operation(), &self.path)),
        }
    }

    /// Executes operations in one transaction and commits it.
    async fn attempt(&mut self, asks: &[&Ask]) -> Done<Vec<Result<Answer>>> {
        self.sync_commits(!asks.iter().all(|ask| ask.may_be_lost())).await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.db).await?;
        let now = self.clock.now();
        let mut batch = Batch {
            db: Transaction {
                db: &mut self.db,
                sequence: self.known.sequence,
                serial: self.known.serial,
                payload_bytes: &self.payload_bytes,
                changed_bytes: HashMap::new(),
            },
            limits: self.limits,
            now,
            last_now: self.known.last_now,
            served: self.known.served.clone(),
            stages: BTreeSet::new(),
        };
        let executed = batch.execute(asks).await;
        let Batch {
            db: Transaction { sequence, serial, changed_bytes, .. }, served, stages, ..
        } = batch;
        let known = Known { sequence, serial, served, last_now: now };
        let committed = match executed {
            Ok(answers) => self.finish(&known).await.map(|()| answers),
            Err(failure) => Err(failure),
        };
        let answers = match committed {
            Ok(answers) => answers,
            Err(failure) => {
                // Where SQLite rolled back by itself there is nothing left to roll back.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.db).await;
                return Err(failure);
            }
        };
        self.known = known;
        self.payload_bytes.extend(changed_bytes);
        self.position.store(self.known.sequence, Ordering::Release);
        if let Some(checkpointer) = &mut self.checkpointer {
            let bytes = asks.iter().map(|ask| ask.payload_bytes()).sum();
            checkpointer.wrote(asks.len(), bytes);
        }
        for stage in stages {
            self.wakers.wake(stage);
        }
        Ok(answers)
    }

    async fn finish(&mut self, known: &Known) -> Done<()> {
        if (known.sequence, known.serial) != (self.known.sequence, self.known.serial) {
            sqlx::query("UPDATE counters SET sequence = ?, serial = ?")
                .bind(known.sequence)
                .bind(known.serial)
                .execute(&mut self.db)
                .await?;
        }
        sqlx::query("COMMIT").execute(&mut self.db).await?;
        Ok(())
    }

    async fn sync_commits(&mut self, sync: bool) -> Done<()> {
        if sync != self.synced {
            let sql =
                if sync { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            sqlx::query(sql).execute(&mut self.db).await?;
            self.synced = sync;
        }
        Ok(())
    }
}

fn reply(operations: Vec<Asked>, answers: Vec<Result<Answer>>) {
    for (one, answer) in operations.into_iter().zip(answers) {
        // Who asked may have gone; what was done stays done.
        let _ = one.reply.send(answer);
    }
}
