//! Transactions from their first word to their last: what is tried again, and what became of one
//! whose end nobody heard.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{ConnectOptions as _, Connection as _, PgPool, Postgres, pool::PoolConnection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    PostgresOptions, StoreTime,
    connection::{Durability, Transaction, lock_class},
    failure::{into_error, is_lost, met_another},
    listen::Bulletin,
};
use crate::{
    Result, SharedClock, Tenant,
    store::{
        Claim, Stage, StoreLimits,
        sql::{
            Answer, Ask, Batch, Done, Failure, Query, Row, Rows, Sql, delivery_hash, instant, query,
        },
        wake::Wakers,
    },
};

/// Admissions in one transaction; what comes beyond waits for the next.
const BATCH: usize = 256;
/// Bytes of payloads in one transaction, beyond which no further admission is added.
const BATCH_BYTES: usize = 8 << 20;

/// How often a transaction is tried before its caller hears of it.
const ATTEMPTS: u32 = 8;

/// What a client grants a statement beyond what the server does, before it takes the connection for
/// dead.
const GRACE: Duration = Duration::from_secs(5);

/// A question with who asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Answer>>,
}

type Answers = Vec<Result<Answer>>;

/// Why a transaction did not come to an end that is known.
enum Trouble {
    /// It wrote nothing.
    Failed(Failure),
    /// The connection was lost while it was being committed.
    Unheard { id: Option<String>, answers: Answers, stages: BTreeSet<Stage>, error: sqlx::Error },
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    RolledBack,
    Unknown,
}

/// What one transaction leaves for the next.
#[derive(Debug)]
struct Memory {
    /// The tenant that was served last, by stage.
    served: HashMap<Stage, Tenant>,
    last_now: Timestamp,
}

#[derive(Debug)]
pub(super) struct Writer {
    pool: PgPool,
    place: String,
    class: i32,
    limits: StoreLimits,
    clock: SharedClock,
    time: StoreTime,
    patience: Duration,
    wakers: Arc<Wakers>,
    bulletin: Arc<Bulletin>,
    memory: Mutex<Memory>,
}

impl Writer {
    pub(super) fn new(
        options: &PostgresOptions,
        pool: PgPool,
        place: String,
        clock: SharedClock,
        wakers: Arc<Wakers>,
        bulletin: Arc<Bulletin>,
    ) -> Self {
        Self {
            pool,
            place,
            class: lock_class(&options.schema),
            limits: options.limits,
            clock,
            time: options.time,
            patience: options.statement_timeout + GRACE,
            wakers,
            bulletin,
            memory: Mutex::new(Memory { served: HashMap::new(), last_now: Timestamp::MIN }),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn limits(&self) -> &StoreLimits {
        &self.limits
    }

    pub(super) fn wakers(&self) -> &Arc<Wakers> {
        &self.wakers
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { writer: self }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(super) async fn time(&self) -> Result<Timestamp> {
        if self.time == StoreTime::Clock {
            return Ok(self.clock.now());
        }
        let now =
            query("SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint AS now");
        let now = now.answer(&mut self.reader()).await.map(instant);
        now.map_err(|failure| into_error(failure, "read the ledger", &self.place))
    }

    /// The one that had this name before is gone: the tokens of its leases are refused from now on.
    pub(super) async fn end_leases_of(&self, replica: &str) -> Result<()> {
        let ended = query(
            "UPDATE work SET due = NULL, leased_at = NULL, joined = NULL, holder = NULL \
             WHERE holder = $1",
        )
        .bind(replica)
        .execute(&mut self.reader())
        .await;
        ended.map_err(|failure| into_error(failure, "open the ledger", &self.place))
    }

    /// Takes admissions until it is told to stop, or nobody is left to ask: those that come while a
    /// transaction is under way share the next.
    pub(super) async fn admit(
        self: Arc<Self>,
        mut asked: mpsc::Receiver<Asked>,
        stop: CancellationToken,
    ) {
        loop {
            let first = tokio::select! {
                biased;
                first = asked.recv() => first,
                () = stop.cancelled(), if !asked.is_closed() => {
                    asked.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut bytes = first.ask.payload_bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Ok(next) = asked.try_recv() else { break };
                bytes += next.ask.payload_bytes();
                batch.push(next);
            }
            self.answer(batch).await;
        }
    }

    async fn answer(&self, batch: Vec<Asked>) {
        let asks: Vec<&Ask> = batch.iter().map(|one| &one.ask).collect();
        // One that cannot be written must not take the others with it.
        let together = if asks.len() > 1 { self.write(&asks).await.ok() } else { None };
        match together {
            Some(answers) => {
                for (one, answer) in batch.into_iter().zip(answers) {
                    // Who asked may have gone; what was done stays done.
                    let _ = one.reply.send(answer);
                }
            }
            None => {
                for one in batch {
                    let answer = self.write_one(&one.ask).await;
                    let _ = one.reply.send(answer);
                }
            }
        }
    }

    pub(super) async fn write_one(&self, ask: &Ask) -> Result<Answer> {
        match self.write(&[ask]).await {
            Ok(answers) => answers.into_iter().next().unwrap_or_else(|| Err(ask.unanswered())),
            Err(failure) => Err(into_error(failure, ask.operation(), &self.place)),
        }
    }

    /// Executes operations in one transaction, and again when it met another or lost its connection.
    async fn write(&self, asks: &[&Ask]) -> Done<Answers> {
        let mut attempt = 0;
        let mut tested = false;
        loop {
            attempt += 1;
            let failure = match self.attempt(asks, tested).await {
                Ok((answers, stages)) => return Ok(self.done(answers, stages)),
                Err(Trouble::Failed(failure)) => failure,
                Err(Trouble::Unheard { id, answers, stages, error }) => {
                    match self.fate(asks, &answers, id.as_deref()).await {
                        Fate::Committed => return Ok(self.done(answers, stages)),
                        Fate::RolledBack => error.into(),
                        Fate::Unknown => return Err(error.into()),
                    }
                }
            };
            match &failure {
                Failure::Database(error) if attempt < ATTEMPTS && is_lost(error) => {
                    tracing::debug!(database = %self.place, %error, "the connection was lost");
                    tested = true;
                }
                Failure::Database(error) if attempt < ATTEMPTS && met_another(error) => {
                    tracing::debug!(database = %self.place, %error, "met another transaction");
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt * attempt))).await;
                }
                _ => return Err(failure),
            }
        }
    }

    fn done(&self, answers: Answers, stages: BTreeSet<Stage>) -> Answers {
        for stage in &stages {
            self.wakers.wake(*stage);
        }
        self.bulletin.post(stages);
        answers
    }

    async fn attempt(
        &self,
        asks: &[&Ask],
        tested: bool,
    ) -> Result<(Answers, BTreeSet<Stage>), Trouble> {
        let durability = if asks.iter().all(|ask| ask.may_be_lost()) {
            Durability::Unsynced
        } else {
            Durability::Synced
        };
        let connection = self.connection(tested).await?;
        let asked_at = self.clock.now();
        let begun = Transaction::begin(connection, self.class, durability, self.patience);
        let transaction = begun.await?;
        let began = transaction.began;
        let now = match self.time {
            StoreTime::Server => began,
            StoreTime::Clock => asked_at,
        };
        let mut batch = {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            Batch {
                db: transaction,
                limits: self.limits,
                now,
                last_now: memory.last_now,
                served: memory.served.clone(),
                stages: BTreeSet::new(),
            }
        };
        let executed = batch.execute(asks).await;
        let Batch { db: mut transaction, served, stages, .. } = batch;
        let mut answers = match executed {
            Ok(answers) => answers,
            Err(failure) => {
                transaction.give_up(&failure).await;
                return Err(failure.into());
            }
        };
        if answers.iter().all(Result::is_err) {
            transaction.roll_back().await;
            return Ok((answers, stages));
        }
        if let Err(failure) = transaction.finish().await {
            transaction.give_up(&failure).await;
            return Err(failure.into());
        }
        if self.time == StoreTime::Server {
            // The holder looks at its own clock.
            let differs = asked_at.duration_since(began);
            answers.iter_mut().flatten().for_each(|answer| shift(answer, differs));
        }
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.last_now = now;
            memory.served.extend(served);
        }
        let id = transaction.id.take();
        match transaction.commit().await {
            Ok(()) => Ok((answers, stages)),
            Err(error) if is_lost(&error) => Err(Trouble::Unheard { id, answers, stages, error }),
            Err(error) => Err(error.into()),
        }
    }

    /// A connection; one that was seen to work, where the last did not.
    async fn connection(&self, tested: bool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        loop {
            let mut connection = acquire(&self.pool).await?;
            if !tested {
                return Ok(connection);
            }
            match tokio::time::timeout(GRACE, connection.ping()).await {
                Ok(Ok(())) => return Ok(connection),
                _ => connection.close_on_drop(),
            }
        }
    }

    /// What became of a transaction whose commit was not answered.
    async fn fate(&self, asks: &[&Ask], answers: &Answers, id: Option<&str>) -> Fate {
        let Some(id) = id else {
            // Of leases only: whatever became of them, asking again does no harm.
            return Fate::RolledBack;
        };
        for pause in [0, 50, 200, 500, 1_000, 2_000, 4_000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.fate_now(asks, answers, id).await {
                Ok(Some(fate)) => return fate,
                Ok(None) => {}
                Err(failure) => {
                    tracing::warn!(
                        database = %self.place, ?failure,
                        "it is not known yet whether a transaction was committed"
                    );
                }
            }
        }
        Fate::Unknown
    }

    /// `None` while it is under way: the server has not noticed that nobody listens.
    async fn fate_now(&self, asks: &[&Ask], answers: &Answers, id: &str) -> Done<Option<Fate>> {
        let db = &mut self.reader();
        let status: Option<Option<String>> =
            query("SELECT pg_xact_status($1::text::xid8)").bind(id).value(db).await?;
        Ok(match status.flatten().as_deref() {
            // A server that crashed may give an id that it lost to another transaction.
            Some("committed") => {
                let left = self.left_its_mark(asks, answers).await?;
                Some(if left { Fate::Committed } else { Fate::RolledBack })
            }
            Some("aborted") => Some(Fate::RolledBack),
            Some(_) => {
                // If the word to commit was lost, it would stand idle, with all its locks.
                query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE backend_xid = $1::text::xid8::xid",
                )
                .bind(id)
                .execute(db)
                .await?;
                None
            }
            None => Some(Fate::Unknown),
        })
    }

    /// Whether what only these operations can have written is there.
    async fn left_its_mark(&self, asks: &[&Ask], answers: &Answers) -> Done<bool> {
        let db = &mut self.reader();
        let accepted = asks.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
        for (ask, _) in accepted {
            match ask {
                Ask::Admit { observations, .. } => {
                    let Some(first) = observations.first() else { continue };
                    let hash = delivery_hash(first, &first.claim.subject());
                    return query("SELECT EXISTS (SELECT 1 FROM deliveries WHERE hash = $1)")
                        .bind(&hash[..])
                        .answer(db)
                        .await;
                }
                Ask::Commit { lease, .. } => {
                    return query(
                        "SELECT NOT EXISTS (SELECT 1 FROM work \
                         WHERE id = $1 AND token = $2 AND leased_at IS NOT NULL)",
                    )
                    .bind(lease.id)
                    .bind(lease.token)
                    .answer(db)
                    .await;
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

/// A connection of a pool. A pool that cannot connect tries again until its time is over, and says no
/// more than that: so it is tried once more, to tell why.
pub(super) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    let late = match pool.acquire().await {
        Err(late @ sqlx::Error::PoolTimedOut) => late,
        other => return other,
    };
    if pool.size() >= pool.options().get_max_connections() {
        return Err(late);
    }
    match tokio::time::timeout(GRACE, pool.connect_options().connect()).await {
        Ok(Err(cause)) => Err(cause),
        Ok(Ok(_)) | Err(_) => Err(late),
    }
}

/// Moves instants of the server's clock to another's.
fn shift(answer: &mut Answer, by: jiff::SignedDuration) {
    let moved = |at: Timestamp| at.checked_add(by).unwrap_or(at);
    let shift_all = |claims: &mut Vec<Claim>| {
        for claim in claims {
            claim.lease.until = moved(claim.lease.until);
        }
    };
    match answer {
        Answer::Claimed(claimed) => {
            shift_all(&mut claimed.claims);
            claimed.next_due = claimed.next_due.map(moved);
        }
        Answer::Committed(committed) => shift_all(&mut committed.claims),
        Answer::Extended(lease) => lease.until = moved(lease.until),
        Answer::Admitted(_) | Answer::Pruned(_) | Answer::Done => {}
    }
}

/// Asks one thing at a time, on any connection, and again on another when that is lost.
#[derive(Debug)]
pub(crate) struct Reader<'s> {
    writer: &'s Writer,
}

impl Sql for Reader<'_> {
    const FOR_UPDATE: &'static str = sqlx::PgConnection::FOR_UPDATE;
    const SKIP_LOCKED: &'static str = sqlx::PgConnection::SKIP_LOCKED;

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        let mut attempt = 1;
        loop {
            let mut connection = self.writer.connection(attempt > 1).await?;
            let asked = tokio::time::timeout(self.writer.patience, connection.fetch(query.clone()));
            let failure = match asked.await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    connection.close_on_drop();
                    return Err(super::connection::unanswered().into());
                }
            };
            match &failure {
                Failure::Database(error) if is_lost(error) => connection.close_on_drop(),
                _ => return Err(failure),
            }
            if attempt == ATTEMPTS {
                return Err(failure);
            }
            attempt += 1;
        }
    }

    fn among(column: &str, place: usize) -> String {
        sqlx::PgConnection::among(column, place)
    }

    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        sqlx::PgConnection::statements(rows, head, tail)
    }
}
