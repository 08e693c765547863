//! Rows in sets, and the forms that values have in columns.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type, sqlite::SqliteArguments,
};

use super::failure::{Done, Failure};
use crate::Tenant;

/// Rows of one statement; more make further statements.
const ROWS: usize = 256;

/// Rows that are written by as few statements as can be.
///
/// A statement has a power of two of rows, and what is too much is NULL and left out, so that few
/// texts of statements exist and all of them stay prepared.
#[derive(Debug)]
pub(super) struct Rows {
    width: usize,
    values: usize,
    chunks: Vec<SqliteArguments>,
}

impl Rows {
    pub(super) fn new(width: usize) -> Self {
        Self { width, values: 0, chunks: Vec::new() }
    }

    /// Adds the next value of the row.
    pub(super) fn put<'v, T>(&mut self, value: T) -> Done<()>
    where
        T: Encode<'v, Sqlite> + Type<Sqlite>,
    {
        if self.values.is_multiple_of(ROWS * self.width) {
            self.chunks.push(SqliteArguments::default());
        }
        self.values += 1;
        match self.chunks.last_mut() {
            Some(chunk) => {
                chunk.add(value).map_err(|error| Failure::Database(sqlx::Error::Encode(error)))
            }
            None => Ok(()),
        }
    }

    /// The statements: `{head} (VALUES ..) {tail}` with their arguments. The first column of a row
    /// that is left out is NULL.
    pub(super) fn statements(
        self,
        head: &'static str,
        tail: &'static str,
    ) -> Done<Vec<(String, SqliteArguments)>> {
        let mut left = self.values / self.width;
        let mut statements = Vec::with_capacity(self.chunks.len());
        for mut chunk in self.chunks {
            let rows = left.min(ROWS);
            left -= rows;
            let slots = rows.next_power_of_two();
            for _ in rows * self.width..slots * self.width {
                chunk
                    .add(None::<i64>)
                    .map_err(|error| Failure::Database(sqlx::Error::Encode(error)))?;
            }
            let row = format!("({})", vec!["?"; self.width].join(","));
            let mut sql = String::with_capacity(head.len() + tail.len() + slots * row.len() + 16);
            let _ = write!(sql, "{head} (VALUES ");
            for slot in 0..slots {
                if slot > 0 {
                    sql.push(',');
                }
                sql.push_str(&row);
            }
            let _ = write!(sql, ") {tail}");
            statements.push((sql, chunk));
        }
        Ok(statements)
    }

    /// Writes them: `INSERT INTO t (..)` is the head, what stands behind the rows the tail.
    pub(super) async fn insert(
        self,
        db: &mut SqliteConnection,
        head: &'static str,
        tail: &'static str,
    ) -> Done<()> {
        for (sql, arguments) in self.statements(head, tail)? {
            sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// An instant as a column has it: nanoseconds, cut off at the ends of what 64 bits hold.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

pub(super) fn instant(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

pub(super) fn json<T: Serialize>(value: &T) -> Done<String> {
    Ok(serde_json::to_string(value)?)
}

pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Done<T> {
    Ok(serde_json::from_str(text)?)
}

pub(super) fn tenant_of(text: &str) -> Done<Tenant> {
    Tenant::new(text).map_err(|error| sqlx::Error::Decode(error.into()).into())
}
