//! The schema and its migrations.

use sqlx::{AssertSqlSafe, PgConnection, raw_sql};

use super::{connection, failure::into_error};
use crate::{
    Error, Result,
    store::sql::{Done, Sql as _, query},
};

/// The migrations, in order: the first makes schema 1. One that has been released never changes.
const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// The thing that a migration keeps others away from.
const MIGRATION: i32 = -1;

/// Brings the tables to the newest schema, each migration in a transaction of its own. Replicas that
/// start together take turns.
pub(super) async fn migrate(db: &mut PgConnection, schema: &str, place: &str) -> Result<()> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    loop {
        // A replica that may not change tables can use those that are there.
        let version = version(db, schema).await.map_err(|failure| opening(failure, place))?;
        match version {
            Version::Schema(version) if version > known => {
                return Err(Error::invalid(
                    "open the ledger",
                    "the tables were written by a newer version of this program; run that version, \
                     or restore a backup from before the upgrade",
                )
                .with("database", place)
                .with("schema", version)
                .with("newest known schema", known));
            }
            Version::Schema(version) if version == known => return Ok(()),
            Version::Foreign => {
                return Err(Error::invalid(
                    "open the ledger",
                    "the schema has tables of another program; give the ledger one of its own with \
                     the option `schema`",
                )
                .with("database", place));
            }
            Version::Schema(_) | Version::Nothing => {}
        }
        let migrated = step(db, schema).await;
        if migrated.is_err() {
            // What is left of the transaction goes with it.
            let _ = raw_sql("ROLLBACK").execute(&mut *db).await;
        }
        if let Some(number) = migrated.map_err(|failure| opening(failure, place))? {
            tracing::info!(database = place, schema = number, "migrated the ledger");
        }
    }
}

fn opening(failure: crate::store::sql::Failure, place: &str) -> Error {
    into_error(failure, "open the ledger", place)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Nothing,
    Foreign,
    Schema(i64),
}

async fn version(db: &mut PgConnection, schema: &str) -> Done<Version> {
    let tables: Vec<String> = query(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')",
    )
    .bind(schema)
    .values(db)
    .await?;
    let is_ledger =
        ["schema", "counters", "work"].iter().all(|one| tables.iter().any(|t| t == one));
    if tables.is_empty() {
        return Ok(Version::Nothing);
    }
    if !is_ledger {
        return Ok(Version::Foreign);
    }
    Ok(Version::Schema(query("SELECT coalesce(max(version), 0) FROM schema").answer(db).await?))
}

/// Applies the next migration, unless another replica was quicker.
async fn step(db: &mut PgConnection, schema: &str) -> Done<Option<i64>> {
    // The schema's name was checked when the options were, and is no more than a word.
    raw_sql("BEGIN; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        .execute(&mut *db)
        .await?;
    query("SELECT pg_advisory_xact_lock($1::int, $2::int)::text")
        .bind(i64::from(connection::lock_class(schema)))
        .bind(i64::from(MIGRATION))
        .execute(db)
        .await?;
    let present = match version(db, schema).await? {
        Version::Nothing => {
            let there: bool =
                query("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
                    .bind(schema)
                    .answer(db)
                    .await?;
            if !there {
                let create = format!("CREATE SCHEMA {schema}");
                raw_sql(AssertSqlSafe(create)).execute(&mut *db).await?;
            }
            0
        }
        Version::Schema(version) => version,
        Version::Foreign => {
            raw_sql("ROLLBACK").execute(&mut *db).await?;
            return Ok(None);
        }
    };
    let next = usize::try_from(present).ok().and_then(|index| MIGRATIONS.get(index));
    let Some(sql) = next else {
        raw_sql("ROLLBACK").execute(&mut *db).await?;
        return Ok(None);
    };
    raw_sql(*sql).execute(&mut *db).await?;
    db.fetch(
        query(
            "INSERT INTO schema (version, applied_at) \
             VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint)",
        )
        .bind(present + 1),
    )
    .await?;
    raw_sql("COMMIT").execute(&mut *db).await?;
    Ok(Some(present + 1))
}
