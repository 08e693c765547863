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

use jiff::{SignedDuration, Timestamp};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::failure::{Done, Failure};
use crate::{
    Error, Result, SharedClock, Tenant,
    event::Observation,
    store::{
        Admitted, ClaimRequest, Claimed, Committed, CursorMove, Effects, Lease, Prune, Pruned,
        Release, Stage, StoreLimits, wake::Wakers,
    },
};

/// Operations in one transaction; what comes beyond waits for the next.
const BATCH: usize = 256;
/// Bytes of payloads in one transaction, beyond which no further operation is added.
const BATCH_BYTES: usize = 8 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Ask {
    Admit { observations: Vec<Observation>, cursor: Option<CursorMove> },
    Claim(ClaimRequest),
    Commit { lease: Lease, effects: Box<Effects> },
    Extend { lease: Lease, by: SignedDuration },
    Release { lease: Lease, release: Release },
    Prune(Box<Prune>),
    Close,
}

impl Ask {
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Admit { observations, .. } => observations
                .iter()
                .filter_map(|one| one.payload.as_ref())
                .map(|payload| payload.body().len())
                .sum(),
            _ => 0,
        }
    }

    /// Whether losing it in a power failure is harmless: a lease that nobody remembers is over.
    fn may_be_lost(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::Extend { .. } | Self::Release { .. } | Self::Close)
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::Admit { .. } => "admit observations",
            Self::Claim(_) => "claim work",
            Self::Commit { .. } => "commit",
            Self::Extend { .. } => "extend a lease",
            Self::Release { .. } => "release a claim",
            Self::Prune(_) => "prune the ledger",
            Self::Close => "close the ledger",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Admitted(Vec<Admitted>),
    Claimed(Claimed),
    Committed(Committed),
    Extended(Lease),
    Pruned(Pruned),
    Done,
}

#[derive(Debug)]
pub(super) struct Operation {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
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
    /// Held as long as this writes; the system releases it when the process dies.
    pub(super) lock: Option<File>,
}

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Batch<'w> {
    pub(super) db: &'w mut SqliteConnection,
    pub(super) limits: StoreLimits,
    pub(super) now: Timestamp,
    pub(super) known: Known,
    pub(super) payload_bytes: &'w HashMap<Tenant, u64>,
    /// The tenants whose stored bytes this changes, with the new sum.
    pub(super) changed_bytes: HashMap<Tenant, u64>,
    /// Stages that get work.
    pub(super) stages: BTreeSet<Stage>,
}

impl Batch<'_> {
    pub(super) fn next_serial(&mut self) -> i64 {
        self.known.serial += 1;
        self.known.serial
    }

    pub(super) fn next_sequence(&mut self) -> i64 {
        self.known.sequence += 1;
        self.known.sequence
    }

    pub(super) fn stored_bytes(&self, tenant: &Tenant) -> u64 {
        let before = || self.payload_bytes.get(tenant).copied().unwrap_or(0);
        self.changed_bytes.get(tenant).copied().unwrap_or_else(before)
    }

    async fn execute(&mut self, asks: &[&Ask]) -> Done<Vec<Result<Answer>>> {
        self.end_leases_of_the_future().await?;
        let mut admissions = self.admit(asks).await?.into_iter();
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let answer = match ask {
                Ask::Admit { .. } => match admissions.next() {
                    Some(answer) => answer.map(Answer::Admitted).map_err(Failure::Refused),
                    None => Err(Failure::Refused(closed(ask))),
                },
                Ask::Claim(request) => self.claim(request).await.map(Answer::Claimed),
                Ask::Commit { lease, effects } => {
                    self.commit(lease, effects).await.map(Answer::Committed)
                }
                Ask::Extend { lease, by } => self.extend(lease, *by).await.map(Answer::Extended),
                Ask::Release { lease, release } => {
                    self.release(lease, release).await.map(|()| Answer::Done)
                }
                Ask::Prune(prune) => self.prune(prune).await.map(Answer::Pruned),
                Ask::Close => Ok(Answer::Done),
            };
            match answer {
                Ok(answer) => answers.push(Ok(answer)),
                Err(Failure::Refused(error)) => answers.push(Err(error)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }
}

impl Writer {
    /// Takes operations until it is told to close, or nobody is left to ask.
    pub(super) async fn run(mut self, mut operations: mpsc::Receiver<Operation>) {
        while let Some(first) = operations.recv().await {
            let mut bytes = first.ask.payload_bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Ok(next) = operations.try_recv() else { break };
                bytes += next.ask.payload_bytes();
                batch.push(next);
            }
            let (closing, batch): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|one| matches!(one.ask, Ask::Close));
            self.answer(batch).await;
            if !closing.is_empty() {
                operations.close();
                let closed = self.close().await;
                if let Err(error) = &closed {
                    tracing::warn!(%error, "the ledger was not closed cleanly");
                }
                for one in closing {
                    let _ = one.reply.send(Ok(Answer::Done));
                }
                return;
            }
        }
        if let Err(error) = self.close().await {
            tracing::warn!(%error, "the ledger was not closed cleanly");
        }
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        let Self { db, lock, .. } = self;
        let closed = db.close().await;
        drop(lock);
        closed
    }

    async fn answer(&mut self, operations: Vec<Operation>) {
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
                    let error = failure.into_error(only.ask.operation(), &self.path);
                    let _ = only.reply.send(Err(error));
                }
            }
        }
    }

    async fn attempt_one(&mut self, ask: &Ask) -> Result<Answer> {
        match self.attempt(&[ask]).await {
            Ok(answers) => answers.into_iter().next().unwrap_or_else(|| Err(closed(ask))),
            Err(failure) => Err(failure.into_error(ask.operation(), &self.path)),
        }
    }

    /// Executes operations in one transaction and commits it.
    async fn attempt(&mut self, asks: &[&Ask]) -> Done<Vec<Result<Answer>>> {
        self.sync_commits(!asks.iter().all(|ask| ask.may_be_lost())).await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.db).await?;
        let now = self.clock.now();
        let mut batch = Batch {
            db: &mut self.db,
            limits: self.limits,
            now,
            known: self.known.clone(),
            payload_bytes: &self.payload_bytes,
            changed_bytes: HashMap::new(),
            stages: BTreeSet::new(),
        };
        let executed = batch.execute(asks).await;
        let Batch { mut known, changed_bytes, stages, .. } = batch;
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
        known.last_now = now;
        self.known = known;
        self.payload_bytes.extend(changed_bytes);
        self.position.store(self.known.sequence, Ordering::Release);
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

fn reply(operations: Vec<Operation>, answers: Vec<Result<Answer>>) {
    for (one, answer) in operations.into_iter().zip(answers) {
        // Who asked may have gone; what was done stays done.
        let _ = one.reply.send(answer);
    }
}

fn closed(ask: &Ask) -> Error {
    Error::transient(ask.operation(), "the ledger gave no answer; was it closed?")
}
