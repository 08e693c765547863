//! The ledger in a SQLite file.

mod checkpoint;
mod connection;
mod failure;
mod schema;
#[cfg(test)]
mod tests;
#[cfg(all(test, feature = "conformance"))]
mod unwritable;
mod writer;

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{mpsc, oneshot};

use self::{
    checkpoint::Checkpointer,
    failure::{database_error, into_error},
    writer::{Known, Operation, Writer},
};
use super::{
    StoreLimits,
    sql::{Answer, Ask, Done, Failure, SqlStore, read, sql_store, tenant_of},
    wake::Wakers,
};
use crate::{Error, Result, SharedClock, Tenant};

/// How long a statement waits for a lock that another program (a backup) holds on the file.
const BUSY: Duration = Duration::from_secs(10);

/// Pages that the writer keeps in memory at most, in KiB.
const WRITER_CACHE_KIB: u32 = 16 << 10;

/// Rows that SQLite's thread may be ahead of who reads them.
const ROW_BUFFER: usize = 512;

/// Operations that wait for the writer; who comes then waits to ask.
const QUEUE: usize = 1_024;

/// How a ledger is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Limits of what a tenant may put in.
    pub limits: StoreLimits,
    /// For how long to wait for another process to let go of the file: a predecessor that is about
    /// to end. By default two seconds.
    pub lock_wait: Duration,
    /// Connections for reading. By default four.
    pub readers: u32,
    /// Pages of 4 KiB in the write-ahead log, beyond which they are moved into the file. Most are
    /// moved before, beside the writer. More makes for fewer and longer pauses, and a larger log. By
    /// default 16,384: 64 MiB.
    pub checkpoint_pages: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            limits: StoreLimits::default(),
            lock_wait: Duration::from_secs(2),
            readers: 4,
            checkpoint_pages: 16_384,
        }
    }
}

impl SqliteOptions {
    /// Sets the limits of what a tenant may put in.
    #[must_use]
    pub fn limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets for how long to wait for another process to let go of the file.
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Sets how many connections read.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers;
        self
    }

    /// Sets how many pages the write-ahead log may have before they are moved into the file.
    #[must_use]
    pub fn checkpoint_pages(mut self, pages: u32) -> Self {
        self.checkpoint_pages = pages;
        self
    }
}

/// The ledger in a SQLite file, for one process.
///
/// What a call returned `Ok` for is on the disk: operations that come together are written by one
/// task in one transaction with one fsync (`journal_mode=WAL`, `synchronous=FULL`). Leases alone
/// are not synced, for a lease that is lost is harmless.
///
/// A second process, or a second store in this one, is refused: the first holds a lock on
/// `<path>.lock` until it closes or dies. For the same reason leases of an earlier process are over
/// when the file is opened, and nothing waits for them after a crash.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use workflows_core::{Store, SystemClock, store::{SqliteOptions, SqliteStore}};
///
/// let directory = tempfile::tempdir().unwrap();
/// let path = directory.path().join("workflows.db");
/// let clock = Arc::new(SystemClock);
/// let store = SqliteStore::open(&path, SqliteOptions::default(), clock).await.unwrap();
/// assert_eq!(store.position().await.unwrap(), 0);
/// store.close().await;
/// # });
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    operations: mpsc::Sender<Operation>,
    pool: SqlitePool,
    path: Arc<PathBuf>,
    limits: StoreLimits,
    wakers: Arc<Wakers>,
    position: Arc<AtomicI64>,
    clock: SharedClock,
}

impl SqliteStore {
    /// Opens the ledger in a file, and makes the file where there is none. It must be called, and
    /// used, in a Tokio runtime: the writer is a task of it.
    ///
    /// # Errors
    ///
    /// `Conflict` when another process has the file open, `Invalid` when it is not a ledger, is
    /// damaged or was written by a newer version, `Denied` when it is read-only, `NotFound` when its
    /// directory does not exist, `Transient` when the disk is full or fails.
    pub async fn open(
        path: impl AsRef<Path>,
        options: SqliteOptions,
        clock: SharedClock,
    ) -> Result<Self> {
        let path = itself(path.as_ref());
        let lock = lock(&path, options.lock_wait).await?;
        let file = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY)
            .statement_cache_capacity(512)
            .disable_statement_logging();
        let write = file
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What a full transaction changes must fit, or its pages are written more than once.
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
            // Where a statement is prepared to be undone; bounded by a transaction.
            .pragma("temp_store", "memory")
            // A full channel makes SQLite's thread wait for each row of a batch.
            .row_buffer_size(ROW_BUFFER)
            .pragma("wal_autocheckpoint", options.checkpoint_pages.to_string());
        Self::start(path, write, file.read_only(true), Some(lock), options, clock).await
    }

    /// Opens an empty ledger in memory: for tests of SQLite itself. It is gone when it is closed.
    ///
    /// # Errors
    ///
    /// `Transient` when there is no memory.
    pub async fn open_in_memory(options: SqliteOptions, clock: SharedClock) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/workflows-{number}"));
        let memory = SqliteConnectOptions::new()
            .filename(&path)
            .vfs("memdb")
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let write = memory.clone().create_if_missing(true);
        Self::start(path, write, memory, None, options, clock).await
    }

    async fn start(
        path: PathBuf,
        write: SqliteConnectOptions,
        read: SqliteConnectOptions,
        lock: Option<File>,
        options: SqliteOptions,
        clock: SharedClock,
    ) -> Result<Self> {
        let failed = |failure: Failure| into_error(failure, "open the ledger", &path);
        let now = clock.now();
        let mut db = write
            .connect()
            .await
            .map_err(|error| database_error("open the ledger", &path, error))?;
        schema::migrate(&mut db, &path, now).await?;
        let wakers = Arc::new(Wakers::default());
        end_all_leases(&mut db).await.map_err(failed)?;
        for stage in read::stages_with_work(&mut db).await.map_err(failed)? {
            wakers.wake(stage);
        }
        let (sequence, serial) = counters(&mut db).await.map_err(failed)?;
        let payload_bytes = payload_bytes(&mut db).await.map_err(failed)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .connect_with(read)
            .await
            .map_err(|error| database_error("open the ledger", &path, error))?;

        // A ledger in memory has no log.
        let checkpointer = match lock {
            None => None,
            Some(_) => {
                let second = write.connect().await;
                let second =
                    second.map_err(|error| database_error("open the ledger", &path, error))?;
                Some(Checkpointer::start(second, options.checkpoint_pages))
            }
        };

        let path = Arc::new(path);
        let position = Arc::new(AtomicI64::new(sequence));
        let (operations, asked) = mpsc::channel(QUEUE);
        let writer = Writer {
            db,
            path: Arc::clone(&path),
            clock: Arc::clone(&clock),
            limits: options.limits,
            wakers: Arc::clone(&wakers),
            position: Arc::clone(&position),
            known: Known { sequence, serial, served: HashMap::new(), last_now: now },
            payload_bytes,
            synced: true,
            checkpointer,
            lock,
        };
        tokio::spawn(writer.run(asked));
        Ok(Self { operations, pool, path, limits: options.limits, wakers, position, clock })
    }

    /// Closes the file once what was asked before is written, and lets go of it. What is asked
    /// later fails. A store that is dropped does the same, without anybody knowing when.
    pub async fn close(&self) {
        self.pool.close().await;
        // A writer that is gone has closed already.
        let (reply, answer) = oneshot::channel();
        let _ = self.tell(Operation::Close { reply }, answer).await;
    }

    async fn tell<T>(&self, operation: Operation, answer: oneshot::Receiver<T>) -> Result<T> {
        let gone = || Error::transient("write the ledger", "the ledger is closed");
        self.operations.send(operation).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// The file that a path leads to, so that all that is beside the ledger is beside that.
fn itself(path: &Path) -> PathBuf {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let target = if is_link { path.canonicalize().ok() } else { None };
    target.unwrap_or_else(|| path.to_path_buf())
}

/// Takes the lock that says whose the file is. The system lets go of it when the process dies.
async fn lock(path: &Path, wait: Duration) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |error: std::io::Error| {
        use std::io::ErrorKind as Io;
        let message =
            "the lock file beside the ledger cannot be written; is its directory read-only?";
        let error_of = match error.kind() {
            Io::NotFound => Error::not_found,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Error::denied,
            _ => Error::transient,
        };
        error_of("open the ledger", message.to_owned())
            .with("lock file", name.display())
            .caused_by(error)
    };
    let file =
        File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if waited < wait => {
                tokio::time::sleep(pause).await;
                waited += pause;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::conflict(
                    "open the ledger",
                    "another engine has the file open, and a ledger in SQLite is for one; stop the \
                     other, give this one a file of its own, or use Postgres for replicas",
                )
                .with("file", path.display())
                .with("lock file", name.display()));
            }
        }
    }
}

/// Nobody but this process may hold a lease, and it holds none yet. The tokens of the old ones are
/// refused from now on.
async fn end_all_leases(db: &mut SqliteConnection) -> Done<()> {
    sqlx::query(
        "UPDATE work SET due = NULL, leased_at = NULL, joined = NULL WHERE leased_at IS NOT NULL",
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn counters(db: &mut SqliteConnection) -> Done<(i64, i64)> {
    let row = sqlx::query("SELECT sequence, serial FROM counters").fetch_one(db).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn payload_bytes(db: &mut SqliteConnection) -> Done<HashMap<Tenant, u64>> {
    let rows =
        sqlx::query("SELECT tenant, sum(size) FROM payloads GROUP BY tenant").fetch_all(db).await?;
    rows.iter()
        .map(|row| Ok((tenant_of(row.try_get(0)?)?, row.try_get::<i64, _>(1)?.unsigned_abs())))
        .collect()
}

impl SqlStore for SqliteStore {
    const PRUNED_AT_ONCE: u32 = 100;

    type Reader<'s> = &'s SqlitePool;

    fn reader(&self) -> &SqlitePool {
        &self.pool
    }

    fn limits(&self) -> &StoreLimits {
        &self.limits
    }

    fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.tell(Operation::Write { ask, reply }, answer).await?
    }

    async fn last_sequence(&self) -> Result<i64> {
        Ok(self.position.load(Ordering::Acquire))
    }

    async fn time(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    fn unread(&self, failure: Failure) -> Error {
        into_error(failure, "read the ledger", &self.path)
    }
}

sql_store!(SqliteStore);
