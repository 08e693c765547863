//! The ledger in Postgres.

mod connection;
mod failure;
mod listen;
mod options;
mod schema;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod writer;

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::options::{PostgresOptions, PostgresTls, StoreTime};
use self::{
    failure::{database_error, into_error},
    listen::Bulletin,
    writer::{Asked, Reader, Writer, acquire},
};
use super::{
    StoreLimits,
    sql::{Answer, Ask, Failure, SqlStore, query, read, sql_store},
    wake::Wakers,
};
use crate::{Error, Result, SharedClock};

/// Admissions that wait for the transaction before; who comes then waits to ask.
const QUEUE: usize = 1_024;

/// The oldest server that can be asked what became of a transaction by its full id.
const OLDEST_SERVER: i64 = 130_000;

/// The ledger in Postgres, for one engine or several: replicas.
///
/// What a call returned `Ok` for is on the server's disk, as its `synchronous_commit` says; admissions
/// that come together share a transaction. Leases alone may be forgotten when the server dies.
///
/// Replicas take work from each other neither by accident nor for long: each piece is given to one of
/// them (`FOR UPDATE SKIP LOCKED`) until its lease ends by the server's clock, and a commit under a
/// lease that was given again is refused. A replica hears of work that another made due by
/// LISTEN/NOTIFY, and looks for itself every `poll_interval`.
///
/// A connection that is lost, or a server that starts again or fails over, is lived through: what was
/// not committed is tried again, for as long as `connect_timeout` says. When the connection is lost
/// between a `COMMIT` and its answer, the server is asked what became of the transaction.
///
/// It needs Postgres 13 or newer with the encoding UTF8, and sessions of its own: a pooler that gives
/// a connection away between transactions (PgBouncer's transaction mode) cannot stand in between.
#[derive(Debug)]
pub struct PostgresStore {
    writer: Arc<Writer>,
    admissions: mpsc::Sender<Asked>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl PostgresStore {
    /// Opens the ledger, and makes its tables where there are none. It must be called, and used, in a
    /// Tokio runtime: tasks of it write admissions and listen.
    ///
    /// The clock is the engine's. With [`StoreTime::Server`] it only serves to tell a holder the end
    /// of its lease on the clock that the holder looks at, so that clocks that differ make no lease
    /// longer.
    ///
    /// # Errors
    ///
    /// `Invalid` for an option or URL that is wrong, tables of another program or a newer version;
    /// `Denied` when the user may not; `NotFound` when there is no such database; `Conflict` when
    /// another replica has the same name; `Unsupported` for a server that is too old; `Transient`
    /// when the server cannot be reached.
    pub async fn open(options: PostgresOptions, clock: SharedClock) -> Result<Self> {
        let connect = options.connect()?;
        let place = place(&connect);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(options.connect_timeout)
            // A connection that is broken is noticed when it is used, and what was asked on it is
            // asked on another: no round trip for each use.
            .test_before_acquire(false)
            .connect_lazy_with(connect.clone());
        let opening = |error| database_error("open the ledger", &place, error);
        let own = {
            let mut db = acquire(&pool).await.map_err(opening)?;
            check_server(&mut db, &place).await?;
            schema::migrate(&mut db, &options.schema, &place).await?;
            let number = query("SELECT nextval('serials')").answer(&mut *db).await;
            number.map_err(|failure| into_error(failure, "open the ledger", &place))?
        };
        let wakers = Arc::new(Wakers::default());
        let bulletin = Arc::new(Bulletin::new(&options, connect, place.clone(), own));
        let listener = bulletin.first(options.replica_wait).await?;
        let writer =
            Arc::new(Writer::new(&options, pool, place, clock, wakers, Arc::clone(&bulletin)));
        if let Some(replica) = &options.replica {
            writer.end_leases_of(replica).await?;
        }
        let stages = read::stages_with_work(&mut writer.reader()).await;
        for stage in
            stages.map_err(|failure| into_error(failure, "open the ledger", writer.place()))?
        {
            writer.wakers().wake(stage);
        }

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (admissions, asked) = mpsc::channel(QUEUE);
        tasks.spawn(Arc::clone(&writer).admit(asked, stop.clone()));
        let until = stop.clone();
        let listening = Arc::clone(&bulletin).listen(listener, Arc::clone(writer.wakers()));
        tasks.spawn(until.run_until_cancelled_owned(listening));
        let until = stop.clone();
        let telling = Arc::clone(&bulletin).tell(writer.pool().clone());
        tasks.spawn(until.run_until_cancelled_owned(telling));
        let until = stop.clone();
        let polling = bulletin.poll(options.poll_interval, Arc::clone(writer.wakers()));
        tasks.spawn(until.run_until_cancelled_owned(polling));
        tasks.close();
        Ok(Self { writer, admissions, stop, tasks })
    }

    /// Makes the tables, or brings those of an earlier version to this one: for a deployment in which
    /// the engine's own user may not. It opens nothing else.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::open`].
    pub async fn migrate(options: PostgresOptions) -> Result<()> {
        let connect = options.connect()?;
        let place = place(&connect);
        let opening = |error| database_error("open the ledger", &place, error);
        let connecting = tokio::time::timeout(options.connect_timeout, connect.connect());
        let connected = connecting.await.map_err(|_| opening(sqlx::Error::PoolTimedOut))?;
        let mut db = connected.map_err(opening)?;
        check_server(&mut db, &place).await?;
        schema::migrate(&mut db, &options.schema, &place).await
    }

    /// Closes the connections once what was asked before is written. What is asked later fails. A
    /// store that is dropped does the same, without anybody knowing when.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.writer.close().await;
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where the ledger is, without who asks.
fn place(connect: &PgConnectOptions) -> String {
    let database = connect.get_database().unwrap_or_else(|| connect.get_username());
    match connect.get_socket() {
        Some(socket) => format!("{}:{}/{database}", socket.display(), connect.get_port()),
        None => format!("{}:{}/{database}", connect.get_host(), connect.get_port()),
    }
}

async fn check_server(db: &mut PgConnection, place: &str) -> Result<()> {
    let opening = |failure| into_error(failure, "open the ledger", place);
    let row = query(
        "SELECT current_setting('server_version_num')::bigint, \
         current_setting('server_encoding'), pg_is_in_recovery()",
    )
    .fetch_one(db)
    .await
    .map_err(opening)?;
    let version: i64 = row.try_get(0).map_err(opening)?;
    if version < OLDEST_SERVER {
        let message = "the server is too old; it has to be Postgres 13 or newer";
        return Err(Error::unsupported("open the ledger", message)
            .with("database", place)
            .with("server_version_num", version));
    }
    let encoding: &str = row.try_get(1).map_err(opening)?;
    if encoding != "UTF8" {
        let message = "the database has another encoding than UTF8; make one that has it";
        return Err(Error::invalid("open the ledger", message)
            .with("database", place)
            .with("encoding", encoding));
    }
    if row.try_get(2).map_err(opening)? {
        let message = "the server is a read-only standby; let the URL lead to the primary";
        return Err(Error::transient("open the ledger", message).with("database", place));
    }
    Ok(())
}

impl SqlStore for PostgresStore {
    /// Each row takes some questions across the network.
    const PRUNED_AT_ONCE: u32 = 25;

    type Reader<'s> = Reader<'s>;

    fn reader(&self) -> Reader<'_> {
        self.writer.reader()
    }

    fn limits(&self) -> &StoreLimits {
        self.writer.limits()
    }

    fn wakers(&self) -> &Wakers {
        self.writer.wakers()
    }

    /// A caller that goes away does not leave half of it done: the rest is done by a task.
    async fn ask(&self, ask: Ask) -> Result<Answer> {
        let gone = || Error::transient("write the ledger", "the ledger is closed");
        if matches!(ask, Ask::Admit { .. }) {
            let (reply, answer) = oneshot::channel();
            self.admissions.send(Asked { ask, reply }).await.map_err(|_| gone())?;
            return answer.await.map_err(|_| gone())?;
        }
        let writer = Arc::clone(&self.writer);
        self.tasks.spawn(async move { writer.write_one(&ask).await }).await.map_err(|_| gone())?
    }

    async fn last_sequence(&self) -> Result<i64> {
        let found = query("SELECT sequence FROM counters").answer(&mut self.reader()).await;
        found.map_err(|failure| self.unread(failure))
    }

    async fn time(&self) -> Result<Timestamp> {
        self.writer.time().await
    }

    fn unread(&self, failure: Failure) -> Error {
        into_error(failure, "read the ledger", self.writer.place())
    }
}

sql_store!(PostgresStore);
