//! Telling other replicas that work may have come, and hearing it from them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::Notify;

use super::{PostgresOptions, connection::lock_class, failure::database_error, writer::acquire};
use crate::{
    Error, Result,
    store::{Stage, wake::Wakers},
};

/// How long it takes at least from one message to the next; what comes meanwhile goes with the next.
const PAUSE: Duration = Duration::from_millis(5);

/// How long to wait before connecting again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Silences of so many poll intervals mean that the connection is dead: this store speaks to itself
/// at each.
const SILENT: u32 = 3;

/// What is said, and the connection on which it is heard.
#[derive(Debug)]
pub(super) struct Bulletin {
    connect: PgConnectOptions,
    connect_timeout: Duration,
    place: String,
    channel: String,
    class: i32,
    replica: Option<String>,
    poll_interval: Duration,
    patience: Duration,
    /// Whose message it is: a store does not wake itself twice.
    own: String,
    posted: Mutex<Posted>,
    to_tell: Notify,
}

#[derive(Debug, Default)]
struct Posted {
    stages: BTreeSet<Stage>,
    /// Whether something is to be said even if it is nothing.
    beat: bool,
}

impl Bulletin {
    pub(super) fn new(
        options: &PostgresOptions,
        connect: PgConnectOptions,
        place: String,
        own: i64,
    ) -> Self {
        Self {
            connect,
            connect_timeout: options.connect_timeout,
            place,
            channel: format!("{}_work", options.schema),
            class: lock_class(&options.schema),
            replica: options.replica.clone(),
            poll_interval: options.poll_interval,
            patience: options.connect_timeout + options.statement_timeout,
            own: own.to_string(),
            posted: Mutex::default(),
            to_tell: Notify::new(),
        }
    }

    /// Says that stages have got work.
    pub(super) fn post(&self, stages: BTreeSet<Stage>) {
        if !stages.is_empty() {
            self.posted.lock().unwrap_or_else(PoisonError::into_inner).stages.extend(stages);
            self.to_tell.notify_one();
        }
    }

    /// The first connection, with the replica's name taken.
    pub(super) async fn first(&self, wait: Duration) -> Result<PgListener> {
        let failed = |error| database_error("open the ledger", &self.place, error);
        let mut listener = self.connected().await.map_err(failed)?;
        let Some(replica) = &self.replica else { return Ok(listener) };
        let pause = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while !self.take_name(&mut listener, replica).await.map_err(failed)? {
            if waited >= wait {
                return Err(Error::conflict(
                    "open the ledger",
                    "another replica has this name; give each one its own, or stop the other",
                )
                .with("database", &self.place)
                .with("replica", replica));
            }
            tokio::time::sleep(pause).await;
            waited += pause;
        }
        Ok(listener)
    }

    async fn connected(&self) -> Result<PgListener, sqlx::Error> {
        // A pool of its own, for it keeps its connection as long as that lives.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.connect_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.connect.clone());
        // The listener takes the connection that was made, which tells why when none can be.
        drop(acquire(&pool).await?);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(&self.channel).await?;
        Ok(listener)
    }

    /// Takes the lock that says who has the name; the server lets go of it when the session ends.
    async fn take_name(
        &self,
        listener: &mut PgListener,
        replica: &str,
    ) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            // Next to the names of other things of the schema.
            .bind(self.class.wrapping_add(1))
            .bind(lock_class(replica))
            .fetch_one(listener)
            .await
    }

    /// Hears what is said, for ever.
    pub(super) async fn listen(self: Arc<Self>, first: PgListener, wakers: Arc<Wakers>) {
        let mut listener = Some(first);
        loop {
            if let Some(listener) = listener.take() {
                self.hear(listener, &wakers).await;
                tracing::warn!(database = %self.place, "the connection that listens was lost");
            }
            tokio::time::sleep(RECONNECT).await;
            match self.connected().await {
                Ok(mut new) => {
                    self.take_name_again(&mut new).await;
                    tracing::info!(database = %self.place, "listening again");
                    // What was said meanwhile was not heard.
                    wakers.wake_all();
                    listener = Some(new);
                }
                Err(error) => {
                    tracing::warn!(database = %self.place, %error, "cannot listen for work");
                }
            }
        }
    }

    async fn take_name_again(&self, listener: &mut PgListener) {
        let Some(replica) = &self.replica else { return };
        match self.take_name(listener, replica).await {
            Ok(true) => {}
            Ok(false) => tracing::error!(
                database = %self.place, replica,
                "another replica took this one's name while the connection was lost"
            ),
            Err(error) => {
                tracing::warn!(database = %self.place, %error, "cannot take the replica's name");
            }
        }
    }

    /// Hears what is said until the connection is lost.
    async fn hear(&self, mut listener: PgListener, wakers: &Wakers) {
        let silence = self.poll_interval.saturating_mul(SILENT);
        while let Ok(Ok(Some(told))) = tokio::time::timeout(silence, listener.try_recv()).await {
            let Some((who, stages)) = told.payload().split_once(' ') else { continue };
            if who != self.own {
                for stage in Stage::ALL {
                    if stages.split(',').any(|one| one == stage.as_str()) {
                        wakers.wake(stage);
                    }
                }
            }
        }
    }

    /// Says what was posted, for ever.
    pub(super) async fn tell(self: Arc<Self>, pool: PgPool) {
        loop {
            self.to_tell.notified().await;
            let posted =
                std::mem::take(&mut *self.posted.lock().unwrap_or_else(PoisonError::into_inner));
            if posted.stages.is_empty() && !posted.beat {
                continue;
            }
            let stages: Vec<&str> = posted.stages.iter().map(|stage| stage.as_str()).collect();
            // In a transaction of its own: one that notifies keeps every other such one of the
            // server waiting for its commit. If it is lost, others look for themselves.
            let telling = sqlx::query("SELECT pg_notify($1, $2)")
                .bind(&self.channel)
                .bind(format!("{} {}", self.own, stages.join(",")))
                .execute(&pool);
            match tokio::time::timeout(self.patience, telling).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(database = %self.place, %error, "work was not announced");
                }
                Err(_) => tracing::debug!(database = %self.place, "work was not announced in time"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks for work that nobody told of, for ever.
    pub(super) async fn poll(self: Arc<Self>, interval: Duration, wakers: Arc<Wakers>) {
        loop {
            tokio::time::sleep(interval).await;
            wakers.wake_all();
            self.posted.lock().unwrap_or_else(PoisonError::into_inner).beat = true;
            self.to_tell.notify_one();
        }
    }
}
