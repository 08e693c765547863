//! Statements with their values, and the rows that answer them.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::{Done, Sql};

/// A value of a row or of a place in a statement. NULL has the type of what is missing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    /// Numbers to look for; see [`Sql::among`].
    Ints(Vec<i64>),
    /// A column of rows.
    #[cfg(feature = "postgres")]
    IntColumn(Vec<Option<i64>>),
    #[cfg(feature = "postgres")]
    TextColumn(Vec<Option<String>>),
    #[cfg(feature = "postgres")]
    BytesColumn(Vec<Option<Vec<u8>>>),
}

#[cfg(feature = "postgres")]
impl Value {
    /// Values of one type as the column that they stand in.
    pub(crate) fn column(values: Vec<Self>) -> Self {
        let int = |value| if let Self::Int(number) = value { number } else { None };
        let text = |value| if let Self::Text(text) = value { text } else { None };
        let bytes = |value| if let Self::Bytes(bytes) = value { bytes } else { None };
        match values.first() {
            Some(Self::Text(_)) => Self::TextColumn(values.into_iter().map(text).collect()),
            Some(Self::Bytes(_)) => Self::BytesColumn(values.into_iter().map(bytes).collect()),
            _ => Self::IntColumn(values.into_iter().map(int).collect()),
        }
    }
}

macro_rules! values {
    ($($type:ty => $variant:ident($value:ident => $from:expr),)*) => {
        $(
            impl From<$type> for Value {
                fn from($value: $type) -> Self {
                    Self::$variant(Some($from))
                }
            }

            impl From<Option<$type>> for Value {
                fn from(value: Option<$type>) -> Self {
                    Self::$variant(value.map(|$value| $from))
                }
            }
        )*
    };
}

values! {
    i64 => Int(value => value),
    u32 => Int(value => i64::from(value)),
    bool => Int(value => i64::from(value)),
    String => Text(value => value),
    &str => Text(value => value.to_owned()),
    &String => Text(value => value.clone()),
    &[u8] => Bytes(value => value.to_vec()),
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

/// A statement with the values of its places.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    sql: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement. Its text is the program's own: nothing that comes from outside is in it.
pub(crate) fn query(sql: impl Into<Cow<'static, str>>) -> Query {
    Query { sql: sql.into(), values: Vec::new() }
}

impl Query {
    pub(crate) fn with_values(sql: impl Into<Cow<'static, str>>, values: Vec<Value>) -> Self {
        Self { sql: sql.into(), values }
    }

    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds text; what is bound stays.
    pub(crate) fn push(mut self, sql: &str) -> Self {
        self.sql.to_mut().push_str(sql);
        self
    }

    /// Adds text and a place for a value behind it.
    pub(crate) fn push_bind(mut self, sql: &str, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        let place = format!("{sql}${}", self.values.len());
        self.push(&place)
    }

    #[cfg(test)]
    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// The same with text in front of it.
    #[cfg(all(test, feature = "postgres", feature = "conformance"))]
    pub(crate) fn explained(mut self, how: &str) -> Self {
        self.sql.to_mut().insert_str(0, how);
        self
    }

    pub(crate) fn into_parts(self) -> (SqlStr, Vec<Value>) {
        let sql = match self.sql {
            Cow::Borrowed(text) => text.into_sql_str(),
            Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
        };
        (sql, self.values)
    }

    pub(crate) async fn execute(self, db: &mut impl Sql) -> Done<()> {
        db.fetch(self).await.map(|_| ())
    }

    pub(crate) async fn fetch_all(self, db: &mut impl Sql) -> Done<Vec<Row>> {
        db.fetch(self).await
    }

    pub(crate) async fn fetch_optional(self, db: &mut impl Sql) -> Done<Option<Row>> {
        Ok(db.fetch(self).await?.into_iter().next())
    }

    pub(crate) async fn fetch_one(self, db: &mut impl Sql) -> Done<Row> {
        self.fetch_optional(db).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// The first column of each row.
    pub(crate) async fn values<T: for<'r> Column<'r>>(self, db: &mut impl Sql) -> Done<Vec<T>> {
        db.fetch(self).await?.iter().map(|row| row.try_get(0)).collect()
    }

    /// The first column of the first row, if there is one.
    pub(crate) async fn value<T: for<'r> Column<'r>>(self, db: &mut impl Sql) -> Done<Option<T>> {
        self.fetch_optional(db).await?.map(|row| row.try_get(0)).transpose()
    }

    /// The first column of the one row.
    pub(crate) async fn answer<T: for<'r> Column<'r>>(self, db: &mut impl Sql) -> Done<T> {
        self.fetch_one(db).await?.try_get(0)
    }
}

/// A row of an answer. What is NULL has any type.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    pub(crate) fn try_get<'r, T: Column<'r>>(&'r self, index: usize) -> Done<T> {
        self.0.get(index).and_then(T::read).ok_or_else(|| {
            sqlx::Error::Decode(format!("column {index} of a row is of another type").into()).into()
        })
    }
}

/// What a column can be read as.
pub(crate) trait Column<'r>: Sized {
    fn read(value: &'r Value) -> Option<Self>;
}

impl Column<'_> for i64 {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => *number,
            _ => None,
        }
    }
}

impl Column<'_> for u32 {
    fn read(value: &Value) -> Option<Self> {
        i64::read(value).and_then(|number| Self::try_from(number).ok())
    }
}

impl Column<'_> for bool {
    fn read(value: &Value) -> Option<Self> {
        i64::read(value).map(|number| number != 0)
    }
}

impl<'r> Column<'r> for &'r str {
    fn read(value: &'r Value) -> Option<Self> {
        match value {
            Value::Text(text) => text.as_deref(),
            _ => None,
        }
    }
}

impl Column<'_> for String {
    fn read(value: &Value) -> Option<Self> {
        <&str>::read(value).map(ToOwned::to_owned)
    }
}

impl Column<'_> for Vec<u8> {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => bytes.clone(),
            _ => None,
        }
    }
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    fn read(value: &'r Value) -> Option<Self> {
        match value {
            Value::Int(None) | Value::Text(None) | Value::Bytes(None) => Some(None),
            some => T::read(some).map(Some),
        }
    }
}
