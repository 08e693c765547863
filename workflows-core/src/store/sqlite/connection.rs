//! How a SQLite file is asked.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
};

use sqlx::{
    Arguments, Decode, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo, ValueRef,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    Tenant,
    store::sql::{Done, Failure, Ledger, Query, Row, Rows, Sql, Value},
};

/// Rows of one statement; more make further statements.
const ROWS: usize = 256;

impl Sql for SqliteConnection {
    // There is one writer, and nobody to keep rows from.
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        let (sql, arguments) = arguments(query)?;
        rows(&sqlx::query_with(sql, arguments).fetch_all(self).await?)
    }

    fn among(column: &str, place: usize) -> String {
        format!("{column} IN (SELECT value FROM json_each(${place}))")
    }

    /// A statement has a power of two of rows, and what is too much is NULL, so that few texts of
    /// statements exist and all of them stay prepared.
    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        let width = rows.width();
        let mut values = rows.into_values();
        let mut statements = Vec::with_capacity(values.len().div_ceil(ROWS * width));
        while !values.is_empty() {
            let rest = values.split_off(values.len().min(ROWS * width));
            let slots = (values.len() / width).next_power_of_two();
            values.resize(slots * width, Value::Int(None));
            let row = format!("({})", vec!["?"; width].join(","));
            let mut sql = String::with_capacity(head.len() + tail.len() + slots * row.len() + 16);
            let _ = write!(sql, "{head} (VALUES ");
            for slot in 0..slots {
                if slot > 0 {
                    sql.push(',');
                }
                sql.push_str(&row);
            }
            let _ = write!(sql, ") AS w {tail}");
            statements.push(Query::with_values(sql, std::mem::replace(&mut values, rest)));
        }
        statements
    }
}

impl Sql for &SqlitePool {
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        let (sql, arguments) = arguments(query)?;
        rows(&sqlx::query_with(sql, arguments).fetch_all(*self).await?)
    }

    fn among(column: &str, place: usize) -> String {
        SqliteConnection::among(column, place)
    }

    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        SqliteConnection::statements(rows, head, tail)
    }
}

/// The writer's transaction.
#[derive(Debug)]
pub(super) struct Transaction<'w> {
    pub(super) db: &'w mut SqliteConnection,
    pub(super) sequence: i64,
    pub(super) serial: i64,
    pub(super) payload_bytes: &'w HashMap<Tenant, u64>,
    /// The tenants whose stored bytes this changes, with the new sum.
    pub(super) changed_bytes: HashMap<Tenant, u64>,
}

impl Sql for Transaction<'_> {
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";

    async fn fetch(&mut self, query: Query) -> Done<Vec<Row>> {
        self.db.fetch(query).await
    }

    fn among(column: &str, place: usize) -> String {
        SqliteConnection::among(column, place)
    }

    fn statements(rows: Rows, head: &'static str, tail: &'static str) -> Vec<Query> {
        SqliteConnection::statements(rows, head, tail)
    }
}

impl Ledger for Transaction<'_> {
    const SHARED: bool = false;
    const LEASED: &'static str = "";

    async fn begin_intake(&mut self) -> Done<()> {
        Ok(())
    }

    fn sequence(&self) -> i64 {
        self.sequence
    }

    fn next_sequence(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    async fn reserve(&mut self, _serials: usize) -> Done<()> {
        Ok(())
    }

    async fn next_serial(&mut self) -> Done<i64> {
        self.serial += 1;
        Ok(self.serial)
    }

    async fn lock(&mut self, _things: BTreeSet<String>) -> Done<()> {
        Ok(())
    }

    async fn keep_trigger_sets(&mut self) -> Done<()> {
        Ok(())
    }

    async fn stored_bytes(&mut self, tenant: &Tenant) -> Done<u64> {
        let before = || self.payload_bytes.get(tenant).copied().unwrap_or(0);
        Ok(self.changed_bytes.get(tenant).copied().unwrap_or_else(before))
    }

    async fn set_stored_bytes(&mut self, tenant: &Tenant, bytes: u64) -> Done<()> {
        self.changed_bytes.insert(tenant.clone(), bytes);
        Ok(())
    }
}

fn arguments(query: Query) -> Done<(sqlx::SqlStr, SqliteArguments)> {
    let (sql, values) = query.into_parts();
    let mut arguments = SqliteArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        match value {
            Value::Int(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Bytes(bytes) => arguments.add(bytes),
            Value::Ints(numbers) => arguments.add(serde_json::to_string(&numbers)?),
            #[cfg(feature = "postgres")]
            Value::IntColumn(_) | Value::TextColumn(_) | Value::BytesColumn(_) => {
                Err("SQLite has no columns of values".into())
            }
        }
        .map_err(|error| Failure::Database(sqlx::Error::Encode(error)))?;
    }
    Ok((sql, arguments))
}

fn rows(rows: &[SqliteRow]) -> Done<Vec<Row>> {
    rows.iter().map(row).collect()
}

fn row(row: &SqliteRow) -> Done<Row> {
    let mut values = Vec::with_capacity(row.len());
    for index in 0..row.len() {
        let raw = row.try_get_raw(index)?;
        let name = raw.type_info().name().to_owned();
        let decoded = match name.as_str() {
            _ if raw.is_null() => Ok(Value::Int(None)),
            "TEXT" => <String as Decode<Sqlite>>::decode(raw).map(|text| Value::Text(Some(text))),
            "BLOB" => {
                <Vec<u8> as Decode<Sqlite>>::decode(raw).map(|bytes| Value::Bytes(Some(bytes)))
            }
            _ => <i64 as Decode<Sqlite>>::decode(raw).map(|number| Value::Int(Some(number))),
        };
        values.push(decoded.map_err(sqlx::Error::Decode)?);
    }
    Ok(Row(values))
}
