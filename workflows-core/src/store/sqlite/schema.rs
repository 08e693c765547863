//! The schema and its migrations.

use std::path::Path;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::failure::into_error;
use crate::{
    Error, Result,
    store::sql::{Failure, nanos},
};

/// The migrations, in order: the first makes schema 1. One that has been released never changes.
const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// Marks a file as a ledger (`PRAGMA application_id`): "WKFL".
const APPLICATION_ID: i64 = 0x574b_464c;

/// Brings the file to the newest schema, each migration in a transaction of its own.
pub(super) async fn migrate(db: &mut SqliteConnection, path: &Path, now: Timestamp) -> Result<()> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let failed = |failure: Failure| into_error(failure, "open the ledger", path);
    let version = version(db, path).await?;
    if version > known {
        return Err(Error::invalid(
            "open the ledger",
            "the file was written by a newer version of this program; run that version, or restore \
             a backup from before the upgrade",
        )
        .with("file", path.display())
        .with("schema", version)
        .with("newest known schema", known));
    }
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        if number > version {
            apply(db, number, sql, now).await.map_err(failed)?;
            tracing::info!(file = %path.display(), schema = number, "migrated the ledger");
        }
    }
    Ok(())
}

async fn apply(
    db: &mut SqliteConnection,
    number: i64,
    sql: &'static str,
    now: Timestamp,
) -> Result<(), Failure> {
    let mut transaction = db.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(sql).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO schema (version, applied_at) VALUES (?, ?)")
        .bind(number)
        .bind(nanos(now))
        .execute(&mut *transaction)
        .await?;
    if number == 1 {
        let mark = format!("PRAGMA application_id = {APPLICATION_ID}");
        sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The schema of the file; 0 of an empty one.
async fn version(db: &mut SqliteConnection, path: &Path) -> Result<i64> {
    let failed = |error: sqlx::Error| into_error(error.into(), "open the ledger", path);
    let mark: i64 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *db).await.map_err(failed)?;
    if mark == APPLICATION_ID {
        let row = sqlx::query("SELECT coalesce(max(version), 0) FROM schema")
            .fetch_one(&mut *db)
            .await
            .map_err(failed)?;
        return row.try_get(0).map_err(failed);
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *db)
        .await
        .map_err(failed)?;
    if mark != 0 || tables != 0 {
        return Err(Error::invalid(
            "open the ledger",
            "the file is a SQLite database of another program; give the ledger a path of its own",
        )
        .with("file", path.display()));
    }
    Ok(0)
}
