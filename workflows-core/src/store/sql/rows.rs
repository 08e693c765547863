//! Rows in sets, and the forms that values have in columns.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use super::{Done, Sql, Value};
use crate::Tenant;

/// Rows that are written, or asked about, by as few statements as can be.
#[derive(Debug)]
pub(crate) struct Rows {
    width: usize,
    values: Vec<Value>,
}

impl Rows {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, values: Vec::new() }
    }

    /// Adds the next value of the row.
    pub(crate) fn put(&mut self, value: impl Into<Value>) {
        self.values.push(value.into());
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The values, row by row.
    pub(crate) fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Writes them: `INSERT INTO t (..)` is the head, what stands behind the rows the tail.
    pub(crate) async fn insert<C: Sql>(
        self,
        db: &mut C,
        head: &'static str,
        tail: &'static str,
    ) -> Done<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        for statement in C::statements(self, head, tail) {
            statement.execute(db).await?;
        }
        Ok(())
    }
}

/// An instant as a column has it: nanoseconds, cut off at the ends of what 64 bits hold.
pub(crate) fn nanos(at: Timestamp) -> i64 {
    let nanos = at.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

pub(crate) fn instant(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::MAX)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Done<String> {
    Ok(serde_json::to_string(value)?)
}

pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Done<T> {
    Ok(serde_json::from_str(text)?)
}

pub(crate) fn tenant_of(text: &str) -> Done<Tenant> {
    Tenant::new(text).map_err(|error| sqlx::Error::Decode(error.into()).into())
}
