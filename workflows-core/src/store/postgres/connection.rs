//! How the server is asked.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::{
    Arguments, Column as _, Decode, PgConnection, Postgres, Row as _, TypeInfo, ValueRef,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    raw_sql,
};

use super::failure::is_lost;
use crate::{
    Tenant,
    store::sql::{Done, Failure, Ledger, Query, Row, Rows, Sql, Value, instant, query},
};

/// Numbers that one value of the sequence stands for, as its `INCREMENT BY` says.
const SERIALS: i64 = 64;

/// Names of locks. Two things that share one wait for each other for no reason, and for no long
/// time; that there are not more bounds how many locks one transaction takes.
const STRIPES: u32 = 4_096;

/// The first half of the names of a schema's locks: another schema of the database has others.
pub(super) fn lock_class(schema: &str) -> i32 {
    stripe_of(schema).cast_signed()
}

fn stripe_of(thing: &str) -> u32 {
    let mut bytes = [0; 4];
    for (to, from) in bytes.iter_mut().zip(Sha256::digest(thing)) {
        *to = from;
    }
    u32::from_be_bytes(bytes)
}

impl Sql for PgConnection {
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        let (sql, arguments) = arguments(query)?;
        rows(&sqlx::query_with(sql, arguments).fetch_all(self).await?)
    }

    fn among(column: &str, place: usize) -> String {
        format!("{column} = ANY (${place})")
    }

    /// One statement whose values are columns: its text does not depend on how many rows there are.
    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        let width = rows.width();
        let mut columns: Vec<Vec<Value>> = vec![Vec::new(); width];
        for (index, value) in rows.into_values().into_iter().enumerate() {
            if let Some(column) = columns.get_mut(index % width) {
                column.push(value);
            }
        }
        let columns: Vec<Value> = columns.into_iter().map(Value::column).collect();
        let (mut places, mut names) = (String::new(), String::new());
        for (index, column) in columns.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let of = match column {
                Value::TextColumn(_) => "text",
                Value::BytesColumn(_) => "bytea",
                _ => "bigint",
            };
            let place = index + 1;
            let _ = write!(places, "{comma}${place}::{of}[]");
            let _ = write!(names, "{comma}column{place}");
        }
        let sql = format!("{head} unnest({places}) AS w ({names}) {tail}");
        vec![Query::with_values(sql, columns)]
    }
}

/// How long a transaction's outcome may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Not at all.
    Synced,
    /// It may be forgotten when the server dies.
    Unsynced,
}

/// A transaction of this store.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `None` once it is given back.
    connection: Option<PoolConnection<Postgres>>,
    class: i32,
    /// How long to wait for an answer before the connection is taken for dead.
    patience: Duration,
    /// When it began, by the server's clock.
    pub(super) began: Timestamp,
    /// By which the server can be asked what became of it.
    pub(super) id: Option<String>,
    intake: Option<Intake>,
    serials: Vec<std::ops::Range<i64>>,
}

#[derive(Debug)]
struct Intake {
    before: i64,
    sequence: i64,
    stored_bytes: HashMap<Tenant, u64>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Given up halfway: the server rolls back when the connection ends.
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

impl Transaction {
    pub(super) async fn begin(
        connection: PoolConnection<Postgres>,
        class: i32,
        durability: Durability,
        patience: Duration,
    ) -> Result<Self, sqlx::Error> {
        let sql = match durability {
            Durability::Synced => {
                "BEGIN; SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint, \
                 pg_current_xact_id()::text"
            }
            Durability::Unsynced => {
                "BEGIN; SET LOCAL synchronous_commit = off; \
                 SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint, NULL::text"
            }
        };
        // Made before the first word is said, so that nothing is given back half begun.
        let mut this = Self {
            connection: Some(connection),
            class,
            patience,
            began: Timestamp::UNIX_EPOCH,
            id: None,
            intake: None,
            serials: Vec::new(),
        };
        let asked = raw_sql(sql).fetch_all(this.connection()?);
        let answer = answered(patience, asked).await?;
        let answer = answer.first().ok_or(sqlx::Error::RowNotFound)?;
        this.began = instant(answer.try_get(0)?);
        this.id = answer.try_get(1)?;
        Ok(this)
    }

    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Writes what is left to write, up to the word that makes it hold.
    pub(super) async fn finish(&mut self) -> Done<()> {
        if let Some(intake) = &self.intake
            && intake.sequence != intake.before
        {
            let sequence = intake.sequence;
            query("UPDATE counters SET sequence = $1").bind(sequence).execute(self).await?;
        }
        Ok(())
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let patience = self.patience;
        answered(patience, raw_sql("COMMIT").execute(self.connection()?)).await?;
        drop(self.connection.take());
        Ok(())
    }

    pub(super) async fn roll_back(mut self) {
        let patience = self.patience;
        let Ok(connection) = self.connection() else { return };
        if answered(patience, raw_sql("ROLLBACK").execute(connection)).await.is_ok() {
            drop(self.connection.take());
        }
    }

    /// Rolls back after a failure, or drops a connection that is of no more use.
    pub(super) async fn give_up(self, failure: &Failure) {
        if !matches!(failure, Failure::Database(error) if is_lost(error)) {
            self.roll_back().await;
        }
    }

    fn intake(&mut self) -> Done<&mut Intake> {
        let missing = || sqlx::Error::InvalidArgument("the order of intake was not begun".into());
        Ok(self.intake.as_mut().ok_or_else(missing)?)
    }
}

impl Sql for Transaction {
    const FOR_UPDATE: &'static str = PgConnection::FOR_UPDATE;
    const SKIP_LOCKED: &'static str = PgConnection::SKIP_LOCKED;

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        let patience = self.patience;
        let connection = self.connection()?;
        let asked = tokio::time::timeout(patience, connection.fetch(query));
        asked.await.unwrap_or_else(|_| Err(unanswered().into()))
    }

    fn among(column: &str, place: usize) -> String {
        PgConnection::among(column, place)
    }

    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        PgConnection::statements(rows, head, tail)
    }
}

impl Ledger for Transaction {
    const SHARED: bool = true;
    const LEASED: &'static str =
        ", holder = nullif(current_setting('workflows.replica', true), '')";

    /// The row is kept until the commit has taken effect. So whoever reads the counter has read a
    /// position behind which nothing comes to light any more: without it, a transaction with a
    /// lower sequence could be committed after one with a higher.
    async fn begin_intake(&mut self) -> Done<()> {
        if self.intake.is_none() {
            let sequence = query("SELECT sequence FROM counters FOR UPDATE").answer(self).await?;
            let stored_bytes = HashMap::new();
            self.intake = Some(Intake { before: sequence, sequence, stored_bytes });
        }
        Ok(())
    }

    fn sequence(&self) -> i64 {
        self.intake.as_ref().map_or(0, |intake| intake.sequence)
    }

    fn next_sequence(&mut self) -> i64 {
        if let Some(intake) = &mut self.intake {
            intake.sequence += 1;
        }
        self.sequence()
    }

    async fn reserve(&mut self, serials: usize) -> Done<()> {
        let left: i64 = self.serials.iter().map(|range| range.end - range.start).sum();
        let missing = i64::try_from(serials).unwrap_or(i64::MAX).saturating_sub(left);
        if missing > 0 {
            let firsts: Vec<i64> = query("SELECT nextval('serials') FROM generate_series(1, $1)")
                .bind((missing + SERIALS - 1) / SERIALS)
                .values(self)
                .await?;
            self.serials.extend(firsts.into_iter().map(|first| first..first + SERIALS));
        }
        Ok(())
    }

    async fn next_serial(&mut self) -> Done<i64> {
        self.reserve(1).await?;
        let next = self.serials.iter_mut().find_map(Iterator::next);
        self.serials.retain(|range| !range.is_empty());
        next.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    async fn lock(&mut self, things: BTreeSet<String>) -> Done<()> {
        let stripes: BTreeSet<u32> =
            things.iter().map(|thing| stripe_of(thing) % STRIPES).collect();
        if stripes.is_empty() {
            return Ok(());
        }
        // In their order, so that no two transactions wait for each other.
        query("SELECT pg_advisory_xact_lock($1::int, stripe::int)::text FROM unnest($2) AS stripe")
            .bind(i64::from(self.class))
            .bind(Value::Ints(stripes.into_iter().map(i64::from).collect()))
            .execute(self)
            .await
    }

    async fn keep_trigger_sets(&mut self) -> Done<()> {
        query("LOCK TABLE trigger_sets IN SHARE ROW EXCLUSIVE MODE").execute(self).await
    }

    async fn stored_bytes(&mut self, tenant: &Tenant) -> Done<u64> {
        if let Some(bytes) = self.intake()?.stored_bytes.get(tenant) {
            return Ok(*bytes);
        }
        let bytes: Option<i64> = query("SELECT bytes FROM tenant_bytes WHERE tenant = $1")
            .bind(tenant.as_str())
            .value(self)
            .await?;
        Ok(bytes.map_or(0, i64::unsigned_abs))
    }

    async fn set_stored_bytes(&mut self, tenant: &Tenant, bytes: u64) -> Done<()> {
        self.intake()?.stored_bytes.insert(tenant.clone(), bytes);
        query(
            "INSERT INTO tenant_bytes (tenant, bytes) VALUES ($1, $2) \
             ON CONFLICT (tenant) DO UPDATE SET bytes = excluded.bytes",
        )
        .bind(tenant.as_str())
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .execute(self)
        .await
    }
}

/// A statement ends at the server's `statement_timeout`; when no answer comes long after, none will:
/// the other end has gone without a word.
pub(super) fn unanswered() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the server gave no answer within `statement_timeout`, and no error",
    ))
}

async fn answered<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(unanswered()))
}

fn arguments(query: Query) -> Done<(sqlx::SqlStr, PgArguments)> {
    let (sql, values) = query.into_parts();
    let mut arguments = PgArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        match value {
            Value::Int(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text.map(storable)),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Ints(numbers) => arguments.add(numbers),
            Value::IntColumn(numbers) => arguments.add(numbers),
            Value::TextColumn(texts) => {
                let texts: Vec<Option<String>> =
                    texts.into_iter().map(|text| text.map(storable)).collect();
                arguments.add(texts)
            }
            Value::BytesColumn(bytes) => arguments.add(bytes),
        }
        .map_err(|error| Failure::Database(sqlx::Error::Encode(error)))?;
    }
    Ok((sql, arguments))
}

/// Postgres has no text with a NUL in it; what comes from outside may.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

fn rows(rows: &[PgRow]) -> Done<Vec<Row>> {
    rows.iter().map(row).collect()
}

fn row(row: &PgRow) -> Done<Row> {
    let mut values = Vec::with_capacity(row.len());
    for index in 0..row.len() {
        let raw = row.try_get_raw(index)?;
        let name = row.column(index).type_info().name();
        let decoded = match name {
            _ if raw.is_null() => Ok(Value::Int(None)),
            "BOOL" => <bool as Decode<Postgres>>::decode(raw).map(Value::from),
            "INT4" => <i32 as Decode<Postgres>>::decode(raw).map(|number| i64::from(number).into()),
            "INT8" => <i64 as Decode<Postgres>>::decode(raw).map(Value::from),
            "BYTEA" => {
                <Vec<u8> as Decode<Postgres>>::decode(raw).map(|bytes| Value::Bytes(Some(bytes)))
            }
            _ => <String as Decode<Postgres>>::decode(raw).map(Value::from),
        };
        values.push(decoded.map_err(sqlx::Error::Decode)?);
    }
    Ok(Row(values))
}
